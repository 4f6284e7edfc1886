//! The rule `nearest`: C of the K nearest neighbours of each centre.

use super::legacy_rng::MersenneTwister;
use super::slots::{Draw, Drawn};
use crate::index::{NeighborIndex, Neighbors, neighbors};
use crate::philox::{Key, Stage, below};
use crate::{Result, check, memory};

/// What memory is for.
const WHAT: &str = "The neighbors that groups are drawn from";

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
        return memory::copy(WHAT, centers);
    }
    index.batches(
        centers,
        k,
        c,
        threads,
        Vec::new,
        |centers, slots, neighbors, groups| {
            let k = neighbors.len() / centers.len();
            if k < PACKED {
                choose_packed(centers, include_center, key, neighbors, groups);
                return Ok(());
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
    )
}

/// Draws one group for each centre, without limits, from an index that knows
/// `min(k, n - 1)` neighbours of every position.
pub fn draw_plain<I: Neighbors>(draw: &Draw<'_, I>, include_center: bool) -> Result<Drawn> {
    draw.check()?;
    let &Draw {
        index,
        centers,
        k,
        c,
        key,
        threads,
        ..
    } = draw;
    Ok(Drawn {
        groups: self::draw(index, centers, k, c, include_center, key, threads)?,
        centers: memory::copy(WHAT, centers)?,
        ..Drawn::default()
    })
}

/// Draws `rounds` groups for each centre, within limits: all centres by
/// replicate 0, then all by replicate 1, ...
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

/// Fills a centre's group from `slots` without replacement: a Fisher-Yates
/// shuffle stopped early, by the words of stage 2.
///
/// The words depend on the centre and the group size alone, so a centre's
/// group does not depend on which other centres were drawn.
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

/// The words of stage 2 for draws 4·block.. of a centre.
fn words(center: i32, c: usize, replicate: u64, block: usize, key: Key) -> [u64; 4] {
    let blocks = c.div_ceil(4) as u64;
    let block = 1 + center as u64 * blocks + block as u64;
    key.block(Stage::Choice, replicate, block)
}

/// As many slots as have their numbers in one word, four bits each.
const PACKED: usize = 16;

/// The same for some centres at once, with few slots.
///
/// The words first, for all of them, so that the processor works on several
/// blocks at a time; then the shuffle, over the slots' numbers in one register.
fn choose_packed(
    centers: &[i32],
    include_center: bool,
    key: Key,
    neighbors: &[i32],
    groups: &mut [i32],
) {
    const TOGETHER: usize = 16;
    let k = neighbors.len() / centers.len();
    let c = groups.len() / centers.len();
    let first = usize::from(include_center);
    let slots = k + usize::from(!include_center && k < c);
    let draws = c - first;
    let parts = neighbors
        .chunks(TOGETHER * k)
        .zip(groups.chunks_mut(TOGETHER * c));
    for (centers, (neighbors, groups)) in centers.chunks(TOGETHER).zip(parts) {
        let mut drawn = [[0; 4]; TOGETHER];
        let mut orders = [0xfedc_ba98_7654_3210_u64; TOGETHER];
        for block in 0..draws.div_ceil(4) {
            for (drawn, &center) in drawn.iter_mut().zip(centers) {
                *drawn = words(center, c, 0, block, key);
            }
            let places = 4 * block..draws.min(4 * block + 4);
            let rows = neighbors.chunks_exact(k).zip(groups.chunks_exact_mut(c));
            let draws = drawn.iter().zip(&mut orders).zip(centers);
            for ((neighbors, group), ((words, order), &center)) in rows.zip(draws) {
                let chosen = &mut group[first + places.start..];
                for ((j, &word), chosen) in places.clone().zip(words).zip(chosen) {
                    let t = j + below(word, slots - j);
                    let slot = *order >> (4 * t) & 15;
                    let moved = *order >> (4 * j) & 15;
                    *order ^= (slot ^ moved) << (4 * t);
                    // The slot after the neighbours is the centre.
                    *chosen = neighbors.get(slot as usize).copied().unwrap_or(center);
                }
            }
        }
        if include_center {
            for (group, &center) in groups.chunks_exact_mut(c).zip(centers) {
                group[0] = center;
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
    centers: Option<&[i32]>,
    m: usize,
    k: usize,
    c: usize,
    twister: &mut MersenneTwister,
    threads: usize,
) -> Result<(Vec<i32>, Vec<i32>)> {
    let n = index.positions();
    check::group(n, k, c)?;
    let centers = match centers {
        Some(centers) => memory::copy(WHAT, centers)?,
        None => twister.centers(n, m)?,
    };
    if c == 1 {
        let groups = memory::copy(WHAT, &centers)?;
        return Ok((centers, groups));
    }
    let (rows, width) = neighbors(index, &centers, k, threads)?;
    let mut groups = memory::zeros::<i32>(centers.len(), c)?;
    let mut slots = memory::room(WHAT, width + 1)?;
    let drawn = groups.chunks_exact_mut(c);
    for ((&center, row), group) in centers.iter().zip(rows.chunks_exact(width)).zip(drawn) {
        slots.clear();
        if n <= k {
            slots.push(center);
        }
        slots.extend(row);
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
