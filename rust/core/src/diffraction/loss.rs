//! The likelihood of counts: the loss of a pixel, and what it pulls at the wave.

use num_complex::Complex32;
use pulp::bytemuck::cast_slice;

/// Counts added to every modelled intensity, so that the loss is finite where nothing
/// is modelled but something was counted.
pub const FLOOR: f32 = 1e-6;

/// Stands for a pixel that was not measured, in place of its counts.
pub(super) const UNMEASURED: f32 = -1.0;

/// Pixels whose losses are summed side by side in float32, before float64 takes over.
/// It is the same number for all instruction sets, so that all have the same result.
const LANES: usize = 16;

/// Adds the intensity of a wave to `light`.
#[inline(always)]
pub(super) fn add_intensity(wave: &[Complex32], light: &mut [f32]) {
    let parts: &[[f32; 2]] = cast_slice(wave);
    for (light, [re, im]) in light.iter_mut().zip(parts) {
        *light += re * re + im * im;
    }
}

/// Sums of a pattern.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    /// Half the Poisson deviance.
    pub loss: f64,
    /// Its derivative with respect to the exposure.
    pub exposure: f64,
}

/// Replaces the light at each pixel by the factor that makes the wave there the
/// gradient of the loss, and returns the loss of the pattern.
#[inline(always)]
pub(super) fn weigh(light: &mut [f32], counts: &[f32], exposure: f32, background: f32) -> Sums {
    let mut sums = Sums::default();
    // A block's float32 sums have so few terms that they lose nothing that matters.
    for (light, counts) in light.chunks_mut(64 * LANES).zip(counts.chunks(64 * LANES)) {
        let (mut losses, mut slopes) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let mut lights = light.chunks_exact_mut(LANES);
        let mut measured = counts.chunks_exact(LANES);
        for (light, counts) in lights.by_ref().zip(measured.by_ref()) {
            for lane in 0..LANES {
                let (loss, slope) = pixel(exposure * light[lane] + background, counts[lane]);
                losses[lane] += loss;
                slopes[lane] += slope * light[lane];
                light[lane] = 2.0 * exposure * slope;
            }
        }
        let rest = lights.into_remainder().iter_mut().zip(measured.remainder());
        for (lane, (light, &counts)) in rest.enumerate() {
            let (loss, slope) = pixel(exposure * *light + background, counts);
            losses[lane] += loss;
            slopes[lane] += slope * *light;
            *light = 2.0 * exposure * slope;
        }
        sums.loss += losses.iter().copied().map(f64::from).sum::<f64>();
        sums.exposure += slopes.iter().copied().map(f64::from).sum::<f64>();
    }
    sums
}

/// Half the Poisson deviance of one pixel, `I - k + k ln(k / I)`, and its derivative
/// with respect to `I`; both are 0 for a pixel that was not measured.
///
/// The logarithm is a power of 2 and a short series of `t = (I - K) / (I + K)`, where
/// K is k times that power. Written with t, nothing cancels where I is close to k.
/// The code has no branches, so that a compiler can make vector instructions of it.
#[inline(always)]
fn pixel(intensity: f32, k: f32) -> (f32, f32) {
    // The bits of sqrt(1/2): I / K is between it and sqrt(2).
    const HALFWAY: u32 = 0x3f35_04f3;
    let i = intensity + FLOOR;
    let ratio = i / k.max(1e-30);
    let power = ((ratio.to_bits().wrapping_sub(HALFWAY) as i32) >> 23).clamp(-126, 127);
    let near = k * f32::from_bits(((power + 127) as u32) << 23);
    let t = (i - near) / (i + near);
    let square = t * t;
    let series = 1.0 / 3.0 + square * (1.0 / 5.0 + square * (1.0 / 7.0 + square * (1.0 / 9.0)));
    let logarithm = power as f32 * std::f32::consts::LN_2;
    let loss =
        t * (i + near - 2.0 * k) - 2.0 * k * (t * square * series) + (near - k) - k * logarithm;
    let loss = if k > 0.0 { loss } else { i };
    let slope = (i - k) / i;
    if k >= 0.0 { (loss, slope) } else { (0.0, 0.0) }
}

/// Replaces the light at each pixel by `4 s^2 Re(conj(wave) change) / I`, the factor
/// that makes the wave the Fisher information times the change. `changed` holds the
/// real part, summed over the modes.
#[inline(always)]
pub(super) fn weigh_change(
    light: &mut [f32],
    changed: &[f32],
    counts: Option<&[f32]>,
    exposure: f32,
    background: f32,
) {
    let factor = 4.0 * exposure * exposure;
    for (light, changed) in light.iter_mut().zip(changed) {
        *light = factor * changed / (exposure * *light + background + FLOOR);
    }
    if let Some(counts) = counts {
        for (light, k) in light.iter_mut().zip(counts) {
            *light = if *k >= 0.0 { *light } else { 0.0 };
        }
    }
}

/// Adds `Re(conj(wave) change)` at each pixel.
#[inline(always)]
pub(super) fn add_change(wave: &[Complex32], change: &[Complex32], out: &mut [f32]) {
    let waves: &[[f32; 2]] = cast_slice(wave);
    let changes: &[[f32; 2]] = cast_slice(change);
    for ((out, [re, im]), [dre, dim]) in out.iter_mut().zip(waves).zip(changes) {
        *out += re * dre + im * dim;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_a_pixel_follows_the_definition() {
        for &k in &[0.0_f32, 1.0, 2.0, 7.0, 1e3, 3e6] {
            for step in 0..400 {
                let i = 10_f32.powf(f32::from(step as i16) / 25.0 - 8.0);
                let (exact_i, exact_k) = (f64::from(i) + f64::from(FLOOR), f64::from(k));
                let expected = if k == 0.0 {
                    exact_i
                } else {
                    exact_i - exact_k - exact_k * (exact_i / exact_k).ln()
                };
                let (loss, slope) = pixel(i, k);
                let allowed = 4e-6 * (exact_i - exact_k).abs() + 1e-6 * expected.abs() + 1e-9;
                assert!(
                    (f64::from(loss) - expected).abs() <= allowed,
                    "k = {k}, I = {i}: {loss} is not {expected}"
                );
                let expected = 1.0 - exact_k / exact_i;
                let allowed = 1e-6 * (1.0 + expected.abs());
                assert!((f64::from(slope) - expected).abs() <= allowed);
            }
        }
        assert_eq!(pixel(5.0, UNMEASURED), (0.0, 0.0));
    }

    #[test]
    fn sums_take_every_pixel_once() {
        for n in [1, 15, 16, 17, 1023, 1024, 1025, 3000] {
            let mut light: Vec<f32> = (0..n).map(|i| (i % 13) as f32).collect();
            let counts: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 1.0).collect();
            let expected: f64 = (light.iter().zip(&counts))
                .map(|(&light, &k)| f64::from(pixel(1.5 * light + 0.25, k).0))
                .sum();
            let sums = weigh(&mut light, &counts, 1.5, 0.25);
            assert!((sums.loss - expected).abs() <= 1e-5 * expected.abs());
            for (i, &gain) in light.iter().enumerate() {
                let expected = 3.0 * pixel(1.5 * (i % 13) as f32 + 0.25, counts[i]).1;
                assert_eq!(gain, expected);
            }
        }
    }
}
