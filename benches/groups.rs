//! Neighbours and groups, per scan shape: `cargo bench --bench groups`.
//!
//! The rivals (`SciPy`, pykdtree) and the checks of the answers stand in
//! `benches/groups.py`; this follows the core from change to change.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)] // see clippy.toml

use divan::{Bencher, black_box};
use ptycho_fast_core::groups::{
    Draw, Labelled, Limits, centers, nearest, overlap, oversample, pool, quadrant,
};
use ptycho_fast_core::index::{Engine, Few, Index, Listed, neighbors};
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

/// Each shape by each engine; `Auto` is the grid but for the copies.
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

#[divan::bench(args = cases(), sample_count = 10)]
fn draw_groups(bencher: Bencher, (engine, shape): (Engine, Shape)) {
    let index = index(&scan(shape), engine);
    let chosen = centers(N, N, KEY, 2).unwrap();
    bencher.bench(|| nearest::draw(&index, black_box(&chosen), 7, 4, false, KEY, 2));
}

#[divan::bench(args = SHAPES, sample_count = 10)]
fn draw_around_few(bencher: Bencher, shape: Shape) {
    let positions = scan(shape);
    let chosen = centers(N, N / 100, KEY, 2).unwrap();
    bencher.bench(|| {
        let few = Few::new(black_box(&positions), chosen.len(), 2)?;
        few.map(|few| nearest::draw(&few, &chosen, 7, 4, false, KEY, 2))
            .transpose()
    });
}

/// What the rules draw from: all positions in random order, K = 7, C = 4.
fn draw<'a, I>(index: &'a I, positions: &'a [f64], centers: &'a [i32]) -> Draw<'a, I> {
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

#[divan::bench(args = SHAPES, sample_count = 10)]
fn draw_within_limits(bencher: Bencher, shape: Shape) {
    let positions = scan(shape);
    let index = index(&positions, Engine::Auto);
    let chosen = centers(N, N, KEY, 2).unwrap();
    let draw = Draw {
        limits: Some(Limits::new(0.8, 2.5)),
        ..draw(&index, &positions, &chosen)
    };
    bencher.bench(|| nearest::draw_rounds(black_box(&draw), false, 1));
}

#[divan::bench(args = [Shape::Raster, Shape::Jittered, Shape::Uniform], sample_count = 10)]
fn draw_quadrants(bencher: Bencher, shape: Shape) {
    let positions = scan(shape);
    let index = index(&positions, Engine::Auto);
    let chosen = centers(N, N, KEY, 2).unwrap();
    let draw = Draw {
        limits: Some(Limits::new(0.0, 2.5)),
        ..draw(&index, &positions, &chosen)
    };
    bencher.bench(|| quadrant::draw(black_box(&draw), 1));
}

#[divan::bench(args = [1, 10], sample_count = 10)]
fn draw_oversampled(bencher: Bencher, rounds: usize) {
    let positions = scan(Shape::Jittered);
    let index = index(&positions, Engine::Auto);
    let chosen = centers(N, N, KEY, 2).unwrap();
    let draw = draw(&index, &positions, &chosen);
    bencher.bench(|| oversample::draw(black_box(&draw), rounds * N));
}

#[divan::bench(sample_count = 10)]
fn draw_overlapping_of_known(bencher: Bencher) {
    let positions = scan(Shape::Jittered);
    let index = index(&positions, Engine::Auto);
    let all: Vec<i32> = (0..N as i32).collect();
    let (rows, width) = neighbors(&index, &all, 30, 2).unwrap();
    let chosen = centers(N, N, KEY, 2).unwrap();
    let known = Listed::new(&rows, width, N).unwrap();
    let draw = Draw {
        k: 30,
        c: 8,
        ..draw(&known, &positions, &chosen)
    };
    bencher.bench(|| overlap::draw(black_box(&draw), 8, 0.25, 1));
}

#[divan::bench(sample_count = 10)]
fn draw_of_labels(bencher: Bencher) {
    let positions = scan(Shape::Jittered);
    let labels: Vec<i32> = (0..N as i32).map(|i| i * 10 / N as i32).collect();
    let index = Labelled::build(&positions, &labels, |own| {
        Index::build(own, Engine::Auto, 2)
    })
    .unwrap();
    let chosen = centers(N, N, KEY, 2).unwrap();
    let draw = draw(&index, &positions, &chosen);
    bencher.bench(|| nearest::draw_rounds(black_box(&draw), false, 1));
}

#[divan::bench(sample_count = 5)]
fn draw_pool(bencher: Bencher) {
    let positions = scan(Shape::Jittered);
    let index = index(&positions, Engine::Auto);
    let all: Vec<i32> = (0..N as i32).collect();
    let draw = draw(&index, &positions, &all);
    bencher.bench(|| pool::draw(black_box(&draw), N));
}

#[divan::bench(args = [(1, N), (2, N), (1, N / 100), (2, N / 100)])]
fn draw_centers((threads, count): (usize, usize)) -> ptycho_fast_core::Result<Vec<i32>> {
    centers(black_box(N), count, KEY, threads)
}

#[divan::bench]
fn philox_block() -> [u64; 4] {
    black_box(KEY).block(Stage::Choice, 0, black_box(1))
}
