//! The neighbours of a few positions of a large scan, without an index of all of it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use super::engine::{Engine, Index};
use super::grid::Grid;
use super::grid::cells::{Axis, OCCUPANCY, axes, in_cells, margin};
use super::neighbors::{Neighbors, Query};
use crate::memory::{self, Buffer};
use crate::parallel::Lazy;
use crate::{Result, bounds, check, parallel, shared};

/// Centres are few if there is at most one for this many positions.
const POSITIONS_PER_CENTER: usize = 100;

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the positions around the centers";

/// Positions that a thread looks at in one go.
const POSITIONS_PER_PART: usize = 1 << 14;

/// Searches only what lies around the centres it is asked about: it marks the cells
/// around them, keeps the positions in marked cells, and searches a grid of these. For
/// centres whose K-th neighbour may be farther away than that, the whole scan is
/// indexed after all.
pub struct Few<'a> {
    positions: &'a [f64],
    bounds: [[f64; 2]; 2],
    threads: usize,
    whole: Lazy<Index>,
}

impl<'a> Few<'a> {
    /// Prepares to search `positions`, x and y in turn, for this number of centres; None
    /// if these are too many.
    pub fn new(positions: &'a [f64], centers: usize, threads: usize) -> Result<Option<Self>> {
        if centers.saturating_mul(POSITIONS_PER_CENTER) > positions.len() / 2 {
            return Ok(None);
        }
        Ok(Some(Self {
            positions,
            bounds: bounds::of(positions, threads)?,
            threads,
            whole: Lazy::default(),
        }))
    }

    fn whole(&self) -> Result<&Index> {
        let build = || Index::build(self.positions, Engine::Auto, self.threads);
        self.whole.get(build)
    }

    fn at(&self, point: i32) -> [f64; 2] {
        let point = 2 * point as usize;
        [self.positions[point], self.positions[point + 1]]
    }

    /// The positions at most `reach` cells from any of the `centers`, and their indices,
    /// which rise.
    fn around(
        &self,
        [x, y]: [Axis; 2],
        reach: usize,
        centers: &[i32],
    ) -> Result<(Buffer<f64>, Buffer<i32>)> {
        let mut marked = memory::cleared::<u8>(WHAT, x.cells * y.cells)?;
        for &center in centers {
            let [cx, cy] = self.at(center);
            let [first, last] = x.around(x.cell(cx), reach);
            let rows = y.around(y.cell(cy), reach);
            for row in rows[0]..=rows[1] {
                marked[row * x.cells + first..=row * x.cells + last].fill(1);
            }
        }
        // First the indices of each part on their own, then all one after another.
        let n = self.positions();
        let mut found = Buffer::<i32>::new(WHAT, n, 1)?;
        let mut counts = memory::cleared(WHAT, n.div_ceil(POSITIONS_PER_PART))?;
        let shared_found = shared::words(&mut found);
        parallel::for_each_chunk(&mut counts, 1, self.threads, |part, count| {
            let first = part * POSITIONS_PER_PART;
            let positions = &self.positions[2 * first..];
            let positions = &positions[..positions.len().min(2 * POSITIONS_PER_PART)];
            let mut points = first as u32..;
            let mut kept = first;
            in_cells([x, y], positions, |positions, [columns, rows]| {
                let cells = columns.iter().zip(rows).take(positions.len());
                for ((&column, &row), point) in cells.zip(&mut points) {
                    shared_found[kept].store(point, Relaxed);
                    kept += usize::from(marked[row as usize * x.cells + column as usize]);
                }
            });
            count[0] = kept - first;
            Ok(())
        })?;
        let mut kept = Buffer::<i32>::new(WHAT, counts.iter().sum(), 1)?;
        let mut positions = Buffer::<f64>::new(WHAT, kept.len(), 2)?;
        let (mut points, mut places) = (&mut kept[..], &mut positions[..]);
        let mut targets = memory::room(WHAT, counts.len())?;
        for &count in &counts {
            let (own_points, other_points) = points.split_at_mut(count);
            let (own_places, other_places) = places.split_at_mut(2 * count);
            targets.push((own_points, own_places));
            (points, places) = (other_points, other_places);
        }
        parallel::for_each_chunk(&mut targets, 1, self.threads, |part, target| {
            let (points, places) = &mut target[0];
            points.copy_from_slice(&found[part * POSITIONS_PER_PART..][..points.len()]);
            for (&point, place) in points.iter().zip(places.chunks_exact_mut(2)) {
                place.copy_from_slice(&self.at(point));
            }
            Ok(())
        })?;
        Ok((positions, kept))
    }

