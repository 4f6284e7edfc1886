//! Neighbours of scan positions.

mod grid;
mod kdtree;
mod listed;

pub use grid::Grid;
pub use kdtree::KdTree;
pub use listed::Listed;

use crate::{Result, check, parallel};

/// Something that knows the neighbours of each position of a scan.
///
/// The order is that of (d², index) with `d² = dx·dx + dy·dy` in float64,
/// unfused, and the centre is left out by index, not by place. That settles
/// every tie, so all indexes give the same answer.
pub trait NeighborIndex: Sync {
    /// What is reused from query to query.
    type Scratch: Default;

    /// The number of positions, at least 1.
    fn positions(&self) -> usize;

    /// The place of a position on a path through the scan on which near places
    /// are near positions.
    fn place(&self, point: usize) -> u32;

    /// Fills `out` with the nearest neighbours of position `center`, nearest
    /// first. `out` is no longer than `positions() - 1`.
    fn nearest(&self, center: usize, scratch: &mut Self::Scratch, out: &mut [i32]);

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
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) + Sync,
    ) -> Result<Vec<i32>> {
        check::indices("centers", centers, self.positions())?;
        let k = k.min(self.positions() - 1);
        let order = visiting_order(self, centers, threads)?;
        parallel::rows_in_order(
            &order,
            width,
            threads,
            || (Self::Scratch::default(), scratch(), vec![0; k]),
            |row, (own, scratch, neighbors), out| {
                let center = centers[row as usize];
                self.nearest(center as usize, own, neighbors);
                work(&[center], scratch, neighbors, out);
            },
        )
    }
}

/// The `min(k, n - 1)` nearest neighbours of each centre, nearest first, row
/// by row, and the length of a row.
pub fn neighbors<I: NeighborIndex>(
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
        |_, (), neighbors, out| out.copy_from_slice(neighbors),
    )?;
    Ok((rows, width))
}

/// The rows of `centers` in the order of their places: successive queries then
/// find in the cache what the one before them fetched, worth 2-4x on scans
/// whose centres come in random order.
fn visiting_order<I: NeighborIndex + ?Sized>(
    index: &I,
    centers: &[i32],
    threads: usize,
) -> Result<Vec<u32>> {
    let mut keyed: Vec<u64> = centers
        .iter()
        .zip(0_u64..)
        .map(|(&center, row)| u64::from(index.place(center as usize)) << 32 | row)
        .collect();
    parallel::sort(&mut keyed, threads)?;
    Ok(keyed.into_iter().map(|key| key as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            index.nearest(center as usize, &mut scratch, &mut alone);
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
            1 => Just(-1e150),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn exact_on_anything(
            positions in prop::collection::vec(coordinate(), 1..60)
                .prop_map(|mut v| { v.truncate(v.len() / 2 * 2); v })
                .prop_filter("a scan", |v| !v.is_empty()),
            k in 1..20_usize,
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
}
