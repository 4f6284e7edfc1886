//! The expected counts.

use num_complex::Complex32;
use pulp::{Simd, WithSimd};

use super::experiment::{Diffraction, Patterns, Sample, TOGETHER, at, cut, multiply};
use super::loss::add_intensity;
use super::transform::WHAT;
use crate::patches::Window;
use crate::{Result, check, memory, parallel, simd};

impl Diffraction {
    /// Fills `out`, `(rows, N, N)`, with the counts that are expected at each pixel.
    pub fn intensity(
        &self,
        sample: &Sample<'_>,
        patterns: &Patterns<'_>,
        out: &mut [f32],
        threads: usize,
    ) -> Result<()> {
        self.fit(sample, patterns)?;
        let expected = patterns.rows.len() * self.pixels();
        check::length("the intensities", out.len(), expected, "(rows, N, N)")?;
        let probe = self.modulated(sample.probe)?;
        let part = TOGETHER * self.pixels();
        parallel::for_each_chunk(out, part, threads, |chunk, out| {
            simd::run(Run {
                diffraction: self,
                sample,
                probe: &probe,
                patterns,
                rows: &patterns.rows[chunk * TOGETHER..],
                out,
            })?
        })
    }
}

/// The kernel: some patterns.
struct Run<'a, 'b> {
    diffraction: &'a Diffraction,
    sample: &'a Sample<'a>,
    probe: &'a [Complex32],
    patterns: &'a Patterns<'a>,
    rows: &'a [i32],
    out: &'b mut [f32],
}

impl WithSimd for Run<'_, '_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<()> {
        let transform = &self.diffraction.transform;
        let n = transform.n();
        let pixels = n * n;
        let mut padded = memory::cleared(WHAT, 2 * (n + 1))?;
        let mut patch = memory::cleared(WHAT, pixels)?;
        let mut near = memory::cleared::<Complex32>(WHAT, pixels)?;
        let mut far = memory::cleared(WHAT, pixels)?;
        let mut light = memory::cleared::<f32>(WHAT, pixels)?;
        let mut scratch = memory::cleared(WHAT, transform.scratch())?;
        for (out, &row) in self.out.chunks_exact_mut(pixels).zip(self.rows) {
            let [x, y] = at(self.patterns.positions, row);
            cut(
                self.sample.object,
                Window::new(x, y, n),
                &mut padded,
                n,
                &mut patch,
            );
            light.fill(0.0);
            for mode in self.probe.chunks_exact(pixels) {
                multiply(&patch, mode, &mut near);
                transform.forward(&mut near, &mut far, &mut scratch);
                add_intensity(&far, &mut light);
            }
            transpose::transpose(&light, out, n, n);
            let exposure = self
                .patterns
                .exposure
                .map_or(1.0, |all| all[row as usize] as f32);
            for value in out {
                *value = exposure * *value + self.patterns.background as f32;
            }
        }
        Ok(())
    }
}
