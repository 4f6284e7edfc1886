//! Finding the neighbours of scan positions.
//!
//! Every index gives the same answer, to the bit; they differ in speed and in
//! what they need to know beforehand.

mod boxes;
mod engine;
mod few;
mod grid;
mod kdtree;
mod labelled;
mod listed;
mod neighbors;
#[cfg(test)]
mod tests;

pub use engine::{Engine, Index};
pub use few::Few;
pub use grid::Grid;
pub use kdtree::KdTree;
pub use labelled::Labelled;
pub use listed::Listed;
pub use neighbors::{NeighborIndex, Neighbors, Query, Wanted, neighbors};
