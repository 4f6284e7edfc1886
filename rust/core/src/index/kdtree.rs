//! The k-d tree. This is the only file that uses kiddo.
//!
//! kiddo returns float64 distances with its own rounding, in no particular order among
//! ties, and its leaves grow with the number of positions that share a coordinate. Three
//! measures make an exact index of it:
//!
//! - **Places.** Positions that coincide share one place, and the tree holds places. So
//!   a thousand copies of a position cost no more than one. Places are stored along a
//!   Z-order curve, so that near places are near in memory.
//! - **A turned frame.** The tree gets the scan turned by an angle that no raster has.
//!   This breaks up rows and columns of equal coordinates, and lines are divided like any
//!   other scan.
//! - **Certainty.** Distances are computed again from the positions themselves. The K
//!   nearest are certain once the K-th is nearer than anything that the tree has not
//!   returned can be, rounding included. Until then the tree is asked for more.
//!
//! In two cases that would never end or is not possible, and the places are searched in
//! the tree of [`boxes`] instead: if rounding blurs a whole neighbourhood (because
//! of a far outlier, or of distances whose squares underflow), and if only some
//! neighbours are wanted, for which kiddo has no search.

use std::num::NonZero;

use kiddo::leaf_strategies::FlatVec;
use kiddo::{Eytzinger, SquaredEuclidean};

use super::boxes::{self, BoxTree, Entry};
use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted, looked, one_by_one};
use crate::parallel::Lazy;
use crate::{Error, Result, bounds, memory, parallel};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the k-d tree of scan positions";

/// Bytes that kiddo allocates for each place while it builds, at most. It does so in a
/// way that ends the process if there is no memory, so this is checked before.
const BYTES_PER_PLACE: usize = 96;

/// The tree is asked for at most this many places more than neighbours are needed.
const MOST_EXTRA: usize = 128;

/// Leaves hold 16 places, not kiddo's 32: about 10 % faster for a million positions, no
/// different for a hundred thousand.
type Tree = kiddo::KdTree<f64, u32, Eytzinger, FlatVec<f64, u32, 2, 16>, 2, 16>;

/// Cosine and sine of 0.6 rad.
const TURN: [f64; 2] = [0.825_335_614_909_678_3, 0.564_642_473_395_035_4];

/// kiddo sums distances to boxes level by level. This amply covers the rounding of 64
/// levels.
const RELATIVE_SLACK: f64 = 1e-12;

/// Smaller squared distances may have lost bits to underflow.
const SMALLEST_SAFE: f64 = 1e-280;

/// An exact index of scan positions over kiddo's immutable tree.
pub struct KdTree {
    tree: Tree,
    /// The distinct positions along the Z-order curve, (x, y).
    places: Vec<[f64; 2]>,
    /// The positions at place p are `points[starts[p]..starts[p + 1]]`, in rising order.
    points: Vec<i32>,
    starts: Vec<u32>,
    place_of_point: Vec<u32>,
    frame: Frame,
    /// The same places in the tree of boxes, made when it is first needed.
    exact: Lazy<Box<ExactPlaces>>,
}

/// The places in a tree of boxes, numbered by the smallest index at each.
///
/// Then the nearest K positions lie at the nearest K places in order of (d², number): a
/// place that comes later has K places before it, each with a position before any of its
/// own.
struct ExactPlaces {
    tree: BoxTree,
    place_of_number: Vec<u32>,
    number_of_place: Vec<u32>,
}

/// The turned frame in which the tree holds the scan.
#[derive(Clone, Copy)]
struct Frame {
    origin: [f64; 2],
    /// How much a distance in this frame can differ from the true one.
    slack: f64,
}

impl Frame {
    fn around(low: [f64; 2], high: [f64; 2]) -> Self {
        let origin = [0.5 * low[0] + 0.5 * high[0], 0.5 * low[1] + 0.5 * high[1]];
        let reach = (high[0] - low[0]).max(high[1] - low[1]);
        // With u = 2^-53 and coordinates up to reach/2 about the origin, the
        // shift, the products and the sum leave each turned coordinate within
        // 2.1 u reach, a difference of two within 4.2 u, its length within 6 u.
        // EPSILON is 2 u: more than twice the bound.
        Self {
            origin,
            slack: 8.0 * f64::EPSILON * reach,
        }
    }

    fn turn(&self, place: [f64; 2]) -> [f64; 2] {
        let [x, y] = [place[0] - self.origin[0], place[1] - self.origin[1]];
        [TURN[0] * x - TURN[1] * y, TURN[1] * x + TURN[0] * y]
    }
}

