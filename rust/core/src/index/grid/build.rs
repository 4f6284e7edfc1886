//! The grid itself: the positions of a scan, sorted into cells.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::cells::{Axis, OCCUPANCY, axes, in_cells};
use crate::index::boxes::BoxTree;
use crate::memory::{self, Buffer};
use crate::parallel::Lazy;
use crate::{Result, bounds, parallel, shared, simd};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the grid of scan positions";

/// The most positions that are sorted at a time: these fit in the second-level cache.
const MOST_PER_BAND: usize = 1 << 14;

/// The fewest: these fit in the first-level cache.
const LEAST_PER_BAND: usize = 1 << 11;

/// How many bands are made between these limits. More would take longer to fill.
const BANDS: usize = 64;

/// Elements behind the last position, with arbitrary values. Candidates are loaded
/// this many at a time, so they may be read; they are never used.
pub(super) const PADDING: usize = 8;

/// Words of an entry that is sorted into bands: x, y, and (cell, index).
const ENTRY: usize = 3;

/// An exact index of scan positions, sorted into cells.
pub struct Grid {
    pub(super) x: Axis,
    pub(super) y: Axis,
    /// The positions of cell (row, column) are stored from
    /// `starts[row * columns + column]` up to the next start.
    pub(super) starts: Buffer<u32>,
    pub(super) xs: Buffer<f64>,
    pub(super) ys: Buffer<f64>,
    pub(super) points: Buffer<i32>,
    // `xs`, `ys` and `points` have PADDING more elements.
    pub(super) n: usize,
    /// Where each position is stored. Made when it is first needed: mostly it is not.
    place_of_point: Lazy<Vec<u32>>,
    crowding: f64,
    /// A tree for searches that cells are no help with, made when it is first needed.
    pub(super) tree: Lazy<Box<BoxTree>>,
}

impl Grid {
    /// Builds the index of `positions`, x and y in turn.
    pub fn build(positions: &[f64], threads: usize) -> Result<Self> {
        let bounds = bounds::of(positions, threads)?;
        let axes = axes(positions.len() / 2, bounds, OCCUPANCY);
        Self::within(positions, axes, threads)
    }

    /// Builds the index in these cells, of positions that were checked before.
    pub fn within(positions: &[f64], [x, y]: [Axis; 2], threads: usize) -> Result<Self> {
        let n = positions.len() / 2;
        let threads = parallel::worth(n / 4, threads);
        simd::name()?;

        // Positions are sorted first into bands of rows, then into the cells of each
        // band. Each of these two passes writes to few places at a time; a single pass
        // would miss the cache at every position.
        let Bands {
            entries,
            starts: band_starts,
            shift,
        } = sort_into_bands(positions, [x, y], threads)?;
        let bands = band_starts.len() - 1;

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

    /// Whether positions crowd in few cells, so that a tree is faster. It is known before
    /// anything is searched.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        /// Positions that share a cell with a position, on average. It is 5 for positions
        /// that are spread at random.
        const MOST: f64 = 40.0;
        self.crowding > MOST
    }

    /// Where the positions in `columns` of a row are stored.
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

/// Positions sorted by band: rows of cells that follow one another.
struct Bands {
    /// x, y and (cell within the band, index) of each position.
    entries: Buffer<u64>,
    /// Where the positions of each band start, and where the last end.
    starts: Vec<usize>,
    /// A band has 2 to this power rows.
    shift: u32,
}

/// Sorts positions into bands.
fn sort_into_bands(positions: &[f64], [x, y]: [Axis; 2], threads: usize) -> Result<Bands> {
    let n = positions.len() / 2;
    let positions_per_band = (n / BANDS).clamp(LEAST_PER_BAND, MOST_PER_BAND);
    let rows_per_band = (y.cells * positions_per_band)
        .div_ceil(n)
        .next_power_of_two();
    let shift = rows_per_band.trailing_zeros();
    let bands = y.cells.div_ceil(rows_per_band);
    let parts = parallel::parts(threads);
    let part = n.div_ceil(parts);
    let mut counts = memory::cleared::<u32>(WHAT, parts.saturating_mul(bands))?;
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
        for part in 0..parts {
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
            for ((position, point), (&column, &row)) in positions.iter().zip(&mut points).zip(cells)
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
    Ok(Bands {
        entries,
        starts: band_starts,
        shift,
    })
}

fn part_of(positions: &[f64], i: usize, part: usize) -> &[f64] {
    let end = positions.len();
    &positions[(2 * i * part).min(end)..(2 * (i + 1) * part).min(end)]
}
