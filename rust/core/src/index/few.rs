//! Neighbours of a few positions of a large scan, without indexing all of it.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::grid::{Axis, Grid, OCCUPANCY, axes, margin};
use super::{Engine, Index, Neighbors};
use crate::{Result, check, parallel};

/// One centre in so many positions, or fewer, are few.
const POSITIONS_A_CENTER: usize = 100;

/// Positions that one thread looks at, at a time.
const POSITIONS_A_PART: usize = 1 << 14;

/// Looks at what is around the centres it is asked about: marks the cells around
/// them, keeps the positions in marked cells, and searches a grid of these. Where
/// the K-th neighbour turns out to be farther than what was kept, the whole scan
/// is indexed after all.
pub struct Few<'a> {
    positions: &'a [f64],
    bounds: [[f64; 2]; 2],
    threads: usize,
    whole: OnceLock<Result<Index>>,
}

impl<'a> Few<'a> {
    /// The index of `positions`, x and y in turn, for a few centres; None where
    /// `centers` are not few enough.
    pub fn new(positions: &'a [f64], centers: usize, threads: usize) -> Result<Option<Self>> {
        if centers.saturating_mul(POSITIONS_A_CENTER) > positions.len() / 2 {
            return Ok(None);
        }
        Ok(Some(Self {
            positions,
            bounds: check::bounds(positions, threads)?,
            threads,
            whole: OnceLock::new(),
        }))
    }

    fn whole(&self) -> Result<&Index> {
        self.whole
            .get_or_init(|| Index::build(self.positions, Engine::Auto, self.threads))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn at(&self, point: i32) -> [f64; 2] {
        let point = 2 * point as usize;
        [self.positions[point], self.positions[point + 1]]
    }

    /// The positions at most `reach` cells from any of `centers`, and which
    /// these are, in order.
    fn around(
        &self,
        [x, y]: [Axis; 2],
        reach: usize,
        centers: &[i32],
    ) -> Result<(Vec<f64>, Vec<i32>)> {
        let mut marked = vec![0_u8; x.cells * y.cells];
        for &center in centers {
            let [cx, cy] = self.at(center);
            let [first, last] = x.around(x.cell(cx), reach);
            let rows = y.around(y.cell(cy), reach);
            for row in rows[0]..=rows[1] {
                marked[row * x.cells + first..=row * x.cells + last].fill(1);
            }
        }
        let parts = self.positions.chunks(2 * POSITIONS_A_PART);
        let mut kept: Vec<Vec<i32>> = vec![Vec::new(); parts.len()];
        parallel::for_each_chunk(&mut kept, 1, self.threads, |part, kept| {
            let first = part * POSITIONS_A_PART;
            let positions = &self.positions[2 * first..];
            let mut found = vec![0; POSITIONS_A_PART];
            let mut count = 0;
            for (position, point) in positions
                .chunks_exact(2)
                .take(POSITIONS_A_PART)
                .zip(first as i32..)
            {
                found[count] = point;
                let cell = y.cell(position[1]) * x.cells + x.cell(position[0]);
                count += usize::from(marked[cell]);
            }
            found.truncate(count);
            kept[0] = found;
        })?;
        let kept = kept.concat();
        let mut positions = vec![0.0; 2 * kept.len()];
        parallel::for_each_chunk(
            &mut positions,
            2 * POSITIONS_A_PART,
            self.threads,
            |part, positions| {
                let kept = &kept[part * POSITIONS_A_PART..];
                for (position, &point) in positions.chunks_exact_mut(2).zip(kept) {
                    position.copy_from_slice(&self.at(point));
                }
            },
        )?;
        Ok((positions, kept))
    }

    /// Whether nothing that was left out can be as near as the last neighbour.
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
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) + Sync,
    ) -> Result<Vec<i32>> {
        let n = self.positions();
        check::indices("centers", centers, n)?;
        let k = k.min(n - 1);
        let in_whole = |centers: &[i32]| {
            let whole = self.whole()?;
            whole.batches(centers, k, width, threads, &scratch, &work)
        };
        // Cells of one position each: within this reach are 3.5 times as many
        // as are needed, and a circle that holds fewer is rare.
        let reach = (1.1 * (k + 1) as f64).sqrt().ceil() as usize;
        let cells = axes(n, self.bounds, 1.0);
        let (positions, kept) = self.around(cells, reach, centers)?;
        if kept.len() > n / 2 || kept.len() <= k {
            return in_whole(centers);
        }
        // The cells that a grid of the whole scan would have.
        let grid = Grid::within(&positions, axes(n, self.bounds, OCCUPANCY), threads)?;
        if grid.is_crowded() {
            return in_whole(centers);
        }
        let own: Vec<i32> = centers
            .iter()
            .map(|center| kept.partition_point(|point| point < center) as i32)
            .collect();
        let far = Mutex::new(Vec::new());
        let mut rows = grid.batches(
            &own,
            k,
            width,
            threads,
            || (scratch(), Vec::new()),
            |own, (scratch, names), neighbors, out| {
                for neighbor in &mut *neighbors {
                    *neighbor = kept[*neighbor as usize];
                }
                names.clear();
                names.extend(own.iter().map(|&own| kept[own as usize]));
                for (&center, neighbors) in names.iter().zip(neighbors.chunks_exact(k.max(1))) {
                    if !self.certain(cells, reach, center, neighbors) {
                        far.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(center);
                    }
                }
                work(names, scratch, neighbors, out);
            },
        )?;
        let far = far.into_inner().unwrap_or_else(PoisonError::into_inner);
        if far.len() > centers.len() / 16 {
            return in_whole(centers);
        }
        if !far.is_empty() {
            let right = in_whole(&far)?;
            for (center, right) in far.iter().zip(right.chunks_exact(width.max(1))) {
                let same = |row: &usize| centers[*row] == *center;
                for row in (0..centers.len()).filter(same) {
                    rows[row * width..][..width].copy_from_slice(right);
                }
            }
        }
        Ok(rows)
    }
}
