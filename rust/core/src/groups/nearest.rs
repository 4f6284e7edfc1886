//! The rule `nearest`: C of the K nearest neighbours of each centre, at random.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::draw::{Draw, Drawn};
use crate::index::{NeighborIndex, Neighbors};
use crate::philox::{Key, Stage, below};
use crate::{Result, memory, simd};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors that groups are drawn from";

/// Draws one group of two or more positions for each centre, without limits, from an
/// index that knows `min(K, n - 1)` neighbours of every position.
///
/// These neighbours are the slots that a group is drawn from; where they are
/// too few (n = C), the centre itself is the last slot. With `include_center`
/// channel 0 is the centre, and C - 1 slots are drawn. The channels are in the
/// order of drawing.
pub fn draw<I: Neighbors>(draw: &Draw<'_, I>, include_center: bool) -> Result<Drawn> {
    draw.check_sizes()?;
    let &Draw {
        index, k, c, key, ..
    } = draw;
    let groups = index.batches(
        draw.query(k, c),
        Vec::new,
        |centers, slots, neighbors, groups| {
            let k = neighbors.len() / centers.len();
            if k < PACKED && centers.len() >= FEWEST {
                return choose_packed(centers, include_center, key, neighbors, groups);
            }
            let rows = neighbors.chunks_exact(k).zip(groups.chunks_exact_mut(c));
            for (&center, (neighbors, group)) in centers.iter().zip(rows) {
                memory::replace(WHAT, slots, neighbors)?;
                if !include_center && slots.len() < c {
                    memory::push(WHAT, slots, center)?;
                }
                choose(center, include_center, 0, key, slots, group);
            }
            Ok(())
        },
    )?;
    Ok(Drawn {
        groups,
        ..Drawn::default()
    })
}

/// Draws `rounds` groups for each centre, within limits if there are any: one for
/// every centre, then a second for every centre, and so on.
pub fn draw_rounds<I: NeighborIndex>(
    draw: &Draw<'_, I>,
    include_center: bool,
    rounds: usize,
) -> Result<Drawn> {
    let c = draw.c;
    let rows = draw.rows(
        include_center,
        rounds.saturating_mul(c),
        Vec::new,
        |center, left: &mut Vec<i32>, slots, out| {
            for (replicate, group) in (0..).zip(out.chunks_exact_mut(c)) {
                memory::replace(WHAT, left, slots)?;
                choose(center, include_center, replicate, draw.key, left, group);
            }
            Ok(())
        },
    )?;
    draw.collect(rows, rounds.saturating_mul(draw.centers.len()))
}

/// Fills a centre's group from `slots` without replacement, by a Fisher-Yates shuffle
/// that stops after C draws.
///
/// The random words (stage `Choice`) depend only on the centre, the group size and the
/// replicate. So the group of a centre does not depend on which other centres there
/// are.
pub(super) fn choose(
    center: i32,
    include_center: bool,
    replicate: u64,
    key: Key,
    slots: &mut [i32],
    group: &mut [i32],
) {
    let c = group.len();
    let out = if include_center || c == 1 {
        group[0] = center;
        &mut group[1..]
    } else {
        group
    };
    for (block, drawn) in out.chunks_mut(4).enumerate() {
        let words = words(center, c, replicate, block, key);
        for ((j, word), chosen) in (4 * block..).zip(words).zip(drawn) {
            slots.swap(j, j + below(word, slots.len() - j));
            *chosen = slots[j];
        }
    }
}

/// The random words for four draws of a centre, from draw number 4 `block` on.
fn words(center: i32, c: usize, replicate: u64, block: usize, key: Key) -> [u64; 4] {
    let blocks = c.div_ceil(4) as u64;
    let block = 1 + center as u64 * blocks + block as u64;
    key.block(Stage::Choice, replicate, block)
}

/// How many slots can have their numbers in one 64-bit word, four bits each.
const PACKED: usize = 16;

/// How many centres are drawn for at once, at most; and below how many it does not pay.
const TOGETHER: usize = 16;
const FEWEST: usize = 4;

/// Does what [`choose`] does for several centres at once, if they have few slots.
///
/// The random words of all of them come first, so that the processor computes several
/// blocks at a time. Then the numbers of the slots are shuffled, each centre in one lane.
fn choose_packed(
    centers: &[i32],
    include_center: bool,
    key: Key,
    neighbors: &[i32],
    groups: &mut [i32],
) -> Result<()> {
    let k = neighbors.len() / centers.len();
    let c = groups.len() / centers.len();
    let first = usize::from(include_center);
    let slots = k + usize::from(!include_center && k < c);
    let draws = c - first;
    let parts = neighbors
        .chunks(TOGETHER * k)
        .zip(groups.chunks_mut(TOGETHER * c));
    for (centers, (neighbors, groups)) in centers.chunks(TOGETHER).zip(parts) {
        let mut orders = [0xfedc_ba98_7654_3210; TOGETHER];
        for block in 0..draws.div_ceil(4) {
            let mut drawn = [[0; TOGETHER]; 4];
            for (lane, &center) in centers.iter().enumerate() {
                for (drawn, word) in drawn.iter_mut().zip(words(center, c, 0, block, key)) {
                    drawn[lane] = word;
                }
            }
            let places = 4 * block..draws.min(4 * block + 4);
            simd::run(Shuffle {
                places: places.clone(),
                slots,
                orders: &mut orders,
                drawn: &mut drawn,
            })?;
            let rows = neighbors.chunks_exact(k).zip(groups.chunks_exact_mut(c));
            for (lane, ((neighbors, group), &center)) in rows.zip(centers).enumerate() {
                for (chosen, drawn) in group[first..][places.clone()].iter_mut().zip(&drawn) {
                    // The centre is the slot behind the neighbours.
                    *chosen = *neighbors.get(drawn[lane] as usize).unwrap_or(&center);
                }
            }
        }
        if include_center {
            for (group, &center) in groups.chunks_exact_mut(c).zip(centers) {
                group[0] = center;
            }
        }
    }
    Ok(())
}

