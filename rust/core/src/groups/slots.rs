//! The slots of a centre: the neighbours that its groups are drawn from.
//!
//! Without limits these are its K nearest neighbours. Within limits it is not known
//! beforehand how many neighbours must be looked at to find K of them; here they are
//! searched for until they suffice.

use super::draw::{Draw, TOO_FEW};
use crate::index::{NeighborIndex, Wanted};
use crate::{Result, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors that groups are drawn from";

/// If this many neighbours do not suffice, only those within the limits are searched
/// for.
const LONG: usize = 64;

impl<I: NeighborIndex> Draw<'_, I> {
    /// Computes a row of `width` numbers for each centre from its slots, by
    /// `work(center, scratch, slots, out)`. The row of a centre with too few slots is
    /// filled with [`TOO_FEW`].
    ///
    /// If channel 0 is the centre (`centered`), C - 1 slots are enough. If not, and
    /// only one slot is missing, the centre itself becomes the last slot. Within limits
    /// C slots are needed either way.
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
                self.query(k, width),
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

    /// Computes a row for each centre from as many neighbours as it needs.
    ///
    /// `read(center, near)` returns how many of the neighbours `near` are needed, or
    /// None if `near` are too few. In the end these are the K nearest within the limits
    /// in each of `quadrants`.
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
        // If most centres need more than this search is good for, it is left out.
        let asked = if usual == LONG { 1 } else { usual };
        self.index.rows(
            self.query(asked, width),
            || (I::Scratch::default(), scratch()),
            |center, (own, scratch), near, out| {
                let most = if usual < LONG { LONG } else { asked };
                reading.read_on(center, own, asked, most, near)?;
                work(center, scratch, near, out)
            },
        )
    }
}

/// The search for enough neighbours of a centre.
struct Reading<'a, I, R> {
    draw: &'a Draw<'a, I>,
    read: R,
    quadrants: &'a [Option<[bool; 2]>],
}

impl<I: NeighborIndex, R: Fn(i32, &[i32]) -> Option<usize>> Reading<'_, I, R> {
    /// Doubles the number of neighbours until they suffice or are all. Beyond `most`
    /// searches only for those that are wanted, if the index can.
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
            // An index that returns fewer than asked for knows no more.
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

    /// Finds the K nearest in each quadrant and within the limits, nearest first.
    /// Returns false if the index cannot search for these alone.
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

    /// Finds the `asked` nearest neighbours, or as many as the index knows.
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

    /// Estimates from a few centres how many neighbours nine of ten centres need, at
    /// most `LONG`. Centres that need more are searched again, so this only affects
    /// the speed.
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
