//! The diffraction patterns of groups, gathered channels last in one pass.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` gets its instructions"
)]

use pulp::{Simd, WithSimd};

use crate::interleave::{BLOCK, LINE, STAGE, aligned, interleave, is_staged};
use crate::{Result, check, memory, parallel, simd};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the diffraction patterns of groups";

/// Gathers patterns of `stack` (n, P) into `out` (B, P, C): pattern `indices[b, c]`
/// becomes channel c of group b. Its values are converted by `convert(b)`, and are 0
/// where `mask` (P) is false.
///
/// P is the number of pixels of a pattern, `indices` is (B, C). With C = 1 the
/// patterns follow one another, which is channels first.
pub fn gather<T, U, F>(
    stack: Stack<'_, T>,
    mask: Option<&[bool]>,
    indices: &[i32],
    channels: usize,
    out: &mut [U],
    convert: impl Fn(usize) -> F + Sync,
    threads: usize,
) -> Result<()>
where
    T: Copy + Sync,
    U: Copy + Default + Send,
    F: Fn(T) -> U,
{
    let pixels = stack.pixels;
    stack.check(indices, channels, out.len())?;
    if let Some(mask) = mask {
        check::length("mask", mask.len(), pixels, "one for each pixel")?;
    }
    let mut dead = memory::room(WHAT, mask.map_or(0, count_dead))?;
    if let Some(mask) = mask {
        dead.extend((0..pixels).filter(|&p| !mask[p]));
    }
    simd::name()?; // an error in PTYCHO_FAST_SIMD is found here, before threads start
    let staged = is_staged(out, channels);
    parallel::for_each_chunk(out, pixels * channels, threads, |b, out| {
        let patterns = stack.patterns(&indices[b * channels..][..channels])?;
        fill(&patterns, out, convert(b), staged)?;
        for &p in &dead {
            out[p * channels..][..channels].fill(U::default());
        }
        Ok(())
    })
}

fn count_dead(mask: &[bool]) -> usize {
    mask.iter().filter(|&&good| !good).count()
}

/// Gathers patterns unchanged into `out`, and converted into `converted`, while they
/// are in the cache.
pub fn gather_twice<T, U>(
    stack: Stack<'_, T>,
    indices: &[i32],
    channels: usize,
    out: &mut [T],
    converted: &mut [U],
    convert: impl Fn(T) -> U + Sync,
    threads: usize,
) -> Result<()>
where
    T: Copy + Default + Send + Sync,
    U: Copy + Default + Send,
{
    stack.check(indices, channels, out.len())?;
    stack.check(indices, channels, converted.len())?;
    simd::name()?;
    let staged = [is_staged(out, channels), is_staged(converted, channels)];
    let size = stack.pixels * channels;
    let both = out.chunks_mut(size).zip(converted.chunks_mut(size));
    let mut groups = memory::collect(WHAT, both.zip(indices.chunks(channels)))?;
    parallel::for_each_chunk(&mut groups, 1, threads, |_, groups| {
        for ((out, converted), group) in groups {
            let patterns = stack.patterns(group)?;
            fill(&patterns, out, |value| value, staged[0])?;
            fill(&patterns, converted, &convert, staged[1])?;
        }
        Ok(())
    })
}

/// Diffraction patterns of `pixels` values each, one after another.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a, T> {
    values: &'a [T],
    pixels: usize,
}

impl<'a, T> Stack<'a, T> {
    /// A stack of patterns of `pixels` values.
    pub fn new(values: &'a [T], pixels: usize) -> Result<Self> {
        check::within("pixels", pixels, 1, usize::MAX)?;
        let whole = values.len() / pixels * pixels;
        check::length(
            "diffraction",
            values.len(),
            whole,
            "whole diffraction patterns",
        )?;
        Ok(Self { values, pixels })
    }

