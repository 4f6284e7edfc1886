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

    /// Computes a row of `width` for each of `centers` from its
    /// `min(k, positions() - 1)` nearest neighbours, nearest first.
    ///
    /// `work(row, scratch, neighbors, out)` may change `neighbors` as it likes.
    /// The rows are visited in an order that suits the index, each once.
    fn rows<S>(
        &self,
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(usize, &mut S, &mut Vec<i32>, &mut [i32]) + Sync,
    ) -> Result<Vec<i32>> {
        check::indices("centers", centers, self.positions())?;
        let k = k.min(self.positions() - 1);
        let order = visiting_order(self, centers, threads)?;
        parallel::rows_in_order(
            &order,
            width,
            threads,
            || (Self::Scratch::default(), scratch(), Vec::new()),
            |row, (own, scratch, neighbors), out| {
                let row = row as usize;
                neighbors.clear();
                neighbors.resize(k, 0);
                self.nearest(centers[row] as usize, own, neighbors);
                work(row, scratch, neighbors, out);
            },
        )
    }
}

/// The `min(k, n - 1)` nearest neighbours of each centre, nearest first, row
/// by row, and the length of a row.
pub fn neighbors<I: NeighborIndex>(
    index: &I,
    centers: &[i32],
    k: usize,
    threads: usize,
) -> Result<(Vec<i32>, usize)> {
    let width = k.min(index.positions() - 1);
    let rows = index.rows(
        centers,
        k,
        width,
        threads,
        || (),
        |_, (), neighbors, out| out.copy_from_slice(neighbors),
    )?;
    Ok((rows, width))
}

/// The rows of `centers` in the order of their places: successive queries then
/// find in the cache what the one before them fetched, worth 2-4x on scans
/// whose centres come in random order.
fn visiting_order<I: NeighborIndex + ?Sized>(
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
