//! Tests that every index must pass.

use super::neighbors::LOOKED;
use super::*;
use crate::philox::{Key, Stage};
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
        let auto = Index::build(positions, Engine::Auto, threads).unwrap();
        assert_index_exact(&auto, positions, k, threads);
    }
}

fn assert_index_exact<I: NeighborIndex>(index: &I, positions: &[f64], k: usize, threads: usize) {
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
fn exact_where_distances_are_tied() {
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
fn the_work_grows_linearly() {
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
fn wanted_neighbors_follow_the_definition() {
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
                                    positions[2 * i as usize + axis] - positions[2 * center + axis]
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
fn few_centers_are_exact_on_every_shape() {
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
fn crowded_positions_get_the_tree() {
    let copies: Vec<f64> = (0..4000).map(|i| f64::from(i % 2)).collect();
    let index = Index::build(&copies, Engine::Auto, 1).unwrap();
    assert!(matches!(index, Index::KdTree(_)));
    let spread: Vec<f64> = (0..4000).map(noise).collect();
    let index = Index::build(&spread, Engine::Auto, 1).unwrap();
    assert!(matches!(index, Index::Grid(_)));
}
