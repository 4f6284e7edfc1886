//! Benchmarks of neighbours and groups for several shapes of scan: `cargo bench --bench
//! groups`.
//!
//! They compare the core before and after a change. `benches/groups.py` compares it
//! with `SciPy` and pykdtree, and checks the results.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)] // see clippy.toml

use divan::{Bencher, black_box};
use ptycho_fast_core::groups::{Draw, Known, Limits, Rule, centers};
use ptycho_fast_core::index::{Engine, Index, Listed, neighbors};
use ptycho_fast_core::philox::{Key, Stage, philox4x64};

const N: usize = 100_000;
const KEY: Key = Key([42, 43]);

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Raster,
    Jittered,
    Uniform,
    Line,
    Copies,
}

const SHAPES: [Shape; 5] = [
    Shape::Raster,
    Shape::Jittered,
    Shape::Uniform,
    Shape::Line,
    Shape::Copies,
];

/// A scan of `N` positions, x and y in turn.
fn scan(shape: Shape) -> Vec<f64> {
    let side = (N as f64).sqrt().ceil() as usize;
    let random =
        |i: usize| philox4x64([i as u64, 0, 0, 0], [0, 0]).map(|word| word as f64 / 2_f64.powi(64));
    let position = |i: usize| {
        let [u, v, ..] = random(i);
        let (column, row) = ((i % side) as f64, (i / side) as f64);
        match shape {
            Shape::Raster => [column, row],
            Shape::Jittered => [column + 0.4 * u, row + 0.4 * v],
            Shape::Uniform => [u * side as f64, v * side as f64],
            Shape::Line => [5.0, i as f64],
            Shape::Copies => [(i % 100) as f64, 0.0],
        }
    };
    (0..N).flat_map(position).collect()
}

/// Each shape with each engine. `Auto` is the grid, except for the copies.
fn cases() -> Vec<(Engine, Shape)> {
    let engines = [Engine::Auto, Engine::KdTree];
    let of = |engine| SHAPES.map(|shape| (engine, shape));
    engines.map(of).concat()
}

fn index(positions: &[f64], engine: Engine) -> Index {
    Index::build(positions, engine, 2).unwrap()
}

#[divan::bench(args = cases(), sample_count = 10)]
fn build_index(bencher: Bencher, (engine, shape): (Engine, Shape)) {
    let positions = scan(shape);
    bencher.bench(|| Index::build(black_box(&positions), engine, 2));
}

#[divan::bench(args = cases(), sample_count = 10)]
fn find_neighbors(bencher: Bencher, (engine, shape): (Engine, Shape)) {
    let index = index(&scan(shape), engine);
    let all: Vec<i32> = (0..N as i32).collect();
    bencher.bench(|| neighbors(&index, black_box(&all), 7, 2));
}

const NEAREST: Rule = Rule::Nearest {
    include_center: false,
    rounds: 1,
};

/// A draw with K = 7 and C = 4.
fn draw<'a>(index: &'a Known<'a>, positions: &'a [f64], centers: &'a [i32]) -> Draw<'a, Known<'a>> {
    Draw {
        index,
        positions,
        centers,
        k: 7,
        c: 4,
        limits: None,
        key: KEY,
        threads: 2,
    }
}

#[divan::bench(args = cases(), sample_count = 10)]
fn draw_groups(bencher: Bencher, (engine, shape): (Engine, Shape)) {
    let positions = scan(shape);
    let index = index(&positions, engine);
    let chosen = centers(N, N, KEY, 2).unwrap();
    bencher.bench(|| NEAREST.draw(&draw(&Known::Index(&index), &positions, black_box(&chosen))));
}

/// For a few centres, only the positions around them are searched.
#[divan::bench(args = SHAPES, sample_count = 10)]
fn draw_around_few(bencher: Bencher, shape: Shape) {
    let positions = scan(shape);
    let chosen = centers(N, N / 100, KEY, 2).unwrap();
    let nothing = Known::Nothing {
        engine: Engine::Auto,
        labels: None,
    };
    bencher.bench(|| NEAREST.draw(&draw(&nothing, black_box(&positions), &chosen)));
}

