//! Neighbours of scan positions.

mod boxes;
mod few;
mod grid;
mod kdtree;
mod listed;

pub use few::Few;
pub use grid::Grid;
pub use kdtree::KdTree;
pub use listed::Listed;

use crate::{Result, check, memory, parallel};

/// Something that finds the neighbours of many positions of a scan.
///
/// The order is that of (d², index) with `d² = dx·dx + dy·dy` in float64,
/// unfused, and the centre is left out by index, not by place. That settles
/// every tie, so all give the same answer.
pub trait Neighbors: Sync {
    /// The number of positions, at least 1.
    fn positions(&self) -> usize;

    /// Computes a row of `width` for each of `centers` from its
    /// `min(k, positions() - 1)` nearest neighbours, nearest first.
    ///
    /// `work(centers, scratch, neighbors, out)` takes some centres at a time,
    /// with their neighbours and for their results row by row, and may change
    /// the neighbours as it likes. Centres come in an order that suits the
    /// index, one that is named twice once or twice: a row is a function of its
    /// centre.
    fn batches<S>(
        &self,
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>>;

    /// The same, one centre at a time: `work(center, scratch, neighbors, out)`.
    fn rows<S>(
        &self,
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(i32, &mut S, &mut Vec<i32>, &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        self.batches(
            centers,
            k,
            width,
            threads,
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

    fn is_all(&self) -> bool {
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
    fn is_vain(&self, low: [f64; 2], high: [f64; 2]) -> bool {
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

/// What memory is for.
const WHAT: &str = "The neighbors of positions";

/// Counts what a search looks at, for the tests that there is no more of it
/// than there must be.
#[inline(always)]
fn looked(at: usize) {
    #[cfg(test)]
    tests::LOOKED.with(|looked| looked.set(looked.get() + at as u64));
    let _ = at;
}

/// Which index finds the neighbours. The answer is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The grid, or the tree where positions crowd.
    Auto,
    /// [`Grid`], unless positions crowd so that it would take quadratic time.
    Grid,
    /// [`KdTree`].
    KdTree,
}

/// One index or the other.
pub enum Index {
    /// Cells.
    Grid(Box<Grid>),
    /// A tree.
    KdTree(Box<KdTree>),
}

impl Index {
    /// Builds the index of `positions`, x and y in turn.
    pub fn build(positions: &[f64], engine: Engine, threads: usize) -> Result<Self> {
        if engine != Engine::KdTree {
            let grid = Grid::build(positions, threads)?;
            if !grid.is_crowded() {
                return Ok(Self::Grid(Box::new(grid)));
            }
        }
        KdTree::build(positions, threads).map(|tree| Self::KdTree(Box::new(tree)))
    }

    /// Which it is: [`Engine::Grid`] or [`Engine::KdTree`].
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self {
            Self::Grid(_) => Engine::Grid,
            Self::KdTree(_) => Engine::KdTree,
        }
    }
}

impl Neighbors for Index {
    fn positions(&self) -> usize {
        match self {
            Self::Grid(grid) => grid.positions(),
            Self::KdTree(tree) => tree.positions(),
        }
    }

    fn batches<S>(
        &self,
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        match self {
            Self::Grid(grid) => grid.batches(centers, k, width, threads, scratch, work),
            Self::KdTree(tree) => tree.batches(centers, k, width, threads, scratch, work),
        }
    }
}

impl NeighborIndex for Index {
    type Scratch = (grid::Scratch, kdtree::Scratch);

    fn nearest(&self, center: usize, scratch: &mut Self::Scratch, out: &mut [i32]) -> Result<()> {
        match self {
            Self::Grid(grid) => grid.nearest(center, &mut scratch.0, out),
            Self::KdTree(tree) => tree.nearest(center, &mut scratch.1, out),
        }
    }

    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Self::Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool> {
        match self {
            Self::Grid(grid) => grid.nearest_wanted(center, k, wanted, &mut scratch.0, out),
            Self::KdTree(tree) => tree.nearest_wanted(center, k, wanted, &mut scratch.1, out),
        }
    }
}

/// The `min(k, n - 1)` nearest neighbours of each centre, nearest first, row
/// by row, and the length of a row.
pub fn neighbors<I: Neighbors>(
    index: &I,
    centers: &[i32],
    k: usize,
    threads: usize,
) -> Result<(Vec<i32>, usize)> {
    let width = k.min(index.positions() - 1);
    let rows = index.batches(
        centers,
        k,
        width,
        threads,
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
#[expect(clippy::too_many_arguments, reason = "those of batches, and place")]
fn one_by_one<I: NeighborIndex, S>(
    index: &I,
    place: impl Fn(i32) -> u32,
    centers: &[i32],
    k: usize,
    width: usize,
    threads: usize,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
) -> Result<Vec<i32>> {
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::philox::{Key, Stage};
    use proptest::prelude::*;

    thread_local! {
        /// Nodes and candidates that this thread looked at.
        pub static LOOKED: Cell<u64> = const { Cell::new(0) };
    }

    /// The definition: all points but the centre by (d², index).
    fn by_definition(positions: &[f64], center: usize, k: usize) -> Vec<i32> {
        let mut all: Vec<(f64, i32)> = (0..positions.len() / 2)
            .filter(|&i| i != center)
            .map(|i| {
                let dx = positions[2 * i] - positions[2 * center];
                let dy = positions[2 * i + 1] - positions[2 * center + 1];
                (dx * dx + dy * dy, i as i32)
            })
            .collect();
        all.sort_by(|a, b| a.partial_cmp(b).unwrap());
        all.truncate(k);
        all.into_iter().map(|(_, i)| i).collect()
    }

    fn assert_exact(positions: &[f64], k: usize) {
        for threads in [1, 3] {
            let tree = KdTree::build(positions, threads).unwrap();
            assert_index_exact(&tree, positions, k, threads);
            let grid = Grid::build(positions, threads).unwrap();
            assert_index_exact(&grid, positions, k, threads);
            let auto = Index::build(positions, Engine::Auto, threads).unwrap();
            assert_index_exact(&auto, positions, k, threads);
        }
    }

    fn assert_index_exact<I: NeighborIndex>(
        index: &I,
        positions: &[f64],
        k: usize,
        threads: usize,
    ) {
        let n = positions.len() / 2;
        // Twice the same centre, and not in order.
        let centers: Vec<i32> = (0..n as i32).rev().chain([0, n as i32 / 2]).collect();
        let (rows, width) = neighbors(index, &centers, k, threads).unwrap();
        assert_eq!(width, k.min(n - 1));
        let mut alone = vec![0; width];
        let mut scratch = I::Scratch::default();
        for (row, &center) in centers.iter().enumerate() {
            let expected = by_definition(positions, center as usize, k);
            let found = &rows[row * width..][..width];
            assert_eq!(found, expected, "center {center} of {n}");
            index
                .nearest(center as usize, &mut scratch, &mut alone)
                .unwrap();
            assert_eq!(alone, expected, "center {center} of {n}, alone");
        }
    }

    fn coordinate() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-4_i32..4).prop_map(f64::from),
            2 => -10.0..10.0,
            1 => (-4_i32..5).prop_map(|decade| 10_f64.powi(decade)),
            1 => Just(-0.0),
            1 => Just(1e8),
            1 => Just(1e-170),
            // Squares that keep few bits, or none.
            1 => (1..100_u32).prop_map(|i| f64::from(i) * 1e-162),
            1 => (-300..150_i32).prop_map(|decade| 10_f64.powi(decade)),
            1 => Just(-1e150),
        ]
    }

    proptest! {
        #[test]
        fn exact_on_anything(
            positions in prop::collection::vec(coordinate(), 1..60)
                .prop_map(|mut v| { v.truncate(v.len() / 2 * 2); v })
                .prop_filter("a scan", |v| !v.is_empty()),
            k in 1..70_usize,
        ) {
            assert_exact(&positions, k);
        }
    }

    #[test]
    fn exact_where_all_is_tied() {
        let raster: Vec<f64> = (0..400)
            .flat_map(|i| [f64::from(i % 20), f64::from(i / 20)])
            .collect();
        assert_exact(&raster, 7);
        let line: Vec<f64> = (0..300).flat_map(|i| [5.0, f64::from(i) * 0.3]).collect();
        assert_exact(&line, 9);
        let copies: Vec<f64> = (0..300).flat_map(|i| [f64::from(i % 3), 1.0]).collect();
        assert_exact(&copies, 9);
        // Squared distances underflow: all are 0.
        let tiny = [-0.0, 0.0, 0.0, 1e-170, 1e-170, 1e-170, 3e-165, 0.0];
        assert_exact(&tiny, 2);
        let one_place = [2.5; 200];
        assert_exact(&one_place, 12);
        // 20 x 20 cells of one raster, eight decades of size.
        let clusters: Vec<f64> = (0..400)
            .flat_map(|i| {
                let size = 10_f64.powi(i % 9 - 4);
                [size * f64::from(i % 7), size * f64::from(i / 9 % 11)]
            })
            .collect();
        assert_exact(&clusters, 7);
    }

    /// Scans of `n` positions, some of them trying.
    fn shapes(n: usize) -> Vec<(&'static str, Vec<f64>)> {
        usual_shapes(n).into_iter().chain(far_shapes(n)).collect()
    }

    fn usual_shapes(n: usize) -> [(&'static str, Vec<f64>); 9] {
        let side = n.isqrt().max(1);
        let pairs = |of: &dyn Fn(usize) -> [f64; 2]| (0..n).flat_map(of).collect();
        [
            ("spread", pairs(&|i| [noise(2 * i), noise(2 * i + 1)])),
            ("raster", pairs(&|i| [(i % side) as f64, (i / side) as f64])),
            (
                "jittered raster, far away",
                pairs(&|i| {
                    let [x, y] = [(i % side) as f64, (i / side) as f64];
                    [
                        1e9 + x + 0.3 * noise(2 * i),
                        y + 0.3 * noise(2 * i + 1) - 1e7,
                    ]
                }),
            ),
            ("line", pairs(&|i| [noise(i), 3.0])),
            ("diagonal", pairs(&|i| [noise(i), 2.0 * noise(i)])),
            (
                "copies",
                pairs(&|i| {
                    [
                        (5.0 * noise(2 * i)).floor(),
                        (5.0 * noise(2 * i + 1)).floor(),
                    ]
                }),
            ),
            (
                "decades",
                pairs(&|i| {
                    let size = (20.0 * noise(3 * i)).exp();
                    [
                        size * (noise(3 * i + 1) - 0.5),
                        size * (noise(3 * i + 2) - 0.5),
                    ]
                }),
            ),
            (
                // In the sparse part neighbours are many cells away.
                "a dense and a sparse part",
                pairs(&|i| {
                    let x = if i % 50 == 0 { 100.0 } else { 1.0 } * noise(2 * i);
                    [x, noise(2 * i + 1)]
                }),
            ),
            (
                "spiral",
                pairs(&|i| {
                    let [radius, angle] = [(i as f64).sqrt(), 2.399_963 * i as f64];
                    [radius * angle.cos(), radius * angle.sin()]
                }),
            ),
        ]
    }

    /// Scans in which differences lose their bits, or are of all sizes.
    fn far_shapes(n: usize) -> [(&'static str, Vec<f64>); 9] {
        let pairs = |of: &dyn Fn(usize) -> [f64; 2]| (0..n).flat_map(of).collect();
        [
            (
                "metres, and one far away",
                pairs(&|i| match i {
                    0 => [1e9, 1e9],
                    _ => [3e-6 * noise(2 * i), 3e-6 * noise(2 * i + 1)],
                }),
            ),
            (
                "two far clusters",
                pairs(&|i| {
                    let far = if i % 2 == 0 { 1e12 } else { 0.0 };
                    [far + noise(2 * i), far + noise(2 * i + 1)]
                }),
            ),
            (
                "hundreds of decades",
                pairs(&|i| {
                    let (size, angle) = (10_f64.powf(450.0 * noise(2 * i) - 301.0), i as f64);
                    [size * angle.cos(), size * angle.sin()]
                }),
            ),
            (
                "a geometric line",
                pairs(&|i| [10_f64.powf(449.0 * i as f64 / n as f64 - 300.0), 0.0]),
            ),
            (
                "squares that underflow",
                pairs(&|i| [1e-170 * noise(2 * i), 1e-170 * noise(2 * i + 1)]),
            ),
            (
                "squares of few bits",
                pairs(&|i| [1e-161 * noise(2 * i), 1e-161 * noise(2 * i + 1)]),
            ),
            (
                "squares of few bits, in order, and one far away",
                pairs(&|i| match i {
                    0 => [1e149, -1e149],
                    _ => [1e-161 * i as f64 / n as f64, 1e-161 * i as f64 / n as f64],
                }),
            ),
            (
                "many copies, tiny, and one far away",
                pairs(&|i| match i {
                    0 => [1e9, 1e9],
                    _ => [1e-7 * (3.0 * noise(i)).floor(), 0.0],
                }),
            ),
            (
                "a line with a little jitter",
                pairs(&|i| [i as f64, 1e-9 * noise(i) + if i == 7 { 1e12 } else { 0.0 }]),
            ),
        ]
    }

    /// What a search looks at grows as the scan does, whatever its shape: a
    /// position's share may grow by the depth of a tree.
    #[test]
    fn the_work_is_linear() {
        fn looked<I: NeighborIndex>(index: &I, n: usize) -> [u64; 3] {
            let every: Vec<i32> = (0..n as i32).collect();
            let some: Vec<i32> = (0..n as i32).step_by(n / 100).collect();
            let start = LOOKED.get();
            neighbors(index, &every, 7, 1).unwrap();
            let all = LOOKED.get() - start;
            let mut scratch = I::Scratch::default();
            let (mut alone, mut out) = ([0; 7], Vec::new());
            for &center in &some {
                let center = center as usize;
                index.nearest(center, &mut scratch, &mut alone).unwrap();
            }
            let single = LOOKED.get() - start - all;
            // A quadrant that is empty for many, and what lies beyond a place's copies.
            for &center in &some {
                for quadrant in [None, Some([true, false])] {
                    let wanted = Wanted {
                        least: f64::MIN_POSITIVE,
                        most: 1e300,
                        quadrant,
                    };
                    let center = center as usize;
                    let found = index.nearest_wanted(center, 7, wanted, &mut scratch, &mut out);
                    assert!(found.unwrap());
                }
            }
            let wanted = LOOKED.get() - start - all - single;
            let share = |work: u64, centers: usize| work / centers as u64;
            [
                share(all, n),
                share(single, some.len()),
                share(wanted, some.len()),
            ]
        }

        const N: usize = 2000;
        for ((shape, small), (_, large)) in shapes(N).into_iter().zip(shapes(8 * N)) {
            for engine in [Engine::Grid, Engine::KdTree] {
                let index = |positions: &[f64]| Index::build(positions, engine, 1).unwrap();
                let before = looked(&index(&small), N);
                let after = looked(&index(&large), 8 * N);
                for (before, after) in before.into_iter().zip(after) {
                    assert!(
                        after <= 2 * before + 60 && after < 400,
                        "{shape}, {engine:?}: a share of {before} became {after}"
                    );
                }
            }
        }
    }

    /// Of positions that are wanted, the nearest: by the definition.
    #[test]
    fn who_is_wanted_is_found() {
        let mut found = Vec::new();
        for (shape, positions) in shapes(300) {
            let extent = positions.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
            for engine in [Engine::Grid, Engine::KdTree] {
                let index = Index::build(&positions, engine, 1).unwrap();
                let mut scratch = <Index as NeighborIndex>::Scratch::default();
                for center in (0..300).step_by(17) {
                    for k in [1, 7, 299] {
                        for (least, most) in [(0.0, 0.3), (0.01, 4.0), (1e-12, 1e-9), (0.5, 9.0)] {
                            for quadrant in [None, Some([false, true]), Some([true, true])] {
                                let wanted = Wanted {
                                    least: least * extent * extent,
                                    most: most * extent * extent,
                                    quadrant,
                                };
                                let mut expected = by_definition(&positions, center, 299);
                                expected.retain(|&i| {
                                    wanted.holds([0, 1].map(|axis| {
                                        positions[2 * i as usize + axis]
                                            - positions[2 * center + axis]
                                    }))
                                });
                                expected.truncate(k);
                                found.clear();
                                index
                                    .nearest_wanted(center, k, wanted, &mut scratch, &mut found)
                                    .unwrap();
                                assert_eq!(found, expected, "{shape}, {wanted:?}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn grid_and_tree_agree_on_every_shape() {
        for n in [2, 17, 300, 1000] {
            for (shape, positions) in shapes(n) {
                let centers: Vec<i32> = (0..n as i32).collect();
                let tree = KdTree::build(&positions, 2).unwrap();
                for threads in [1, 3] {
                    let grid = Grid::build(&positions, threads).unwrap();
                    for k in [1, 7, 8, 16, 31, 64] {
                        let (found, width) = neighbors(&grid, &centers, k, threads).unwrap();
                        let expected = neighbors(&tree, &centers, k, threads).unwrap();
                        assert!(found == expected.0, "{shape}, n = {n}, k = {k}");
                        for center in (0..n).step_by(n / 7 + 1) {
                            let row = &found[center * width..][..width];
                            assert_eq!(row, by_definition(&positions, center, k));
                        }
                    }
                }
            }
        }
    }

    /// A pseudo-random number in 0..1, of a place in a sequence.
    fn noise(i: usize) -> f64 {
        (Key([7, i as u64]).block(Stage::Order, 0, 1)[0] >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn few_centers_of_many_shapes() {
        const N: usize = 5000;
        for (shape, positions) in shapes(N) {
            let mut centers: Vec<i32> = (0..N as i32).step_by(113).rev().collect();
            centers.push(centers[3]);
            let of = |&center: &i32| by_definition(&positions, center as usize, 40);
            let expected: Vec<Vec<i32>> = centers.iter().map(of).collect();
            for (k, threads) in [(1, 1), (7, 1), (7, 3), (40, 3)] {
                let few = Few::new(&positions, centers.len(), threads).unwrap();
                let few = few.expect("these are few");
                let (rows, width) = neighbors(&few, &centers, k, threads).unwrap();
                for (row, expected) in rows.chunks_exact(width).zip(&expected) {
                    assert_eq!(row, &expected[..k], "{shape}");
                }
            }
        }
        assert!(Few::new(&[0.0; 200], 2, 1).unwrap().is_none());
        assert!(Few::new(&[f64::NAN; 200], 1, 1).is_err());
    }

    #[test]
    fn crowds_go_to_the_tree() {
        let copies: Vec<f64> = (0..4000).map(|i| f64::from(i % 2)).collect();
        let index = Index::build(&copies, Engine::Auto, 1).unwrap();
        assert!(matches!(index, Index::KdTree(_)));
        let spread: Vec<f64> = (0..4000).map(noise).collect();
        let index = Index::build(&spread, Engine::Auto, 1).unwrap();
        assert!(matches!(index, Index::Grid(_)));
    }
}
