//! Group, then sample: the pool of the groups around all centres, and a random sample
//! of it.

use super::draw::{Draw, Drawn, TOO_FEW};
use super::nearest::choose;
use super::smallest::smallest;
use crate::index::NeighborIndex;
use crate::philox::{Key, Stage};
use crate::{Result, check, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the pool of groups";

/// How many groups of one centre enter the pool, at most.
const SETS_PER_CENTER: usize = 50;

/// Samples `count` groups, or all, from the pool around the centres, which must be in
/// rising order. The positions of a group are sorted; its centre is the first around
/// which it was found.
pub fn draw<I: NeighborIndex>(draw: &Draw<'_, I>, count: usize) -> Result<Drawn> {
    let pool = Pool::of(draw)?;
    let rows = sample(pool.kept.len(), count, draw.key, draw.threads)?;
    pool.take(draw, rows.iter().map(|&row| row as usize))
}

/// Lists the whole pool around the centres, which must be in rising order: each group
/// once, in lexicographic order.
pub fn list<I: NeighborIndex>(draw: &Draw<'_, I>) -> Result<Drawn> {
    let pool = Pool::of(draw)?;
    pool.take(draw, 0..pool.kept.len())
}

/// Chooses which `count` groups (or all) of a pool of `pool` groups are sampled.
pub fn sample(pool: usize, count: usize, key: Key, threads: usize) -> Result<Vec<i32>> {
    check::within(
        "The number of groups in the pool",
        pool,
        0,
        i32::MAX as usize,
    )?;
    match count.min(pool) {
        0 => Ok(Vec::new()),
        count => smallest(pool, count, key, Stage::Pool, threads),
    }
}

/// The groups around all centres, and which of them form the pool.
struct Pool {
    rows: Vec<i32>,
    /// How many groups a row has places for.
    room: usize,
    /// Where the groups of the pool are among the rows.
    kept: Vec<u32>,
    too_few: Vec<i32>,
}

impl Pool {
    /// Forms the pool. A centre contributes all sets of C of its slots if there are at
    /// most 50 of them, otherwise 50 random ones.
    fn of<I: NeighborIndex>(draw: &Draw<'_, I>) -> Result<Self> {
        draw.check()?;
        let c = draw.c;
        let sets = |slots: usize| if c == 1 { 1 } else { subsets(slots, c) };
        let most = sets(draw.k.min(draw.index.positions()));
        let room = most.min(SETS_PER_CENTER);
        let rows = draw.rows(
            false,
            c * room,
            || (Vec::new(), Vec::new()),
            |center, (left, chosen), slots, out| {
                let found = sets(slots.len());
                let mut groups = out.chunks_exact_mut(c);
                if c == 1 || found > SETS_PER_CENTER {
                    for (replicate, group) in (0..).zip(&mut groups) {
                        memory::replace(WHAT, left, slots)?;
                        choose(center, false, replicate, draw.key, left, group);
                    }
                } else {
                    chosen.clear();
                    memory::make_room(WHAT, chosen, c)?;
                    chosen.extend(0..c);
                    for group in groups.by_ref().take(found) {
                        for (member, &slot) in group.iter_mut().zip(&*chosen) {
                            *member = slots[slot];
                        }
                        next_subset(chosen);
                    }
                    for group in groups {
                        group.fill(NO_SET);
                    }
                }
                for group in out.chunks_exact_mut(c) {
                    group.sort_unstable();
                }
                Ok(())
            },
        )?;
        let mut too_few = Vec::new();
        for (&center, row) in draw.centers.iter().zip(rows.chunks_exact(c * room)) {
            if row[0] == TOO_FEW {
                memory::push(WHAT, &mut too_few, center)?;
            }
        }
        let kept = unique(&rows, c, draw.positions.len() / 2)?;
        Ok(Self {
            rows,
            room,
            kept,
            too_few,
        })
    }

    /// The chosen groups of the pool, and the first centre of each.
    fn take<I>(
        &self,
        draw: &Draw<'_, I>,
        chosen: impl ExactSizeIterator<Item = usize>,
    ) -> Result<Drawn> {
        let c = draw.c;
        let mut groups = memory::zeros(chosen.len(), c)?;
        let mut centers = memory::zeros(chosen.len(), 1)?;
        for ((row, group), center) in chosen.zip(groups.chunks_exact_mut(c)).zip(&mut centers) {
            let place = self.kept[row] as usize;
            group.copy_from_slice(&self.rows[place * c..][..c]);
            *center = draw.centers[place / self.room];
        }
        Ok(Drawn {
            centers: Some(centers),
            groups,
            too_few: memory::copy(WHAT, &self.too_few)?,
            pool: Some(self.kept.len()),
            ..Drawn::default()
        })
    }
}

/// Marks the unused places of a centre that has fewer groups than its row has places.
const NO_SET: i32 = i32::MAX;

/// The number of sets of `c` of `slots`, or one more than enter the pool if there are
/// more.
fn subsets(slots: usize, c: usize) -> usize {
    let mut count = 1;
    for i in 0..c.min(slots - c) {
        count = count * (slots - i) / (i + 1);
        if count > SETS_PER_CENTER {
            return SETS_PER_CENTER + 1;
        }
    }
    count
}

/// Steps to the next set in colexicographic order (by the largest member first).
fn next_subset(chosen: &mut [usize]) {
    let mut i = 0;
    while i + 1 < chosen.len() && chosen[i] + 1 == chosen[i + 1] {
        chosen[i] = i;
        i += 1;
    }
    chosen[i] += 1;
}

/// Where the distinct groups are among rows of `c`, in lexicographic order. Of equal
/// groups it is the first.
fn unique(rows: &[i32], c: usize, n: usize) -> Result<Vec<u32>> {
    let groups = || (0_u32..).zip(rows.chunks_exact(c));
    check::within(
        "The number of groups around all centres",
        rows.len() / c,
        0,
        u32::MAX as usize,
    )?;
    // First by the first member: groups that share it are few, and are sorted within
    // the cache.
    let mut ends = memory::cleared::<usize>(WHAT, n + 1)?;
    let here = |group: &[i32]| usize::try_from(group[0]).ok().filter(|&first| first < n);
    for first in groups().filter_map(|(_, group)| here(group)) {
        ends[first + 1] += 1;
    }
    for first in 0..n {
        ends[first + 1] += ends[first];
    }
    let mut places = memory::cleared::<u32>(WHAT, ends[n])?;
    let mut next = memory::copy(WHAT, &ends)?;
    for (place, group) in groups() {
        if let Some(first) = here(group) {
            places[next[first]] = place;
            next[first] += 1;
        }
    }
    let row = |place: u32| &rows[place as usize * c..][..c];
    drop(next);
    // Kept places move up, over those of repeated groups.
    let mut kept = 0;
    for span in ends.windows(2) {
        let alike = &mut places[span[0]..span[1]];
        alike.sort_unstable_by(|&a, &b| row(a).cmp(row(b)).then(a.cmp(&b)));
        let mut last = None;
        for i in span[0]..span[1] {
            let place = places[i];
            if last != Some(row(place)) {
                last = Some(row(place));
                places[kept] = place;
                kept += 1;
            }
        }
    }
    places.truncate(kept);
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::draw::Limits;
    use crate::index::{Engine, Index};

    #[test]
    fn each_set_comes_once() {
        let mut chosen: Vec<usize> = (0..3).collect();
        let mut all = Vec::new();
        for _ in 0..subsets(7, 3) {
            assert!(chosen.is_sorted_by(|a, b| a < b) && chosen[2] < 7);
            all.push(chosen.clone());
            next_subset(&mut chosen);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 35);
        assert_eq!(subsets(8, 4), SETS_PER_CENTER + 1); // 70
        assert_eq!(subsets(1 << 31, 1 << 30), SETS_PER_CENTER + 1);
        assert_eq!(subsets(9, 9), 1);
    }

    #[test]
    fn distinct_groups_are_kept_once_and_in_order() {
        let rows = [4, 5, 1, 3, -1, -1, 1, 2, 4, 5, NO_SET, NO_SET, 1, 3];
        assert_eq!(unique(&rows, 2, 6).unwrap(), [3, 1, 0]);
    }

    #[test]
    fn a_sample_of_the_listed_pool_equals_the_draw() {
        let n: usize = 60;
        let positions: Vec<f64> = (0..2 * n).map(|i| ((i * i * 37) % 101) as f64).collect();
        let index = Index::build(&positions, Engine::Auto, 1).unwrap();
        let centers: Vec<i32> = (0..n as i32).collect();
        for (k, c) in [(7, 4), (12, 4), (5, 1)] {
            let draw = Draw {
                index: &index,
                positions: &positions,
                centers: &centers,
                k,
                c,
                limits: Some(Limits::new(0.0, 30.0)),
                key: Key([5, 6]),
                threads: 2,
            };
            let pool = list(&draw).unwrap();
            let around = pool.centers.unwrap();
            assert!(pool.groups.chunks(c).is_sorted_by(|a, b| a < b));
            let found = super::draw(&draw, 40).unwrap();
            assert_eq!(found.pool, Some(around.len()));
            assert_eq!(found.pool, pool.pool);
            assert_eq!(found.too_few, pool.too_few);
            let rows = sample(around.len(), 40, draw.key, 1).unwrap();
            for (place, row) in rows.into_iter().map(|row| row as usize).enumerate() {
                assert_eq!(found.centers.as_ref().unwrap()[place], around[row]);
                assert_eq!(found.groups[place * c..][..c], pool.groups[row * c..][..c]);
            }
        }
    }
}
