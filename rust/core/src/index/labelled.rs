//! Neighbours that have the same label.

use std::ops::Range;

use super::engine::{Engine, Index};
use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted};
use crate::{Result, check, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the labels of scan positions";

/// An index for each label of a scan: the neighbours of a position are those with its
/// own label.
///
/// [`NeighborIndex::nearest`] writes -1 if a label has fewer positions than are asked
/// for.
pub struct Labelled<I> {
    parts: Vec<Part<I>>,
    /// The index in the scan of each position of each part. They rise within a part, so
    /// that ties are broken as in the whole scan.
    members: Vec<i32>,
    /// The part that each position is in, and its number there.
    places: Vec<(u32, i32)>,
}

struct Part<I> {
    index: I,
    members: Range<usize>,
}

impl<I: Neighbors> Labelled<I> {
    /// Builds an index for each label from its positions (x and y in turn) by `build`.
    /// Labels are the numbers 0, 1, ...
    pub fn build(
        positions: &[f64],
        labels: &[i32],
        build: impl Fn(&[f64]) -> Result<I>,
    ) -> Result<Self> {
        let n = check::scan(positions)?;
        check::length("scan_ids", labels.len(), n, "one for each position")?;
        check::indices("scan_ids", labels, n)?;
        let count = labels.iter().max().map_or(0, |&last| last as usize + 1);
        let sorted = Sorted::new(count, labels.iter().map(|&label| label as usize))?;
        let mut places = memory::repeat(WHAT, &(0, 0), n)?;
        let mut parts = memory::room(WHAT, count)?;
        let mut own = Vec::new();
        for label in 0..count {
            let members = sorted.of(label);
            own.clear();
            memory::make_room(WHAT, &mut own, 2 * members.len().max(1))?;
            for (&member, number) in sorted.rows[members.clone()].iter().zip(0..) {
                let member = member as usize;
                places[member] = (label as u32, number);
                own.extend([positions[2 * member], positions[2 * member + 1]]);
            }
            // A label without positions gets an index that is never asked.
            let own = if own.is_empty() {
                &positions[..2]
            } else {
                &own
            };
            let index = build(own)?;
            parts.push(Part { index, members });
        }
        Ok(Self {
            parts,
            members: sorted.rows,
            places,
        })
    }

    fn part(&self, point: usize) -> (&Part<I>, i32) {
        let (part, own) = self.places[point];
        (&self.parts[part as usize], own)
    }

    /// Turns numbers within a part into indices in the scan.
    fn rename(&self, part: &Part<I>, neighbors: &mut [i32]) {
        let members = &self.members[part.members.clone()];
        for neighbor in neighbors {
            *neighbor = members[*neighbor as usize];
        }
    }
}

impl Labelled<Index> {
    /// The engine that searches: the tree if that of any label is one.
    #[must_use]
    pub fn engine(&self) -> Engine {
        let mut engines = self.parts.iter().map(|part| part.index.engine());
        let tree = engines.find(|&engine| engine == Engine::KdTree);
        tree.unwrap_or(Engine::Grid)
    }
}

/// Rows sorted by what they belong to, each group of them in order.
struct Sorted {
    rows: Vec<i32>,
    ends: Vec<u32>,
}

impl Sorted {
    /// `owners` are what the rows belong to, numbers below `count`.
    fn new(count: usize, owners: impl ExactSizeIterator<Item = usize> + Clone) -> Result<Self> {
        let mut ends = memory::cleared::<u32>(WHAT, count + 1)?;
        let mut rows = memory::cleared(WHAT, owners.len())?;
        for owner in owners.clone() {
            ends[owner + 1] += 1;
        }
        for owner in 0..count {
            ends[owner + 1] += ends[owner];
        }
        // An entry of `ends` first holds where its rows start, which is where those
        // before it end, and moves to where they end.
        for (owner, row) in owners.zip(0..) {
            rows[ends[owner] as usize] = row;
            ends[owner] += 1;
        }
        Ok(Self { rows, ends })
    }

    fn of(&self, owner: usize) -> Range<usize> {
        let first = if owner == 0 { 0 } else { self.ends[owner - 1] };
        first as usize..self.ends[owner] as usize
    }
}

impl<I: NeighborIndex> NeighborIndex for Labelled<I> {
    type Scratch = I::Scratch;

    fn nearest(&self, center: usize, scratch: &mut I::Scratch, out: &mut [i32]) -> Result<()> {
        let (part, own) = self.part(center);
        let known = out.len().min(part.members.len() - 1);
        let (near, beyond) = out.split_at_mut(known);
        part.index.nearest(own as usize, scratch, near)?;
        self.rename(part, near);
        beyond.fill(-1);
        Ok(())
    }

    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut I::Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool> {
        let (part, own) = self.part(center);
        let first = out.len();
        let k = k.min(part.members.len() - 1);
        let index = &part.index;
        let knows = index.nearest_wanted(own as usize, k, wanted, scratch, out)?;
        self.rename(part, &mut out[first..]);
        Ok(knows)
    }
}

impl<I: Neighbors> Neighbors for Labelled<I> {
    fn positions(&self) -> usize {
        self.places.len()
    }

    /// If a label has fewer than `k` other positions, its centres have only these as
    /// neighbours.
    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        let Query { centers, width, .. } = query;
        check::indices("centers", centers, self.positions())?;
        let owners = centers.iter().map(|&i| self.places[i as usize].0 as usize);
        let sorted = Sorted::new(self.parts.len(), owners)?;
        let mut out = memory::zeros::<i32>(centers.len(), width)?;
        for (number, part) in self.parts.iter().enumerate() {
            let rows = &sorted.rows[sorted.of(number)];
            if rows.is_empty() {
                continue;
            }
            let own = rows.iter();
            let own = own.map(|&row| self.places[centers[row as usize] as usize].1);
            let found = part.index.batches(
                Query {
                    centers: &memory::collect(WHAT, own)?,
                    ..query
                },
                || (scratch(), Vec::new()),
                |own, (scratch, names), neighbors, out| {
                    self.rename(part, neighbors);
                    memory::replace(WHAT, names, own)?;
                    self.rename(part, names);
                    work(names, scratch, neighbors, out)
                },
            )?;
            for (&row, values) in rows.iter().zip(found.chunks_exact(width.max(1))) {
                out[row as usize * width..][..width].copy_from_slice(values);
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{KdTree, neighbors};

    #[test]
    fn neighbors_have_the_same_label() {
        let positions: Vec<f64> = (0..60)
            .flat_map(|i| [f64::from(i % 10), f64::from(i / 10)])
            .collect();
        let labels: Vec<i32> = (0..60).map(|i| i * 7 % 4 + 1).collect(); // no position has label 0
        let build = |own: &[f64]| KdTree::build(own, 1);
        let index = Labelled::build(&positions, &labels, build).unwrap();
        let all: Vec<i32> = (0..60).rev().collect();
        let (rows, width) = neighbors(&index, &all, 6, 3).unwrap();
        for (&center, row) in all.iter().zip(rows.chunks_exact(width)) {
            let key = |i: i32| {
                let [dx, dy] = [0, 1].map(|axis| {
                    positions[2 * i as usize + axis] - positions[2 * center as usize + axis]
                });
                ((dx * dx + dy * dy) as i64, i)
            };
            let own = |i: &i32| *i != center && labels[*i as usize] == labels[center as usize];
            let mut expected: Vec<i32> = (0..60).filter(own).collect();
            expected.sort_by_key(|&i| key(i));
            assert_eq!(row, &expected[..6]);
            // The rest is -1, because the label has no more positions.
            let mut more = vec![0; 59];
            let mut scratch = <Labelled<KdTree> as NeighborIndex>::Scratch::default();
            index
                .nearest(center as usize, &mut scratch, &mut more)
                .unwrap();
            let (known, beyond) = more.split_at(expected.len());
            assert_eq!(known, expected);
            assert!(beyond.iter().all(|&i| i == -1));
        }
    }
}
