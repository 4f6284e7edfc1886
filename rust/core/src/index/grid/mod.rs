//! The cell grid: for scans that fill their field more or less evenly.
//!
//! The scan lies in rows of cells, cells of a row one after another, positions
//! of a cell by index. So the cells around a stretch of a row are three runs of
//! memory (more for a large K), and the positions of a stretch are searched
//! together, one in each lane of a vector.
//!
//! A lane keeps the smallest K + 1 of its distances, in float32 and with the
//! candidate's number in the lowest bits: K neighbours, and the next. These are
//! known to be right, in the order of (d², index), where each is larger than
//! the one before by more than rounding can explain, and where nothing outside
//! the cells searched can be as near as the K-th. Elsewhere (ties, sparse
//! corners) the definition is computed in float64, ring after ring, until
//! nothing outside can be as near.

mod build;
pub mod cells;
mod rings;
mod search;
mod visit;

pub use build::Grid;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::boxes::{self, BoxTree, Entry};
use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted};
use crate::{Result, check, memory, parallel, shared, simd};
use search::{LANES, Together};
use visit::{Visitor, rows_of_points};

/// What memory is for.
const WHAT: &str = "The neighbors of positions";

/// What one query leaves to the next.
#[derive(Default)]
pub struct Scratch {
    found: Vec<u128>,
    neighbors: Vec<i32>,
    tree: boxes::Scratch,
}

impl NeighborIndex for Grid {
    type Scratch = Scratch;

    fn nearest(&self, center: usize, scratch: &mut Scratch, out: &mut [i32]) -> Result<()> {
        let k = out.len();
        if k == 0 {
            return Ok(());
        }
        scratch.neighbors.clear();
        self.nearest_by_definition(
            self.places()?[center] as usize,
            k,
            self.rings(k),
            f64::INFINITY,
            &mut scratch.found,
            &mut scratch.neighbors,
        )?;
        out.copy_from_slice(&scratch.neighbors);
        Ok(())
    }

    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool> {
        // Whose cells are those of the nearest wanted, a tree knows.
        let tree = self.tree.get(|| {
            let positions = self.xs.iter().zip(&*self.ys);
            let entries = positions.zip(&self.points[..self.n]);
            let entry = |((&x, &y), &point)| Entry { x, y, point };
            let entries = memory::collect(WHAT, entries.map(entry))?;
            BoxTree::of(entries, 1).map(Box::new)
        })?;
        tree.nearest_wanted(center, k, wanted, &mut scratch.tree, out)
    }
}

impl Neighbors for Grid {
    fn positions(&self) -> usize {
        self.n
    }

    fn batches<T>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> T + Sync,
        work: impl Fn(&[i32], &mut T, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        const PLACES_A_PART: usize = 2048;
        let n = self.positions();
        let Query { centers, width, .. } = query;
        check::indices("centers", centers, n)?;
        let k = query.k.min(n - 1);
        let threads = parallel::worth(centers.len(), query.threads);
        let together = simd::run(Together)?;
        let row_of_point = rows_of_points(n, centers, threads)?;

        let mut out = memory::zeros::<i32>(centers.len(), width)?;
        let shared_out = shared::words(&mut out);
        let rows_a_part = (self.y.cells * PLACES_A_PART).div_ceil(n);
        let parts = self.y.cells.div_ceil(rows_a_part);
        let computed = AtomicUsize::new(0);
        parallel::for_each(parts, threads, |part| {
            let mut visitor = Visitor::new(self, k, together);
            let mut scratch = scratch();
            let mut results = memory::cleared(WHAT, width.saturating_mul(LANES))?;
            let mut count = 0;
            for row in part * rows_a_part..((part + 1) * rows_a_part).min(self.y.cells) {
                visitor.visit(row, &row_of_point, |batch| {
                    let results = &mut results[..width * batch.centers.len()];
                    work(batch.centers, &mut scratch, batch.neighbors, results)?;
                    for (result, &(_, row)) in results.chunks_exact(width.max(1)).zip(batch.rows) {
                        let target = &shared_out[row as usize * width..][..width];
                        for (target, &value) in target.iter().zip(result) {
                            target.store(value as u32, Relaxed);
                        }
                    }
                    count += batch.rows.len();
                    Ok(())
                })?;
            }
            computed.fetch_add(count, Relaxed);
            Ok(())
        })?;
        if computed.into_inner() < centers.len() {
            // A centre that is named twice was computed for one of its rows.
            for (row, &center) in centers.iter().enumerate() {
                let computed = row_of_point[center as usize] as usize - 1;
                if computed != row {
                    out.copy_within(computed * width..(computed + 1) * width, row * width);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{KdTree, neighbors};
    use crate::philox::philox4x64;

    /// Behind the last position stands whatever the memory held before.
    #[test]
    fn what_stands_behind_the_positions_means_nothing() {
        for n in 200..232 {
            let positions: Vec<f64> = (0..n as u64)
                .flat_map(|i| philox4x64([i, 0, 0, 0], [n as u64, 0]).into_iter().take(2))
                .map(|word| word as f64)
                .collect();
            let centers: Vec<i32> = (0..n).collect();
            let tree = KdTree::build(&positions, 1).unwrap();
            let mut grid = Grid::build(&positions, 1).unwrap();
            for behind in [f64::NAN, f64::INFINITY, 0.0] {
                grid.xs[n as usize..].fill(behind);
                grid.ys[n as usize..].fill(behind);
                grid.points[n as usize..].fill(i32::MAX);
                for k in [7, 8, 9, 10, 12, 15, 20] {
                    let found = neighbors(&grid, &centers, k, 1).unwrap();
                    let expected = neighbors(&tree, &centers, k, 1).unwrap();
                    assert!(found == expected, "n = {n}, k = {k}, {behind}");
                }
            }
        }
    }
}
