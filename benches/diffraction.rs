//! Benchmarks of the likelihood and its gradients: `cargo bench --bench diffraction`.
//!
//! Each is of 1087 patterns of 64 x 64 pixels, the size of a scan that the
//! reconstruction is measured with.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods)] // see clippy.toml

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use num_complex::{Complex32, Complex64};
use ptycho_fast_core::diffraction::{Counts, Diffraction, Patterns, Sample, Wanted};
use ptycho_fast_core::patches::Object;

const N: usize = 64;
const PATTERNS: usize = 1087;
const SIDE: usize = 160;
const THREADS: [usize; 2] = [1, 2];

fn main() {
    divan::main();
}

fn field(length: usize) -> Vec<Complex32> {
    (0..length)
        .map(|i| Complex32::from_polar(1.0, (i as f32 * 0.37).sin()))
        .collect()
}

/// Positions in rows, 2.7 pixels apart, at fractions of a pixel.
fn positions() -> Vec<f64> {
    let per_row = 33;
    let place = |i: usize| {
        [
            32.3 + 2.7 * (i % per_row) as f64,
            32.6 + 2.7 * (i / per_row) as f64,
        ]
    };
    (0..PATTERNS).flat_map(place).collect()
}

/// What is differentiated with respect to.
#[divan::bench(args = THREADS, consts = [0, 1, 2, 3])]
fn gradient<const KIND: usize>(bencher: Bencher, threads: usize) {
    let (object, probe, positions) = (field(SIDE * SIDE), field(N * N), positions());
    let rows: Vec<i32> = (0..PATTERNS as i32).collect();
    let values: Vec<f32> = (0..PATTERNS * N * N).map(|i| (i % 7) as f32).collect();
    let diffraction = Diffraction::new(N).unwrap();
    let mut of_object = vec![Complex32::ZERO; SIDE * SIDE];
    let mut of_probe = vec![Complex64::ZERO; N * N];
    let mut of_positions = vec![0.0; 2 * PATTERNS];
    bencher.counter(ItemsCount::new(PATTERNS)).bench_local(|| {
        // Nothing, the object, the object and the probe, the object and the positions.
        let wanted = Wanted {
            object: (KIND > 0).then_some(&mut of_object[..]),
            probe: (KIND == 2).then_some(&mut of_probe[..]),
            positions: (KIND == 3).then_some(&mut of_positions[..]),
            exposure: None,
        };
        let sample = Sample {
            object: Object::new(&object, SIDE, SIDE).unwrap(),
            probe: &probe,
        };
        let patterns = Patterns {
            positions: &positions,
            exposure: None,
            background: 0.0,
            rows: &rows,
        };
        let counts = Counts {
            values: &values,
            good: None,
        };
        black_box(
            diffraction
                .gradient(&sample, &patterns, &counts, wanted, threads)
                .unwrap(),
        )
    });
}
