//! Runs one kernel a number of times on one thread, for counting instructions:
//! `instructions KERNEL TIMES`. The instructions of one run are the difference between
//! two runs and one, so that nothing else is counted. `benches/instructions.py` runs
//! this under callgrind.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)] // see clippy.toml

use std::hint::black_box;

use num_complex::Complex32;
use ptycho_fast_core::gather::{Stack, gather};
use ptycho_fast_core::groups::{Draw, Known, Limits, Rule, centers, order};
use ptycho_fast_core::index::{Engine, Index};
use ptycho_fast_core::patches::{Object, extract};
use ptycho_fast_core::philox::{Key, philox4x64};

const KEY: Key = Key([42, 43]);
const POSITIONS: usize = 100_000;
const GROUPS: usize = 256;

/// Each kernel, the number that its count is divided by, and the unit of that number.
const KERNELS: [(&str, usize, &str); 10] = [
    ("centers", POSITIONS, "position"),
    ("order", POSITIONS, "group"),
    ("build-grid", POSITIONS, "position"),
    ("build-tree", POSITIONS, "position"),
    ("draw-grid", POSITIONS, "group"),
    ("draw-tree", POSITIONS, "group"),
    ("draw-few", POSITIONS / 100, "group"),
    ("draw-copies", POSITIONS / 100, "group"),
    ("patches", GROUPS * 4, "patch of 64 x 64"),
    ("gather", GROUPS * 4, "pattern of 64 x 64"),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [kernel, times] if !kernel.starts_with('-') => {
            run(kernel, times.parse().expect("a number of times"));
        }
        // Without these arguments (`cargo bench -- --test`) each kernel runs once.
        _ => {
            for (kernel, items, item) in KERNELS {
                run(kernel, 1);
                println!("{kernel} {items} {item}");
            }
        }
    }
}

fn run(kernel: &str, times: usize) {
    let n = POSITIONS;
    let side = (n as f64).sqrt();
    let positions: Vec<f64> = (0..n as u64)
        .flat_map(|i| {
            let [x, y, ..] = philox4x64([i, 0, 0, 0], [0, 0]);
            [x, y].map(|word| side * word as f64 / 2_f64.powi(64))
        })
        .collect();
    let chosen = centers(n, n, KEY, 1).unwrap();
    let some = &chosen[..n / 100];
    let repeat = |job: &dyn Fn()| (0..times).for_each(|_| job());
    let draw = |positions: &[f64], known: Known<'_>, centers: &[i32], limits| {
        let rule = Rule::Nearest {
            include_center: false,
            rounds: 1,
        };
        let draw = Draw {
            index: &known,
            positions,
            centers,
            k: 7,
            c: 4,
            limits,
            key: KEY,
            threads: 1,
        };
        repeat(&|| drop(black_box(rule.draw(&draw).unwrap())));
    };
    let draw_from = |engine| {
        let index = Index::build(&positions, engine, 1).unwrap();
        draw(&positions, Known::Index(&index), &chosen, None);
    };
    match kernel {
        "centers" => repeat(&|| drop(black_box(centers(n, n, KEY, 1)))),
        "order" => repeat(&|| drop(black_box(order(n, KEY, 1)))),
        "build-grid" => repeat(&|| drop(black_box(Index::build(&positions, Engine::Grid, 1)))),
        "build-tree" => repeat(&|| drop(black_box(Index::build(&positions, Engine::KdTree, 1)))),
        "draw-grid" => draw_from(Engine::Grid),
        "draw-tree" => draw_from(Engine::KdTree),
        "draw-few" => {
            let nothing = Known::Nothing {
                engine: Engine::Auto,
                labels: None,
            };
            draw(&positions, nothing, some, None);
        }
        "draw-copies" => {
            // A thousand copies of each place, within limits that leave out a place's own.
            let places: Vec<f64> = (0..n).flat_map(|i| [(i % 100) as f64, 0.0]).collect();
            let index = Index::build(&places, Engine::Auto, 1).unwrap();
            draw(
                &places,
                Known::Index(&index),
                some,
                Some(Limits::new(0.8, 2.5)),
            );
        }
        "patches" => {
            let pixels = vec![Complex32::ONE; 1024 * 1024];
            let object = Object::new(&pixels, 1024, 1024).unwrap();
            let places: Vec<f64> = (0..GROUPS * 8).map(|i| 100.3 + (i % 800) as f64).collect();
            let mut out = vec![Complex32::ZERO; GROUPS * 64 * 64 * 4];
            for _ in 0..times {
                extract(object, &places, 64, 4, black_box(&mut out), 1).unwrap();
            }
        }
        "gather" => {
            let values = vec![1.0_f32; 500 * 64 * 64];
            let stack = Stack::new(&values, 64 * 64).unwrap();
            let indices: Vec<i32> = (0..GROUPS as i32 * 4).map(|i| i * 379 % 500).collect();
            let mut out = vec![0.0_f32; GROUPS * 64 * 64 * 4];
            let as_is = |_| |value| value;
            for _ in 0..times {
                gather(stack, None, &indices, 4, black_box(&mut out), as_is, 1).unwrap();
            }
        }
        _ => panic!("no kernel {kernel}"),
    }
}
