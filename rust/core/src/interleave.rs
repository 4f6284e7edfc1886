//! Channels last: C arrays of pixels are written as one array of pixels with C
//! channels each, by way of the nearest cache if that is faster.

/// Whether `out` is made in pieces in the nearest cache, and these are copied.
///
/// Stores read a cache line before they overwrite part of it; a copy of whole cache
/// lines does not. That saves a third of the memory traffic if `out` exceeds the
/// caches. With four channels a store is as wide as a cache line, but `out` may
/// begin anywhere, so that stores would cross cache lines.
pub(crate) fn is_staged<T>(out: &[T], channels: usize) -> bool {
    /// About what the caches hold, in bytes.
    const CACHES: usize = 1 << 25;
    channels == 4 || size_of_val(out) > CACHES
}

/// Bytes of such a piece. It shares the nearest cache with what it is made from, often
/// as many arrays as there are channels, whose lines compete for the same places.
pub(crate) const STAGE: usize = 1 << 13;

/// At least as many elements as begin in one cache line.
pub(crate) const LINE: usize = 64;

/// The part of `values` from the first cache line boundary on: a wide store that
/// crosses a boundary costs two.
pub(crate) fn aligned<T>(values: &mut [T]) -> &mut [T] {
    let skipped = values.as_ptr().align_offset(LINE).min(LINE);
    &mut values[skipped..]
}

/// Pixels that are handled together: few enough that their cache lines stay in the
/// nearest cache until all channels are written.
pub(crate) const BLOCK: usize = 64;

/// Fills `out` (P, C): its channel c holds the pixels of `channel(c)`.
#[inline(always)]
pub(crate) fn interleave<'a, T: Copy + 'a, U: Copy + Default>(
    channels: usize,
    channel: impl Fn(usize) -> &'a [T],
    out: &mut [U],
    convert: impl Fn(T) -> U,
) {
    match channels {
        1 => {
            for (value, &a) in out.iter_mut().zip(channel(0)) {
                *value = convert(a);
            }
        }
        4 => {
            let (pixels, _) = out.as_chunks_mut();
            interleave_four([0, 1, 2, 3].map(channel), pixels, convert);
        }
        _ => {
            let mut fours = [[U::default(); 4]; BLOCK];
            let whole = channels - channels % 4;
            for (i, out) in out.chunks_mut(BLOCK * channels).enumerate() {
                let channel = |c: usize| &channel(c)[i * BLOCK..];
                for c in (0..whole).step_by(4) {
                    let four = [c, c + 1, c + 2, c + 3].map(channel);
                    interleave_four(four, &mut fours[..out.len() / channels], &convert);
                    for (pixel, four) in out.chunks_exact_mut(channels).zip(&fours) {
                        pixel[c..c + 4].copy_from_slice(four);
                    }
                }
                for c in whole..channels {
                    for (pixel, &value) in out.chunks_exact_mut(channels).zip(channel(c)) {
                        pixel[c] = convert(value);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn interleave_four<T: Copy, U>(
    [a, b, c, d]: [&[T]; 4],
    out: &mut [[U; 4]],
    convert: impl Fn(T) -> U,
) {
    for ((((pixel, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *pixel = [convert(a), convert(b), convert(c), convert(d)];
    }
}
