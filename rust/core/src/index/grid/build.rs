//! The grid itself: the positions of a scan, sorted into cells.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::cells::{Axis, OCCUPANCY, axes, in_cells};
use crate::index::boxes::BoxTree;
use crate::memory::{self, Buffer};
use crate::parallel::Lazy;
use crate::{Result, bounds, parallel, shared, simd};

/// What memory is for.
const WHAT: &str = "The grid of positions";

/// Positions sorted at a time: what the second-level cache holds.
const POSITIONS_A_BAND: usize = 1 << 14;

/// Elements behind the last position that may be read, and mean nothing:
/// candidates are loaded so many at a time.
pub(super) const PADDING: usize = 8;

/// What is sorted into bands: a position and where it goes.
const ENTRY: usize = 3;

/// An exact index of scan positions in cells.
pub struct Grid {
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// The positions of cell (row, column) stand at
    /// `starts[row * columns + column]..` the next start.
    pub(super) starts: Buffer<u32>,
    pub(super) xs: Buffer<f64>,
    pub(super) ys: Buffer<f64>,
    pub(super) points: Buffer<i32>,
    // Those three go on for PADDING more elements.
    pub(super) n: usize,
    /// Where each position stands; most uses never ask.
    place_of_point: Lazy<Vec<u32>>,
    crowding: f64,
    /// For what cells are no help with; most uses never ask.
    pub(super) tree: Lazy<Box<BoxTree>>,
}

impl Grid {
    /// Builds the index of `positions`, x and y in turn.
    pub fn build(positions: &[f64], threads: usize) -> Result<Self> {
        let bounds = bounds::of(positions, threads)?;
        let axes = axes(positions.len() / 2, bounds, OCCUPANCY);
        Self::within(positions, axes, threads)
    }

    /// The same in these cells, of positions that were checked.
    pub fn within(positions: &[f64], [x, y]: [Axis; 2], threads: usize) -> Result<Self> {
        let n = positions.len() / 2;
        let threads = parallel::worth(n / 4, threads);
        simd::name()?;

        // First the bands of rows, then the cells of each band: two passes over
        // memory that is written in few places at a time, where one pass would
        // miss the cache at every position.
        let rows_a_band = (y.cells * POSITIONS_A_BAND).div_ceil(n).next_power_of_two();
        let shift = rows_a_band.trailing_zeros();
        let bands = y.cells.div_ceil(rows_a_band);
        let part = n.div_ceil(threads);
        let mut counts = memory::cleared::<u32>(WHAT, threads.saturating_mul(bands))?;
        parallel::for_each_chunk(&mut counts, bands, threads, |i, counts| {
            let positions = part_of(positions, i, part);
            in_cells([x, y], positions, |positions, [_, rows]| {
                for &row in &rows[..positions.len()] {
                    counts[row as usize >> shift] += 1;
                }
            });
            Ok(())
        })?;
        let mut band_starts = memory::room(WHAT, bands + 1)?;
        let mut total = 0;
        for band in 0..bands {
            band_starts.push(total as usize);
            for part in 0..threads {
                let count = &mut counts[part * bands + band];
                total += std::mem::replace(count, total);
            }
        }
        band_starts.push(n);

        let mut entries = Buffer::<u64>::new(WHAT, n, ENTRY)?;
        let shared_entries = shared::long_words(&mut entries);
        parallel::for_each_chunk(&mut counts, bands, threads, |i, next| {
            let mut points = (i * part) as u64..;
            in_cells([x, y], part_of(positions, i, part), |positions, cells| {
                let cells = cells[0].iter().zip(&cells[1]);
                for ((position, point), (&column, &row)) in
                    positions.iter().zip(&mut points).zip(cells)
                {
                    let band = row as usize >> shift;
                    let row = row as usize - (band << shift);
                    let cell = row * x.cells + column as usize;
                    let entry = &shared_entries[ENTRY * next[band] as usize..][..ENTRY];
                    next[band] += 1;
                    entry[0].store(position[0].to_bits(), Relaxed);
                    entry[1].store(position[1].to_bits(), Relaxed);
                    entry[2].store((cell as u64) << 32 | point, Relaxed);
                }
            });
            Ok(())
        })?;

        let cells = x.cells * y.cells;
        let mut starts = Buffer::<u32>::new(WHAT, cells + 1, 1)?;
        let mut xs = Buffer::<f64>::new(WHAT, n + PADDING, 1)?;
        let mut ys = Buffer::<f64>::new(WHAT, n + PADDING, 1)?;
        let mut points = Buffer::<i32>::new(WHAT, n + PADDING, 1)?;
        let mut crowds = memory::cleared::<u64>(WHAT, bands)?;
        {
            let starts = shared::words(&mut starts);
            let xs = shared::long_words(&mut xs);
            let ys = shared::long_words(&mut ys);
            let points = shared::words(&mut points);
            parallel::for_each_chunk(&mut crowds, 1, threads, |band, crowd| {
                let first_cell = (band << shift) * x.cells;
                let last_cell = (((band + 1) << shift) * x.cells).min(cells);
                let (first, last) = (band_starts[band], band_starts[band + 1]);
                let entries = &entries[ENTRY * first..ENTRY * last];
                let mut next = memory::cleared::<u32>(WHAT, last_cell - first_cell)?;
                for entry in entries.chunks_exact(ENTRY) {
                    next[(entry[2] >> 32) as usize] += 1;
                }
                let mut place = first as u32;
                for (next, start) in next.iter_mut().zip(&starts[first_cell..]) {
                    start.store(place, Relaxed);
                    let count = *next;
                    crowd[0] += u64::from(count) * u64::from(count);
                    *next = place;
                    place += count;
                }
                for entry in entries.chunks_exact(ENTRY) {
                    let next = &mut next[(entry[2] >> 32) as usize];
                    let place = *next as usize;
                    *next += 1;
                    xs[place].store(entry[0], Relaxed);
                    ys[place].store(entry[1], Relaxed);
                    points[place].store(entry[2] as u32, Relaxed);
                }
                Ok(())
            })?;
        }
        starts[cells] = n as u32;
        Ok(Self {
            x,
            y,
            n,
            starts,
            xs,
            ys,
            points,
            place_of_point: Lazy::default(),
            tree: Lazy::default(),
            crowding: crowds.iter().sum::<u64>() as f64 / n as f64,
        })
    }

    /// Whether positions crowd in few cells: then a tree is faster. That is
    /// known before anything is searched.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        /// Positions in the cell of a position, on average; 5 where they are
        /// spread at random.
        const MOST: f64 = 40.0;
        self.crowding > MOST
    }

    /// The places of cells `columns` of a row.
    #[inline(always)]
    pub(super) fn run(&self, row: usize, columns: [usize; 2]) -> Range<usize> {
        let first = row * self.x.cells;
        self.starts[first + columns[0]] as usize..self.starts[first + columns[1] + 1] as usize
    }

    pub(super) fn places(&self) -> Result<&Vec<u32>> {
        self.place_of_point.get(|| {
            let mut places = memory::cleared(WHAT, self.n)?;
            for (&point, place) in self.points[..self.n].iter().zip(0_u32..) {
                places[point as usize] = place;
            }
            Ok(places)
        })
    }
}

fn part_of(positions: &[f64], i: usize, part: usize) -> &[f64] {
    let end = positions.len();
    &positions[(2 * i * part).min(end)..(2 * (i + 1) * part).min(end)]
}
