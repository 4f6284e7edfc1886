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

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pulp::{Simd, WithSimd};

use super::boxes::{self, BoxTree, Entry};
use super::{NeighborIndex, Neighbors, Wanted, looked};
use crate::memory::{self, Buffer};
use crate::parallel::Lazy;
use crate::{Result, check, parallel, shared, simd};

/// Positions of a cell, on average. Fewer, and the nearest 7 often lie beyond
/// the cells around; more, and there is more to search.
pub(super) const OCCUPANCY: f64 = 4.0;

/// What memory is for.
const WHAT: &str = "The grid of positions";
const WHAT_FOUND: &str = "The neighbors of positions";

/// Positions sorted at a time: what the second-level cache holds.
const POSITIONS_A_BAND: usize = 1 << 14;

/// An exact index of scan positions in cells.
pub struct Grid {
    x: Axis,
    y: Axis,
    /// The positions of cell (row, column) stand at
    /// `starts[row * columns + column]..` the next start.
    starts: Buffer<u32>,
    xs: Buffer<f64>,
    ys: Buffer<f64>,
    points: Buffer<i32>,
    // Those three go on for eight more elements, which may be read and mean
    // nothing.
    n: usize,
    /// Where each position stands; most uses never ask.
    place_of_point: Lazy<Vec<u32>>,
    crowding: f64,
    /// For what cells are no help with; most uses never ask.
    tree: Lazy<Box<BoxTree>>,
}

/// One axis of the grid.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    low: f64,
    pub cells: usize,
    last: u32,
    /// Length of a cell.
    size: f64,
    inverse: f64,
    /// More than rounding can move a position against the cells' borders.
    slack: f64,
}

/// Shorter axes are one cell: the inverse of a cell must be finite, and its
/// square no subnormal number.
const SHORTEST: f64 = 1e-140;

impl Axis {
    fn new(low: f64, high: f64, cells: usize) -> Self {
        let extent = high - low;
        let cells = if extent < SHORTEST { 1 } else { cells };
        Self {
            low,
            cells,
            last: (cells - 1) as u32,
            size: extent / cells as f64,
            inverse: if cells == 1 {
                0.0
            } else {
                cells as f64 / extent
            },
            // A cell number is a rounded product of two rounded factors, less
            // a half, a border a rounded product: in all less than 8 roundings
            // of numbers up to the extent, 4 EPSILON. This is twice that.
            slack: 8.0 * f64::EPSILON * extent,
        }
    }

    /// The cell of a coordinate; never decreases with it.
    #[inline(always)]
    pub fn cell(&self, coordinate: f64) -> usize {
        self.short_cell(coordinate) as usize
    }

    #[inline(always)]
    fn short_cell(&self, coordinate: f64) -> u32 {
        /// Its neighbours are whole numbers: added to a number below 2^32 it
        /// rounds it and leaves it in the lowest bits. A cast would not become
        /// a vector instruction.
        const ROUNDS: f64 = 4_503_599_627_370_496.0;
        let middle = (coordinate - self.low) * self.inverse - 0.5;
        ((middle.max(0.0) + ROUNDS).to_bits() as u32).min(self.last)
    }

    /// The first and the last cell up to `rings` cells from one.
    #[inline(always)]
    pub fn around(&self, cell: usize, rings: usize) -> [usize; 2] {
        [
            cell.saturating_sub(rings),
            (cell + rings).min(self.cells - 1),
        ]
    }

    /// Where cells `first..=last` end, seen from `origin`: no position of other
    /// cells lies between.
    #[inline(always)]
    fn ends(&self, [first, last]: [usize; 2], origin: f64) -> [f64; 2] {
        let origin = origin - self.low;
        let below = if first == 0 {
            f64::NEG_INFINITY
        } else {
            first as f64 * self.size - origin + self.slack
        };
        let above = if last + 1 >= self.cells {
            f64::INFINITY
        } else {
            (last + 1) as f64 * self.size - origin - self.slack
        };
        [below, above]
    }
}

/// Positions whose cells are computed together.
pub(super) const CHUNK: usize = 512;

/// The columns and the rows of their cells.
pub(super) type Cells = [[u32; CHUNK]; 2];

struct FindCells<'a> {
    axes: [Axis; 2],
    positions: &'a [f64],
    cells: &'a mut Cells,
}

