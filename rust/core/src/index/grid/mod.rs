//! The cell grid, for scans that fill their field more or less evenly.
//!
//! Positions are stored row of cells by row of cells, within a row cell by cell, within
//! a cell by index. So the cells around a stretch of a row are three contiguous runs of
//! memory (more for a large K). The positions of a stretch are searched together, each
//! in one lane of a vector.
//!
//! A lane keeps the K + 1 smallest squared distances in float32, with the candidate's
//! number in their lowest bits: those of the K neighbours, and the next. The neighbours
//! and their order are certain if each distance is larger than the one before by more
//! than rounding explains, and if nothing outside of the cells that were searched can be
//! as near as the K-th. Otherwise (ties, sparse corners) the distances are computed in
//! float64, as the definition says, in growing rings of cells, until nothing outside of
//! them can be as near.

mod build;
pub mod cells;
mod rings;
mod search;
mod visit;

pub use build::Grid;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::boxes::{self, BoxTree, Entry};
use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted};
use crate::{Result, check, hints, memory, parallel, shared, simd};
use search::{LANES, Together};
use visit::{Visitor, rows_of_points};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors of scan positions";

/// Memory that is reused from one search to the next.
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
        // The nearest that are wanted may be many cells away: a tree finds them faster.
        let tree = self.tree.get(|| {
            let positions = self.xs.iter().zip(&*self.ys);
            let entries = positions.zip(&self.points[..self.n]);
            let entry = |((&x, &y), &point)| Entry { x, y, point };
            let entries = memory::collect(WHAT, entries.map(entry))?;
            BoxTree::of(entries).map(Box::new)
        })?;
        tree.nearest_wanted(center, k, wanted, &mut scratch.tree, out)?;
        Ok(true)
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
        const PLACES_PER_PART: usize = 2048;
        let n = self.positions();
        let Query { centers, width, .. } = query;
        check::indices("centers", centers, n)?;
        let k = query.k.min(n - 1);
        let threads = parallel::worth(centers.len(), query.threads);
        let together = simd::run(Together)?;
        let row_of_point = rows_of_points(n, centers, threads)?;

        let mut out = memory::zeros::<i32>(centers.len(), width)?;
        let shared_out = shared::words(&mut out);
        let rows_per_part = (self.y.cells * PLACES_PER_PART).div_ceil(n);
        let parts = self.y.cells.div_ceil(rows_per_part);
        let computed = AtomicUsize::new(0);
        parallel::for_each(parts, threads, |part| {
            let mut visitor = Visitor::new(self, k, together);
            let mut scratch = scratch();
            let mut results = memory::cleared(WHAT, width.saturating_mul(LANES))?;
            let mut count = 0;
            for row in part * rows_per_part..((part + 1) * rows_per_part).min(self.y.cells) {
                visitor.visit(row, &row_of_point, |batch| {
                    for &(_, row) in batch.next {
                        hints::fetch(shared_out, row as usize * width);
                    }
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
            // For a centre that is named twice only one row was computed.
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

    /// Behind the last position the memory holds arbitrary values.
    #[test]
    fn values_behind_the_positions_do_not_affect_results() {
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
