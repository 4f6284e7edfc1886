//! The smallest of many random words, in order: this samples centres and shuffles
//! epochs.

use std::sync::atomic::Ordering::Relaxed;

use crate::memory::{self, Buffer};
use crate::philox::{Key, Stage};
use crate::{Result, parallel, shared};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the order of random words";

/// Keys that are sorted at a time: few enough for the first-level cache.
const KEYS_PER_BUCKET: usize = 256;

/// The random words of a stage: number i has word `i % 4` of block `1 + i / 4`.
#[derive(Clone, Copy)]
struct Words {
    key: Key,
    stage: Stage,
}

impl Words {
    fn of(self, number: usize) -> u64 {
        self.key.block(self.stage, 0, 1 + (number / 4) as u64)[number % 4]
    }

    /// Calls `take(word, number)` for a range of numbers, which starts at a multiple of
    /// 4.
    fn each(self, numbers: std::ops::Range<usize>, mut take: impl FnMut(u64, usize)) {
        for first in numbers.clone().step_by(4) {
            let words = self.key.block(self.stage, 0, 1 + (first / 4) as u64);
            for (word, number) in words.into_iter().zip(first..numbers.end) {
                take(word, number);
            }
        }
    }
}

/// The `m` numbers of `0..n` with the smallest (word, number), in that order.
///
/// Only words below a limit are kept, which is chosen so that slightly more than `m`
/// remain. If these are few, they are collected and sorted. If they are many, the words
/// are computed twice rather than stored: first to count them by their highest bits,
/// then to put them into buckets by these bits. A bucket holds keys, made of a word's
/// highest bits followed by its number, and is sorted on its own.
pub fn smallest(n: usize, m: usize, key: Key, stage: Stage, threads: usize) -> Result<Vec<i32>> {
    if m == 0 {
        return Ok(Vec::new());
    }
    // A word takes only nanoseconds.
    let threads = parallel::worth(n / 16, threads);
    let words = Words { key, stage };
    parallel::together(n, threads, || sample(n, m, words, threads))
}

/// Does what [`smallest`] does, on a thread that need not wait for helpers.
fn sample(n: usize, m: usize, words: Words, threads: usize) -> Result<Vec<i32>> {
    let parts = parallel::parts(threads);
    let part = n.div_ceil(parts).next_multiple_of(4);
    let numbers = |i: usize| i * part..((i + 1) * part).min(n);

    // Six standard deviations above m, so that the limit is practically never raised.
    let wanted = m as f64 + 6.0 * (m as f64).sqrt() + 6.0;
    let mut limit = (wanted / n as f64 * 2_f64.powi(64)) as u64 | 1;
    if m < n / 16
        && let Some(few) = few(n, m, words, limit, threads)?
    {
        return Ok(few);
    }
    let (mut next, starts, shift) = loop {
        let buckets = (m / KEYS_PER_BUCKET + 1).next_power_of_two();
        // Buckets are numbered by the highest bits of words, up to those of the limit.
        let shift = limit.ilog2().saturating_sub(buckets.trailing_zeros());
        let buckets = (limit >> shift) as usize + 1;
        let mut counts = memory::cleared::<u32>(WHAT, parts * buckets)?;
        parallel::for_each_chunk(&mut counts, buckets, threads, |i, counts| {
            words.each(numbers(i), |word, _| {
                if word <= limit {
                    counts[(word >> shift) as usize] += 1;
                }
            });
            Ok(())
        })?;
        let mut starts = memory::room(WHAT, buckets + 1)?;
        let mut total = 0;
        for bucket in 0..buckets {
            starts.push(total as usize);
            for part in 0..parts {
                total += std::mem::replace(&mut counts[part * buckets + bucket], total);
            }
        }
        starts.push(total as usize);
        if total as usize >= m {
            break (counts, starts, shift);
        }
        limit = limit.saturating_mul(2);
    };

    let buckets = starts.len() - 1;
    let low = (1_u64 << (usize::BITS - (n - 1).leading_zeros())) - 1;
    let mut keys = Buffer::<u64>::new(WHAT, starts[buckets], 1)?;
    let shared_keys = shared::long_words(&mut keys);
    parallel::for_each_chunk(&mut next, buckets, threads, |i, next| {
        words.each(numbers(i), |word, number| {
            if word <= limit {
                let next = &mut next[(word >> shift) as usize];
                shared_keys[*next as usize].store(word & !low | number as u64, Relaxed);
                *next += 1;
            }
        });
        Ok(())
    })?;

    let mut found = memory::zeros::<i32>(starts[buckets], 1)?;
    let shared_found = shared::words(&mut found);
    let mut rest = &mut keys[..];
    let mut sorted = memory::room(WHAT, buckets)?;
    for bucket in starts.windows(2) {
        let (keys, others) = rest.split_at_mut(bucket[1] - bucket[0]);
        sorted.push(keys);
        rest = others;
    }
    parallel::for_each_chunk(&mut sorted, 16, threads, |chunk, sorted| {
        for (keys, &start) in sorted.iter_mut().zip(&starts[16 * chunk..]) {
            sort(keys, low, |number| words.of(number));
            for (found, key) in shared_found[start..].iter().zip(keys.iter()) {
                found.store((key & low) as u32, Relaxed);
            }
        }
        Ok(())
    })?;
    found.truncate(m);
    Ok(found)
}

