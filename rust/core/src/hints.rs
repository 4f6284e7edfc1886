//! Hints to the processor and the system. They change how long a computation waits for
//! memory, and nothing else.
#![expect(
    unsafe_code,
    reason = "prefetching is unsafe in the standard library, and no library asks for huge pages"
)]

/// Asks for an element that is read or written soon: it comes to the cache while the thread
/// does something else. An index beyond the end asks for nothing.
#[inline(always)]
pub(crate) fn fetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(item) = items.get(index) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: this only affects what the cache holds, and is allowed for any address.
        // Guarded by the test of this file.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(item).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}

/// Bytes of a huge page on most machines.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// Asks for huge pages behind `items`, best before they are first written.
///
/// The processor keeps the places of a few thousand pages at hand. Pages of 4 KiB cover a few
/// MiB, and a random access to anything else first has to look up its page; in a virtual
/// machine this can take longer than the access itself. Linux has pages of 2 MiB, mostly
/// for programs that ask for them.
#[cfg(target_os = "linux")]
pub(crate) fn ask_for_huge<T>(items: &mut [T]) {
    let bytes = size_of_val(items);
    let start = items.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(HUGE);
    if skipped.saturating_add(HUGE) > bytes {
        return;
    }
    let length = (bytes - skipped) / HUGE * HUGE;
    // SAFETY: the range lies within `items`, which are borrowed exclusively, and this advice
    // changes neither what memory holds nor how it may be used. It may be refused.
    // Guarded by the test of this file.
    unsafe {
        libc::madvise(start.add(skipped).cast(), length, libc::MADV_HUGEPAGE);
    }
}

/// Other systems have no such advice.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ask_for_huge<T>(_: &mut [T]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_what_they_are() {
        for length in [0, 1, 1000, 300_000, 2_000_000] {
            let mut items: Vec<u64> = (0..length).collect();
            for index in [0, items.len() / 2, items.len(), usize::MAX] {
                fetch(&items, index);
            }
            ask_for_huge(&mut items);
            // A part of an array begins and ends anywhere.
            let end = items.len();
            ask_for_huge(&mut items[end.min(7)..]);
            assert!(items.iter().copied().eq(0..length));
            items.push(7);
            assert!(items.into_iter().eq((0..length).chain([7])));
        }
    }
}
