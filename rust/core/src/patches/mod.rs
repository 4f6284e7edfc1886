//! Patches of an object at sub-pixel positions, and the adjoint of extracting them.
//!
//! ```text
//! patch[b, r, k, c] = bilinear(object, row = r + y[b, c] - p, column = k + x[b, c] - p),  p = N / 2
//! ```
//!
//! where the object is 0 outside its bounds. All pixels of a patch share the
//! fractional part of its position. So a patch is a weighted sum of two shifted
//! rows, and then of two shifted columns.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` gets its instructions"
)]

use num_complex::Complex32;
use pulp::bytemuck::cast_slice_mut;
use pulp::{Simd, WithSimd};

mod add;
mod layout;
mod window;

use crate::interleave::{LINE, STAGE, aligned, interleave, is_staged};
use crate::{Result, memory, parallel, simd};

pub use add::add;
use layout::{WHAT, axes, layout};
pub use window::Object;
pub(crate) use window::Window;

/// Extracts the patches of the object at groups of positions.
///
/// `positions` is `(B, 2, C)`, x then y; `out` is `(B, N, N, C)`, channels last,
/// `n` is N.
pub fn extract(
    object: Object<'_>,
    positions: &[f64],
    n: usize,
    channels: usize,
    out: &mut [Complex32],
    threads: usize,
) -> Result<()> {
    let groups = layout(positions, n, channels, out.len())?;
    if groups == 0 {
        return Ok(());
    }
    simd::name()?; // an error in PTYCHO_FAST_SIMD is found here, before threads start
    let size = n * n * channels;
    let staged = is_staged(out, channels);
    // Patches of the same part of the object follow one another, whatever their
    // place in `out`: the pixels that two patches share are then still in the cache.
    let of_group = |(number, out)| {
        let [xs, ys] = axes(positions, number, channels);
        let first = Window::new(xs[0], ys[0], n);
        let place = (first.top.div_euclid(n as i64), first.left);
        GroupPatches { place, number, out }
    };
    let groups = out.chunks_exact_mut(size).enumerate().map(of_group);
    let mut groups = memory::collect(WHAT, groups)?;
    groups.sort_unstable_by_key(|group| (group.place, group.number));
    let together = (STAGE / size_of::<Complex32>() / size).max(1);
    parallel::for_each_chunk(&mut groups, together, threads, |_, groups| {
        let kernel = Extract {
            object,
            positions,
            n,
            channels,
            groups,
            staged,
        };
        simd::run(kernel)?
    })
}

/// The patches of one group.
struct GroupPatches<'a> {
    /// Where its first patch lies: the band of rows, then the column.
    place: (i64, i64),
    number: usize,
    out: &'a mut [Complex32],
}

/// The kernel: extracts the patches of some groups.
struct Extract<'a, 'b> {
    object: Object<'a>,
    positions: &'a [f64],
    n: usize,
    channels: usize,
    groups: &'a mut [GroupPatches<'b>],
    staged: bool,
}

impl WithSimd for Extract<'_, '_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<()> {
        let (object, n, row) = (self.object, self.n, self.n * self.channels);
        let rows = (STAGE / size_of::<Complex32>() / row).clamp(1, n);
        let apart = if self.channels > 1 { rows * row } else { 0 };
        let mut scratch = Scratch {
            padded: memory::cleared(WHAT, 2 * (n + 1))?,
            channels: memory::cleared(WHAT, apart + LINE)?,
        };
        let size = if self.staged { rows * row } else { 0 };
        let mut stage = memory::cleared::<Complex32>(WHAT, size + LINE)?;
        let stage = aligned(&mut stage);
        for GroupPatches { number, out, .. } in self.groups {
            let [xs, ys] = axes(self.positions, *number, self.channels);
            let windows = xs.iter().zip(ys).map(|(&x, &y)| Window::new(x, y, n));
            let windows = memory::collect(WHAT, windows)?;
            for (i, out) in out.chunks_mut(rows * row).enumerate() {
                let made = if self.staged {
                    &mut stage[..out.len()]
                } else {
                    &mut *out
                };
                let first = (i * rows) as i64;
                cut_rows(object, &windows, first, n, &mut scratch, made);
                if self.staged {
                    out.copy_from_slice(&stage[..out.len()]);
                }
            }
        }
        Ok(())
    }
}