impl WithSimd for FindCells<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let [columns, rows] = self.cells;
        let targets = columns.iter_mut().zip(rows);
        for (position, (column, row)) in self.positions.as_chunks::<2>().0.iter().zip(targets) {
            *column = self.axes[0].short_cell(position[0]);
            *row = self.axes[1].short_cell(position[1]);
        }
    }
}

/// Hands up to [`CHUNK`] positions at a time to `take`, with the columns and
/// rows of their cells. [`simd::name`] has found that vectors can be chosen.
pub(super) fn in_cells(
    axes: [Axis; 2],
    positions: &[f64],
    mut take: impl FnMut(&[[f64; 2]], &Cells),
) {
    let mut cells = [[0; CHUNK]; 2];
    for positions in positions.chunks(2 * CHUNK) {
        let find = FindCells {
            axes,
            positions,
            cells: &mut cells,
        };
        simd::run(find).unwrap_or_default();
        take(positions.as_chunks().0, &cells);
    }
}

/// How far from a position anything outside some cells is, at least.
#[derive(Clone, Copy)]
pub(super) struct Margin(f64);

impl Margin {
    /// Whether a squared distance is less, by more than rounding.
    #[inline(always)]
    pub fn exceeds(self, d2: f64) -> bool {
        self.0 > 0.0 && d2 < self.0 * self.0 * (1.0 - 16.0 * f64::EPSILON)
    }
}

/// The margin around `position` inside the cells `around` it, along x and y.
#[inline(always)]
pub(super) fn margin(axes: [Axis; 2], around: [[usize; 2]; 2], position: [f64; 2]) -> Margin {
    let along = [0, 1].map(|i| {
        let [below, above] = axes[i].ends(around[i], position[i]);
        above.min(-below)
    });
    Margin(along[0].min(along[1]))
}

/// What is sorted into bands: a position and where it goes.
const ENTRY: usize = 3;

impl Grid {
    /// Builds the index of `positions`, x and y in turn.
    pub fn build(positions: &[f64], threads: usize) -> Result<Self> {
        let bounds = check::bounds(positions, threads)?;
        let axes = axes(positions.len() / 2, bounds, OCCUPANCY);
        Self::within(positions, axes, threads)
    }

