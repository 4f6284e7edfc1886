//! Neighbours that were found before.

use super::NeighborIndex;
use crate::{Result, check};

/// The neighbour lists of all positions, as [`neighbors`](super::neighbors)
/// returned them: to draw again and again without searching again.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    rows: &'a [i32],
    width: usize,
    positions: usize,
}

impl<'a> Listed<'a> {
    /// Lists of `width` neighbours, for positions 0, 1, ... in turn.
    pub fn new(rows: &'a [i32], width: usize, positions: usize) -> Result<Self> {
        check::scan_length(positions)?;
        check::length(
            "neighbors",
            rows.len(),
            positions * width,
            "a row for each position",
        )?;
        check::indices("neighbors", rows, positions)?;
        Ok(Self {
            rows,
            width,
            positions,
        })
    }
}

impl NeighborIndex for Listed<'_> {
    type Scratch = ();

    fn positions(&self) -> usize {
        self.positions
    }

    /// The rows lie by position.
    fn place(&self, point: usize) -> u32 {
        point as u32
    }

    /// `out` must not ask for more neighbours than are listed: what is missing
    /// is not written.
    fn nearest(&self, center: usize, (): &mut (), out: &mut [i32]) {
        let row = &self.rows[center * self.width..][..self.width];
        let listed = out.len().min(row.len());
        out[..listed].copy_from_slice(&row[..listed]);
    }
}
