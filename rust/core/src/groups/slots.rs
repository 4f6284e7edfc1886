//! The slots of a centre: the neighbours that its groups are drawn from.

use super::draw::{Draw, TOO_FEW};
use crate::index::{NeighborIndex, Wanted};
use crate::{Result, memory};

/// What memory is for.
const WHAT: &str = "The neighbors that groups are drawn from";

/// Where so many neighbours do not do, those wanted are searched for alone.
const LONG: usize = 64;

impl<I: NeighborIndex> Draw<'_, I> {
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