/// The kernel of [`choose_packed`]: some draws of all lanes.
struct Shuffle<'a> {
    /// The numbers of the draws.
    places: Range<usize>,
    /// How many slots there are, at most [`PACKED`].
    slots: usize,
    /// The numbers of the slots in their order, four bits each.
    orders: &'a mut [u64; TOGETHER],
    /// The random word of each draw, which becomes the number of the slot that is drawn.
    drawn: &'a mut [[u64; TOGETHER]; 4],
}

impl WithSimd for Shuffle<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        const LOW: u64 = u32::MAX as u64;
        for (j, drawn) in self.places.zip(self.drawn) {
            let left = (self.slots - j) as u64;
            for (drawn, order) in drawn.iter_mut().zip(&mut *self.orders) {
                // What `below` computes, from two products that fit into 64 bits.
                let [high, low] = [(*drawn >> 32) * left, (*drawn & LOW) * left];
                let t = j as u64 + ((high + (low >> 32)) >> 32);
                let slot = *order >> (4 * t) & 15;
                let moved = *order >> (4 * j) & 15;
                *order ^= (slot ^ moved) << (4 * t);
                *drawn = slot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{KdTree, neighbors};

    fn raster(side: i32) -> Vec<f64> {
        (0..side * side)
            .flat_map(|i| [f64::from(i % side), f64::from(i / side)])
            .collect()
    }

    /// Draws from the K nearest of a raster, by key (5, 6).
    fn draw_from(
        positions: &[f64],
        centers: &[i32],
        [k, c]: [usize; 2],
        include_center: bool,
        threads: usize,
    ) -> Vec<i32> {
        let of = Draw {
            index: &KdTree::build(positions, 1).unwrap(),
            positions,
            centers,
            k,
            c,
            limits: None,
            key: Key([5, 6]),
            threads,
        };
        let drawn = draw(&of, include_center).unwrap();
        assert_eq!(drawn.centers, None);
        drawn.groups
    }

    #[test]
    fn a_group_holds_distinct_neighbors_and_not_its_center() {
        let positions = raster(20);
        let centers: Vec<i32> = (0..400).collect();
        let index = KdTree::build(&positions, 1).unwrap();
        let (near, width) = neighbors(&index, &centers, 12, 1).unwrap();
        for include_center in [false, true] {
            let groups = draw_from(&positions, &centers, [12, 9], include_center, 1);
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
    fn many_centers_at_once_have_the_groups_that_one_has() {
        let key = Key([5, 6]);
        for k in 1..PACKED {
            for c in 2..=k + 1 {
                for include_center in [false, true] {
                    let centers: Vec<i32> = (0..37).collect();
                    let neighbors: Vec<i32> = (0..37 * k as i32).map(|i| 100 + i).collect();
                    let mut groups = vec![0; 37 * c];
                    choose_packed(&centers, include_center, key, &neighbors, &mut groups).unwrap();
                    for (row, &center) in centers.iter().enumerate() {
                        let mut slots = neighbors[row * k..][..k].to_vec();
                        if !include_center && k < c {
                            slots.push(center);
                        }
                        let mut group = vec![0; c];
                        choose(center, include_center, 0, key, &mut slots, &mut group);
                        assert_eq!(groups[row * c..][..c], group, "K = {k}, C = {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn threads_and_other_centers_do_not_affect_a_group() {
        let positions = raster(20);
        let centers: Vec<i32> = (0..400).collect();
        let all = draw_from(&positions, &centers, [7, 4], false, 1);
        for threads in [2, 8] {
            let found = draw_from(&positions, &centers, [7, 4], false, threads);
            assert_eq!(found, all);
        }
        let some = [399, 0, 7, 7];
        let alone = draw_from(&positions, &some, [7, 4], false, 2);
        for (row, &center) in some.iter().enumerate() {
            assert_eq!(alone[4 * row..][..4], all[4 * center as usize..][..4]);
        }
    }

    #[test]
    fn a_scan_of_c_positions_has_one_group() {
        for include_center in [false, true] {
            let groups = draw_from(&raster(2), &[0, 1, 2, 3], [4, 4], include_center, 1);
            for group in groups.chunks_exact(4) {
                let mut sorted = group.to_vec();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2, 3]);
            }
        }
    }
}
