//! What a rule is asked, and what it answers.

use std::ops::Range;

use crate::index::{Neighbors, Query};
use crate::philox::Key;
use crate::{Result, check, memory};

/// Stands first in a group's place where the centre has too few slots.
pub(super) const TOO_FEW: i32 = -1;
/// Stands there where the rule found no group among the slots.
pub(super) const NO_GROUP: i32 = -2;

/// What memory is for.
const WHAT: &str = "The groups that were drawn";

/// Neighbours are within these where `least <= d² <= most`, in float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Limits {
    /// Between two distances.
    #[must_use]
    pub fn new(min_distance: f64, max_distance: f64) -> Self {
        Self {
            least: min_distance * min_distance,
            most: max_distance * max_distance,
        }
    }
}

/// What a rule draws from.
#[derive(Debug)]
pub struct Draw<'a, I> {
    /// Who knows the neighbours.
    pub index: &'a I,
    /// The scan's positions, x and y in turn.
    pub positions: &'a [f64],
    /// The centres tried.
    pub centers: &'a [i32],
    /// Neighbours considered per centre (K).
    pub k: usize,
    /// Positions of a group (C).
    pub c: usize,
    /// Which neighbours are considered at all.
    pub limits: Option<Limits>,
    /// What the random words come from.
    pub key: Key,
    /// How many threads to use.
    pub threads: usize,
}

/// Groups, and the centres that have none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drawn {
    /// The centre of each group.
    pub centers: Vec<i32>,
    /// The groups, row by row.
    pub groups: Vec<i32>,
    /// The centres left out, each time they were tried, for want of slots.
    pub too_few: Vec<i32>,
    /// How many were left out because the rule found no group for them.
    pub no_group: usize,
    /// How many centres were asked for more groups than they have sets.
    pub spent: usize,
    /// The fewest sets that one of these has; 0 where there is none.
    pub fewest: u64,
    /// Groups in the pool that was sampled.
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
    pub(super) fn check(&self) -> Result<()> {
        let n = self.index.positions();
        check::group(n, self.k, self.c)?;
        let length = self.positions.len();
        check::length("positions", length, 2 * n, "an x and a y for each")?;
        check::indices("centers", self.centers, n)
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
    /// Neighbour minus centre.
    pub(super) fn shift(&self, center: i32, neighbor: i32) -> [f64; 2] {
        let (i, j) = (center as usize, neighbor as usize);
        [0, 1].map(|axis| self.positions[2 * j + axis] - self.positions[2 * i + axis])
    }

    pub(super) fn distance2(&self, center: i32, neighbor: i32) -> f64 {
        let [dx, dy] = self.shift(center, neighbor);
        dx * dx + dy * dy
    }

    /// The part of `near`, nearest first, that is within the limits.
    pub(super) fn within(&self, center: i32, near: &[i32]) -> Range<usize> {
        let Some(limits) = self.limits else {
            return 0..near.len();
        };
        let start = near.partition_point(|&i| self.distance2(center, i) < limits.least);
        let inside = near[start..].partition_point(|&i| self.distance2(center, i) <= limits.most);
        start..start + inside
    }

    /// The first `count` groups of `rows`, which hold those of one centre: the
    /// first of all centres, then the second, ...
    pub(super) fn collect(&self, rows: Vec<i32>, count: usize) -> Result<Drawn> {
        let (centers, c) = (self.centers, self.c);
        if rows.is_empty() {
            return Ok(Drawn::default());
        }
        let whole = count == centers.len() && rows.len() == count * c;
        if whole && rows.chunks_exact(c).all(|group| group[0] >= 0) {
            return Ok(Drawn {
                centers: memory::copy(WHAT, centers)?,
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
        drawn.centers = memory::zeros(count, 1)?;
        let mut kept = 0;
        for place in 0..count {
            let (round, row) = (place / centers.len(), place % centers.len());
            let group = &rows[row * width + round * c..][..c];
            if group[0] >= 0 {
                drawn.groups[kept * c..][..c].copy_from_slice(group);
                drawn.centers[kept] = centers[row];
                kept += 1;
            }
        }
        drawn.groups.truncate(kept * c);
        drawn.centers.truncate(kept);
        Ok(drawn)
    }
}
