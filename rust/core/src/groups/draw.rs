//! What a rule draws groups from, and what it returns.

use std::ops::Range;

use crate::index::{Neighbors, Query};
use crate::philox::Key;
use crate::{Result, check, memory};

/// Marks the place of a group whose centre has too few slots.
pub(super) const TOO_FEW: i32 = -1;
/// Marks the place of a group that the rule could not form from the slots.
pub(super) const NO_GROUP: i32 = -2;

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the groups that were drawn";

/// The smallest and the largest squared distance of a neighbour, both allowed,
/// compared in float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Limits {
    /// The limits of these two distances.
    #[must_use]
    pub fn new(min_distance: f64, max_distance: f64) -> Self {
        Self {
            least: min_distance * min_distance,
            most: max_distance * max_distance,
        }
    }
}

/// Everything that groups are drawn from, except the rule.
#[derive(Debug)]
pub struct Draw<'a, I> {
    /// What finds the neighbours.
    pub index: &'a I,
    /// The positions of the scan, x and y in turn.
    pub positions: &'a [f64],
    /// The centres around which groups are drawn.
    pub centers: &'a [i32],
    /// Neighbours considered per centre (K).
    pub k: usize,
    /// Positions of a group (C).
    pub c: usize,
    /// How far from the centre a neighbour must and may be.
    pub limits: Option<Limits>,
    /// The key of the random words.
    pub key: Key,
    /// How many threads to use. The groups do not depend on it.
    pub threads: usize,
}

/// The groups that were drawn, and why some centres have none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drawn {
    /// The centre of each group; None if they are those that were asked for, in order.
    pub centers: Option<Vec<i32>>,
    /// The groups, C positions each.
    pub groups: Vec<i32>,
    /// The centres that are left out because they have too few neighbours.
    pub too_few: Vec<i32>,
    /// How many centres are left out because the rule found no group around them.
    pub no_group: usize,
    /// Rule `oversample`: how many centres were asked for more groups than they have
    /// distinct ones.
    pub spent: usize,
    /// The fewest distinct groups that one of these has; 0 if `spent` is 0.
    pub fewest: u64,
    /// Rule `pool`: how many groups the pool holds.
    pub pool: Option<usize>,
}

impl<'a, I> Draw<'a, I> {
    /// The same draw from another index.
    #[must_use]
    pub fn on<J>(self, index: &'a J) -> Draw<'a, J> {
        let Self {
            index: _,
            positions,
            centers,
            k,
            c,
            limits,
            key,
            threads,
        } = self;
        Draw {
            index,
            positions,
            centers,
            k,
            c,
            limits,
            key,
            threads,
        }
    }
}

impl<I> Clone for Draw<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for Draw<'_, I> {}

impl<I: Neighbors> Draw<'_, I> {
    /// Checks everything except the centres, which [`Neighbors::batches`] checks.
    pub(super) fn check_sizes(&self) -> Result<()> {
        let n = self.index.positions();
        check::group(n, self.k, self.c)?;
        let length = self.positions.len();
        check::length("positions", length, 2 * n, "an x and a y for each position")
    }

    pub(super) fn check(&self) -> Result<()> {
        self.check_sizes()?;
        check::indices("centers", self.centers, self.index.positions())
    }

    /// Asks for `k` neighbours of all centres, for rows of `width`.
    pub(super) fn query(&self, k: usize, width: usize) -> Query<'_> {
        Query {
            centers: self.centers,
            k,
            width,
            threads: self.threads,
        }
    }
}

impl<I> Draw<'_, I> {
    /// The vector from the centre to a neighbour.
    pub(super) fn shift(&self, center: i32, neighbor: i32) -> [f64; 2] {
        let (i, j) = (center as usize, neighbor as usize);
        [0, 1].map(|axis| self.positions[2 * j + axis] - self.positions[2 * i + axis])
    }

    pub(super) fn distance2(&self, center: i32, neighbor: i32) -> f64 {
        let [dx, dy] = self.shift(center, neighbor);
        dx * dx + dy * dy
    }

    /// The part of `near`, which is sorted by distance, that is within the limits.
    pub(super) fn within(&self, center: i32, near: &[i32]) -> Range<usize> {
        let Some(limits) = self.limits else {
            return 0..near.len();
        };
        let start = near.partition_point(|&i| self.distance2(center, i) < limits.least);
        let inside = near[start..].partition_point(|&i| self.distance2(center, i) <= limits.most);
        start..start + inside
    }

    /// Collects `count` groups in rounds: the first group of every centre, then the
    /// second of every centre, and so on. Each of the `rows` holds the groups of one
    /// centre; centres without groups are left out.
    pub(super) fn collect(&self, rows: Vec<i32>, count: usize) -> Result<Drawn> {
        let (centers, c) = (self.centers, self.c);
        if rows.is_empty() {
            return Ok(Drawn::default());
        }
        let whole = count == centers.len() && rows.len() == count * c;
        if whole && rows.chunks_exact(c).all(|group| group[0] >= 0) {
            return Ok(Drawn {
                groups: rows,
                ..Drawn::default()
            });
        }
        let mut drawn = Drawn::default();
        let width = rows.len() / centers.len();
        for (&center, row) in centers.iter().zip(rows.chunks_exact(width)) {
            match row.chunks_exact(c).map(|group| group[0]).min() {
                Some(TOO_FEW) => memory::push(WHAT, &mut drawn.too_few, center)?,
                Some(NO_GROUP) => drawn.no_group += 1,
                _ => {}
            }
        }
        drawn.groups = memory::zeros(count, c)?;
        let mut around = memory::zeros(count, 1)?;
        let mut kept = 0;
        for place in 0..count {
            let (round, row) = (place / centers.len(), place % centers.len());
            let group = &rows[row * width + round * c..][..c];
            if group[0] >= 0 {
                drawn.groups[kept * c..][..c].copy_from_slice(group);
                around[kept] = centers[row];
                kept += 1;
            }
        }
        drawn.groups.truncate(kept * c);
        around.truncate(kept);
        drawn.centers = Some(around);
        Ok(drawn)
    }
}