    /// The same in these cells, of positions that were checked.
    pub(super) fn within(positions: &[f64], [x, y]: [Axis; 2], threads: usize) -> Result<Self> {
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
        let mut xs = Buffer::<f64>::new(WHAT, n + SORTED, 1)?;
        let mut ys = Buffer::<f64>::new(WHAT, n + SORTED, 1)?;
        let mut points = Buffer::<i32>::new(WHAT, n + SORTED, 1)?;
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
    fn run(&self, row: usize, columns: [usize; 2]) -> std::ops::Range<usize> {
        let first = row * self.x.cells;
        self.starts[first + columns[0]] as usize..self.starts[first + columns[1] + 1] as usize
    }

    fn places(&self) -> Result<&Vec<u32>> {
        self.place_of_point.get(|| {
            let mut places = memory::cleared(WHAT, self.n)?;
            for (&point, place) in self.points[..self.n].iter().zip(0_u32..) {
                places[point as usize] = place;
            }
            Ok(places)
        })
    }

    /// How many rings of cells hold `k` neighbours, as a rule.
    fn rings(&self, k: usize) -> usize {
        let wanted = 1.5 * (k + 1) as f64 / OCCUPANCY;
        let rings = if self.x.cells == 1 || self.y.cells == 1 {
            0.5 * wanted
        } else {
            (wanted / std::f64::consts::PI).sqrt()
        };
        (rings.ceil() as usize).max(1)
    }

    /// The `k` nearest of the position at `place`, by the definition. Cells are
    /// searched ring by ring, from `rings` on; no more than `bound` (d²) away,
    /// if that is known to hold them.
    fn nearest_by_definition(
        &self,
        place: usize,
        k: usize,
        mut rings: usize,
        mut bound: f64,
        found: &mut Vec<u128>,
        out: &mut Vec<i32>,
    ) -> Result<()> {
        let [x, y] = [self.xs[place], self.ys[place]];
        let [column, row] = [self.x.cell(x), self.y.cell(y)];
        loop {
            let columns = self.x.around(column, rings);
            let rows = self.y.around(row, rings);
            let mut count = 0;
            for row in rows[0]..=rows[1] {
                let run = self.run(row, columns);
                if found.len() < count + run.len() {
                    memory::resize(WHAT_FOUND, found, count + run.len(), 0)?;
                }
                looked(1 + run.len());
                let first = run.start;
                let near = &mut found[..];
                let candidates = self.xs[run.clone()].iter().zip(&self.ys[run.clone()]);
                for ((i, (cx, cy)), &point) in candidates.enumerate().zip(&self.points[run]) {
                    let [dx, dy] = [cx - x, cy - y];
                    let d2 = dx * dx + dy * dy;
                    near[count] = u128::from(d2.to_bits()) << 32 | point as u128;
                    count += usize::from(d2 <= bound && first + i != place);
                }
            }
            let margin = margin([self.x, self.y], [columns, rows], [x, y]);
            let near = &mut found[..count];
            if count < k {
                if margin.0 == f64::INFINITY {
                    // Only where `bound` did not hold: never a wrong answer.
                    bound = f64::INFINITY;
                }
                rings *= 2;
                continue;
            }
            if count > k {
                near.select_nth_unstable(k - 1);
            }
            let near = &mut near[..k];
            let farthest = near.iter().max().map_or(0, |&key| (key >> 32) as u64);
            let farthest = f64::from_bits(farthest);
            if margin.exceeds(farthest) {
                near.sort_unstable();
                memory::make_room(WHAT_FOUND, out, k)?;
                out.extend(near.iter().map(|&key| key as u32 as i32));
                return Ok(());
            }
            bound = farthest;
            let missing = (farthest.sqrt() - margin.0) / self.x.size.max(self.y.size);
            rings += 1 + missing.clamp(0.0, rings as f64) as usize;
        }
    }
}

fn part_of(positions: &[f64], i: usize, part: usize) -> &[f64] {
    let end = positions.len();
    &positions[(2 * i * part).min(end)..(2 * (i + 1) * part).min(end)]
}

/// Cells as square as the extents allow, with so many positions in each.
pub(super) fn axes(n: usize, [low, high]: [[f64; 2]; 2], occupancy: f64) -> [Axis; 2] {
    let wanted = (n as f64 / occupancy).max(1.0);
    let [width, height] = [high[0] - low[0], high[1] - low[1]];
    // A line has one row (or column); 0/0 is a scan at one place.
    let ratio = height / width;
    let rows = (wanted * ratio).sqrt().clamp(1.0, wanted);
    let rows = if rows.is_nan() { 1.0 } else { rows.round() };
    let columns = (wanted / rows).round().max(1.0);
    [
        Axis::new(low[0], high[0], columns as usize),
        Axis::new(low[1], high[1], rows as usize),
    ]
}

/// Candidates that a stretch of a row is searched among.
const CANDIDATES: usize = 512;
/// Positions of a stretch: the widest vectors have this many lanes.
const LANES: usize = 16;
/// Candidates sorted at a time.
const SORTED: usize = 8;
/// The longest list that lanes keep.
const LONGEST: usize = 32;
/// The rounding of float32.
const U: f32 = 1.0 / 16_777_216.0;

/// A stretch of a row, in units of a cell relative to its first position.
struct Stretch {
    /// The candidates that are the stretch's own positions.
    own: [u32; LANES],
    x: [f32; CANDIDATES],
    y: [f32; CANDIDATES],
    places: [u32; CANDIDATES],
    points: [i32; CANDIDATES],
    candidates: usize,
    /// No coordinate above exceeds this.
    width: f32,
    /// Where the candidates' cells end: low and high x, low and high y.
    ends: [f32; 4],
    /// What was found: the smallest squared distances of each lane, with
    /// candidates' numbers in their lowest bits.
    nearest: [[f32; LANES]; LONGEST],
    /// The numbers' bits.
    numbers: u32,
    /// 1 where the first K and their order are certain.
    certain: [f32; LANES],
    /// 1 where no other position can be as near as the K-th.
    complete: [f32; LANES],
    /// At least the K-th squared distance.
    bound: [f32; LANES],
}

impl Stretch {
    const EMPTY: Self = Self {
        own: [0; LANES],
        x: [0.0; CANDIDATES],
        y: [0.0; CANDIDATES],
        places: [0; CANDIDATES],
        points: [0; CANDIDATES],
        candidates: 0,
        width: 0.0,
        ends: [0.0; 4],
        nearest: [[0.0; LANES]; LONGEST],
        numbers: 0,
        certain: [0.0; LANES],
        complete: [0.0; LANES],
        bound: [0.0; LANES],
    };

