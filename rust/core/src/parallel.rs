//! Threads. This is the only file that uses rayon.
//!
//! Work is cut into chunks that do not depend on the number of threads, so results
//! do not depend on it either. Each process has thread pools of its own. rayon's
//! global pool would hang silently in a forked child, and `PyTorch`'s `DataLoader`
//! forks; here a child builds its own pool when it first needs one.

use std::env;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{process, thread};

use rayon::prelude::*;
use rayon::{Scope, ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result, check, memory};

/// Below this many rows, of a few hundred nanoseconds each, waking threads costs
/// more than it saves.
const SERIAL_BELOW: usize = if cfg!(test) { 2 } else { 2048 };

/// No machine has more threads than this; a larger number is a mistake.
const MOST_THREADS: usize = 4096;

/// Bytes of a thread's stack, as in the standard library.
const STACK: usize = 2 << 20;
/// Bytes that the C library may reserve for the allocations of a thread.
const HEAP: usize = 64 << 20;
/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the pool of threads";
/// Bytes beside the stack: guard pages, a stack for signals, queues.
const OVERHEAD: usize = 1 << 17;

/// How many threads to use: as many as asked for, else as the environment variable
/// `PTYCHO_FAST_NUM_THREADS` says, else as the CPU affinity and the cgroup allowed
/// when this was first called.
pub fn threads(asked: Option<usize>) -> Result<usize> {
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    if let Some(threads) = asked {
        check::within("num_threads", threads, 1, MOST_THREADS)?;
        return Ok(threads);
    }
    if let Ok(found) = env::var("PTYCHO_FAST_NUM_THREADS") {
        return match found.trim().parse() {
            Ok(threads @ 1..=MOST_THREADS) => Ok(threads),
            _ => Err(Error::ThreadsVariable { found }),
        };
    }
    // Only once: it reads files, which takes as long as a small draw.
    Ok(*AVAILABLE.get_or_init(|| thread::available_parallelism().map_or(1, usize::from)))
}

/// A thread pool of one process, which lives as long as the process. A forked child
/// inherits the list of pools, but not their threads; it skips those of its parent.
struct ProcessPool {
    process: u32,
    threads: usize,
    workers: ThreadPool,
    next: OnceLock<Box<ProcessPool>>,
}

// A chain of write-once cells rather than a map with a lock: a lock that another
// thread held at the moment of the fork would stay locked in the child forever.
static POOLS: OnceLock<Box<ProcessPool>> = OnceLock::new();

fn pool(threads: usize) -> Result<&'static ThreadPool> {
    let process = process::id();
    let mut cell = &POOLS;
    loop {
        if let Some(found) = cell.get() {
            if found.process == process && found.threads == threads {
                return Ok(&found.workers);
            }
            cell = &found.next;
        } else {
            // A thread that finds no memory when it starts ends the process, and so
            // does handing it work when no memory is left.
            memory::can_have(WHAT, threads * (STACK + OVERHEAD) + memory::SPARE)?;
            let workers = ThreadPoolBuilder::new()
                .num_threads(threads)
                .stack_size(STACK)
                .thread_name(|i| format!("ptycho_fast-{i}"))
                .build()
                .or_else(|reason| {
                    // The system does not say what it lacks: it may be memory.
                    memory::can_have(WHAT, threads * (STACK + HEAP))?;
                    Err(Error::NoThreads {
                        threads,
                        reason: reason.to_string(),
                    })
                })?;
            memory::can_have(WHAT, memory::SPARE)?;
            let fresh = ProcessPool {
                process,
                threads,
                workers,
                next: OnceLock::new(),
            };
            // If another thread was faster, the loop finds the pool that it put there.
            drop(cell.set(Box::new(fresh)));
        }
    }
}

/// How many threads are worth waking for this many rows.
pub(crate) fn worth(rows: usize, threads: usize) -> usize {
    if rows < SERIAL_BELOW { 1 } else { threads }
}

