//! What the rules share: the neighbours that a centre draws from, and what is
//! left of the rows when some centres have no group.

use crate::index::{NeighborIndex, Neighbors, Wanted};
use crate::philox::Key;
use crate::{Result, check, memory};

/// Stands first in a group's place where the centre has too few slots.
pub(super) const TOO_FEW: i32 = -1;
/// Stands there where the rule found no group among the slots.
pub(super) const NO_GROUP: i32 = -2;

/// What memory is for.
const WHAT: &str = "The neighbors that groups are drawn from";

/// Where so many neighbours do not do, those wanted are searched for alone.
const LONG: usize = 64;

/// Neighbours are within these where `least <= d² <= most`, in float64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    least: f64,
    most: f64,
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
}

impl<I: NeighborIndex> Draw<'_, I> {
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
    pub(super) fn within(&self, center: i32, near: &[i32]) -> std::ops::Range<usize> {
        let Some(limits) = self.limits else {
            return 0..near.len();
        };
        let start = near.partition_point(|&i| self.distance2(center, i) < limits.least);
        let inside = near[start..].partition_point(|&i| self.distance2(center, i) <= limits.most);
        start..start + inside
    }

    /// Computes a row of `width` for each centre from its slots: `work(center,
    /// scratch, slots, out)`. Rows of centres with too few slots say so.
    ///
    /// With `centered` channel 0 is the centre, and one slot less will do; else
    /// the centre is the last slot where just that one is missing. Within
    /// limits nobody is helped out.
    pub(super) fn rows<S>(
        &self,
        centered: bool,
        width: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(i32, &mut S, &mut Vec<i32>, &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        self.check()?;
        let (k, c) = (self.k, self.c);
        if self.limits.is_none() && !self.centers.is_empty() {
            let needed = if centered { c - 1 } else { c };
            return self.index.rows(
                self.centers,
                k,
                width,
                self.threads,
                scratch,
                |center, scratch, slots, out| {
                    if !centered && slots.len() + 1 == c {
                        memory::push(WHAT, slots, center)?;
                    }
                    if slots.len() < needed {
                        out.fill(TOO_FEW);
                        return Ok(());
                    }
                    work(center, scratch, slots, out)
                },
            );
        }
        let read = |center: i32, near: &[i32]| {
            let within = self.within(center, near);
            if within.len() >= k {
                return Some(within.start + k);
            }
            (within.end < near.len()).then_some(within.end + 1)
        };
        self.rows_until(
            read,
            &[None],
            width,
            scratch,
            |center, scratch, near, out| {
                let within = self.within(center, near);
                near.truncate(within.end.min(within.start + k));
                near.drain(..within.start);
                if near.len() < c {
                    out.fill(TOO_FEW);
                    return Ok(());
                }
                work(center, scratch, near, out)
            },
        )
    }

    /// Computes a row for each centre from as many neighbours as it takes:
    /// `read(center, near)` is how many of them are looked at, None if more. What
    /// is needed in the end are the K nearest in each of `quadrants`.
    pub(super) fn rows_until<S>(
        &self,
        read: impl Fn(i32, &[i32]) -> Option<usize> + Sync,
        quadrants: &[Option<[bool; 2]>],
        width: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(i32, &mut S, &mut Vec<i32>, &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        self.check()?;
        if self.centers.is_empty() {
            return Ok(Vec::new());
        }
        let reading = Reading {
            draw: self,
            read,
            quadrants,
        };
        let usual = reading.usual()?;
        // Where most need more than a search is good for, none is begun.
        let asked = if usual == LONG { 1 } else { usual };
        self.index.rows(
            self.centers,
            asked,
            width,
            self.threads,
            || (I::Scratch::default(), scratch()),
            |center, (own, scratch), near, out| {
                let most = if usual < LONG { LONG } else { asked };
                reading.read_on(center, own, asked, most, near)?;
                work(center, scratch, near, out)
            },
        )
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

/// How a draw finds enough neighbours of a centre.
struct Reading<'a, I, R> {
    draw: &'a Draw<'a, I>,
    read: R,
    quadrants: &'a [Option<[bool; 2]>],
}

impl<I: NeighborIndex, R: Fn(i32, &[i32]) -> Option<usize>> Reading<'_, I, R> {
    /// Asks for twice as many neighbours until they are enough, or all; beyond
    /// `most`, for those alone that are wanted.
    fn read_on(
        &self,
        center: i32,
        own: &mut I::Scratch,
        mut asked: usize,
        most: usize,
        near: &mut Vec<i32>,
    ) -> Result<()> {
        let all = self.draw.index.positions() - 1;
        loop {
            // An index that returns less than asked for knows no more.
            let enough = near.len() < asked || asked >= all;
            if enough || (self.read)(center, near).is_some() {
                return Ok(());
            }
            if asked >= most && self.wanted(center, own, near)? {
                return Ok(());
            }
            asked = (2 * asked).min(all);
            self.ask(center, own, asked, near)?;
        }
    }

    /// The K nearest in each quadrant and within the limits, nearest first;
    /// whether the index knows them.
    fn wanted(&self, center: i32, own: &mut I::Scratch, near: &mut Vec<i32>) -> Result<bool> {
        let &Draw {
            index, k, limits, ..
        } = self.draw;
        let k = k.min(index.positions() - 1);
        near.clear();
        for &quadrant in self.quadrants {
            let wanted = Wanted {
                least: limits.map_or(0.0, |limits| limits.least),
                most: limits.map_or(f64::INFINITY, |limits| limits.most),
                quadrant,
            };
            if !index.nearest_wanted(center as usize, k, wanted, own, near)? {
                return Ok(false);
            }
        }
        if self.quadrants.len() > 1 {
            // Distances that are not negative order like their bits.
            near.sort_unstable_by_key(|&i| (self.draw.distance2(center, i).to_bits(), i));
        }
        Ok(true)
    }

    /// The nearest `asked` neighbours, or as many as the index knows.
    fn ask(
        &self,
        center: i32,
        own: &mut I::Scratch,
        asked: usize,
        near: &mut Vec<i32>,
    ) -> Result<()> {
        near.clear();
        memory::resize(WHAT, near, asked, -1)?;
        self.draw.index.nearest(center as usize, own, near)?;
        near.truncate(near.iter().position(|&i| i < 0).unwrap_or(asked));
        Ok(())
    }

    /// How many neighbours nine of ten centres need, from a look at a few, at
    /// most `LONG`. Whom that does not serve is asked for again, so it is only
    /// a matter of speed.
    fn usual(&self) -> Result<usize> {
        const LOOKS: usize = 64;
        const FIRST: usize = 16;
        let centers = self.draw.centers;
        let all = self.draw.index.positions() - 1;
        let step = centers.len().div_ceil(LOOKS).max(1);
        let (mut own, mut near) = (I::Scratch::default(), Vec::new());
        let mut needed = [0; LOOKS];
        let mut looks = 0;
        for &center in centers.iter().step_by(step) {
            let mut asked = FIRST.min(all);
            self.ask(center, &mut own, asked, &mut near)?;
            let mut read = (self.read)(center, &near);
            while read.is_none() && asked == near.len() && asked < all.min(LONG) {
                asked = (2 * asked).min(all);
                self.ask(center, &mut own, asked, &mut near)?;
                read = (self.read)(center, &near);
            }
            needed[looks] = read.unwrap_or(near.len());
            looks += 1;
        }
        let needed = &mut needed[..looks];
        needed.sort_unstable();
        let usual = needed.get(looks * 9 / 10).map_or(1, |&needed| needed);
        Ok(usual.max(1).min(all).min(LONG))
    }
}
