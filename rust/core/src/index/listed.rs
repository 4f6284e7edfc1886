//! Lists of neighbours that were found before.

use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted, one_by_one};
use crate::{Error, Result, check};

/// The neighbours of all positions, as [`neighbors`](fn@super::neighbors) returned them: to draw repeatedly
/// without searching again.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    rows: &'a [i32],
    width: usize,
    positions: usize,
}

impl<'a> Listed<'a> {
    /// Lists of `width` neighbours each, for the positions 0, 1, ... in turn.
    pub fn new(rows: &'a [i32], width: usize, positions: usize) -> Result<Self> {
        check::scan_length(positions)?;
        check::length(
            "neighbors",
            rows.len(),
            positions.saturating_mul(width),
            "a row for each position",
        )?;
        check::indices("neighbors", rows, positions)?;
        Ok(Self {
            rows,
            width,
            positions,
        })
    }

    /// Refuses a K that needs more neighbours than are listed.
    pub fn check_width(&self, k: usize) -> Result<()> {
        let needed = k.min(self.positions - 1);
        if needed <= self.width {
            Ok(())
        } else {
            Err(Error::TooFewListed {
                needed,
                listed: self.width,
            })
        }
    }
}

impl Neighbors for Listed<'_> {
    fn positions(&self) -> usize {
        self.positions
    }

    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        // The lists are stored by position.
        let place = |center: i32| center as u32;
        one_by_one(self, place, query, scratch, work)
    }
}

impl NeighborIndex for Listed<'_> {
    type Scratch = ();

    /// `out` must not be longer than the lists: the rest of it would not be written.
    fn nearest(&self, center: usize, (): &mut (), out: &mut [i32]) -> Result<()> {
        let row = &self.rows[center * self.width..][..self.width];
        let listed = out.len().min(row.len());
        out[..listed].copy_from_slice(&row[..listed]);
        Ok(())
    }

    fn nearest_wanted(
        &self,
        _: usize,
        _: usize,
        _: Wanted,
        (): &mut (),
        _: &mut Vec<i32>,
    ) -> Result<bool> {
        Ok(false)
    }
}