/// Into how many parts to divide work, if each part costs memory: several for each thread.
/// Beside other busy processes a thread may have to wait for a core; meanwhile another
/// thread takes the parts that are left.
pub(crate) fn parts(threads: usize) -> usize {
    if threads == 1 { 1 } else { 4 * threads }
}

/// The first error in work that threads share. Once there is one, no thread begins
/// another part.
#[derive(Default)]
struct Failure(OnceLock<Error>);

impl Failure {
    fn is_none(&self) -> bool {
        self.0.get().is_none()
    }

    fn note(&self, done: Result<()>) {
        if let Err(error) = done {
            drop(self.0.set(error));
        }
    }

    fn into_result(self) -> Result<()> {
        self.0.into_inner().map_or(Ok(()), Err)
    }
}

/// Runs `work` inside a pool of `threads`, for a library that divides its work over
/// the current pool of rayon.
pub fn inside<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    Ok(pool(threads)?.install(work))
}

/// Calls `work_off` on this thread and on as many others of a pool as there are `helpers`.
///
/// The calling thread works too. Waking another takes tens of microseconds, in which it
/// would only wait. If it belongs to the pool, it also does not wait in the end for
/// helpers that have not begun.
fn share(threads: usize, helpers: usize, work_off: impl Fn() + Sync) -> Result<()> {
    fn begin<'scope>(scope: &Scope<'scope>, helpers: usize, work_off: &'scope (impl Fn() + Sync)) {
        for _ in 0..helpers {
            scope.spawn(|_| work_off());
        }
        work_off();
    }
    let pool = pool(threads)?;
    if pool.current_thread_index().is_some() {
        pool.scope(|scope| begin(scope, helpers, &work_off));
    } else {
        pool.in_place_scope(|scope| begin(scope, helpers, &work_off));
    }
    Ok(())
}

/// Runs `work`, which consists of many parts, on a thread of the pool if there are enough
/// rows for more than one thread.
///
/// Otherwise the calling thread would wait for helpers at the end of each part, even for
/// those that have not begun because other processes keep the cores busy.
pub(crate) fn together<R: Send>(
    rows: usize,
    threads: usize,
    work: impl FnOnce() -> Result<R> + Send,
) -> Result<R> {
    match worth(rows, threads) {
        1 => work(),
        threads => inside(threads, work)?,
    }
}

/// Cuts `out` into chunks of `length` elements and calls `work(number, chunk)` for
/// each.
pub fn for_each_chunk<T: Send>(
    out: &mut [T],
    length: usize,
    threads: usize,
    work: impl Fn(usize, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    let length = length.max(1);
    if threads == 1 || out.len() <= length {
        for (i, chunk) in out.chunks_mut(length).enumerate() {
            work(i, chunk)?;
        }
        return Ok(());
    }
    let helpers = threads.min(out.len().div_ceil(length)) - 1;
    let chunks = Mutex::new(out.chunks_mut(length).enumerate());
    let take = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let failure = Failure::default();
    let work_off = || {
        while failure.is_none()
            && let Some((i, chunk)) = take()
        {
            failure.note(work(i, chunk));
        }
    };
    share(threads, helpers, work_off)?;
    failure.into_result()
}

/// Calls `work` once for each number in `0..count`.
pub fn for_each(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<()> + Sync,
) -> Result<()> {
    if threads == 1 || count <= 1 {
        return (0..count).try_for_each(work);
    }
    let next = AtomicUsize::new(0);
    let failure = Failure::default();
    let work_off = || {
        while failure.is_none() {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            failure.note(work(i));
        }
    };
    share(threads, threads.min(count) - 1, work_off)?;
    failure.into_result()
}

/// A value that the first thread that needs it makes, for all threads. An error is
/// not kept: the next thread tries again.
pub(crate) struct Lazy<T> {
    made: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self {
            made: OnceLock::new(),
            making: Mutex::new(()),
        }
    }
}

impl<T> Lazy<T> {
    /// The value; calls `make` if there is none yet. `make` must not wait for other
    /// threads, because these may be waiting here.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = make()?;
        Ok(self.made.get_or_init(|| made))
    }

    /// The value, if it has been made.
    pub fn found(&self) -> Option<&T> {
        self.made.get()
    }
}

