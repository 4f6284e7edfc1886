//! What an index of scan positions answers.

use crate::{Result, check, memory, parallel};

/// Whose neighbours are asked for, how many, and how much is made of them.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The positions whose neighbours are asked for.
    pub centers: &'a [i32],
    /// Neighbours of each (K); all other positions, if these are fewer.
    pub k: usize,
    /// How many numbers are computed from the neighbours of each.
    pub width: usize,
    /// How many threads to use. No result depends on it.
    pub threads: usize,
}

/// Something that finds the neighbours of many positions of a scan.
///
/// The order is that of (d², index) with `d² = dx·dx + dy·dy` in float64,
/// unfused, and the centre is left out by index, not by place. That settles
/// every tie, so all give the same answer.
pub trait Neighbors: Sync {
    /// The number of positions, at least 1.
    fn positions(&self) -> usize;

    /// Computes a row of `query.width` numbers for each of `query.centers` from
    /// its `min(k, positions() - 1)` nearest neighbours, nearest first.
    ///
    /// `work(centers, scratch, neighbors, out)` takes some centres at a time,
    /// with their neighbours and for their results row by row, and may change
    /// the neighbours as it likes. Centres come in an order that suits the
    /// index, one that is named twice once or twice: a row is a function of its
    /// centre.
    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>>;

    /// The same, one centre at a time: `work(center, scratch, neighbors, out)`.
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

/// Something that also finds those of one position, as many as are asked for.
pub trait NeighborIndex: Neighbors {
    /// What is reused from query to query.
    type Scratch: Default;

    /// Fills `out` with the nearest neighbours of position `center`, nearest
    /// first. `out` is no longer than `positions() - 1`.
    fn nearest(&self, center: usize, scratch: &mut Self::Scratch, out: &mut [i32]) -> Result<()>;

    /// Appends the `k` nearest of those wanted to `out`, or all there are, and
    /// takes no longer where nearer ones are not wanted. False where the index
    /// knows no more neighbours than [`nearest`](Self::nearest) gives.
    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Self::Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool>;
}

/// Which neighbours of a position are wanted, by where they lie from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// The smallest squared distance.
    pub least: f64,
    /// The largest.
    pub most: f64,
    /// Whether to the right and upwards, where it must be one or the other.
    pub quadrant: Option<[bool; 2]>,
}

impl Wanted {
    /// Everybody.
    pub const ALL: Self = Self {
        least: 0.0,
        most: f64::INFINITY,
        quadrant: None,
    };

    pub(super) fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    /// Whether a position is wanted that lies so far from the centre.
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

    /// Whether none is wanted of those that lie between `low` and `high` from
    /// the centre and are near enough.
    pub(super) fn is_vain(&self, low: [f64; 2], high: [f64; 2]) -> bool {
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
    /// Nodes and candidates that this thread looked at.
    pub(super) static LOOKED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts what a search looks at, for the tests that there is no more of it
/// than there must be.
#[inline(always)]
pub(super) fn looked(at: usize) {
    #[cfg(test)]
    LOOKED.with(|looked| looked.set(looked.get() + at as u64));
    let _ = at;
}

/// What memory is for.
const WHAT: &str = "The neighbors of positions";

/// The `min(k, n - 1)` nearest neighbours of each centre, nearest first, row
/// by row, and the length of a row.
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

/// [`Neighbors::batches`] of an index that finds one position's neighbours at a
/// time, in the order of `place`: a path through the scan on which near places
/// are near positions. Successive queries then find in the cache what the one
/// before them fetched, worth 2-4x where centres come in random order.
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
