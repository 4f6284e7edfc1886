//! The patterns of groups, channels last, in one pass.

use crate::{Result, check, parallel};

/// Copies `stack` (n, P) into `out` (B, P, C): pattern `indices[b, c]` becomes
/// channel c of group b, its pixel p through `convert(b)(p, value)`.
///
/// P is the number of pixels of a pattern; `indices` is (B, C). With C = 1 and
/// the indices in one column the patterns follow one another: channels first.
pub fn gather<T, U, F>(
    stack: &[T],
    pixels: usize,
    indices: &[i32],
    channels: usize,
    out: &mut [U],
    convert: impl Fn(usize) -> F + Sync,
    threads: usize,
) -> Result<()>
where
    T: Copy + Sync,
    U: Send,
    F: Fn(usize, T) -> U,
{
    check::within("pixels", pixels, 1, usize::MAX)?;
    check::within("channels", channels, 1, usize::MAX)?;
    let n = stack.len() / pixels;
    check::length("diffraction", stack.len(), n * pixels, "whole patterns")?;
    let groups = indices.len() / channels;
    check::length("indices", indices.len(), groups * channels, "(B, C)")?;
    let expected = indices.len().saturating_mul(pixels);
    check::length("out", out.len(), expected, "(B, N, N, C)")?;
    check::indices("indices", indices, n)?;
    parallel::for_each_chunk(out, pixels * channels, threads, |b, out| {
        let group = &indices[b * channels..][..channels];
        let pattern = |c: usize| &stack[group[c] as usize * pixels..][..pixels];
        let convert = convert(b);
        match channels {
            1 => interleave([0].map(pattern), out, &convert),
            4 => interleave([0, 1, 2, 3].map(pattern), out, &convert),
            _ => {
                for c in 0..channels {
                    let channel = out[c..].iter_mut().step_by(channels);
                    for (p, (value, &source)) in channel.zip(pattern(c)).enumerate() {
                        *value = convert(p, source);
                    }
                }
            }
        }
    })
}

/// All channels of a pixel at once, so that each cache line of `out` is
/// written once.
fn interleave<const C: usize, T: Copy, U>(
    patterns: [&[T]; C],
    out: &mut [U],
    convert: impl Fn(usize, T) -> U,
) {
    for (p, pixel) in out.chunks_exact_mut(C).enumerate() {
        for c in 0..C {
            pixel[c] = convert(p, patterns[c][p]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn channels_are_the_patterns(
            pixels in 1..40_usize, n in 1..20_i32, channels in 1..11_usize,
            seed in prop::collection::vec(0..1000_i32, 0..60),
        ) {
            let stack: Vec<u16> = (0..n as usize * pixels).map(|i| (i * 7919 % 65536) as u16).collect();
            let groups = seed.len() / channels;
            let indices: Vec<i32> = seed[..groups * channels].iter().map(|i| i % n).collect();
            for threads in [1, 3] {
                let mut out = vec![0.0_f32; indices.len() * pixels];
                let convert = |b: usize| move |p: usize, v: u16| b as f32 + p as f32 * f32::from(v);
                gather(&stack, pixels, &indices, channels, &mut out, convert, threads).unwrap();
                for b in 0..groups {
                    for p in 0..pixels {
                        for c in 0..channels {
                            let source = stack[indices[b * channels + c] as usize * pixels + p];
                            prop_assert_eq!(out[(b * pixels + p) * channels + c], b as f32 + p as f32 * f32::from(source));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let stack = [0.0_f32; 12];
        let mut out = [0.0_f32; 8];
        let as_is = |_| |_, v| v;
        assert!(gather(&stack, 4, &[0, 2], 2, &mut out, as_is, 1).is_ok());
        assert!(gather(&stack, 4, &[0, 3], 2, &mut out, as_is, 1).is_err());
        assert!(gather(&stack, 4, &[0, -1], 2, &mut out, as_is, 1).is_err());
        assert!(gather(&stack, 5, &[0, 1], 2, &mut out, as_is, 1).is_err());
        assert!(gather(&stack, 4, &[0, 1, 2], 2, &mut out, as_is, 1).is_err());
        assert!(gather(&stack, 4, &[0], 1, &mut out, as_is, 1).is_err());
        assert!(gather(&stack, 0, &[], 1, &mut out, as_is, 1).is_err());
    }
}