/// Computes rows of `width` numbers in the given `order`, and returns them sorted by
/// row.
///
/// `order` holds each number of `0..order.len()` once. It should be such that
/// successive rows touch the same memory. `scratch` makes what a thread reuses from
/// row to row.
pub fn rows_in_order<S>(
    order: &[u32],
    width: usize,
    threads: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(u32, &mut S, &mut [i32]) -> Result<()> + Sync,
) -> Result<Vec<i32>> {
    const ROWS_PER_CHUNK: usize = 256;
    let mut visited = memory::zeros::<i32>(order.len(), width)?;
    let threads = worth(order.len(), threads);
    for_each_chunk(
        &mut visited,
        ROWS_PER_CHUNK * width,
        threads,
        |chunk, rows| {
            let mut scratch = scratch();
            let order = &order[chunk * ROWS_PER_CHUNK..];
            for (&row, out) in order.iter().zip(rows.chunks_exact_mut(width.max(1))) {
                work(row, &mut scratch, out)?;
            }
            Ok(())
        },
    )?;
    let mut rows = memory::zeros::<i32>(order.len(), width)?;
    for (&row, values) in order.iter().zip(visited.chunks_exact(width.max(1))) {
        rows[row as usize * width..][..width].copy_from_slice(values);
    }
    Ok(rows)
}

/// Sorts, in parallel if that pays.
pub fn sort<T: Ord + Send>(items: &mut [T], threads: usize) -> Result<()> {
    if threads == 1 || items.len() < 16 * SERIAL_BELOW {
        items.sort_unstable();
    } else {
        pool(threads)?.install(|| items.par_sort_unstable());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_the_threads_asked_for_and_is_reused() {
        let three = pool(3).unwrap();
        assert_eq!(three.current_num_threads(), 3);
        assert!(std::ptr::eq(three, pool(3).unwrap()));
        assert_eq!(pool(2).unwrap().current_num_threads(), 2);
        assert!(threads(Some(0)).is_err());
    }

    #[test]
    fn parts_on_a_thread_of_the_pool_are_each_done_once() {
        for (rows, threads) in [(1, 3), (100, 1), (100, 3)] {
            let done: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            let refusal = together(rows, threads, || {
                for_each(50, threads, |i| {
                    done[i].fetch_add(1, Ordering::Relaxed);
                    Ok(())
                })?;
                for_each(3, threads, |_| Err(Error::EmptyScan))
            });
            assert_eq!(refusal, Err(Error::EmptyScan));
            assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn errors_are_returned_and_lazy_values_are_tried_again() {
        let refused = || Err(Error::EmptyScan);
        for threads in [1, 3] {
            let done = for_each(100, threads, |i| if i == 57 { refused() } else { Ok(()) });
            assert_eq!(done, Err(Error::EmptyScan));
            let done = for_each_chunk(&mut [0; 100], 7, threads, |i, _| match i {
                5 => refused(),
                _ => Ok(()),
            });
            assert_eq!(done, Err(Error::EmptyScan));
        }
        let lazy = Lazy::default();
        assert_eq!(lazy.get(|| Err(Error::EmptyScan)), Err(Error::EmptyScan));
        assert_eq!(lazy.found(), None);
        assert_eq!(lazy.get(|| Ok(3)), Ok(&3));
        assert_eq!(lazy.get(|| Ok(4)), Ok(&3));
    }

    #[test]
    fn the_number_of_threads_does_not_affect_rows() {
        let order: Vec<u32> = (0..1000).rev().collect();
        let rows = |threads| {
            rows_in_order(
                &order,
                3,
                threads,
                || (),
                |row, (), out| {
                    out.copy_from_slice(&[row as i32, 2 * row as i32, 7]);
                    Ok(())
                },
            )
            .unwrap()
        };
        let expected: Vec<i32> = (0..1000).flat_map(|row| [row, 2 * row, 7]).collect();
        assert_eq!(rows(1), expected);
        assert_eq!(rows(2), expected);
        assert_eq!(rows(8), expected);
    }
}
