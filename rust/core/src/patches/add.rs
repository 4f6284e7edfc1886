//! The adjoint of extracting patches: they are added to an object.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` gets its instructions"
)]

use num_complex::Complex32;
use pulp::bytemuck::{cast_slice, cast_slice_mut};
use pulp::{Simd, WithSimd};

use super::layout::{WHAT, axes, layout};
use super::window::{overlap, split};
use crate::{Result, check, memory, parallel, simd};

/// Rows of the object that one thread adds to. Few, so that threads share the work
/// evenly; each of them goes through all patches.
const ROWS_PER_BAND: usize = 16;

/// The adjoint of [`extract`](super::extract): adds each patch to `object` at its
/// position.
///
/// `object` is `(height, width)`; the patches are added to what it holds. Each band
/// of rows goes through all patches in order, so that every pixel is summed in the
/// same order, whatever the number of threads.
pub fn add(
    patches: &[Complex32],
    positions: &[f64],
    n: usize,
    channels: usize,
    object: &mut [Complex32],
    width: usize,
    threads: usize,
) -> Result<()> {
    layout(positions, n, channels, patches.len())?;
    let height = object.len().checked_div(width).unwrap_or(0);
    check::length("object", object.len(), height * width, "height times width")?;
    simd::name()?; // an error in PTYCHO_FAST_SIMD is found here, before threads start
    parallel::for_each_chunk(object, ROWS_PER_BAND * width, threads, |band, object| {
        simd::run(AddToBand {
            patches,
            positions,
            n,
            channels,
            top: (band * ROWS_PER_BAND) as i64,
            object,
            width,
        })?
    })
}

/// The kernel: adds all patches to the rows of the object from `top`.
struct AddToBand<'a, 'b> {
    patches: &'a [Complex32],
    positions: &'a [f64],
    n: usize,
    channels: usize,
    top: i64,
    object: &'b mut [Complex32],
    width: usize,
}

impl WithSimd for AddToBand<'_, '_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<()> {
        let (n, channels, width) = (self.n, self.channels, self.width);
        let band = self.object.len() / width;
        let mut row = memory::cleared::<Complex32>(WHAT, n)?;
        let mut upper = memory::cleared::<Complex32>(WHAT, n + 1)?;
        let mut lower = memory::cleared::<Complex32>(WHAT, n + 1)?;
        for (group, patch) in self.patches.chunks_exact(n * n * channels).enumerate() {
            let [xs, ys] = axes(self.positions, group, channels);
            for channel in 0..channels {
                let (left, fx) = split(xs[channel], n / 2);
                let (top, fy) = split(ys[channel], n / 2);
                let columns = overlap(n + 1, left, width);
                // Row r of the window lies between the rows r - 1 and r of the patch.
                let rows = overlap(n + 1, top - self.top, band);
                if columns.is_empty() || rows.is_empty() {
                    continue;
                }
                let from = (columns.start as i64 + left) as usize;
                let patch = Channel {
                    patch,
                    n,
                    channels,
                    number: channel,
                };
                // Above its first row there is nothing.
                patch.spread_row(rows.start.wrapping_sub(1), fx, &mut row, &mut upper);
                for r in rows {
                    patch.spread_row(r, fx, &mut row, &mut lower);
                    let target = (top - self.top + r as i64) as usize * width + from;
                    let target = &mut self.object[target..][..columns.len()];
                    blend(&upper[columns.clone()], &lower[columns.clone()], fy, target);
                    std::mem::swap(&mut upper, &mut lower);
                }
            }
        }
        Ok(())
    }
}

/// One of the patches of a group.
#[derive(Clone, Copy)]
struct Channel<'a> {
    patch: &'a [Complex32],
    n: usize,
    channels: usize,
    number: usize,
}

impl Channel<'_> {
    /// Spreads row `r` over the columns of the object; beyond the patch, all is 0.
    #[inline(always)]
    fn spread_row(&self, r: usize, fx: f32, row: &mut [Complex32], out: &mut [Complex32]) {
        let size = self.n * self.channels;
        if r >= self.n {
            out.fill(Complex32::ZERO);
        } else if self.channels == 1 {
            spread(&self.patch[r * size..][..size], fx, out);
        } else {
            let values = self.patch[r * size..][..size].iter();
            for (pixel, value) in row
                .iter_mut()
                .zip(values.skip(self.number).step_by(self.channels))
            {
                *pixel = *value;
            }
            spread(row, fx, out);
        }
    }
}

/// Divides each value of a row between two neighbouring columns.
#[inline(always)]
fn spread(row: &[Complex32], fx: f32, out: &mut [Complex32]) {
    let last = row.len() - 1;
    out[0] = row[0] * (1.0 - fx);
    out[last + 1] = row[last] * fx;
    let (row, out): (&[f32], &mut [f32]) = (cast_slice(row), cast_slice_mut(out));
    for ((out, left), right) in out[2..].iter_mut().zip(row).zip(&row[2..]) {
        *out = left * fx + right * (1.0 - fx);
    }
}

/// Adds what the two rows of a patch next to a row of the object contribute to it.
#[inline(always)]
fn blend(upper: &[Complex32], lower: &[Complex32], fy: f32, out: &mut [Complex32]) {
    let (upper, lower): (&[f32], &[f32]) = (cast_slice(upper), cast_slice(lower));
    let out: &mut [f32] = cast_slice_mut(out);
    for ((out, upper), lower) in out.iter_mut().zip(upper).zip(lower) {
        *out = (*out + upper * fy) + lower * (1.0 - fy);
    }
}
