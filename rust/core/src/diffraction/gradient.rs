//! The likelihood of counts, and its gradients.

use num_complex::{Complex32, Complex64};
use pulp::{Simd, WithSimd};

use super::experiment::{
    Counts, Diffraction, Patterns, Sample, TOGETHER, add_product, at, cut, load_counts, multiply,
    product, scale,
};
use super::loss::{Sums, add_intensity, weigh};
use super::transform::WHAT;
use crate::patches::Window;
use crate::{Result, check, memory, simd};

/// What a gradient is computed with respect to. Gradients are added to the object's
/// array and the probe's; the others are overwritten.
#[derive(Default)]
pub struct Wanted<'a> {
    /// The object, `(height, width)`.
    pub object: Option<&'a mut [Complex32]>,
    /// The modes of the probe, `(modes, N, N)`.
    pub probe: Option<&'a mut [Complex64]>,
    /// x and y of each of the `rows`.
    pub positions: Option<&'a mut [f64]>,
    /// The exposure of each of the `rows`.
    pub exposure: Option<&'a mut [f64]>,
}

/// What a part of the patterns gives.
struct Made {
    sums: [Sums; TOGETHER],
    positions: [[f64; 2]; TOGETHER],
    probe: Vec<Complex32>,
}

impl Diffraction {
    /// The loss of some patterns: half their Poisson deviance. Gradients go to `wanted`.
    pub fn gradient(
        &self,
        sample: &Sample<'_>,
        patterns: &Patterns<'_>,
        counts: &Counts<'_>,
        wanted: Wanted<'_>,
        threads: usize,
    ) -> Result<f64> {
        let modes = self.fit(sample, patterns)?;
        self.fit_counts(counts, patterns)?;
        let Wanted {
            object,
            mut probe,
            mut positions,
            mut exposure,
        } = wanted;
        let rows = patterns.rows.len();
        let (height, width) = sample.object.shape();
        let object_wanted = object.is_some();
        if let Some(object) = &object {
            check::length(
                "the object's gradient",
                object.len(),
                height * width,
                "(H, W)",
            )?;
        }
        if let Some(probe) = &probe {
            check::length(
                "the probe's gradient",
                probe.len(),
                sample.probe.len(),
                "(modes, N, N)",
            )?;
        }
        if let Some(positions) = &positions {
            check::length(
                "the positions' gradient",
                positions.len(),
                2 * rows,
                "x and y of a row",
            )?;
        }
        if let Some(exposure) = &exposure {
            check::length(
                "the exposures' gradient",
                exposure.len(),
                rows,
                "one for each row",
            )?;
        }
        let modulated = self.modulated(sample.probe)?;
        let mut probe_sum =
            memory::cleared::<Complex64>(WHAT, probe.as_ref().map_or(0, |p| p.len()))?;
        let part = Part {
            diffraction: self,
            sample,
            probe: &modulated,
            modes,
            patterns,
            counts,
            want_back: object_wanted || probe.is_some() || positions.is_some(),
            want_probe: probe.is_some(),
            want_slopes: positions.is_some(),
        };
        let mut loss = 0.0;
        let gather = |first: usize, made: Made| {
            for i in 0..TOGETHER.min(rows - first) {
                loss += made.sums[i].loss;
                if let Some(positions) = &mut positions {
                    positions[2 * (first + i)..][..2].copy_from_slice(&made.positions[i]);
                }
                if let Some(exposure) = &mut exposure {
                    exposure[first + i] = made.sums[i].exposure;
                }
            }
            for (sum, value) in probe_sum.iter_mut().zip(&made.probe) {
                *sum += Complex64::new(value.re.into(), value.im.into());
            }
        };
        let work = |first, patches: &mut [Complex32]| {
            simd::run(Run {
                part: &part,
                first,
                patches,
            })?
        };
        self.add_blocks(
            patterns,
            object.map(|object| (object, width)),
            threads,
            work,
            gather,
        )?;
        if let Some(probe) = &mut probe {
            let ramp = self.ramp()?;
            for (out, sum) in probe
                .chunks_exact_mut(ramp.len())
                .zip(probe_sum.chunks_exact(ramp.len()))
            {
                for ((out, sum), ramp) in out.iter_mut().zip(sum).zip(&ramp) {
                    *out += ramp.conj() * sum;
                }
            }
        }
        Ok(loss)
    }
}

