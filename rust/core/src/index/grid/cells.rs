//! The cells of a grid: which cell a position is in, and how far away everything
//! outside of some cells must be.

use pulp::{Simd, WithSimd};

use crate::simd;

/// Positions per cell, on average. With fewer, the nearest 7 often lie beyond the
/// adjacent cells; with more, there is more to search.
pub const OCCUPANCY: f64 = 4.0;

/// A shorter axis has a single cell: the inverse of a cell's length must be finite, and
/// its square must not be subnormal.
pub const SHORTEST: f64 = 1e-140;

/// One axis of the grid.
#[derive(Clone, Copy)]
pub struct Axis {
    low: f64,
    pub cells: usize,
    last: u32,
    /// Length of a cell.
    pub size: f64,
    inverse: f64,
    /// More than rounding can move a position relative to the borders of cells.
    slack: f64,
}

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
            // A cell number is a rounded product of two rounded factors, minus a half;
            // a border is a rounded product. That makes fewer than 8 roundings of
            // numbers up to the extent, 4 EPSILON in all. This is twice as much.
            slack: 8.0 * f64::EPSILON * extent,
        }
    }

    /// The cell of a coordinate. It never decreases as the coordinate grows.
    #[inline(always)]
    pub fn cell(&self, coordinate: f64) -> usize {
        self.short_cell(coordinate) as usize
    }

    #[inline(always)]
    fn short_cell(&self, coordinate: f64) -> u32 {
        /// 2^52, where adjacent floats are whole numbers. Adding it to a number below
        /// 2^32 rounds that number and leaves it in the lowest bits. A cast would not
        /// compile to a vector instruction.
        const ROUNDS: f64 = 4_503_599_627_370_496.0;
        let middle = (coordinate - self.low) * self.inverse - 0.5;
        ((middle.max(0.0) + ROUNDS).to_bits() as u32).min(self.last)
    }

    /// The first and the last cell that are at most `rings` cells away from a cell.
    #[inline(always)]
    pub fn around(&self, cell: usize, rings: usize) -> [usize; 2] {
        [
            cell.saturating_sub(rings),
            (cell + rings).min(self.cells - 1),
        ]
    }

    /// Where the cells `first..=last` end, relative to `origin`: no position of another
    /// cell lies between these ends.
    #[inline(always)]
    pub fn ends(&self, [first, last]: [usize; 2], origin: f64) -> [f64; 2] {
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
pub const CHUNK: usize = 512;

/// The columns of their cells, and the rows.
pub type Cells = [[u32; CHUNK]; 2];

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

/// Calls `take` with up to [`CHUNK`] positions at a time and with the columns and rows of
/// their cells. The caller has called [`simd::name`], which reports the only error that
/// can occur here.
pub fn in_cells(axes: [Axis; 2], positions: &[f64], mut take: impl FnMut(&[[f64; 2]], &Cells)) {
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

/// A lower bound of the distance from a position to anything outside of some cells.
#[derive(Clone, Copy)]
pub struct Margin(pub f64);

impl Margin {
    /// Whether a squared distance is smaller, by more than rounding explains.
    #[inline(always)]
    pub fn exceeds(self, d2: f64) -> bool {
        self.0 > 0.0 && d2 < self.0 * self.0 * (1.0 - 16.0 * f64::EPSILON)
    }
}

/// The margin from `position` to the end of the cells `around` it, along x and y.
#[inline(always)]
pub fn margin(axes: [Axis; 2], around: [[usize; 2]; 2], position: [f64; 2]) -> Margin {
    let along = [0, 1].map(|i| {
        let [below, above] = axes[i].ends(around[i], position[i]);
        above.min(-below)
    });
    Margin(along[0].min(along[1]))
}

/// The axes of cells that are as square as possible and hold `occupancy` positions on
/// average.
pub fn axes(n: usize, [low, high]: [[f64; 2]; 2], occupancy: f64) -> [Axis; 2] {
    let wanted = (n as f64 / occupancy).max(1.0);
    let [width, height] = [high[0] - low[0], high[1] - low[1]];
    // A line has one row (or one column). The ratio 0/0 is a scan at a single place.
    let ratio = height / width;
    let rows = (wanted * ratio).sqrt().clamp(1.0, wanted);
    let rows = if rows.is_nan() { 1.0 } else { rows.round() };
    let columns = (wanted / rows).round().max(1.0);
    [
        Axis::new(low[0], high[0], columns as usize),
        Axis::new(low[1], high[1], rows as usize),
    ]
}
