//! The rule `nearest` by the random stream of `numpy.random.seed`, to repeat the
//! groups that older code drew.

use super::legacy_rng::MersenneTwister;
use crate::index::{Neighbors, neighbors};
use crate::{Result, check, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors that groups are drawn from";

/// Draws `m` centres (all positions in order if `m == n`), unless `centers` are
/// given, then a group for each. Returns (centres, groups).
///
/// The stream is sequential, so only the search for neighbours uses threads.
pub fn draw<I: Neighbors>(
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
