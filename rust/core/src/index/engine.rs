//! The choice between the two kinds of index: cells or a tree.

use super::grid::{self, Grid};
use super::kdtree::{self, KdTree};
use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted};
use crate::Result;

/// Which index finds the neighbours. The result is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The grid, or the tree if positions crowd in few places.
    Auto,
    /// [`Grid`], unless positions crowd so much that it would take quadratic time.
    Grid,
    /// [`KdTree`].
    KdTree,
}

/// An index of a whole scan.
pub enum Index {
    /// In cells.
    Grid(Box<Grid>),
    /// In a tree.
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

    /// Which kind it is: [`Engine::Grid`] or [`Engine::KdTree`].
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
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        match self {
            Self::Grid(grid) => grid.batches(query, scratch, work),
            Self::KdTree(tree) => tree.batches(query, scratch, work),
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
