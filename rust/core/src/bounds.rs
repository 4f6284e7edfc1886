//! The bounding box of a scan.

use pulp::{Simd, WithSimd};

use crate::{Result, check, memory, parallel, simd};

/// Checks positions as [`check::scan`] does, and returns their smallest x and y and
/// their largest.
pub fn of(positions: &[f64], threads: usize) -> Result<[[f64; 2]; 2]> {
    const COORDINATES_PER_PART: usize = 1 << 16;
    let parts = positions.len().div_ceil(COORDINATES_PER_PART);
    let mut found = memory::cleared::<[f64; 4]>("the bounds of the scan", parts)?;
    parallel::for_each_chunk(&mut found, 1, threads, |part, found| {
        let positions = &positions[part * COORDINATES_PER_PART..];
        let part = &positions[..positions.len().min(COORDINATES_PER_PART)];
        // Errors are found again below, where the sentence is made.
        found[0] = simd::run(Bounds(part)).unwrap_or([f64::NAN; 4]);
        Ok(())
    })?;
    let good = |found: &[f64; 4]| found.iter().all(|v| v.abs() <= check::FARTHEST);
    if positions.is_empty() || positions.len() % 2 == 1 || !found.iter().all(good) {
        simd::name()?;
        check::scan(positions)?;
    }
    check::scan_length(positions.len() / 2)?;
    Ok(found.iter().fold(
        [[f64::INFINITY; 2], [f64::NEG_INFINITY; 2]],
        |[low, high], found| {
            [
                [low[0].min(found[0]), low[1].min(found[1])],
                [high[0].max(found[2]), high[1].max(found[3])],
            ]
        },
    ))
}

/// Finds the smallest x and y and the largest; NaN if any coordinate is NaN or
/// infinite.
struct Bounds<'a>(&'a [f64]);

impl WithSimd for Bounds<'_> {
    type Output = [f64; 4];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; 4] {
        const WIDTH: usize = 32;
        let mut low = [f64::INFINITY; WIDTH];
        let mut high = [f64::NEG_INFINITY; WIDTH];
        let mut not_a_number = [0.0; WIDTH];
        let (wide, rest) = self.0.as_chunks::<WIDTH>();
        let mut take = |i: usize, v: f64| {
            low[i] = if v < low[i] { v } else { low[i] };
            high[i] = if v > high[i] { v } else { high[i] };
            not_a_number[i] += v * 0.0;
        };
        for values in wide {
            for (i, &value) in values.iter().enumerate() {
                take(i, value);
            }
        }
        for (i, &value) in rest.iter().enumerate() {
            take(i, value);
        }
        let poison: f64 = not_a_number.iter().sum();
        let of = |values: &[f64; WIDTH], axis: usize, better: fn(f64, f64) -> f64| {
            values
                .iter()
                .skip(axis)
                .step_by(2)
                .copied()
                .reduce(better)
                .unwrap_or(f64::NAN)
                + poison
        };
        [
            of(&low, 0, f64::min),
            of(&low, 1, f64::min),
            of(&high, 0, f64::max),
            of(&high, 1, f64::max),
        ]
    }
}
