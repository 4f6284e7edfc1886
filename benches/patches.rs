//! Patches, gather and energies at N = 64: `cargo bench --bench patches`.
//!
//! Beside each kernel stands a plain copy of as many bytes, into the same
//! memory: what the machine allows.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use num_complex::Complex32;
use ptycho_fast_core::energy::energies;
use ptycho_fast_core::gather::gather;
use ptycho_fast_core::patches::{Object, add, extract};
use ptycho_fast_core::philox::philox4x64;

const N: usize = 64;
const C: usize = 4;
const GROUPS: usize = 64;
const SIDE: usize = 600;
const THREADS: [usize; 2] = [1, 2];

fn main() {
    divan::main();
}

fn object() -> Vec<Complex32> {
    (0..SIDE * SIDE)
        .map(|i| Complex32::new(i as f32, -(i as f32)))
        .collect()
}

/// `(GROUPS, 2, C)` positions inside the object.
fn positions() -> Vec<f64> {
    (0..GROUPS * 2 * C)
        .map(|i| {
            let word = philox4x64([i as u64, 0, 0, 0], [0, 0])[0];
            32.0 + (SIDE - 64) as f64 * (word as f64 / 2_f64.powi(64))
        })
        .collect()
}

fn stack() -> Vec<f32> {
    (0..1000 * N * N).map(|i| i as f32).collect()
}

fn indices() -> Vec<i32> {
    (0..GROUPS * C).map(|i| (i * 379 % 1000) as i32).collect()
}

#[divan::bench(args = THREADS)]
fn extract_patches(bencher: Bencher, threads: usize) {
    let (pixels, positions) = (object(), positions());
    let object = Object::new(&pixels, SIDE, SIDE).unwrap();
    let mut out = vec![Complex32::ZERO; GROUPS * N * N * C];
    bencher
        .counter(ItemsCount::new(GROUPS * C))
        .bench_local(|| extract(object, black_box(&positions), N, C, &mut out, threads));
}

#[divan::bench(args = THREADS)]
fn add_patches(bencher: Bencher, threads: usize) {
    let positions = positions();
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

#[divan::bench]
fn copy_of_as_many_patches(bencher: Bencher) {
    let source = vec![Complex32::ONE; GROUPS * N * N * C];
    let mut out = source.clone();
    bencher
        .counter(ItemsCount::new(GROUPS * C))
        .bench_local(|| out.copy_from_slice(black_box(&source)));
}

#[divan::bench(args = THREADS)]
fn gather_patterns(bencher: Bencher, threads: usize) {
    let (stack, indices) = (stack(), indices());
    let as_is = |_| |_, value| value;
    let mut out = vec![0.0_f32; GROUPS * N * N * C];
    bencher.counter(ItemsCount::new(GROUPS)).bench_local(|| {
        gather(
            &stack,
            N * N,
            black_box(&indices),
            C,
            &mut out,
            as_is,
            threads,
        )
    });
}

#[divan::bench]
fn copy_of_as_many_patterns(bencher: Bencher) {
    let source = vec![1.0_f32; GROUPS * N * N * C];
    let mut out = source.clone();
    bencher
        .counter(ItemsCount::new(GROUPS))
        .bench_local(|| out.copy_from_slice(black_box(&source)));
}

#[divan::bench(args = THREADS)]
fn pattern_energies(bencher: Bencher, threads: usize) {
    let stack = stack();
    bencher
        .counter(ItemsCount::new(1000_usize))
        .bench_local(|| energies(black_box(&stack), N * N, None, threads));
}
