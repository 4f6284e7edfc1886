//! The rule `nearest`: C of the K nearest neighbours of each centre.

use super::legacy_rng::MersenneTwister;
use crate::index::{NeighborIndex, neighbors};
use crate::philox::{Key, Stage, below};
use crate::{Result, check, parallel};

/// Draws one group of `c` for each centre, row by row; the channel order is
/// the order of drawing.
///
/// The slots drawn from are the centre's `min(k, n - 1)` nearest neighbours;
/// where these are too few (n = c), the centre itself is the last slot. With
/// `include_center` channel 0 is the centre, and c - 1 are drawn.
pub fn draw<I: NeighborIndex>(
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
    index.rows(
        centers,
        k,
        c,
        threads,
        || (),
        |row, (), slots, group| {
            let center = centers[row];
            let drawn = if include_center {
                group[0] = center;
                &mut group[1..]
            } else {
                if slots.len() < c {
                    slots.push(center);
                }
                &mut *group
            };
            choose(center, c, key, slots, drawn);
        },
    )
}

/// Draws `out.len()` of `slots` without replacement: a Fisher-Yates shuffle
/// stopped early, by the words of stage 2.
///
/// The words depend on the centre and the group size alone, so a centre's
/// group does not depend on which other centres were drawn.
fn choose(center: i32, c: usize, key: Key, slots: &mut [i32], out: &mut [i32]) {
    let blocks = c.div_ceil(4);
    let first = 1 + center as u64 * blocks as u64;
    for (block, drawn) in out.chunks_mut(4).enumerate() {
        let words = key.block(Stage::Choice, 0, first + block as u64);
        for ((j, word), chosen) in (4 * block..).zip(words).zip(drawn) {
            slots.swap(j, j + below(word, slots.len() - j));
            *chosen = slots[j];
        }
    }
}

/// The same rule by the stream that `numpy.random.seed` starts: `m` centres
/// (all in order if `m == n`), then a group for each. Returns (centres, groups).
///
/// The stream is sequential, so only the search for neighbours is threaded.
pub fn draw_legacy<I: NeighborIndex>(
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
    let mut groups = parallel::indices(centers.len(), c)?;
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