/// The `m` smallest, or None if fewer than `m` words are below the limit.
fn few(n: usize, m: usize, words: Words, limit: u64, threads: usize) -> Result<Option<Vec<i32>>> {
    const NUMBERS_PER_PART: usize = 1 << 14;
    let parts = (0..n.div_ceil(NUMBERS_PER_PART)).map(|_| Ok(Vec::new()));
    let mut parts = memory::collect(WHAT, parts)?;
    parallel::for_each_chunk(&mut parts, 1, threads, |i, found| {
        let first = i * NUMBERS_PER_PART;
        let found = &mut found[0];
        words.each(first..n.min(first + NUMBERS_PER_PART), |word, number| {
            if word <= limit
                && let Ok(words) = found
                && let Err(error) = memory::push(WHAT, words, (word, number as i32))
            {
                *found = Err(error);
            }
        });
        Ok(())
    })?;
    let mut found = memory::room(WHAT, 2 * m + 1000)?;
    for part in parts {
        let part = part?;
        memory::make_room(WHAT, &mut found, part.len())?;
        found.extend(part);
    }
    if found.len() < m {
        return Ok(None);
    }
    parallel::sort(&mut found, threads)?;
    found.truncate(m);
    memory::collect(WHAT, found.into_iter().map(|(_, number)| number)).map(Some)
}

/// Sorts keys by (word, number), where `low` are the bits that hold the number.
fn sort(keys: &mut [u64], low: u64, word: impl Fn(usize) -> u64) {
    keys.sort_unstable();
    for same in keys.chunk_by_mut(|a, b| a & !low == b & !low) {
        if same.len() > 1 {
            // The words can still differ, in bits that the keys do not hold.
            same.sort_unstable_by_key(|key| (word((key & low) as usize), *key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_definition(n: usize, m: usize, key: Key) -> Vec<i32> {
        let words = Words {
            key,
            stage: Stage::Order,
        };
        let mut all: Vec<(u64, i32)> = (0..n).map(|i| (words.of(i), i as i32)).collect();
        all.sort_unstable();
        all.truncate(m);
        all.into_iter().map(|(_, i)| i).collect()
    }

    #[test]
    fn the_smallest_words_come_in_order() {
        for n in [1_usize, 2, 3, 4, 5, 1000, 1023, 1024, 1025, 70_001] {
            for m in [1, 2, n / 100, n / 2, n.saturating_sub(1), n] {
                let m = m.min(n);
                let key = Key([n as u64, m as u64]);
                let expected = by_definition(n, m, key);
                for threads in [1, 2, 3, 8] {
                    let found = smallest(n, m, key, Stage::Order, threads).unwrap();
                    assert_eq!(found, expected, "{m} of {n}, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn words_with_equal_keys_are_ordered_by_their_other_bits() {
        let low = 0xff;
        let words: Vec<u64> = (0..200)
            .map(|i| ((i * 37 % 5) << 8) | (i * 11 % 7))
            .collect();
        let mut keys: Vec<u64> = (0..200).map(|i| words[i] & !low | i as u64).collect();
        sort(&mut keys, low, |number| words[number]);
        let mut expected: Vec<u64> = (0..200).collect();
        expected.sort_by_key(|&i| (words[i as usize], i));
        assert!(keys.iter().map(|key| key & low).eq(expected));
    }
}
