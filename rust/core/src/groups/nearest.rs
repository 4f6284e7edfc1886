//! The rule `nearest`: C of the K nearest neighbours of each centre.

use super::legacy_rng::MersenneTwister;
use crate::index::{Neighbors, neighbors};
use crate::philox::{Key, Stage, below};
use crate::{Result, check, memory};

/// Draws one group of `c` for each centre, row by row; the channel order is
/// the order of drawing.
///
/// The slots drawn from are the centre's `min(k, n - 1)` nearest neighbours;
/// where these are too few (n = c), the centre itself is the last slot. With
/// `include_center` channel 0 is the centre, and c - 1 are drawn.
pub fn draw<I: Neighbors>(
    index: &I,
    centers: &[i32],
    k: usize,
    c: usize,
    include_center: bool,
    key: Key,
    threads: usize,
) -> Result<Vec<i32>> {
    let n = index.positions();
    check::group(n, k, c)?;
    check::indices("centers", centers, n)?;
    if c == 1 {
        return Ok(centers.to_vec());
    }
    let draw = Draw {
        c,
        include_center,
        key,
    };
    index.batches(
        centers,
        k,
        c,
        threads,
        Vec::new,
        |centers, slots, neighbors, groups| {
            let k = neighbors.len() / centers.len();
            if k + usize::from(!include_center && k < c) <= PACKED {
                draw.packed(centers, neighbors, groups);
                return;
            }
            let rows = neighbors.chunks_exact(k).zip(groups.chunks_exact_mut(c));
            for (&center, (neighbors, group)) in centers.iter().zip(rows) {
                slots.clear();
                slots.extend_from_slice(neighbors);
                draw.one(center, slots, group);
            }
        },
    )
}

/// As many slots as have their numbers in one word, four bits each.
const PACKED: usize = 16;

/// What a draw depends on, beside the centre and its neighbours.
#[derive(Clone, Copy)]
struct Draw {
    c: usize,
    include_center: bool,
    key: Key,
}

impl Draw {
    /// The words of stage 2 for draws 4·block.. of a centre: they depend on the
    /// centre and the group size alone, so a centre's group does not depend on
    /// which other centres were drawn.
    fn words(self, center: i32, block: usize) -> [u64; 4] {
        let blocks = self.c.div_ceil(4);
        let first = 1 + center as u64 * blocks as u64;
        self.key.block(Stage::Choice, 0, first + block as u64)
    }

    /// Draws from `slots` without replacement: a Fisher-Yates shuffle stopped
    /// early.
    fn one(self, center: i32, slots: &mut Vec<i32>, group: &mut [i32]) {
        let drawn = if self.include_center {
            group[0] = center;
            &mut group[1..]
        } else {
            if slots.len() < self.c {
                slots.push(center);
            }
            group
        };
        let count = slots.len();
        for (block, drawn) in drawn.chunks_mut(4).enumerate() {
            let words = self.words(center, block);
            for ((j, word), chosen) in (4 * block..).zip(words).zip(drawn) {
                slots.swap(j, j + below(word, count - j));
                *chosen = slots[j];
            }
        }
    }

    /// The same for some centres at once, with few slots.
    ///
    /// The words first, for all of them: so the processor works on several
    /// blocks at a time. Then the shuffle, over the slots' numbers in one
    /// register.
    #[inline(never)]
    fn packed(self, centers: &[i32], neighbors: &[i32], groups: &mut [i32]) {
        let k = neighbors.len() / centers.len();
        let first = usize::from(self.include_center);
        let slots = k + usize::from(first == 0 && k < self.c);
        let draws = self.c - first;
        let mut words = [[0; 4]; 16];
        for (centers, (neighbors, groups)) in centers.chunks(words.len()).zip(
            neighbors
                .chunks(words.len() * k)
                .zip(groups.chunks_mut(words.len() * self.c)),
        ) {
            let mut orders = [0xfedc_ba98_7654_3210_u64; 16];
            for block in 0..draws.div_ceil(4) {
                for (words, &center) in words.iter_mut().zip(centers) {
                    *words = self.words(center, block);
                }
                let drawn = 4 * block..draws.min(4 * block + 4);
                let rows = neighbors
                    .chunks_exact(k)
                    .zip(groups.chunks_exact_mut(self.c));
                let drawers = words.iter().zip(&mut orders).zip(centers);
                for ((neighbors, group), ((words, order), &center)) in rows.zip(drawers) {
                    for ((j, &word), chosen) in drawn
                        .clone()
                        .zip(words)
                        .zip(&mut group[first + drawn.start..])
                    {
                        let t = j + below(word, slots - j);
                        let slot = *order >> (4 * t) & 15;
                        let moved = *order >> (4 * j) & 15;
                        *order ^= (slot ^ moved) << (4 * t);
                        *chosen = neighbors.get(slot as usize).copied().unwrap_or(center);
                    }
                }
            }
            if self.include_center {
                for (group, &center) in groups.chunks_exact_mut(self.c).zip(centers) {
                    group[0] = center;
                }
            }
        }
    }
}