    /// Checks that indices and an output of so many elements fit the stack.
    fn check(&self, indices: &[i32], channels: usize, out: usize) -> Result<()> {
        check::within("channels", channels, 1, usize::MAX)?;
        let groups = indices.len() / channels;
        check::length(
            "indices",
            indices.len(),
            groups * channels,
            "a multiple of C, for shape (B, C)",
        )?;
        let expected = indices.len().saturating_mul(self.pixels);
        check::length("out", out, expected, "shape (B, N, N, C)")?;
        check::indices("indices", indices, self.values.len() / self.pixels)
    }

    fn patterns(&self, group: &[i32]) -> Result<Vec<&'a [T]>> {
        let pattern = |&i: &i32| &self.values[i as usize * self.pixels..][..self.pixels];
        memory::collect(WHAT, group.iter().map(pattern))
    }
}

fn fill<T: Copy, U: Copy + Default>(
    patterns: &[&[T]],
    out: &mut [U],
    convert: impl Fn(T) -> U,
    staged: bool,
) -> Result<()> {
    let group = FillGroup {
        patterns,
        out,
        convert,
        staged,
    };
    simd::run(group)?
}

/// The kernel: patterns become the channels of a group.
struct FillGroup<'a, T, U, F> {
    patterns: &'a [&'a [T]],
    out: &'a mut [U],
    convert: F,
    staged: bool,
}