    /// The candidate in a lane's list.
    #[inline(always)]
    fn candidate(&self, nearest: f32) -> usize {
        (nearest.to_bits() & self.numbers) as usize % CANDIDATES
    }

    /// The part of a distance that its number may hide; more than that.
    #[inline(always)]
    fn hidden(&self) -> f32 {
        U * (6.0 * (self.numbers as f32 + 1.0) + 16.0)
    }
}

/// How far two squared distances up to `d2` may be from what was computed in
/// float32, beyond what [`Stretch::hidden`] covers.
///
/// With u the rounding, W the width and d the distance: coordinates are within
/// u W, differences within 4 u W, d² within 12 u W d + 4 u d² + 32 u² W². A
/// distance is at most √8 W.
#[inline(always)]
fn error<S: Simd>(s: S, d2: S::f32s, width: f32) -> S::f32s {
    s.mul_add_e_f32s(
        s.sqrt_f32s(s.min_f32s(d2, s.splat_f32s(8.0 * width * width))),
        s.splat_f32s(26.0 * U * width),
        s.splat_f32s(80.0 * U * U * width * width + 4.0 * TINY),
    )
}

/// Keeps keys from being subnormal, which a process may flush to zero.
const TINY: f32 = 1e-30;

/// Farther than any candidate, its square finite.
const FAR: f32 = 1e18;

/// The cells around a stretch.
#[derive(Clone, Copy)]
struct Around {
    rows: [usize; 2],
    columns: [usize; 2],
}

/// Searches a stretch: `L` is the length of a lane's list, more than `k`.
struct Search<'a, const L: usize> {
    grid: &'a Grid,
    stretch: &'a mut Stretch,
    centers: &'a [(u32, u32)],
    around: Around,
    k: usize,
}

impl<const L: usize> WithSimd for Search<'_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Self {
            grid,
            stretch,
            centers,
            around,
            k,
        } = self;
        load(grid, stretch, centers, around);
        looked(stretch.candidates * centers.len());
        for first in (0..centers.len()).step_by(S::F32_LANES) {
            search::<S, L>(s, stretch, first, k);
        }
    }
}

/// Eight at a time.
#[inline(always)]
fn chunks<T>(values: &[T]) -> &[[T; SORTED]] {
    values.as_chunks().0
}

/// How many positions are best searched together.
struct Together;

impl WithSimd for Together {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES.min(LANES)
    }
}

#[inline(always)]
fn load(grid: &Grid, stretch: &mut Stretch, centers: &[(u32, u32)], around: Around) {
    let [xs, ys] = [&*grid.xs, &*grid.ys];
    let points = &*grid.points;
    let scale = 1.0 / grid.x.size.max(grid.y.size);
    let origin = centers[0].0 as usize;
    let [ox, oy] = [xs[origin], ys[origin]];
    let mut count = 0;
    for row in around.rows[0]..=around.rows[1] {
        let run = grid.run(row, around.columns);
        // Eights to the end, and beyond it: the next run, or what is far, comes
        // there.
        let eights = run.len().next_multiple_of(SORTED);
        let from = run.start..run.start + eights;
        let to = count..count + eights;
        let targets = stretch.x[to.clone()].as_chunks_mut().0.iter_mut();
        for (target, x) in targets.zip(chunks(&xs[from.clone()])) {
            *target = x.map(|x| ((x - ox) * scale) as f32);
        }
        let targets = stretch.y[to.clone()].as_chunks_mut().0.iter_mut();
        for (target, y) in targets.zip(chunks(&ys[from.clone()])) {
            *target = y.map(|y| ((y - oy) * scale) as f32);
        }
        let targets = stretch.points[to.clone()].as_chunks_mut().0.iter_mut();
        for (target, points) in targets.zip(chunks(&points[from.clone()])) {
            *target = *points;
        }
        let targets = stretch.places[to].as_chunks_mut::<SORTED>().0.iter_mut();
        for (target, first) in targets.zip((run.start as u32..).step_by(SORTED)) {
            *target = std::array::from_fn(|i| first + i as u32);
        }
        if run.contains(&origin) {
            let last = centers.len() - 1;
            for (lane, own) in stretch.own.iter_mut().enumerate() {
                // Idle lanes repeat the last.
                *own = (count + centers[lane.min(last)].0 as usize - run.start) as u32;
            }
        }
        count += run.len();
    }
    // What fills the last eight is farther than anything.
    stretch.candidates = count.next_multiple_of(SORTED);
    stretch.x[count..stretch.candidates].fill(FAR);
    stretch.y[count..stretch.candidates].fill(0.0);
    stretch.numbers = stretch.candidates.next_power_of_two() as u32 - 1;
    let cells = |ends: [usize; 2]| (ends[1] - ends[0] + 1) as f64;
    let width = f64::max(
        cells(around.columns) * grid.x.size,
        cells(around.rows) * grid.y.size,
    );
    stretch.width = (scale * width) as f32 * (1.0 + 4.0 * U);
    let [left, right] = grid.x.ends(around.columns, ox);
    let [top, bottom] = grid.y.ends(around.rows, oy);
    stretch.ends = [left, right, top, bottom].map(|end| (end * scale) as f32);
}

