//! The search along a row of cells, stretch by stretch.

use std::sync::atomic::Ordering::Relaxed;

use super::build::Grid;
use super::cells::SHORTEST;
use super::search::{
    Around, CANDIDATES, LANES, LONGEST, SORTED, Stretch, error, list_length, search_stretch,
};
use crate::memory::{self, Buffer};
use crate::{Result, hints, parallel, shared};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors of scan positions";

/// For each position 1 + its row among `centers`, or 0 if it is not one of them.
pub(super) fn rows_of_points(n: usize, centers: &[i32], threads: usize) -> Result<Buffer<u32>> {
    const ROWS_PER_PART: usize = 1 << 14;
    let mut rows = Buffer::new(WHAT, n, 1)?;
    parallel::for_each_chunk(&mut rows, 4 * ROWS_PER_PART, threads, |_, rows| {
        rows.fill(0);
        Ok(())
    })?;
    let shared_rows = shared::words(&mut rows);
    parallel::for_each(centers.len().div_ceil(ROWS_PER_PART), threads, |part| {
        let first = part * ROWS_PER_PART;
        let centers = centers[first..].iter().take(ROWS_PER_PART);
        for (&center, row) in centers.zip(first as u32 + 1..) {
            shared_rows[center as usize].store(row, Relaxed);
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Goes along rows of cells and finds the neighbours of the centres in them.
pub(super) struct Visitor<'a> {
    grid: &'a Grid,
    k: usize,
    rings: usize,
    /// How many positions are searched together, at most.
    together: usize,
    /// Whether there are so many ties that lists should be longer than k + 1.
    tied: bool,
    /// The centres in a row of cells: where they are stored, and their row of the
    /// result.
    centers: Vec<(u32, u32)>,
    stretch: Box<Stretch>,
    found: Vec<u128>,
    neighbors: Vec<i32>,
}

/// Some centres and their neighbours.
pub(super) struct Batch<'a> {
    pub centers: &'a [i32],
    pub neighbors: &'a mut [i32],
    /// Where each centre is stored, and its row of the result.
    pub rows: &'a [(u32, u32)],
    /// The same of the centres that come next.
    pub next: &'a [(u32, u32)],
}

impl<'a> Visitor<'a> {
    pub fn new(grid: &'a Grid, k: usize, together: usize) -> Self {
        Self {
            grid,
            k,
            rings: grid.rings(k),
            together,
            tied: false,
            centers: Vec::new(),
            stretch: Box::new(Stretch::EMPTY),
            found: Vec::new(),
            neighbors: Vec::new(),
        }
    }

    pub fn visit(
        &mut self,
        row: usize,
        row_of_point: &[u32],
        mut work: impl FnMut(Batch) -> Result<()>,
    ) -> Result<()> {
        let grid = self.grid;
        let points = &*grid.points;
        let mut centers = std::mem::take(&mut self.centers);
        centers.clear();
        let all = grid.run(row, [0, grid.x.cells - 1]);
        memory::make_room(WHAT, &mut centers, all.len())?;
        let places = points[all.clone()].iter().zip(all.start as u32..);
        centers.extend(places.filter_map(|(&point, place)| {
            let row = row_of_point[point as usize];
            (row != 0).then(|| (place, row - 1))
        }));
        let mut rest = &centers[..];
        let mut names = [0; LANES];
        while !rest.is_empty() {
            let searched = self.search(rest, row);
            let (lanes, others) = rest.split_at(searched.max(1));
            rest = others;
            // What the next row of cells will look up.
            let ahead = lanes[0].0 as usize + all.len();
            for &point in points[..grid.n].iter().skip(ahead).take(lanes.len()) {
                hints::fetch(row_of_point, point as usize);
            }
            self.neighbors.clear();
            let mut tied = 0;
            for (lane, &(place, _)) in lanes.iter().enumerate() {
                names[lane] = points[place as usize];
                let stretch = &*self.stretch;
                if searched == 0 {
                    self.by_definition(place, self.rings, f64::INFINITY)?;
                } else if stretch.certain[lane] != 0.0 {
                    let nearest = stretch.nearest[..self.k].iter();
                    // At most LONGEST times LANES elements: no memory limit is as low.
                    self.neighbors.extend(
                        nearest.map(|nearest| stretch.points[stretch.candidate(nearest[lane])]),
                    );
                } else {
                    tied += usize::from(stretch.complete[lane] != 0.0);
                    if !self.among_listed(lane, place) {
                        let scale = grid.x.size.max(grid.y.size);
                        let bound = f64::from(self.stretch.bound[lane]) * (1.0 + 1e-6);
                        // The cells that were searched do not suffice, if it is these.
                        let rings = self.rings + usize::from(self.stretch.complete[lane] == 0.0);
                        self.by_definition(place, rings, bound * scale * scale)?;
                    }
                }
            }
            self.tied = 4 * tied > lanes.len();
            work(Batch {
                centers: &names[..lanes.len()],
                neighbors: &mut self.neighbors,
                rows: lanes,
                next: &rest[..rest.len().min(LANES)],
            })?;
        }
        self.centers = centers;
        Ok(())
    }

    fn by_definition(&mut self, place: u32, rings: usize, bound: f64) -> Result<()> {
        self.grid.nearest_by_definition(
            place as usize,
            self.k,
            rings,
            bound,
            &mut self.found,
            &mut self.neighbors,
        )
    }

    /// Takes the k nearest from a lane's list, sorted by exact distances. Returns false if
    /// the list is not certain to hold them: it is if there is a gap behind the k-th entry
    /// or a later one.
    fn among_listed(&mut self, lane: usize, place: u32) -> bool {
        let stretch = &*self.stretch;
        let length = list_length(self.k, self.tied);
        if stretch.complete[lane] == 0.0 {
            return false;
        }
        let gap = |i: &usize| {
            let [near, far] = [stretch.nearest[*i][lane], stretch.nearest[i + 1][lane]];
            let error = error(pulp::Scalar, far, stretch.width);
            far * (1.0 - stretch.hidden()) - near > error
        };
        let Some(last) = (self.k - 1..length - 1).find(gap) else {
            return false;
        };
        let [xs, ys] = [&*self.grid.xs, &*self.grid.ys];
        let [x, y] = [xs[place as usize], ys[place as usize]];
        self.found.clear();
        for nearest in &stretch.nearest[..=last] {
            let candidate = stretch.candidate(nearest[lane]);
            let other = stretch.places[candidate];
            let [dx, dy] = [xs[other as usize] - x, ys[other as usize] - y];
            let d2 = dx * dx + dy * dy;
            let key = u128::from(d2.to_bits()) << 32 | stretch.points[candidate] as u128;
            self.found.push(key);
        }
        self.found.sort_unstable();
        let nearest = self.found[..self.k].iter();
        self.neighbors.extend(nearest.map(|&key| key as u32 as i32));
        true
    }

    /// Searches as many of the first `centers` together as fit, and returns how many
    /// these are. It is 0 if even one has too many candidates.
    fn search(&mut self, centers: &[(u32, u32)], row: usize) -> usize {
        let grid = self.grid;
        let k = self.k;
        // In very small cells squared distances underflow, so that all are tied. Only
        // the exact search breaks such ties.
        let size = grid.x.size.max(grid.y.size);
        if !(1..LONGEST).contains(&k) || size < SHORTEST {
            return 0;
        }
        let spread = |first: usize, last: usize, cells: usize| {
            [
                first.saturating_sub(self.rings),
                (last + self.rings).min(cells - 1),
            ]
        };
        let xs = &*grid.xs;
        let column = |center: usize| grid.x.cell(xs[centers[center].0 as usize]);
        let rows = spread(row, row, grid.y.cells);
        let mut together = centers.len().min(self.together);
        let around = loop {
            if together == 0 {
                return 0;
            }
            let columns = spread(column(0), column(together - 1), grid.x.cells);
            let candidates: usize = (rows[0]..=rows[1])
                .map(|row| grid.run(row, columns).len())
                .sum();
            let [first, last] = [column(0), column(together - 1)];
            if candidates <= CANDIDATES - 2 * SORTED && last - first <= together {
                break Around { rows, columns };
            }
            together /= 2;
        };
        let centers = &centers[..together];
        let stretch = &mut *self.stretch;
        let length = list_length(k, self.tied);
        let searched = search_stretch(grid, stretch, centers, around, k, length);
        searched.map_or(0, |()| together)
    }
}