impl KdTree {
    /// Builds the index of `positions`, x and y in turn.
    pub fn build(positions: &[f64], threads: usize) -> Result<Self> {
        let [low, high] = bounds::of(positions, threads)?;
        let n = positions.len() / 2;
        let at = |point: usize| {
            // Adding 0 makes -0 and 0 the same place.
            [positions[2 * point] + 0.0, positions[2 * point + 1] + 0.0]
        };
        let points = along_curve(n, at, low, high, threads)?;

        let mut places: Vec<[f64; 2]> = memory::room(WHAT, n)?;
        let mut starts = memory::room(WHAT, n + 1)?;
        let mut place_of_point = memory::cleared(WHAT, n)?;
        for (i, &point) in points.iter().enumerate() {
            let position = at(point as usize);
            if places.last() != Some(&position) {
                places.push(position);
                starts.push(i as u32);
            }
            place_of_point[point as usize] = places.len() as u32 - 1;
        }
        starts.push(n as u32);

        let frame = Frame::around(low, high);
        let tree = build_tree(&places, frame, threads)?;
        Ok(Self {
            tree,
            places,
            points,
            starts,
            place_of_point,
            frame,
            exact: Lazy::default(),
        })
    }

    /// The tree of boxes, which is made when it is first needed.
    fn exact(&self) -> Result<&ExactPlaces> {
        let made = self.exact.get(|| {
            let mut place_of_number = memory::collect(WHAT, 0..self.places.len() as u32)?;
            place_of_number.sort_unstable_by_key(|&place| self.points_at(place)[0]);
            let mut number_of_place = memory::cleared(WHAT, self.places.len())?;
            for (number, &place) in (0..).zip(&place_of_number) {
                number_of_place[place as usize] = number;
            }
            let entry = |(&[x, y], &number): (&[f64; 2], &u32)| {
                let point = number as i32;
                Entry { x, y, point }
            };
            let entries = self.places.iter().zip(&number_of_place).map(entry);
            let tree = BoxTree::of(memory::collect(WHAT, entries)?)?;
            Ok(Box::new(ExactPlaces {
                tree,
                place_of_number,
                number_of_place,
            }))
        })?;
        Ok(made)
    }

    /// Fills `out` with the nearest neighbours that are wanted. If they are too few, the
    /// rest of it stays as it is.
    fn fill_exactly(
        &self,
        center: usize,
        wanted: Wanted,
        Scratch {
            found, ties, exact, ..
        }: &mut Scratch,
        out: &mut [i32],
    ) -> Result<()> {
        let places = self.exact()?;
        let here = self.place_of_point[center];
        let number = places.number_of_place[here as usize] as usize;
        let near = places.tree.search(number, out.len(), wanted, exact)?;
        found.clear();
        memory::make_room(WHAT, found, near.len() + 1)?;
        if wanted.holds([0.0; 2]) {
            found.push((0, here));
        }
        found.extend(near.map(|(d2, number)| (d2, places.place_of_number[number as usize])));
        self.fill(center as i32, found, ties, out)?;
        Ok(())
    }

    fn points_at(&self, place: u32) -> &[i32] {
        let place = place as usize;
        &self.points[self.starts[place] as usize..self.starts[place + 1] as usize]
    }

    /// Fills `out` from the places `found`, which are sorted by distance. Returns the
    /// squared distance of the last neighbour, or None if the places hold too few
    /// positions: then the rest of `out` stays as it is.
    fn fill(
        &self,
        center: i32,
        found: &[(u64, u32)],
        ties: &mut Vec<i32>,
        out: &mut [i32],
    ) -> Result<Option<f64>> {
        let mut filled = 0;
        for tied in found.chunk_by(|a, b| a.0 == b.0) {
            // Usually there is a single place, and nothing to sort.
            let here = if let [(_, place)] = tied {
                self.points_at(*place)
            } else {
                ties.clear();
                for &(_, place) in tied {
                    // More than this many at one place cannot all be neighbours.
                    let points = self.points_at(place);
                    let points = &points[..points.len().min(out.len() + 1)];
                    memory::make_room(WHAT, ties, points.len())?;
                    ties.extend(points);
                }
                ties.sort_unstable();
                &*ties
            };
            for &neighbor in here.iter().filter(|&&point| point != center) {
                out[filled] = neighbor;
                filled += 1;
                if filled == out.len() {
                    return Ok(Some(f64::from_bits(tied[0].0)));
                }
            }
        }
        Ok(None)
    }
}

/// Memory that is reused from one search to the next.
#[derive(Default)]
pub struct Scratch {
    /// (d² as bits, place): non-negative floats order like their bits.
    found: Vec<(u64, u32)>,
    ties: Vec<i32>,
    exact: boxes::Scratch,
    /// How many places more than K the ties of this scan require. If it exceeds
    /// [`MOST_EXTRA`], the tree of boxes is used right away.
    margin: usize,
}

impl Neighbors for KdTree {
    fn positions(&self) -> usize {
        self.place_of_point.len()
    }

    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        let place = |center: i32| self.place_of_point[center as usize];
        one_by_one(self, place, query, scratch, work)
    }
}

impl NeighborIndex for KdTree {
    type Scratch = Scratch;