/// What the parts of all patterns share.
struct Part<'a> {
    diffraction: &'a Diffraction,
    sample: &'a Sample<'a>,
    probe: &'a [Complex32],
    modes: usize,
    patterns: &'a Patterns<'a>,
    counts: &'a Counts<'a>,
    want_back: bool,
    want_probe: bool,
    want_slopes: bool,
}

/// The kernel: the patterns of one part.
struct Run<'a, 'b> {
    part: &'a Part<'a>,
    /// The number of its first row.
    first: usize,
    /// Receives the gradient with respect to each patch of the object.
    patches: &'b mut [Complex32],
}

impl WithSimd for Run<'_, '_> {
    type Output = Result<Made>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<Made> {
        let Part {
            sample,
            probe,
            modes,
            patterns,
            ..
        } = *self.part;
        let transform = &self.part.diffraction.transform;
        let n = transform.n();
        let pixels = n * n;
        let mut padded = memory::cleared(WHAT, 2 * (n + 1))?;
        let mut patch = memory::cleared(WHAT, pixels)?;
        let mut slopes = memory::cleared(WHAT, if self.part.want_slopes { 2 * n } else { 0 })?;
        let mut near = memory::cleared(WHAT, modes * pixels)?;
        let mut far = memory::cleared(WHAT, modes * pixels)?;
        let mut light = memory::cleared::<f32>(WHAT, pixels)?;
        let mut measured = memory::cleared::<f32>(WHAT, pixels)?;
        let mut scratch = memory::cleared(WHAT, transform.scratch())?;
        let mut made = Made {
            sums: Default::default(),
            positions: Default::default(),
            probe: memory::cleared(
                WHAT,
                if self.part.want_probe {
                    modes * pixels
                } else {
                    0
                },
            )?,
        };
        let rows = &patterns.rows[self.first..];
        for (i, (out, &row)) in self.patches.chunks_exact_mut(pixels).zip(rows).enumerate() {
            let [x, y] = at(patterns.positions, row);
            let window = Window::new(x, y, n);
            cut(sample.object, window, &mut padded, n, &mut patch);
            load_counts(self.part.counts, row, n, &mut measured);
            light.fill(0.0);
            for m in 0..modes {
                let mode = m * pixels..(m + 1) * pixels;
                let (near, far) = (&mut near[mode.clone()], &mut far[mode.clone()]);
                multiply(&patch, &probe[mode], near);
                transform.forward(near, far, &mut scratch);
                add_intensity(far, &mut light);
            }
            let exposure = patterns
                .exposure
                .map_or(1.0, |all| all[row as usize] as f32);
            made.sums[i] = weigh(&mut light, &measured, exposure, patterns.background as f32);
            if !self.part.want_back {
                continue;
            }
            for m in 0..modes {
                let mode = m * pixels..(m + 1) * pixels;
                let (near, far) = (&mut near[mode.clone()], &mut far[mode.clone()]);
                scale(far, &light);
                transform.inverse(far, near, &mut scratch);
                if m == 0 {
                    product(&probe[mode.clone()], near, out);
                } else {
                    add_product(&probe[mode.clone()], near, out);
                }
                if self.part.want_probe {
                    add_product(&patch, near, &mut made.probe[mode]);
                }
            }
            if self.part.want_slopes {
                let (along_x, along_y) = slopes.split_at_mut(n);
                for (r, out) in out.chunks_exact(n).enumerate() {
                    let along = [&mut *along_x, &mut *along_y];
                    window.slope_row(sample.object, r as i64, &mut padded, along);
                    made.positions[i][0] += inner(along_x, out);
                    made.positions[i][1] += inner(along_y, out);
                }
            }
        }
        Ok(made)
    }
}

