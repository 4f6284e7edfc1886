//! The vectorised search: the positions of a stretch of a row of cells at the same
//! time, each in one lane.

use pulp::{Simd, WithSimd};

use super::build::{Grid, PADDING};
use crate::index::neighbors::looked;
use crate::{Result, simd};

/// The largest number of candidates for the neighbours of a stretch.
pub(super) const CANDIDATES: usize = 512;

/// The largest number of positions in a stretch: the lanes of the widest vectors.
pub(super) const LANES: usize = 16;

/// Candidates that are sorted at a time.
pub(super) const SORTED: usize = PADDING;

/// The length of the longest list that a lane keeps.
pub(super) const LONGEST: usize = 32;

/// The unit roundoff of float32.
const U: f32 = 1.0 / 16_777_216.0;

/// A stretch of a row and its candidates. Coordinates are in units of a cell, relative
/// to the first position of the stretch.
pub(super) struct Stretch {
    /// Which candidates are the positions of the stretch themselves.
    own: [u32; LANES],
    x: [f32; CANDIDATES],
    y: [f32; CANDIDATES],
    pub(super) places: [u32; CANDIDATES],
    pub(super) points: [i32; CANDIDATES],
    candidates: usize,
    /// An upper bound of the coordinates.
    pub(super) width: f32,
    /// Where the cells of the candidates end: low and high x, low and high y.
    ends: [f32; 4],
    /// The result: the smallest squared distances of each lane, with the numbers of
    /// candidates in their lowest bits.
    pub(super) nearest: [[f32; LANES]; LONGEST],
    /// The bits that hold these numbers.
    numbers: u32,
    /// 1 if the K nearest of the lane and their order are certain, else 0.
    pub(super) certain: [f32; LANES],
    /// 1 if no position beside the candidates can be as near as the K-th, else 0.
    pub(super) complete: [f32; LANES],
    /// An upper bound of the K-th squared distance.
    pub(super) bound: [f32; LANES],
}

impl Stretch {
    pub(super) const EMPTY: Self = Self {
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

    /// The candidate of an entry in a lane's list.
    #[inline(always)]
    pub(super) fn candidate(&self, nearest: f32) -> usize {
        (nearest.to_bits() & self.numbers) as usize % CANDIDATES
    }

    /// More than the relative error of a squared distance whose lowest bits are replaced
    /// by a number.
    #[inline(always)]
    pub(super) fn hidden(&self) -> f32 {
        U * (6.0 * (self.numbers as f32 + 1.0) + 16.0)
    }
}

/// How much the float32 values of two squared distances up to `d2` can be wrong in
/// total, beyond what [`Stretch::hidden`] covers.
///
/// Let u be the unit roundoff, W the width and d the distance. Then the error of a
/// coordinate is at most u W, of a difference 4 u W, and of d²
/// 12 u W d + 4 u d² + 32 u² W². A distance is at most √8 W.
#[inline(always)]
pub(super) fn error<S: Simd>(s: S, d2: S::f32s, width: f32) -> S::f32s {
    s.mul_add_e_f32s(
        s.sqrt_f32s(s.min_f32s(d2, s.splat_f32s(8.0 * width * width))),
        s.splat_f32s(26.0 * U * width),
        s.splat_f32s(80.0 * U * U * width * width + 4.0 * TINY),
    )
}

/// Keeps keys from being subnormal numbers, which a process may flush to zero.
const TINY: f32 = 1e-30;

/// A coordinate farther away than any candidate, whose square is finite.
const FAR: f32 = 1e18;

/// The cells around a stretch.
#[derive(Clone, Copy)]
pub(super) struct Around {
    pub rows: [usize; 2],
    pub columns: [usize; 2],
}

/// The kernel: searches a stretch. `L`, the length of a lane's list, exceeds `k`.
struct SearchStretch<'a, const L: usize> {
    grid: &'a Grid,
    stretch: &'a mut Stretch,
    centers: &'a [(u32, u32)],
    around: Around,
    k: usize,
}

impl<const L: usize> WithSimd for SearchStretch<'_, L> {
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

/// Searches a stretch, with lists of `length` entries.
pub(super) fn search_stretch(
    grid: &Grid,
    stretch: &mut Stretch,
    centers: &[(u32, u32)],
    around: Around,
    k: usize,
    length: usize,
) -> Result<()> {
    match length {
        8 => simd::run(SearchStretch::<8> {
            grid,
            stretch,
            centers,
            around,
            k,
        }),
        16 => simd::run(SearchStretch::<16> {
            grid,
            stretch,
            centers,
            around,
            k,
        }),
        _ => simd::run(SearchStretch::<32> {
            grid,
            stretch,
            centers,
            around,
            k,
        }),
    }
}

/// Values eight at a time.
#[inline(always)]
fn chunks<T>(values: &[T]) -> &[[T; SORTED]] {
    values.as_chunks().0
}

/// How many positions are searched together: the lanes of the vectors in use.
pub(super) struct Together;

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
        // Loads eight at a time, to the end of the run and beyond. The next run, or
        // what is far away, overwrites what is too much.
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
                // Idle lanes repeat the last position.
                *own = (count + centers[lane.min(last)].0 as usize - run.start) as u32;
            }
        }
        count += run.len();
    }
    // The last eight are filled up with what is farther away than anything.
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

/// Orders pairs of keys in each lane. The pairs are written out, because a loop over a
/// table of them would keep the keys in memory rather than in registers.
macro_rules! order {
    ($s:expr, $keys:expr, $([$i:literal, $j:literal])*) => {
        $(
            let [a, b] = [$keys[$i], $keys[$j]];
            $keys[$i] = $s.min_f32s(a, b);
            $keys[$j] = $s.max_f32s(a, b);
        )*
    };
}

/// Sorts eight keys in each lane by the network of 19 comparisons (Knuth, The Art of
/// Computer Programming, volume 3, section 5.3.4).
#[inline(always)]
fn sort<S: Simd>(s: S, keys: &mut [S::f32s; SORTED]) {
    order!(s, keys, [0, 2] [1, 3] [4, 6] [5, 7] [0, 4] [1, 5] [2, 6] [3, 7]);
    order!(s, keys, [0, 1] [2, 3] [4, 5] [6, 7] [2, 4] [3, 5] [1, 4] [3, 6]);
    order!(s, keys, [1, 2] [3, 4] [5, 6]);
}

/// Merges eight sorted keys into a sorted list, and drops the eight largest. The
/// elementwise minimum of a rising and a falling sequence rises and then falls, and
/// Batcher's bitonic merge sorts such sequences (Knuth, as above).
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

/// The length of the lists in which lanes find `k` neighbours; longer if ties are to be
/// expected.
pub(super) fn list_length(k: usize, tied: bool) -> usize {
    (k + 1 + usize::from(tied))
        .next_power_of_two()
        .clamp(SORTED, LONGEST)
}
