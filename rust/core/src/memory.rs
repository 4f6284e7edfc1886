//! Allocation that can fail with an error, and reuse of large buffers.
//!
//! Memory that grows with the input may exceed what the machine has, or what a
//! limit allows. That must raise an error with a sentence, not end the process. So
//! the core allocates such memory with the functions of this file. The usual ways
//! end the process when they fail; `clippy.toml` forbids them. A large allocation
//! also has to leave some memory for the small allocations that cannot fail
//! gracefully (boxes, exceptions).
//!
//! Large buffers are kept for the next use, because the first write to new memory
//! costs page faults: the operating system has to find and clear every page, which
//! takes as long as the computation whose result is written.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytemuck::{Pod, Zeroable};

use crate::hints::ask_for_huge;
use crate::{Error, Result};

/// At most this many bytes of unused buffers are kept: about what a draw from a
/// million positions takes.
const MOST_KEPT: usize = 64 << 20;

/// Buffers of fewer bytes are not kept: they cost few page faults.
const LEAST_KEPT: usize = 1 << 14;

/// Whenever this many bytes have been allocated, at once or in pieces, it is
/// checked that [`SPARE`] bytes are left.
const LARGE: usize = 1 << 20;

/// Bytes that must be left for allocations that cannot fail gracefully: boxes of
/// the thread pool, exceptions.
pub(crate) const SPARE: usize = 4 << 20;

/// Bytes that were allocated since that was last checked.
static ASKED: AtomicUsize = AtomicUsize::new(0);

static KEPT: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

