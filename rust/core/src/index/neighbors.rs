//! The traits of an index of scan positions, and what can be asked of it.

use crate::{Result, check, memory, parallel};

/// Which neighbours are asked for, and how many numbers are computed from them.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The positions whose neighbours are asked for.
    pub centers: &'a [i32],
    /// Neighbours per position (K); all other positions if these are fewer.
    pub k: usize,
    /// How many numbers are computed from the neighbours of each position.
    pub width: usize,
    /// How many threads to use. The results do not depend on it.
    pub threads: usize,
}

/// Finds the neighbours of many positions of a scan.
///
/// Neighbours are ordered by (d², index), where `d² = dx·dx + dy·dy` is computed in
/// float64 without fused operations. The centre itself is left out by its index, so
/// another position at the same place is a neighbour at distance 0. This order has no
/// ties, so all implementations give the same result.
pub trait Neighbors: Sync {
    /// The number of positions, at least 1.
    fn positions(&self) -> usize;

    /// Computes a row of `query.width` numbers for each of `query.centers` from
    /// its `min(k, positions() - 1)` nearest neighbours, nearest first.
    ///
    /// `work(centers, scratch, neighbors, out)` is called for some centres at a time. It
    /// gets their neighbours row by row, which it may overwrite, and fills their rows of
    /// the result. The index chooses the order of the centres. For a centre that is
    /// named twice, `work` is called once or twice, so its result must be a function of
    /// the centre.
    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>>;

    /// Does the same as [`batches`](Self::batches), one centre at a time:
    /// `work(center, scratch, neighbors, out)`.
    fn rows<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(i32, &mut S, &mut Vec<i32>, &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        let width = query.width;
        self.batches(
            query,
            || (scratch(), Vec::new()),
            |centers, (scratch, own), neighbors, out| {
                let k = neighbors.len() / centers.len();
                for (i, &center) in centers.iter().enumerate() {
                    memory::replace(WHAT, own, &neighbors[i * k..][..k])?;
                    work(center, scratch, own, &mut out[i * width..][..width])?;
                }
                Ok(())
            },
        )
    }
}

/// Also finds the neighbours of a single position, without a batch.
pub trait NeighborIndex: Neighbors {
    /// Memory that is reused from one call to the next.
    type Scratch: Default;

    /// Fills `out` with the nearest neighbours of position `center`, nearest
    /// first. `out` is no longer than `positions() - 1`.
    fn nearest(&self, center: usize, scratch: &mut Self::Scratch, out: &mut [i32]) -> Result<()>;

    /// Appends the `k` nearest neighbours that are wanted to `out`, or all of them if
    /// they are fewer. It does not take longer if many nearer ones are not wanted.
    ///
    /// Returns false if the index cannot do this, because it only knows a list of
    /// neighbours.
    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Self::Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool>;
}

/// Which neighbours of a position are wanted, by the vector from it to them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// The smallest squared distance that is wanted.
    pub least: f64,
    /// The largest squared distance that is wanted.
    pub most: f64,
    /// The quadrant in which neighbours must lie, if it matters: whether to the right,
    /// and whether upwards.
    pub quadrant: Option<[bool; 2]>,
}

impl Wanted {
    /// All neighbours.
    pub const ALL: Self = Self {
        least: 0.0,
        most: f64::INFINITY,
        quadrant: None,
    };

    pub(super) fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    /// Whether a neighbour at this vector from the centre is wanted.
    #[must_use]
    pub fn holds(&self, shift @ [dx, dy]: [f64; 2]) -> bool {
        let d2 = dx * dx + dy * dy;
        let on = |axis: usize, upwards: bool| {
            if upwards {
                shift[axis] > 0.0
            } else {
                shift[axis] < 0.0
            }
        };
        self.least <= d2
            && d2 <= self.most
            && self.quadrant.is_none_or(|[x, y]| on(0, x) && on(1, y))
    }

    /// Whether no neighbour in the box from `low` to `high`, relative to the centre, can
    /// be wanted. (The largest distance is not considered.)
    pub(super) fn excludes(&self, low: [f64; 2], high: [f64; 2]) -> bool {
        let beside = |axis: usize, upwards: bool| {
            if upwards {
                high[axis] <= 0.0
            } else {
                low[axis] >= 0.0
            }
        };
        let [dx, dy] = [0, 1].map(|axis| (-low[axis]).max(high[axis]));
        dx * dx + dy * dy < self.least
            || self
                .quadrant
                .is_some_and(|[x, y]| beside(0, x) || beside(1, y))
    }
}

#[cfg(test)]
thread_local! {
    /// Nodes and candidates that this thread has looked at.
    pub(super) static LOOKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts what a search looks at. Tests check that this grows no faster than the scan.
#[inline(always)]
pub(super) fn looked(at: usize) {
    #[cfg(test)]
    LOOKED.with(|looked| looked.set(looked.get() + at as u64));
    let _ = at;
}

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors of scan positions";

/// The `min(k, n - 1)` nearest neighbours of each centre, nearest first, in rows; and
/// the length of a row.
pub fn neighbors<I: Neighbors>(
    index: &I,
    centers: &[i32],
    k: usize,
    threads: usize,
) -> Result<(Vec<i32>, usize)> {
    let width = k.min(index.positions() - 1);
    let query = Query {
        centers,
        k,
        width,
        threads,
    };
    let rows = index.batches(
        query,
        || (),
        |_, (), neighbors, out| {
            out.copy_from_slice(neighbors);
            Ok(())
        },
    )?;
    Ok((rows, width))
}

/// [`Neighbors::batches`] for an index that searches one position at a time.
///
/// Centres are visited in the order of `place`, a path through the scan on which
/// successive positions are near each other. A search then finds in the cache what the
/// one before it used: 2 to 4 times faster if the centres are in random order.
pub(super) fn one_by_one<I: NeighborIndex, S>(
    index: &I,
    place: impl Fn(i32) -> u32,
    query: Query<'_>,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
) -> Result<Vec<i32>> {
    let Query {
        centers,
        k,
        width,
        threads,
    } = query;
    check::indices("centers", centers, index.positions())?;
    let k = k.min(index.positions() - 1);
    let keyed = centers.iter().enumerate();
    let keyed = keyed.map(|(row, &center)| u64::from(place(center)) << 32 | row as u64);
    let mut keyed = memory::collect(WHAT, keyed)?;
    parallel::sort(&mut keyed, threads)?;
    let order = memory::collect(WHAT, keyed.into_iter().map(|key| key as u32))?;
    parallel::rows_in_order(
        &order,
        width,
        threads,
        || (I::Scratch::default(), scratch(), Vec::new()),
        |row, (own, scratch, neighbors), out| {
            let center = centers[row as usize];
            memory::resize(WHAT, neighbors, k, 0)?;
            index.nearest(center as usize, own, neighbors)?;
            work(&[center], scratch, neighbors, out)
        },
    )
}
