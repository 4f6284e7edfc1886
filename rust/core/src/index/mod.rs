//! Neighbours of scan positions.

mod kdtree;
mod listed;

pub use kdtree::KdTree;
pub use listed::Listed;

use crate::{Result, check, parallel};

/// Something that knows the neighbours of each position of a scan.
///
/// The order is that of (d², index) with `d² = dx·dx + dy·dy` in float64,
/// unfused, and the centre is left out by index, not by place. That settles
/// every tie, so all indexes give the same answer.
pub trait NeighborIndex: Sync {
    /// What is reused from query to query.
    type Scratch: Default;

    /// The number of positions, at least 1.
    fn positions(&self) -> usize;

    /// The place of a position on a path through the scan on which near places
    /// are near positions.
    fn place(&self, point: usize) -> u32;

    /// Fills `out` with the nearest neighbours of position `center`, nearest
    /// first. `out` is no longer than `positions() - 1`.
    fn nearest(&self, center: usize, scratch: &mut Self::Scratch, out: &mut [i32]);
}

/// The `min(k, n - 1)` nearest neighbours of each centre, nearest first, row
/// by row, and the length of a row.
pub fn neighbors<I: NeighborIndex>(
    index: &I,
    centers: &[i32],
    k: usize,
    threads: usize,
) -> Result<(Vec<i32>, usize)> {
    let n = index.positions();
    check::indices("centers", centers, n)?;
    let width = k.min(n - 1);
    let order = visiting_order(index, centers, threads)?;
    let rows = parallel::rows_in_order(
        &order,
        width,
        threads,
        I::Scratch::default,
        |row, scratch, out| index.nearest(centers[row as usize] as usize, scratch, out),
    )?;
    Ok((rows, width))
}

/// The rows of `centers` in the order of their places: successive queries then
/// find in the cache what the one before them fetched, worth 2-4x on scans
/// whose centres come in random order.
pub(crate) fn visiting_order<I: NeighborIndex>(
    index: &I,
    centers: &[i32],
    threads: usize,
) -> Result<Vec<u32>> {
    let mut keyed: Vec<u64> = centers
        .iter()
        .zip(0_u64..)
        .map(|(&center, row)| u64::from(index.place(center as usize)) << 32 | row)
        .collect();
    parallel::sort(&mut keyed, threads)?;
    Ok(keyed.into_iter().map(|key| key as u32).collect())
}