impl<T: Copy, U: Copy + Default, F: Fn(T) -> U> WithSimd for FillGroup<'_, T, U, F> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<()> {
        let Self {
            patterns,
            out,
            convert,
            staged,
        } = self;
        let channels = patterns.len();
        if !staged {
            interleave(channels, |c| patterns[c], out, &convert);
            return Ok(());
        }
        // Whole blocks, so that a cache line of a pattern is read once.
        let block = (STAGE / size_of::<U>() / channels / BLOCK).max(1) * BLOCK;
        let mut stage = memory::repeat(WHAT, &U::default(), block * channels + LINE)?;
        let stage = aligned(&mut stage);
        for (i, out) in out.chunks_mut(block * channels).enumerate() {
            let stage = &mut stage[..out.len()];
            interleave(channels, |c| &patterns[c][i * block..], stage, &convert);
            out.copy_from_slice(stage);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Element `[b, p, c]` of the definition.
    fn source(stack: &[u16], pixels: usize, group: &[i32], p: usize, c: usize) -> u16 {
        stack[group[c] as usize * pixels + p]
    }

    proptest! {
        #[test]
        fn channels_hold_the_patterns(
            pixels in 1..200_usize, n in 1..20_i32, channels in 1..17_usize,
            seed in prop::collection::vec(0..1000_i32, 0..60), dead in 1..50_usize,
        ) {
            let stack: Vec<u16> = (0..n as usize * pixels).map(|i| (i * 7919 % 65536) as u16).collect();
            let groups = seed.len() / channels;
            let indices: Vec<i32> = seed[..groups * channels].iter().map(|i| i % n).collect();
            let mask: Vec<bool> = (0..pixels).map(|p| p % dead != 0).collect();
            let whole = Stack::new(&stack, pixels).unwrap();
            for threads in [1, 3] {
                let mut out = vec![f64::NAN; indices.len() * pixels];
                let convert = |b: usize| move |v: u16| b as f64 + 2.0 * f64::from(v);
                let mut masked = out.clone();
                gather(whole, None, &indices, channels, &mut out, convert, threads).unwrap();
                gather(whole, Some(&mask), &indices, channels, &mut masked, convert, threads).unwrap();
                let mut twice = (vec![7; out.len()], vec![f32::NAN; out.len()]);
                gather_twice(whole, &indices, channels, &mut twice.0, &mut twice.1, f32::from, threads).unwrap();
                for (b, group) in indices.chunks_exact(channels).enumerate() {
                    for (p, &good) in mask.iter().enumerate() {
                        for c in 0..channels {
                            let at = (b * pixels + p) * channels + c;
                            let value = source(&stack, pixels, group, p, c);
                            prop_assert_eq!(out[at], convert(b)(value));
                            prop_assert_eq!(masked[at], if good { out[at] } else { 0.0 });
                            prop_assert_eq!(twice.0[at], value);
                            prop_assert_eq!(twice.1[at], f32::from(value));
                        }
                    }
                }
            }
        }

        /// What lies around the output stays as it was, and so does all of it
        /// where an index, or a length, is wrong.
        #[test]
        fn nothing_is_written_outside(
            pixels in 1..9_usize, n in 1..5_i32, channels in 1..7_usize, before in 0..5_usize,
            indices in prop::collection::vec(-2..6_i32, 0..20), length in 0..400_usize,
        ) {
            let stack: Vec<u16> = vec![1; n as usize * pixels];
            let whole = Stack::new(&stack, pixels).unwrap();
            let expected = indices.len() * pixels;
            for length in [length, expected] {
                let mut memory = vec![7_u16; before + length + 5];
                let out = &mut memory[before..][..length];
                let as_is = |_| |v| v;
                let done = gather(whole, None, &indices, channels, out, as_is, 2);
                let valid = length == expected
                    && indices.len() % channels == 0
                    && indices.iter().all(|i| (0..n).contains(i));
                prop_assert_eq!(done.is_ok(), valid);
                let inside = before..before + length;
                for (i, value) in memory.iter().enumerate() {
                    prop_assert_eq!(*value, if valid && inside.contains(&i) { 1 } else { 7 });
                }
            }
        }
    }

    /// An output beyond the caches, in pieces that do not divide the pattern.
    #[test]
    fn large_outputs_follow_the_definition() {
        let (pixels, channels) = (101 * 101, 6);
        let stack: Vec<u16> = (0..7 * pixels).map(|i| (i * 7919 % 65536) as u16).collect();
        let indices: Vec<i32> = (0..280 * channels as i32).map(|i| i * i % 7).collect();
        let mut out = vec![7; indices.len() * pixels];
        assert!(is_staged(&out, channels));
        let whole = Stack::new(&stack, pixels).unwrap();
        gather(whole, None, &indices, channels, &mut out, |_| |v| v, 2).unwrap();
        let groups = out.chunks_exact(pixels * channels);
        for (out, group) in groups.zip(indices.chunks_exact(channels)) {
            for (p, pixel) in out.chunks_exact(channels).enumerate() {
                for (c, &value) in pixel.iter().enumerate() {
                    assert_eq!(value, source(&stack, pixels, group, p, c));
                }
            }
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let stack = [0.0_f32; 12];
        assert!(Stack::new(&stack, 5).is_err());
        assert!(Stack::new(&stack, 0).is_err());
        let stack = Stack::new(&stack, 4).unwrap();
        let mut out = [0.0_f32; 8];
        let as_is = |_| |v| v;
        assert!(gather(stack, None, &[0, 2], 2, &mut out, as_is, 1).is_ok());
        assert!(gather(stack, None, &[0, 3], 2, &mut out, as_is, 1).is_err());
        assert!(gather(stack, None, &[0, -1], 2, &mut out, as_is, 1).is_err());
        assert!(gather(stack, None, &[0, 1, 2], 2, &mut out, as_is, 1).is_err());
        assert!(gather(stack, None, &[0], 1, &mut out, as_is, 1).is_err());
        assert!(gather(stack, None, &[0, 2], 0, &mut out, as_is, 1).is_err());
        assert!(gather(stack, Some(&[true; 5]), &[0, 2], 2, &mut out, as_is, 1).is_err());
        let mut short = [0.0_f32; 4];
        assert!(gather_twice(stack, &[0, 2], 2, &mut out, &mut short, |v| v, 1).is_err());
        assert!(gather_twice(stack, &[0, 2], 2, &mut short, &mut out, |v| v, 1).is_err());
    }
}