/// An array of `length` elements with arbitrary initial values. Its memory is kept
/// for the next buffer.
pub(crate) struct Buffer<T> {
    words: Vec<u64>,
    length: usize,
    elements: std::marker::PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// A buffer of `rows` times `width` elements; `what` names them in an error.
    pub fn new(what: &'static str, rows: usize, width: usize) -> Result<Self> {
        let length = rows.saturating_mul(width);
        let needed = length.saturating_mul(size_of::<T>()).div_ceil(8);
        let words = match take(needed) {
            Some(words) => words,
            None => zeroed(needed).ok_or_else(|| no_memory::<u64>(what, needed))?,
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
        // The lock is taken if another thread is here now, or was when this
        // process was forked. Then the memory goes back to the system.
        if let Ok(mut kept) = KEPT.try_lock() {
            let bytes: usize = kept.iter().map(|words| 8 * words.len()).sum();
            if bytes + 8 * self.words.len() <= MOST_KEPT && kept.try_reserve(1).is_ok() {
                kept.push(std::mem::take(&mut self.words));
            }
        }
    }
}

/// The smallest of the kept buffers that is large enough, but not more than twice
/// as large as needed.
fn take(needed: usize) -> Option<Vec<u64>> {
    let mut kept = KEPT.try_lock().ok()?;
    let fits = |words: &Vec<u64>| (needed..=2 * needed).contains(&words.len());
    let best = (0..kept.len())
        .filter(|&i| fits(&kept[i]))
        .min_by_key(|&i| kept[i].len())?;
    Some(kept.swap_remove(best))
}

/// Zeros for a result of `rows` times `width` elements. A number that a user typed
/// may ask for more memory than there is.
pub(crate) fn zeros<T: Zeroable>(rows: usize, width: usize) -> Result<Vec<T>> {
    let length = rows.saturating_mul(width);
    zeroed(length).ok_or_else(|| Error::OutOfMemory {
        rows,
        width,
        bytes: length.saturating_mul(size_of::<T>()),
    })
}

/// Zeros for what is needed beside the result.
pub(crate) fn cleared<T: Zeroable>(what: &'static str, length: usize) -> Result<Vec<T>> {
    zeroed(length).ok_or_else(|| no_memory::<T>(what, length))
}

/// An empty vector with room for `length` elements.
pub(crate) fn room<T>(what: &'static str, length: usize) -> Result<Vec<T>> {
    let mut items = Vec::new();
    make_room(what, &mut items, length)?;
    Ok(items)
}

/// The items of an iterator that knows how many it has.
pub(crate) fn collect<T>(
    what: &'static str,
    items: impl ExactSizeIterator<Item = T>,
) -> Result<Vec<T>> {
    let mut collected = room(what, items.len())?;
    collected.extend(items);
    Ok(collected)
}

/// A copy of some items.
pub(crate) fn copy<T: Copy>(what: &'static str, items: &[T]) -> Result<Vec<T>> {
    collect(what, items.iter().copied())
}

/// The same element `length` times.
pub(crate) fn repeat<T: Clone>(what: &'static str, item: &T, length: usize) -> Result<Vec<T>> {
    collect(what, (0..length).map(|_| item.clone()))
}

/// Replaces what `target` holds by `items`.
pub(crate) fn replace<T: Copy>(what: &'static str, target: &mut Vec<T>, items: &[T]) -> Result<()> {
    target.clear();
    make_room(what, target, items.len())?;
    target.extend(items);
    Ok(())
}

/// Changes the length of `target`; new elements are `item`.
pub(crate) fn resize<T: Clone>(
    what: &'static str,
    target: &mut Vec<T>,
    length: usize,
    item: T,
) -> Result<()> {
    let more = length.saturating_sub(target.len());
    make_room(what, target, more)?;
    target.truncate(length);
    target.extend(std::iter::repeat_n(item, more));
    Ok(())
}

/// Appends one item.
#[inline]
pub(crate) fn push<T>(what: &'static str, target: &mut Vec<T>, item: T) -> Result<()> {
    if target.len() == target.capacity() {
        // Doubles the room, as a vector does.
        make_room(what, target, target.len().max(16))?;
    }
    target.push(item);
    Ok(())
}

/// Makes room for `more` elements.
pub(crate) fn make_room<T>(what: &'static str, target: &mut Vec<T>, more: usize) -> Result<()> {
    if target.capacity() - target.len() >= more {
        return Ok(());
    }
    let length = target.len().saturating_add(more);
    let bytes = length.saturating_mul(size_of::<T>());
    let refused = |()| no_memory::<T>(what, length);
    with_spare(bytes, || target.try_reserve_exact(more).map_err(|_| ())).map_err(refused)?;
    ask_for_huge(target.spare_capacity_mut());
    Ok(())
}

/// Checks that so many bytes can be allocated, for a library that would end the
/// process if they cannot.
pub(crate) fn can_have(what: &'static str, bytes: usize) -> Result<()> {
    // black_box, or the compiler would leave the allocation out.
    room::<u8>(what, bytes).map(|bytes| drop(black_box(bytes)))
}

/// Zeros. The system clears each page when it is first written.
fn zeroed<T: Zeroable>(length: usize) -> Option<Vec<T>> {
    let bytes = length.saturating_mul(size_of::<T>());
    let mut zeros = with_spare(bytes, || bytemuck::allocation::try_zeroed_vec(length)).ok()?;
    ask_for_huge(&mut zeros);
    Some(zeros)
}

/// Allocates. If that fails, frees the kept buffers and tries once more. An
/// allocation after which [`SPARE`] bytes are not left is given back.
fn with_spare<T>(
    bytes: usize,
    mut allocate: impl FnMut() -> std::result::Result<T, ()>,
) -> std::result::Result<T, ()> {
    let mut attempt = || {
        let found = allocate()?;
        if ASKED.fetch_add(bytes, Relaxed) >= LARGE - bytes.min(LARGE) {
            let mut spare = Vec::<u8>::new();
            spare.try_reserve_exact(SPARE).map_err(|_| ())?;
            drop(black_box(spare)); // as in can_have
            ASKED.store(0, Relaxed);
        }
        Ok(found)
    };
    attempt().or_else(|()| {
        if let Ok(mut kept) = KEPT.try_lock() {
            kept.clear();
        }
        attempt()
    })
}

fn no_memory<T>(what: &'static str, length: usize) -> Error {
    Error::NoMemory {
        what,
        bytes: length.saturating_mul(size_of::<T>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_large_an_allocation_is_refused() {
        assert!(matches!(
            zeros::<i32>(1 << 40, 1 << 40),
            Err(Error::OutOfMemory { .. })
        ));
        assert!(Buffer::<f64>::new("A test", 1 << 40, 1 << 40).is_err());
        assert_eq!(zeros::<i32>(2, 3).unwrap(), [0; 6]);
        let refused = Error::NoMemory {
            what: "A test",
            bytes: 1 << 62,
        };
        assert_eq!(room::<u16>("A test", 1 << 61), Err(refused.clone()));
        assert_eq!(can_have("A test", 1 << 62), Err(refused));
        let mut grown = vec![1_u8, 2];
        assert!(make_room("A test", &mut grown, usize::MAX).is_err());
        assert!(resize("A test", &mut grown, usize::MAX / 2, 0).is_err());
        assert_eq!(grown, [1, 2]);
    }

    #[test]
    fn vectors_hold_what_they_should() {
        let mut items = copy("A test", &[3, 1, 2]).unwrap();
        push("A test", &mut items, 7).unwrap();
        assert_eq!(items, [3, 1, 2, 7]);
        resize("A test", &mut items, 6, 9).unwrap();
        assert_eq!(items, [3, 1, 2, 7, 9, 9]);
        resize("A test", &mut items, 2, 9).unwrap();
        assert_eq!(items, [3, 1]);
        replace("A test", &mut items, &[5]).unwrap();
        assert_eq!(items, [5]);
        assert_eq!(repeat("A test", &"a", 2).unwrap(), ["a", "a"]);
        assert_eq!(cleared::<u64>("A test", 3).unwrap(), [0; 3]);
    }

    #[test]
    fn memory_is_kept_for_a_buffer_of_another_type() {
        const LENGTH: usize = 98_765;
        let mut floats = Buffer::<f64>::new("A test", LENGTH, 1).unwrap();
        assert_eq!(floats.len(), LENGTH);
        floats.fill(1.5);
        let place = floats.as_ptr() as usize;
        drop(floats);
        // Other tests may be faster to take it: then there is nothing to see.
        let integers = Buffer::<i32>::new("A test", 2 * LENGTH - 1, 1).unwrap();
        assert_eq!(integers.len(), 2 * LENGTH - 1);
        if integers.as_ptr() as usize == place {
            assert_eq!(integers[1], (1.5_f64.to_bits() >> 32) as i32);
        }
    }
}