/// The same rule by the stream that `numpy.random.seed` starts: `m` centres
/// (all in order if `m == n`), then a group for each. Returns (centres, groups).
///
/// The stream is sequential, so only the search for neighbours is threaded.
pub fn draw_legacy<I: Neighbors>(
    index: &I,
    centers: Option<Vec<i32>>,
    m: usize,
    k: usize,
    c: usize,
    twister: &mut MersenneTwister,
    threads: usize,
) -> Result<(Vec<i32>, Vec<i32>)> {
    let n = index.positions();
    check::group(n, k, c)?;
    let centers = match centers {
        Some(centers) => centers,
        None => twister.centers(n, m)?,
    };
    if c == 1 {
        let groups = centers.clone();
        return Ok((centers, groups));
    }
    let (rows, width) = neighbors(index, &centers, k, threads)?;
    let mut groups = memory::zeros::<i32>(centers.len(), c)?;
    let mut slots = Vec::with_capacity(width + 1);
    let drawn = groups.chunks_exact_mut(c);
    for ((&center, row), group) in centers.iter().zip(rows.chunks_exact(width)).zip(drawn) {
        slots.clear();
        if n <= k {
            slots.push(center);
        }
        slots.extend_from_slice(row);
        twister.shuffle(&mut slots);
        group.copy_from_slice(&slots[..c]);
    }
    Ok((centers, groups))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::KdTree;

    fn raster(side: i32) -> KdTree {
        let positions: Vec<f64> = (0..side * side)
            .flat_map(|i| [f64::from(i % side), f64::from(i / side)])
            .collect();
        KdTree::build(&positions, 1).unwrap()
    }

    #[test]
    fn a_group_holds_distinct_neighbors_and_not_its_center() {
        let index = raster(20);
        let centers: Vec<i32> = (0..400).collect();
        let (near, width) = neighbors(&index, &centers, 12, 1).unwrap();
        for include_center in [false, true] {
            let groups = draw(&index, &centers, 12, 9, include_center, Key([5, 6]), 1).unwrap();
            for (center, group) in groups.chunks_exact(9).enumerate() {
                let slots = &near[center * width..][..width];
                let drawn = &group[usize::from(include_center)..];
                assert!(drawn.iter().all(|i| slots.contains(i)));
                assert_eq!(include_center, group[0] == center as i32);
                let mut distinct = group.to_vec();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len(), 9);
            }
        }
    }

    #[test]
    fn threads_and_company_change_nothing() {
        let index = raster(20);
        let centers: Vec<i32> = (0..400).collect();
        let all = draw(&index, &centers, 7, 4, false, Key([5, 6]), 1).unwrap();
        for threads in [2, 8] {
            assert_eq!(
                draw(&index, &centers, 7, 4, false, Key([5, 6]), threads).unwrap(),
                all
            );
        }
        let some = [399, 0, 7, 7];
        let alone = draw(&index, &some, 7, 4, false, Key([5, 6]), 2).unwrap();
        for (row, &center) in some.iter().enumerate() {
            assert_eq!(alone[4 * row..][..4], all[4 * center as usize..][..4]);
        }
    }

    #[test]
    fn a_scan_of_c_positions_has_one_group() {
        let index = raster(2);
        let centers = [0, 1, 2, 3];
        for include_center in [false, true] {
            let groups = draw(&index, &centers, 4, 4, include_center, Key([1, 1]), 1).unwrap();
            for group in groups.chunks_exact(4) {
                let mut sorted = group.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2, 3]);
            }
        }
    }
}
