//! The Fourier transform of square waves. Only this file uses rustfft.

use std::sync::Arc;

use num_complex::Complex32;
use rustfft::{Fft, FftPlanner};

use crate::{Result, check, memory};

/// What memory is allocated for, as the error says if there is none.
pub(super) const WHAT: &str = "the waves of diffraction patterns";

/// Largest side of a pattern. Beyond it the squares of waves would not fit in memory.
const LARGEST: usize = 1 << 15;

/// Two-dimensional Fourier transforms of N x N pixels, planned once.
///
/// They are not normalised, and a forward transform leaves its result transposed.
/// The inverse of a transposed transform is in its usual order again, so no
/// transposition is ever undone.
pub(super) struct Transform {
    n: usize,
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
}

impl Transform {
    /// Plans the transforms of `n * n` pixels.
    pub fn new(n: usize) -> Result<Self> {
        check::within("N", n, 1, LARGEST)?;
        // What the planner allocates grows as N. It ends the process if it finds no memory.
        memory::can_have(WHAT, 1024 * n + memory::SPARE)?;
        let mut planner = FftPlanner::new();
        Ok(Self {
            n,
            forward: planner.plan_fft_forward(n),
            inverse: planner.plan_fft_inverse(n),
        })
    }

    /// Pixels per side.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Numbers that `forward` and `inverse` need as `scratch`.
    pub fn scratch(&self) -> usize {
        let forward = self.forward.get_inplace_scratch_len();
        forward.max(self.inverse.get_inplace_scratch_len())
    }

    /// Transforms `wave` into `out`, transposed. `wave` holds nothing useful afterwards.
    pub fn forward(
        &self,
        wave: &mut [Complex32],
        out: &mut [Complex32],
        scratch: &mut [Complex32],
    ) {
        self.transform(&*self.forward, wave, out, scratch);
    }

    /// Transforms `wave`, which is transposed, into `out`, which is not.
    pub fn inverse(
        &self,
        wave: &mut [Complex32],
        out: &mut [Complex32],
        scratch: &mut [Complex32],
    ) {
        self.transform(&*self.inverse, wave, out, scratch);
    }

    fn transform(
        &self,
        rows: &dyn Fft<f32>,
        wave: &mut [Complex32],
        out: &mut [Complex32],
        scratch: &mut [Complex32],
    ) {
        rows.process_with_scratch(wave, scratch);
        transpose::transpose(wave, out, self.n, self.n);
        rows.process_with_scratch(out, scratch);
    }
}