    fn nearest(&self, center: usize, scratch: &mut Scratch, out: &mut [i32]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let here = self.places[self.place_of_point[center] as usize];
        let query = self.frame.turn(here);
        let Scratch {
            found,
            ties,
            margin,
            ..
        } = scratch;
        let mut extra = *margin;
        while extra <= MOST_EXTRA {
            // The centre's own place, one for each neighbour, and one that bounds the
            // distance of all others.
            let wanted = (out.len() + 2 + extra).min(self.places.len());
            looked(wanted);
            memory::make_room(WHAT, found, 2 * wanted)?;
            let nearest = self
                .tree
                .query(&query)
                .nearest_n::<SquaredEuclidean<f64>>(
                    NonZero::new(wanted).unwrap_or(NonZero::<usize>::MIN),
                )
                .execute();
            let reached = nearest.last().map_or(0.0, |last| last.distance);
            found.clear();
            found.extend(nearest.iter().map(|place| {
                let [x, y] = self.places[place.item as usize];
                let [dx, dy] = [x - here[0], y - here[1]];
                ((dx * dx + dy * dy).to_bits(), place.item)
            }));
            found.sort_unstable();
            let last = self.fill(center as i32, found, ties, out)?;
            let certain = wanted == self.places.len()
                || last.is_some_and(|last| {
                    reached > SMALLEST_SAFE
                        && last.sqrt() + self.frame.slack < reached.sqrt() * (1.0 - RELATIVE_SLACK)
                });
            if certain {
                *margin = extra.min(out.len() + 8);
                return Ok(());
            }
            extra = 2 * extra + 2;
        }
        // The positions around are probably blurred in the same way.
        *margin = extra;
        self.fill_exactly(center, Wanted::ALL, scratch, out)
    }

    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool> {
        let first = out.len();
        memory::resize(WHAT, out, first + k, -1)?;
        self.fill_exactly(center, wanted, scratch, &mut out[first..])?;
        let found = out[first..].iter().position(|&i| i < 0).unwrap_or(k);
        out.truncate(first + found);
        Ok(true)
    }
}

/// The positions in Z-order of a grid of 2^16 by 2^16 cells, and within a cell by
/// (x, y, index), so that positions that coincide follow one another.
fn along_curve(
    n: usize,
    at: impl Fn(usize) -> [f64; 2] + Sync,
    low: [f64; 2],
    high: [f64; 2],
    threads: usize,
) -> Result<Vec<i32>> {
    const POINTS_PER_CHUNK: usize = 1 << 14;
    const CELLS: f64 = 65_536.0;
    // An axis without extent gives 0 * inf = NaN, which is cast to cell 0.
    let scale = [0, 1].map(|axis| CELLS / (high[axis] - low[axis]));
    let cell =
        |value: f64, axis: usize| ((value - low[axis]) * scale[axis]).min(CELLS - 1.0) as u32;
    let mut keyed: Vec<u64> = memory::cleared(WHAT, n)?;
    parallel::for_each_chunk(&mut keyed, POINTS_PER_CHUNK, threads, |chunk, keys| {
        for (point, key) in (chunk * POINTS_PER_CHUNK..).zip(keys) {
            let [x, y] = at(point);
            let code = spread(cell(x, 0)) | spread(cell(y, 1)) << 1;
            *key = u64::from(code) << 32 | point as u64;
        }
        Ok(())
    })?;
    parallel::sort(&mut keyed, threads)?;
    for same_cell in keyed.chunk_by_mut(|a, b| a >> 32 == b >> 32) {
        if same_cell.len() > 1 {
            same_cell.sort_unstable_by(|&a, &b| {
                let [[ax, ay], [bx, by]] = [a, b].map(|key| at(key as u32 as usize));
                ax.total_cmp(&bx).then(ay.total_cmp(&by)).then(a.cmp(&b))
            });
        }
    }
    memory::collect(WHAT, keyed.iter().map(|&key| key as i32))
}

/// Moves bit i of a 16-bit number to bit 2 i.
fn spread(cell: u32) -> u32 {
    let cell = (cell | cell << 8) & 0x00ff_00ff;
    let cell = (cell | cell << 4) & 0x0f0f_0f0f;
    let cell = (cell | cell << 2) & 0x3333_3333;
    (cell | cell << 1) & 0x5555_5555
}

fn build_tree(places: &[[f64; 2]], frame: Frame, threads: usize) -> Result<Tree> {
    let turned = memory::collect(WHAT, places.iter().map(|&place| frame.turn(place)))?;
    drop(memory::room::<u8>(WHAT, BYTES_PER_PLACE * places.len())?);
    let builder = Tree::builder();
    let tree = if threads == 1 || places.len() < kiddo::DEFAULT_PARALLEL_CONSTRUCTION_THRESHOLD {
        builder.with_serial_construction().build_from_slice(&turned)
    } else {
        // kiddo splits the work over the current pool: that must be ours.
        parallel::inside(threads, || builder.build_from_slice(&turned))?
    };
    tree.map_err(|_| Error::TooManyPositions {
        n: places.len(),
        most: u32::MAX as usize,
    })
}
