//! Large pieces of memory, kept for the next use.
//!
//! The first write to fresh memory costs as much as the work it is for: the
//! system has to find and clear each page.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use bytemuck::{Pod, Zeroable};

use crate::{Error, Result};

/// Memory that nobody uses is kept up to this many bytes: what a draw from a
/// million positions takes.
const MOST_KEPT: usize = 64 << 20;

/// Not for buffers smaller than a page or so.
const LEAST_KEPT: usize = 1 << 14;

static KEPT: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

/// `length` elements that come with arbitrary values, and whose memory is kept
/// for the next buffer.
pub(crate) struct Buffer<T> {
    words: Vec<u64>,
    length: usize,
    elements: std::marker::PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// A buffer for `rows` x `width` elements.
    pub fn new(rows: usize, width: usize) -> Result<Self> {
        let length = rows.saturating_mul(width);
        let needed = length.saturating_mul(size_of::<T>()).div_ceil(8);
        let words = match take(needed) {
            Some(words) => words,
            None => zeros(needed, 1).map_err(|_| out_of_memory::<T>(rows, width))?,
        };
        Ok(Self {
            words,
            length,
            elements: std::marker::PhantomData,
        })
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.length]
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if self.words.len() * 8 < LEAST_KEPT {
            return;
        }
        // Where another thread is at it, or was when this process was forked:
        // then the memory goes back to the system.
        if let Ok(mut kept) = KEPT.try_lock() {
            let bytes: usize = kept.iter().map(|words| 8 * words.len()).sum();
            if bytes + 8 * self.words.len() <= MOST_KEPT {
                kept.push(std::mem::take(&mut self.words));
            }
        }
    }
}

/// The smallest piece kept that is large enough, and not far too large.
fn take(needed: usize) -> Option<Vec<u64>> {
    let mut kept = KEPT.try_lock().ok()?;
    let fits = |words: &Vec<u64>| (needed..=2 * needed).contains(&words.len());
    let best = (0..kept.len())
        .filter(|&i| fits(&kept[i]))
        .min_by_key(|&i| kept[i].len())?;
    Some(kept.swap_remove(best))
}

/// Zeros for `rows` x `width` elements. A count that a user typed may ask for
/// more memory than there is, and that must not end the process.
///
/// The pages come cleared from the system, each when it is first written.
pub(crate) fn zeros<T: Zeroable>(rows: usize, width: usize) -> Result<Vec<T>> {
    let length = rows.saturating_mul(width);
    bytemuck::allocation::try_zeroed_vec(length).map_err(|()| out_of_memory::<T>(rows, width))
}

fn out_of_memory<T>(rows: usize, width: usize) -> Error {
    Error::OutOfMemory {
        rows,
        width,
        bytes: rows.saturating_mul(width).saturating_mul(size_of::<T>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_refused() {
        assert!(matches!(
            zeros::<i32>(1 << 40, 1 << 40),
            Err(Error::OutOfMemory { .. })
        ));
        assert!(Buffer::<f64>::new(1 << 40, 1 << 40).is_err());
        assert_eq!(zeros::<i32>(2, 3).unwrap(), [0; 6]);
    }

    #[test]
    fn memory_is_kept_for_a_buffer_of_another_type() {
        const LENGTH: usize = 98_765;
        let mut floats = Buffer::<f64>::new(LENGTH, 1).unwrap();
        assert_eq!(floats.len(), LENGTH);
        floats.fill(1.5);
        let place = floats.as_ptr() as usize;
        drop(floats);
        // Other tests may be faster to take it: then there is nothing to see.
        let integers = Buffer::<i32>::new(2 * LENGTH - 1, 1).unwrap();
        assert_eq!(integers.len(), 2 * LENGTH - 1);
        if integers.as_ptr() as usize == place {
            assert_eq!(integers[1], (1.5_f64.to_bits() >> 32) as i32);
        }
    }
}