    /// Whether no position that was left out can be as near as the last neighbour.
    fn certain(&self, axes: [Axis; 2], reach: usize, center: i32, neighbors: &[i32]) -> bool {
        let here = self.at(center);
        let around = [0, 1].map(|i| axes[i].around(axes[i].cell(here[i]), reach));
        neighbors.last().is_none_or(|&farthest| {
            let there = self.at(farthest);
            let [dx, dy] = [there[0] - here[0], there[1] - here[1]];
            margin(axes, around, here).exceeds(dx * dx + dy * dy)
        })
    }
}

impl Neighbors for Few<'_> {
    fn positions(&self) -> usize {
        self.positions.len() / 2
    }

    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        let n = self.positions();
        let Query {
            centers,
            width,
            threads,
            ..
        } = query;
        check::indices("centers", centers, n)?;
        let k = query.k.min(n - 1);
        let in_whole = |centers: &[i32]| {
            let whole = self.whole()?;
            whole.batches(Query { centers, ..query }, &scratch, &work)
        };
        // Cells hold one position on average. Within this reach there are 3.5 times
        // as many as are needed, so that a circle with too few of them is rare.
        let reach = (1.1 * (k + 1) as f64).sqrt().ceil() as usize;
        let cells = axes(n, self.bounds, 1.0);
        let (positions, kept) = self.around(cells, reach, centers)?;
        if kept.len() > n / 2 || kept.len() <= k {
            return in_whole(centers);
        }
        // The same cells as those of a grid of the whole scan.
        let grid = Grid::within(&positions, axes(n, self.bounds, OCCUPANCY), threads)?;
        if grid.is_crowded() {
            return in_whole(centers);
        }
        let mut own = memory::copy(WHAT, centers)?;
        parallel::for_each_chunk(&mut own, 1024, threads, |_, own| {
            for own in own {
                *own = kept.partition_point(|point| point < own) as i32;
            }
            Ok(())
        })?;
        let far = Mutex::new(Vec::new());
        let mut rows = grid.batches(
            Query {
                centers: &own,
                k,
                ..query
            },
            || (scratch(), Vec::new()),
            |own, (scratch, names), neighbors, out| {
                for neighbor in &mut *neighbors {
                    *neighbor = kept[*neighbor as usize];
                }
                memory::replace(WHAT, names, own)?;
                for name in &mut *names {
                    *name = kept[*name as usize];
                }
                for (&center, neighbors) in names.iter().zip(neighbors.chunks_exact(k.max(1))) {
                    if !self.certain(cells, reach, center, neighbors) {
                        let mut far = far.lock().unwrap_or_else(PoisonError::into_inner);
                        memory::push(WHAT, &mut far, center)?;
                    }
                }
                work(names, scratch, neighbors, out)
            },
        )?;
        let mut far = far.into_inner().unwrap_or_else(PoisonError::into_inner);
        if far.len() > centers.len() / 16 {
            return in_whole(centers);
        }
        if !far.is_empty() {
            far.sort_unstable();
            let right = in_whole(&far)?;
            for (center, row) in centers.iter().zip(rows.chunks_exact_mut(width.max(1))) {
                if let Ok(place) = far.binary_search(center) {
                    row.copy_from_slice(&right[place * width..][..width]);
                }
            }
        }
        Ok(rows)
    }
}