/// The real part of the inner product of two rows.
#[inline(always)]
fn inner(a: &[Complex32], b: &[Complex32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| a.re * b.re + a.im * b.im);
    f64::from(products.sum::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patches::Object;
    use proptest::prelude::*;

    fn field(length: usize, phase: f32) -> Vec<Complex32> {
        let angle = |i: usize| (i as f32 * 0.7 + phase).sin() * 3.0;
        (0..length)
            .map(|i| Complex32::from_polar(1.0 + 0.3 * angle(i + 5), angle(i)))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// The gradient is what the loss changes by, and threads change no bit of it.
        #[test]
        fn a_gradient_is_the_slope_of_the_loss(
            n in 1..12_usize, modes in 1..3_usize, pixel in 0..400_usize,
            places in prop::collection::vec(-3.0..23.0, 2..80),
        ) {
            let (height, width) = (20, 20);
            let positions = &places[..places.len() / 2 * 2];
            let rows: Vec<i32> = (0..positions.len() as i32 / 2).collect();
            let (object, probe) = (field(height * width, 0.2), field(modes * n * n, 1.1));
            let values: Vec<f32> = (0..rows.len() * n * n).map(|i| (i % 5) as f32).collect();
            let counts = Counts { values: &values, good: None };
            let patterns = Patterns { positions, exposure: None, background: 0.5, rows: &rows };
            let diffraction = Diffraction::new(n).unwrap();
            let run = |object: &[Complex32], threads| {
                let mut gradient = vec![Complex32::ZERO; height * width];
                let object = Object::new(object, height, width).unwrap();
                let wanted = Wanted { object: Some(&mut gradient), ..Wanted::default() };
                let sample = Sample { object, probe: &probe };
                let loss = diffraction.gradient(&sample, &patterns, &counts, wanted, threads);
                (loss.unwrap(), gradient)
            };
            let (loss, gradient) = run(&object, 1);
            prop_assert_eq!((loss, &gradient), (run(&object, 3).0, &run(&object, 3).1));
            let step = 4e-3;
            let moved = |by: f32| {
                let mut moved = object.clone();
                moved[pixel].re += by;
                run(&moved, 1).0
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let found = f64::from(gradient[pixel].re);
            let allowed = 0.02 * found.abs() + 2e-2 * (1.0 + loss.abs().sqrt());
            prop_assert!((slope - found).abs() < allowed, "{found} is not {slope}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let diffraction = Diffraction::new(4).unwrap();
        assert!(Diffraction::new(0).is_err());
        let pixels = field(36, 0.0);
        let probe = field(16, 1.0);
        let attempt = |probe: &[Complex32], positions: &[f64], rows: &[i32], counts: usize| {
            let object = Object::new(&pixels, 6, 6).unwrap();
            let values = vec![1.0; counts];
            let patterns = Patterns {
                positions,
                exposure: None,
                background: 0.0,
                rows,
            };
            let counts = Counts {
                values: &values,
                good: None,
            };
            let sample = Sample { object, probe };
            diffraction.gradient(&sample, &patterns, &counts, Wanted::default(), 1)
        };
        assert!(attempt(&probe, &[3.0, 3.0], &[0], 16).is_ok());
        assert_eq!(attempt(&probe, &[3.0, 3.0], &[], 16), Ok(0.0));
        assert!(attempt(&probe[..15], &[3.0, 3.0], &[0], 16).is_err());
        assert!(attempt(&[], &[3.0, 3.0], &[0], 16).is_err());
        assert!(attempt(&probe, &[3.0, f64::NAN], &[0], 16).is_err());
        assert!(attempt(&probe, &[3.0, 3.0], &[1], 16).is_err());
        assert!(attempt(&probe, &[3.0, 3.0], &[0], 15).is_err());
    }
}