#[divan::bench(args = SHAPES, sample_count = 10)]
fn draw_within_limits(bencher: Bencher, shape: Shape) {
    let positions = scan(shape);
    let index = index(&positions, Engine::Auto);
    let chosen = centers(N, N, KEY, 2).unwrap();
    let known = Known::Index(&index);
    let draw = Draw {
        limits: Some(Limits::new(0.8, 2.5)),
        ..draw(&known, &positions, &chosen)
    };
    bencher.bench(|| NEAREST.draw(black_box(&draw)));
}

#[divan::bench(args = [Shape::Raster, Shape::Jittered, Shape::Uniform], sample_count = 10)]
fn draw_quadrants(bencher: Bencher, shape: Shape) {
    let positions = scan(shape);
    let index = index(&positions, Engine::Auto);
    let chosen = centers(N, N, KEY, 2).unwrap();
    let known = Known::Index(&index);
    let draw = Draw {
        limits: Some(Limits::new(0.0, 2.5)),
        ..draw(&known, &positions, &chosen)
    };
    bencher.bench(|| Rule::Quadrant { rounds: 1 }.draw(black_box(&draw)));
}

#[divan::bench(args = [1, 10], sample_count = 10)]
fn draw_oversampled(bencher: Bencher, rounds: usize) {
    let positions = scan(Shape::Jittered);
    let index = index(&positions, Engine::Auto);
    let chosen = centers(N, N, KEY, 2).unwrap();
    let known = Known::Index(&index);
    let draw = draw(&known, &positions, &chosen);
    let rule = Rule::Oversample { count: rounds * N };
    bencher.bench(|| rule.draw(black_box(&draw)));
}

#[divan::bench(sample_count = 10)]
fn draw_overlapping_of_known(bencher: Bencher) {
    let positions = scan(Shape::Jittered);
    let index = index(&positions, Engine::Auto);
    let all: Vec<i32> = (0..N as i32).collect();
    let (rows, width) = neighbors(&index, &all, 30, 2).unwrap();
    let chosen = centers(N, N, KEY, 2).unwrap();
    let known = Known::Lists(Listed::new(&rows, width, N).unwrap());
    let draw = Draw {
        k: 30,
        c: 8,
        ..draw(&known, &positions, &chosen)
    };
    let rule = Rule::Overlap {
        window: 8,
        min_overlap: 0.25,
        rounds: 1,
    };
    bencher.bench(|| rule.draw(black_box(&draw)));
}

/// With labels, a draw includes building the indexes.
#[divan::bench(sample_count = 10)]
fn build_and_draw_of_labels(bencher: Bencher) {
    let positions = scan(Shape::Jittered);
    let labels: Vec<i32> = (0..N as i32).map(|i| i * 10 / N as i32).collect();
    let chosen = centers(N, N, KEY, 2).unwrap();
    let known = Known::Nothing {
        engine: Engine::Auto,
        labels: Some(&labels),
    };
    let draw = draw(&known, &positions, &chosen);
    bencher.bench(|| NEAREST.draw(black_box(&draw)));
}

#[divan::bench(sample_count = 5)]
fn draw_pool(bencher: Bencher) {
    let positions = scan(Shape::Jittered);
    let index = index(&positions, Engine::Auto);
    let all: Vec<i32> = (0..N as i32).collect();
    let known = Known::Index(&index);
    let draw = draw(&known, &positions, &all);
    bencher.bench(|| Rule::Pool { count: Some(N) }.draw(black_box(&draw)));
}

#[divan::bench(args = [(1, N), (2, N), (1, N / 100), (2, N / 100)])]
fn draw_centers((threads, count): (usize, usize)) -> ptycho_fast_core::Result<Vec<i32>> {
    centers(black_box(N), count, KEY, threads)
}

#[divan::bench]
fn philox_block() -> [u64; 4] {
    black_box(KEY).block(Stage::Choice, 0, black_box(1))
}
