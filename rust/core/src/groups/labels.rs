//! Neighbours within a position's own label.

use crate::index::{NeighborIndex, Neighbors};
use crate::{Result, check, memory};

/// An index for each label of a scan: the neighbours of a position are those
/// of its own label.
///
/// [`NeighborIndex::nearest`] writes -1 where a label has fewer neighbours
/// than are asked for.
pub struct Labelled<I> {
    parts: Vec<Part<I>>,
    /// For each position the part it is in, and its number there.
    places: Vec<(u32, i32)>,
}

struct Part<I> {
    index: I,
    /// The scan's number of each position of the part, rising, so that ties
    /// are broken as in the whole scan.
    members: Vec<i32>,
}

impl<I: Neighbors> Labelled<I> {
    /// Builds an index of the positions (x and y in turn) of each label by
    /// `build`. Labels are 0, 1, ...
    pub fn build(
        positions: &[f64],
        labels: &[i32],
        build: impl Fn(&[f64]) -> Result<I>,
    ) -> Result<Self> {
        let n = check::scan(positions)?;
        check::length("scan_ids", labels.len(), n, "one a position")?;
        check::indices("scan_ids", labels, n)?;
        let count = labels.iter().max().map_or(0, |&last| last as usize + 1);
        let mut members = vec![Vec::new(); count];
        let mut places = Vec::with_capacity(n);
        for (point, &label) in (0..).zip(labels) {
            let members = &mut members[label as usize];
            places.push((label as u32, members.len() as i32));
            members.push(point);
        }
        let parts = members
            .into_iter()
            .map(|members| {
                let own: Vec<f64> = members
                    .iter()
                    .flat_map(|&i| [positions[2 * i as usize], positions[2 * i as usize + 1]])
                    .collect();
                // A label that nobody has gets the index of something else.
                let index = build(if own.is_empty() {
                    &positions[..2]
                } else {
                    &own
                })?;
                Ok(Part { index, members })
            })
            .collect::<Result<_>>()?;
        Ok(Self { parts, places })
    }

    /// The index of each label.
    pub fn indexes(&self) -> impl Iterator<Item = &I> {
        self.parts.iter().map(|part| &part.index)
    }

    fn part(&self, point: usize) -> (&Part<I>, i32) {
        let (part, own) = self.places[point];
        (&self.parts[part as usize], own)
    }
}

impl<I> Part<I> {
    fn rename(&self, neighbors: &mut [i32]) {
        for neighbor in neighbors {
            *neighbor = self.members[*neighbor as usize];
        }
    }
}

impl<I: NeighborIndex> NeighborIndex for Labelled<I> {
    type Scratch = I::Scratch;

    fn nearest(&self, center: usize, scratch: &mut I::Scratch, out: &mut [i32]) {
        let (part, own) = self.part(center);
        let known = out.len().min(part.members.len() - 1);
        let (near, beyond) = out.split_at_mut(known);
        part.index.nearest(own as usize, scratch, near);
        part.rename(near);
        beyond.fill(-1);
    }
}

impl<I: Neighbors> Neighbors for Labelled<I> {
    fn positions(&self) -> usize {
        self.places.len()
    }

    /// Where a label has fewer than `k` other positions, its centres have
    /// those.
    fn batches<S>(
        &self,
        centers: &[i32],
        k: usize,
        width: usize,
        threads: usize,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) + Sync,
    ) -> Result<Vec<i32>> {
        check::indices("centers", centers, self.positions())?;
        let mut asked = vec![(Vec::new(), Vec::new()); self.parts.len()];
        for (row, &center) in centers.iter().enumerate() {
            let (part, own) = self.places[center as usize];
            let (rows, owns) = &mut asked[part as usize];
            rows.push(row);
            owns.push(own);
        }
        let mut out = memory::zeros::<i32>(centers.len(), width)?;
        for (part, (rows, own)) in self.parts.iter().zip(asked) {
            let found = part.index.batches(
                &own,
                k,
                width,
                threads,
                || (scratch(), Vec::new()),
                |own, (scratch, names), neighbors, out| {
                    part.rename(neighbors);
                    names.clear();
                    names.extend_from_slice(own);
                    part.rename(names);
                    work(names, scratch, neighbors, out);
                },
            )?;
            for (&row, values) in rows.iter().zip(found.chunks_exact(width.max(1))) {
                out[row * width..][..width].copy_from_slice(values);
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
    fn neighbors_are_those_of_the_own_label() {
        let positions: Vec<f64> = (0..60)
            .flat_map(|i| [f64::from(i % 10), f64::from(i / 10)])
            .collect();
        let labels: Vec<i32> = (0..60).map(|i| i * 7 % 4 + 1).collect(); // nobody has 0
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
            // All that are asked for beyond those of the label are -1.
            let mut more = vec![0; 59];
            let mut scratch = <Labelled<KdTree> as NeighborIndex>::Scratch::default();
            index.nearest(center as usize, &mut scratch, &mut more);
            let (known, beyond) = more.split_at(expected.len());
            assert_eq!(known, expected);
            assert!(beyond.iter().all(|&i| i == -1));
        }
    }
}