#[inline(always)]
fn search<S: Simd, const L: usize>(s: S, stretch: &mut Stretch, first: usize, k: usize) {
    let lanes = first..first + S::F32_LANES;
    let own = &stretch.own[lanes.clone()];
    let coordinates = |values: &[f32; CANDIDATES]| {
        let mut here = [0.0; LANES];
        for (here, &own) in here.iter_mut().zip(own) {
            *here = values[own as usize % CANDIDATES];
        }
        s.partial_load_f32s(&here[..S::F32_LANES])
    };
    let [px, py] = [coordinates(&stretch.x), coordinates(&stretch.y)];
    let owns = own[0] as usize..own[own.len() - 1] as usize + 1;
    let own = s.partial_load_u32s(own);
    let keep = s.splat_u32s(!stretch.numbers);
    let tiny = s.splat_f32s(TINY);
    let infinity = s.splat_f32s(f32::INFINITY);
    let mut list = [infinity; L];
    let xs = stretch.x[..stretch.candidates].as_chunks::<SORTED>().0;
    let ys = stretch.y[..stretch.candidates].as_chunks::<SORTED>().0;
    for ((xs, ys), number) in xs.iter().zip(ys).zip((0_u32..).step_by(SORTED)) {
        let key = |i: usize| {
            let dx = s.sub_f32s(s.splat_f32s(xs[i]), px);
            let dy = s.sub_f32s(s.splat_f32s(ys[i]), py);
            let d2 = s.mul_add_e_f32s(dx, dx, s.mul_add_e_f32s(dy, dy, tiny));
            let bits = s.and_u32s(s.transmute_u32s_f32s(d2), keep);
            s.transmute_f32s_u32s(s.or_u32s(bits, s.splat_u32s(number + i as u32)))
        };
        let mut keys = std::array::from_fn(key);
        if (number as usize) < owns.end && owns.start < number as usize + SORTED {
            for (key, i) in keys.iter_mut().zip(number..) {
                let itself = s.equal_u32s(own, s.splat_u32s(i));
                *key = s.select_f32s(itself, infinity, *key);
            }
        }
        sort(s, &mut keys);
        keep_smallest(s, &mut list, &keys);
    }

    let w = stretch.width;
    let larger = s.splat_f32s(1.0 + stretch.hidden());
    let smaller = s.splat_f32s(1.0 - stretch.hidden());
    let [zero, one] = [s.splat_f32s(0.0), s.splat_f32s(1.0)];
    let [left, right, top, bottom] = stretch.ends.map(|end| s.splat_f32s(end));
    let error = error(s, list[k], w);
    let mut certain = one;
    for pair in list[..=k].windows(2) {
        let gap = s.sub_f32s(s.mul_f32s(pair[1], smaller), pair[0]);
        certain = s.select_f32s(s.greater_than_f32s(gap, error), certain, zero);
    }
    let bound = s.mul_add_e_f32s(list[k - 1], larger, error);
    let margin = s.min_f32s(
        s.min_f32s(s.sub_f32s(px, left), s.sub_f32s(right, px)),
        s.min_f32s(s.sub_f32s(py, top), s.sub_f32s(bottom, py)),
    );
    let margin = s.max_f32s(s.sub_f32s(margin, s.splat_f32s(16.0 * U * w)), zero);
    let inside = s.less_than_f32s(bound, s.mul_f32s(margin, margin));
    let complete = s.select_f32s(inside, one, zero);
    for (nearest, &list) in stretch.nearest.iter_mut().zip(&list) {
        s.partial_store_f32s(&mut nearest[lanes.clone()], list);
    }
    let certain = s.min_f32s(certain, complete);
    s.partial_store_f32s(&mut stretch.certain[lanes.clone()], certain);
    s.partial_store_f32s(&mut stretch.complete[lanes.clone()], complete);
    s.partial_store_f32s(&mut stretch.bound[lanes], bound);
}