struct Scratch {
    /// Two rows of a patch that reaches beyond the object, padded with 0.
    padded: Vec<Complex32>,
    /// Rows of each channel, one channel after another. A complex pixel is moved as
    /// one 64-bit number.
    channels: Vec<u64>,
}

/// Computes rows of a group's patches, from row `first` on.
#[inline(always)]
fn cut_rows(
    object: Object<'_>,
    windows: &[Window],
    first: i64,
    n: usize,
    scratch: &mut Scratch,
    out: &mut [Complex32],
) {
    let channels = windows.len();
    let pixels = out.len() / channels;
    let apart = aligned(&mut scratch.channels);
    let rows: &mut [Complex32] = if channels == 1 {
        &mut *out
    } else {
        cast_slice_mut(apart)
    };
    for (window, out) in windows.iter().zip(rows.chunks_exact_mut(pixels)) {
        window.cut_rows(object, first, n, &mut scratch.padded, out);
    }
    if channels > 1 {
        let out: &mut [[u8; 8]] = cast_slice_mut(out); // of any alignment
        interleave(
            channels,
            |c| &apart[c * pixels..][..pixels],
            out,
            u64::to_ne_bytes,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_complex::Complex64;
    use proptest::prelude::*;

    fn object(height: usize, width: usize) -> Vec<Complex32> {
        (0..height * width)
            .map(|i| Complex32::new((i as f32 * 0.7).sin(), (i as f32 * 0.3).cos()))
            .collect()
    }

    /// The definition, tap by tap in float64.
    fn by_definition(
        pixels: &[Complex32],
        width: usize,
        positions: &[f64],
        n: usize,
        channels: usize,
    ) -> Vec<Complex64> {
        let height = pixels.len() / width;
        let pixel = |row: f64, column: f64| {
            if row < 0.0 || column < 0.0 || row >= height as f64 || column >= width as f64 {
                return Complex64::ZERO;
            }
            let value = pixels[row as usize * width + column as usize];
            Complex64::new(value.re.into(), value.im.into())
        };
        let mut out = vec![];
        let half = (n / 2) as f64;
        for group in positions.chunks_exact(2 * channels) {
            for r in 0..n {
                for k in 0..n {
                    for c in 0..channels {
                        let (x, y) = (group[c], group[channels + c]);
                        let (fx, fy) = (x - x.floor(), y - y.floor());
                        let (row, column) =
                            (r as f64 + y.floor() - half, k as f64 + x.floor() - half);
                        out.push(
                            pixel(row, column) * (1.0 - fy) * (1.0 - fx)
                                + pixel(row, column + 1.0) * (1.0 - fy) * fx
                                + pixel(row + 1.0, column) * fy * (1.0 - fx)
                                + pixel(row + 1.0, column + 1.0) * fy * fx,
                        );
                    }
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn patches_follow_the_definition(
            height in 1..20_usize, width in 1..20_usize, n in 1..20_usize, channels in 1..17_usize,
            seed in prop::collection::vec(prop_oneof![-30.0..30.0, 0.0..20.0, Just(3.0), Just(1e300), Just(-1e18)], 8..80),
        ) {
            let groups = seed.len() / (2 * channels);
            let positions = &seed[..groups * 2 * channels];
            let pixels = object(height, width);
            let expected = by_definition(&pixels, width, positions, n, channels);
            let mut serial = vec![Complex32::ZERO; expected.len()];
            let view = Object::new(&pixels, height, width).unwrap();
            extract(view, positions, n, channels, &mut serial, 1).unwrap();
            for (found, expected) in serial.iter().zip(&expected) {
                let found = Complex64::new(found.re.into(), found.im.into());
                prop_assert!((found - expected).norm() < 1e-6, "{found} is not {expected}");
            }
            let mut threaded = vec![Complex32::ONE; expected.len()];
            extract(view, positions, n, channels, &mut threaded, 3).unwrap();
            prop_assert_eq!(serial, threaded);
        }

        /// `<extract(O), P> = <O, add(P)>` for every O and P.
        #[test]
        fn adding_is_the_adjoint_of_extracting(
            height in 1..80_usize, width in 1..20_usize, n in 1..12_usize, channels in 1..5_usize,
            seed in prop::collection::vec(prop_oneof![-10.0..90.0, Just(3.0), Just(-1e18)], 8..40),
        ) {
            let groups = seed.len() / (2 * channels);
            let positions = &seed[..groups * 2 * channels];
            let pixels = object(height, width);
            let patches = object(groups * n, n * channels);
            let mut cut = vec![Complex32::ZERO; patches.len()];
            extract(Object::new(&pixels, height, width).unwrap(), positions, n, channels, &mut cut, 1).unwrap();
            let mut sum = vec![Complex32::ZERO; pixels.len()];
            add(&patches, positions, n, channels, &mut sum, width, 1).unwrap();
            let inner = |a: &[Complex32], b: &[Complex32]| -> Complex64 {
                a.iter().zip(b).map(|(a, b)| {
                    Complex64::new(a.re.into(), a.im.into()) * Complex64::new(b.re.into(), -f64::from(b.im))
                }).sum()
            };
            let (left, right) = (inner(&cut, &patches), inner(&pixels, &sum));
            prop_assert!((left - right).norm() < 1e-3 * (1.0 + left.norm()), "{left} is not {right}");
            let mut threaded = vec![Complex32::ZERO; pixels.len()];
            add(&patches, positions, n, channels, &mut threaded, width, 3).unwrap();
            prop_assert_eq!(sum, threaded);
        }
    }

    /// Beyond the caches, in pieces that do not divide the patch.
    #[test]
    fn large_outputs_follow_the_definition() {
        let (n, channels, groups) = (45, 3, 700);
        let pixels = object(60, 70);
        let view = Object::new(&pixels, 60, 70).unwrap();
        let positions: Vec<f64> = (0..groups * 2 * channels)
            .map(|i| -20.0 + (i * 7919 % 10_000) as f64 * 0.01)
            .collect();
        let mut large = vec![Complex32::ONE; groups * n * n * channels];
        assert!(is_staged(&large, channels));
        extract(view, &positions, n, channels, &mut large, 2).unwrap();
        let size = n * n * channels;
        for (positions, large) in positions
            .chunks_exact(2 * channels)
            .zip(large.chunks_exact(size))
        {
            let mut small = vec![Complex32::ONE; size];
            extract(view, positions, n, channels, &mut small, 1).unwrap();
            assert!(!is_staged(&small, channels));
            assert_eq!(small, large);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let pixels = object(4, 4);
        assert!(Object::new(&pixels, 4, 5).is_err());
        let view = Object::new(&pixels, 4, 4).unwrap();
        let mut out = vec![Complex32::ZERO; 4];
        assert!(extract(view, &[1.0, 1.0], 2, 1, &mut out, 1).is_ok());
        assert!(extract(view, &[1.0, f64::NAN], 2, 1, &mut out, 1).is_err());
        assert!(extract(view, &[1.0, 1.0, 1.0], 2, 1, &mut out, 1).is_err());
        assert!(extract(view, &[1.0, 1.0], 3, 1, &mut out, 1).is_err());
        assert!(extract(view, &[1.0, 1.0], 0, 1, &mut [], 1).is_err());
        assert!(extract(view, &[1.0, 1.0], 1 << 30, 1, &mut out, 1).is_err());
    }
}
