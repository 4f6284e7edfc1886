//! Arrays that several threads fill at the same time, each thread its own elements.
//!
//! Elements are written as relaxed atomics, which compile to plain stores. If two
//! threads ever wrote the same element by mistake, it would hold one of the two
//! values: a wrong number, but not undefined behaviour.
#![expect(
    unsafe_code,
    reason = "from_mut_slice of the standard library's atomics is not stable"
)]

use std::sync::atomic::{AtomicU32, AtomicU64};

use bytemuck::Pod;

/// Elements of four bytes as atomics that hold their bits.
pub fn words<T: Pod>(items: &mut [T]) -> &[AtomicU32] {
    let words: &mut [u32] = bytemuck::cast_slice_mut(items);
    // SAFETY: an AtomicU32 has the size, the validity and (on the 64-bit
    // platforms this crate serves, asserted below) the alignment of a u32, and
    // the exclusive borrow lasts as long as the result.
    // Guarded by the test of this file.
    unsafe { &*(std::ptr::from_mut(words) as *const [AtomicU32]) }
}

/// Elements of eight bytes as atomics that hold their bits.
pub fn long_words<T: Pod>(items: &mut [T]) -> &[AtomicU64] {
    let words: &mut [u64] = bytemuck::cast_slice_mut(items);
    // SAFETY: as above, of u64.
    unsafe { &*(std::ptr::from_mut(words) as *const [AtomicU64]) }
}

const _: () = assert!(
    align_of::<AtomicU32>() == align_of::<u32>() && align_of::<AtomicU64>() == align_of::<u64>()
);

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn threads_fill_one_array() {
        let mut signed = vec![0_i32; 1000];
        let mut floats = vec![0.0_f64; 1000];
        let (shared, long) = (words(&mut signed), long_words(&mut floats));
        std::thread::scope(|scope| {
            for start in 0..2 {
                scope.spawn(move || {
                    for i in (start..1000).step_by(2) {
                        shared[i].store((-(i as i32)) as u32, Relaxed);
                        long[i].store((i as f64 / 3.0).to_bits(), Relaxed);
                    }
                });
            }
        });
        assert!(signed.iter().copied().eq((0..1000).map(|i: i32| -i)));
        assert!(
            floats
                .iter()
                .copied()
                .eq((0..1000).map(|i| f64::from(i) / 3.0))
        );
    }
}