/// Orders pairs of keys in each lane, written out: a loop over a table of pairs
/// would keep the keys in memory.
macro_rules! order {
    ($s:expr, $keys:expr, $([$i:literal, $j:literal])*) => {
        $(
            let [a, b] = [$keys[$i], $keys[$j]];
            $keys[$i] = $s.min_f32s(a, b);
            $keys[$j] = $s.max_f32s(a, b);
        )*
    };
}

/// Sorts eight keys in each lane, by the network of 19 comparisons (Knuth, The
/// Art of Computer Programming 3, section 5.3.4).
#[inline(always)]
fn sort<S: Simd>(s: S, keys: &mut [S::f32s; SORTED]) {
    order!(s, keys, [0, 2] [1, 3] [4, 6] [5, 7] [0, 4] [1, 5] [2, 6] [3, 7]);
    order!(s, keys, [0, 1] [2, 3] [4, 5] [6, 7] [2, 4] [3, 5] [1, 4] [3, 6]);
    order!(s, keys, [1, 2] [3, 4] [5, 6]);
}

/// Merges eight sorted keys into a sorted list, and drops the largest: the
/// smaller of a rising and a falling sequence rise and fall, which Batcher's
/// bitonic merge sorts (Knuth, as above).
#[inline(always)]
fn keep_smallest<S: Simd, const L: usize>(s: S, list: &mut [S::f32s; L], keys: &[S::f32s; SORTED]) {
    for i in 0..SORTED {
        let kept = &mut list[L - SORTED + i];
        *kept = s.min_f32s(*kept, keys[SORTED - 1 - i]);
    }
    if L == 32 {
        order_halves::<S, 16>(s, list);
    }
    if L >= 16 {
        for half in list.chunks_exact_mut(16) {
            order_halves::<S, 8>(s, half);
        }
    }
    for keys in list.as_chunks_mut::<SORTED>().0 {
        order!(s, keys, [0, 4] [1, 5] [2, 6] [3, 7]);
        order!(s, keys, [0, 2] [1, 3] [4, 6] [5, 7] [0, 1] [2, 3] [4, 5] [6, 7]);
    }
}

