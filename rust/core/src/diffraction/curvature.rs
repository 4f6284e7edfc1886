//! The Fisher information of the counts with respect to the object.

use num_complex::Complex32;
use pulp::{Simd, WithSimd};

use super::experiment::{
    Diffraction, Patterns, Sample, add_product, at, cut, hide_unmeasured, multiply, scale,
};
use super::loss::{add_change, add_intensity, weigh_change};
use super::transform::WHAT;
use crate::patches::{Object, Window};
use crate::{Result, check, memory, simd};

impl Diffraction {
    /// Adds the Fisher information times a change of the object to `out`.
    ///
    /// This is the expected second derivative of the loss, `sum dI dI / I` in terms of
    /// the real and imaginary parts of the object, if the model is right.
    pub fn curvature(
        &self,
        sample: &Sample<'_>,
        change: Object<'_>,
        patterns: &Patterns<'_>,
        good: Option<&[bool]>,
        out: &mut [Complex32],
        threads: usize,
    ) -> Result<()> {
        let modes = self.fit(sample, patterns)?;
        self.fit_good(good, patterns.positions.len() / 2 * self.pixels())?;
        let (height, width) = sample.object.shape();
        for (what, length) in [
            (
                "the change of the object",
                change.shape().0 * change.shape().1,
            ),
            ("the object's curvature", out.len()),
        ] {
            check::length(what, length, height * width, "(H, W)")?;
        }
        let modulated = self.modulated(sample.probe)?;
        let part = Part {
            diffraction: self,
            sample,
            change,
            probe: &modulated,
            modes,
            patterns,
            good,
        };
        let work = |first, patches: &mut [Complex32]| {
            simd::run(Run {
                part: &part,
                first,
                patches,
            })?
        };
        self.add_blocks(patterns, Some((out, width)), threads, work, |_, ()| ())
    }
}

/// What the parts of all patterns share.
struct Part<'a> {
    diffraction: &'a Diffraction,
    sample: &'a Sample<'a>,
    change: Object<'a>,
    probe: &'a [Complex32],
    modes: usize,
    patterns: &'a Patterns<'a>,
    good: Option<&'a [bool]>,
}

/// The kernel: the patterns of one part.
struct Run<'a, 'b> {
    part: &'a Part<'a>,
    first: usize,
    patches: &'b mut [Complex32],
}

impl WithSimd for Run<'_, '_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<()> {
        let Part {
            sample,
            change,
            probe,
            modes,
            patterns,
            good,
            ..
        } = *self.part;
        let transform = &self.part.diffraction.transform;
        let n = transform.n();
        let pixels = n * n;
        let mut padded = memory::cleared(WHAT, 2 * (n + 1))?;
        let mut patch = memory::cleared(WHAT, pixels)?;
        let mut patch_change = memory::cleared(WHAT, pixels)?;
        let mut near = memory::cleared(WHAT, pixels)?;
        let mut far = memory::cleared(WHAT, modes * pixels)?;
        let mut far_change = memory::cleared(WHAT, pixels)?;
        let mut light = memory::cleared::<f32>(WHAT, pixels)?;
        let mut changed = memory::cleared::<f32>(WHAT, pixels)?;
        let mut measured = memory::cleared::<f32>(WHAT, if good.is_some() { pixels } else { 0 })?;
        let mut scratch = memory::cleared(WHAT, transform.scratch())?;
        let rows = &patterns.rows[self.first..];
        for (out, &row) in self.patches.chunks_exact_mut(pixels).zip(rows) {
            let [x, y] = at(patterns.positions, row);
            let window = Window::new(x, y, n);
            cut(sample.object, window, &mut padded, n, &mut patch);
            cut(change, window, &mut padded, n, &mut patch_change);
            light.fill(0.0);
            changed.fill(0.0);
            for m in 0..modes {
                let mode = m * pixels..(m + 1) * pixels;
                let far = &mut far[mode.clone()];
                multiply(&patch, &probe[mode.clone()], &mut near);
                transform.forward(&mut near, far, &mut scratch);
                add_intensity(far, &mut light);
                multiply(&patch_change, &probe[mode], &mut near);
                transform.forward(&mut near, &mut far_change, &mut scratch);
                add_change(far, &far_change, &mut changed);
            }
            if let Some(good) = good {
                measured.fill(0.0);
                hide_unmeasured(good, row, n, &mut measured);
            }
            let exposure = patterns
                .exposure
                .map_or(1.0, |all| all[row as usize] as f32);
            let counted = good.map(|_| &measured[..]);
            weigh_change(
                &mut light,
                &changed,
                counted,
                exposure,
                patterns.background as f32,
            );
            out.fill(Complex32::ZERO);
            for m in 0..modes {
                let mode = m * pixels..(m + 1) * pixels;
                let far = &mut far[mode.clone()];
                scale(far, &light);
                transform.inverse(far, &mut near, &mut scratch);
                add_product(&probe[mode], &near, out);
            }
        }
        Ok(())
    }
}
