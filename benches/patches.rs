//! Benchmarks of patches, gathering and energies: `cargo bench --bench patches`.
//!
//! A table comes first. It compares each kernel with a plain copy of as many bytes, with
//! as many threads, into the same memory: that is the limit that the machine sets. Then
//! each kernel is timed on its own.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)] // see clippy.toml

use std::time::Instant;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use num_complex::Complex32;
use ptycho_fast_core::energy::energies;
use ptycho_fast_core::gather::{Stack, gather};
use ptycho_fast_core::patches::{Object, add, extract};
use ptycho_fast_core::philox::philox4x64;
use ptycho_fast_core::{parallel, simd};

const N: usize = 64;
const C: usize = 4;
const GROUPS: usize = 64;
const SIDE: usize = 1024;
const PATTERNS: usize = 1000;
const THREADS: [usize; 2] = [1, 2];

fn main() {
    // `cargo test --benches` runs this, too, and does not need the table.
    if std::env::args().any(|argument| argument == "--bench") {
        ratios();
    }
    divan::main();
}

/// Prints how much longer each kernel takes than a copy.
fn ratios() {
    println!("{} instructions\n", simd::name().unwrap());
    println!("| job | output (MB) | threads | ms | copy (ms) | x the copy |");
    println!("|---|---|---|---|---|---|");
    let pixels = object();
    let object = Object::new(&pixels, SIDE, SIDE).unwrap();
    for bytes in [4 << 20, 256 << 20] {
        for channels in [1, 4, 9] {
            let groups = bytes / (N * N * channels * size_of::<Complex32>());
            let positions = positions(groups, channels);
            let job = format!("patches, N = {N}, C = {channels}");
            beside_a_copy(&job, groups * N * N * channels, |out, threads| {
                extract(object, &positions, N, channels, out, threads).unwrap();
            });
        }
        for (n, channels) in [(64, 1), (64, 4), (64, 9), (128, 4), (128, 9)] {
            let stack: Vec<f32> = (0..PATTERNS * n * n).map(|i| i as f32).collect();
            let stack = Stack::new(&stack, n * n).unwrap();
            let groups = bytes / (n * n * channels * size_of::<f32>());
            let indices = indices(groups, channels);
            let job = format!("gather, N = {n}, C = {channels}");
            beside_a_copy(&job, groups * n * n * channels, |out, threads| {
                let as_is = |_| |value| value;
                gather(stack, None, &indices, channels, out, as_is, threads).unwrap();
            });
        }
    }
    println!();
}

/// Prints a row for each number of threads: the shortest of many times, which are taken
/// in turn.
fn beside_a_copy<T: Copy + Default + Sync + Send>(
    job: &str,
    length: usize,
    run: impl Fn(&mut [T], usize),
) {
    const CHUNK: usize = 1 << 14;
    let mut out = vec![T::default(); length];
    run(&mut out, 2);
    let source = out.clone(); // a copy, because memory that was never written is one page of zeros
    let megabytes = size_of_val(&source[..]) as f64 / 1e6;
    for threads in THREADS {
        let mut least = [f64::INFINITY; 2];
        for _ in 0..(4e3 / megabytes) as usize {
            let start = Instant::now();
            run(black_box(&mut out), threads);
            least[0] = least[0].min(start.elapsed().as_secs_f64());
            let start = Instant::now();
            parallel::for_each_chunk(black_box(&mut out), CHUNK, threads, |i, out| {
                out.copy_from_slice(&source[i * CHUNK..][..out.len()]);
                Ok(())
            })
            .unwrap();
            least[1] = least[1].min(start.elapsed().as_secs_f64());
        }
        let [ours, copy] = least.map(|seconds| 1e3 * seconds);
        println!(
            "| {job} | {megabytes:.0} | {threads} | {ours:.2} | {copy:.2} | {:.2} |",
            ours / copy
        );
    }
}

fn object() -> Vec<Complex32> {
    (0..SIDE * SIDE)
        .map(|i| Complex32::new(i as f32, -(i as f32)))
        .collect()
}

/// Positions `(groups, 2, channels)` within the object: groups of neighbours, in random
/// order.
fn positions(groups: usize, channels: usize) -> Vec<f64> {
    let random = |i: usize, j: usize| {
        let word = philox4x64([i as u64, j as u64, 0, 0], [0, 0])[0];
        word as f64 / 2_f64.powi(64)
    };
    (0..groups * 2 * channels)
        .map(|i| 32.0 + (SIDE - 81) as f64 * random(i / channels, 0) + 16.0 * random(i, 1))
        .collect()
}

fn indices(groups: usize, channels: usize) -> Vec<i32> {
    (0..groups * channels)
        .map(|i| (i * 379 % PATTERNS) as i32)
        .collect()
}

#[divan::bench(args = THREADS)]
fn extract_patches(bencher: Bencher, threads: usize) {
    let (pixels, positions) = (object(), positions(GROUPS, C));
    let object = Object::new(&pixels, SIDE, SIDE).unwrap();
    let mut out = vec![Complex32::ZERO; GROUPS * N * N * C];
    bencher
        .counter(ItemsCount::new(GROUPS * C))
        .bench_local(|| extract(object, black_box(&positions), N, C, &mut out, threads));
}

#[divan::bench(args = THREADS)]
fn add_patches(bencher: Bencher, threads: usize) {
    let positions = positions(GROUPS, C);
    let patches = vec![Complex32::ONE; GROUPS * N * N * C];
    let mut object = object();
    bencher
        .counter(ItemsCount::new(GROUPS * C))
        .bench_local(|| {
            add(
                &patches,
                black_box(&positions),
                N,
                C,
                &mut object,
                SIDE,
                threads,
            )
        });
}

#[divan::bench(args = THREADS)]
fn gather_patterns(bencher: Bencher, threads: usize) {
    let stack: Vec<f32> = (0..PATTERNS * N * N).map(|i| i as f32).collect();
    let stack = Stack::new(&stack, N * N).unwrap();
    let indices = indices(GROUPS, C);
    let as_is = |_| |value| value;
    let mut out = vec![0.0_f32; GROUPS * N * N * C];
    bencher.counter(ItemsCount::new(GROUPS)).bench_local(|| {
        gather(
            stack,
            None,
            black_box(&indices),
            C,
            &mut out,
            as_is,
            threads,
        )
    });
}

#[divan::bench(args = THREADS)]
fn pattern_energies(bencher: Bencher, threads: usize) {
    let stack: Vec<f32> = (0..PATTERNS * N * N).map(|i| i as f32).collect();
    bencher
        .counter(ItemsCount::new(PATTERNS))
        .bench_local(|| energies(black_box(&stack), N * N, None, None, f64::from, threads));
}