#[inline(always)]
fn order_halves<S: Simd, const HALF: usize>(s: S, keys: &mut [S::f32s]) {
    for i in 0..HALF {
        let [a, b] = [keys[i], keys[i + HALF]];
        keys[i] = s.min_f32s(a, b);
        keys[i + HALF] = s.max_f32s(a, b);
    }
}

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
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> T + Sync,
        work: impl Fn(&[i32], &mut T, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        const PLACES_A_PART: usize = 2048;
        let n = self.positions();
        check::indices("centers", centers, n)?;
        let k = k.min(n - 1);
        let threads = parallel::worth(centers.len(), threads);
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
            let mut results = memory::cleared(WHAT_FOUND, width.saturating_mul(LANES))?;
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

/// 1 + the row of each position among `centers`, 0 where it is none of them.
fn rows_of_points(n: usize, centers: &[i32], threads: usize) -> Result<Buffer<u32>> {
    const ROWS_A_PART: usize = 1 << 14;
    let mut rows = Buffer::new(WHAT_FOUND, n, 1)?;
    parallel::for_each_chunk(&mut rows, 4 * ROWS_A_PART, threads, |_, rows| {
        rows.fill(0);
        Ok(())
    })?;
    let shared_rows = shared::words(&mut rows);
    parallel::for_each(centers.len().div_ceil(ROWS_A_PART), threads, |part| {
        let first = part * ROWS_A_PART;
        let centers = centers[first..].iter().take(ROWS_A_PART);
        for (&center, row) in centers.zip(first as u32 + 1..) {
            shared_rows[center as usize].store(row, Relaxed);
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Goes along a row of cells, stretch by stretch.
struct Visitor<'a> {
    grid: &'a Grid,
    k: usize,
    rings: usize,
    /// How many positions are searched together.
    together: usize,
    /// Whether ties call for lists longer than k + 1.
    tied: bool,
    /// (place, row of the result) of the centres in a row of cells.
    centers: Vec<(u32, u32)>,
    stretch: Box<Stretch>,
    found: Vec<u128>,
    neighbors: Vec<i32>,
}

/// Some centres and their neighbours.
struct Batch<'a> {
    centers: &'a [i32],
    neighbors: &'a mut [i32],
    /// (place, row of the result) of each.
    rows: &'a [(u32, u32)],
}

impl<'a> Visitor<'a> {
    fn new(grid: &'a Grid, k: usize, together: usize) -> Self {
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

    fn visit(
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
        for (&point, place) in points[all.clone()].iter().zip(all.start as u32..) {
            let result = row_of_point[point as usize];
            if result != 0 {
                memory::push(WHAT_FOUND, &mut centers, (place, result - 1))?;
            }
        }
        let mut rest = &centers[..];
        let mut names = [0; LANES];
        while !rest.is_empty() {
            let searched = self.search(rest, row);
            let (lanes, others) = rest.split_at(searched.max(1));
            rest = others;
            self.neighbors.clear();
            let mut tied = 0;
            for (lane, &(place, _)) in lanes.iter().enumerate() {
                names[lane] = points[place as usize];
                let stretch = &*self.stretch;
                if searched == 0 {
                    self.by_definition(place, f64::INFINITY)?;
                } else if stretch.certain[lane] != 0.0 {
                    let nearest = stretch.nearest[..self.k].iter();
                    // At most LONGEST times LANES: no limit is as low.
                    self.neighbors.extend(
                        nearest.map(|nearest| stretch.points[stretch.candidate(nearest[lane])]),
                    );
                } else {
                    tied += usize::from(stretch.complete[lane] != 0.0);
                    if !self.among_listed(lane, place) {
                        let scale = grid.x.size.max(grid.y.size);
                        let bound = f64::from(self.stretch.bound[lane]) * (1.0 + 1e-6);
                        self.by_definition(place, bound * scale * scale)?;
                    }
                }
            }
            self.tied = 4 * tied > lanes.len();
            work(Batch {
                centers: &names[..lanes.len()],
                neighbors: &mut self.neighbors,
                rows: lanes,
            })?;
        }
        self.centers = centers;
        Ok(())
    }

    fn by_definition(&mut self, place: u32, bound: f64) -> Result<()> {
        self.grid.nearest_by_definition(
            place as usize,
            self.k,
            self.rings,
            bound,
            &mut self.found,
            &mut self.neighbors,
        )
    }

    /// Puts a lane's list into order by the definition, if the list is known to
    /// hold the k nearest: there is a gap behind the k-th or a later one.
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

    /// Searches the first of `centers` together, as many as fit, and says how
    /// many these are: none, where even one has too many candidates.
    fn search(&mut self, centers: &[(u32, u32)], row: usize) -> usize {
        let grid = self.grid;
        let k = self.k;
        // In cells too small squared distances underflow, and by that are tied:
        // only the definition knows.
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
        let searched = match list_length(k, self.tied) {
            8 => simd::run(Search::<8> {
                grid,
                stretch,
                centers,
                around,
                k,
            }),
            16 => simd::run(Search::<16> {
                grid,
                stretch,
                centers,
                around,
                k,
            }),
            _ => simd::run(Search::<32> {
                grid,
                stretch,
                centers,
                around,
                k,
            }),
        };
        searched.map_or(0, |()| together)
    }
}

/// The length of the lists that lanes keep for `k` neighbours.
fn list_length(k: usize, tied: bool) -> usize {
    (k + 1 + usize::from(tied))
        .next_power_of_two()
        .clamp(SORTED, LONGEST)
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
