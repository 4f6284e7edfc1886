//! A tree of boxes: exact where rounding leaves other indices in doubt.
//!
//! Each node halves its positions along the longer side of their bounding box,
//! so the tree is as deep for positions over hundreds of decades as for a
//! raster. A node knows the box that its positions fill, and the smallest of
//! their indices. The squared distance to the box, computed by the same float64
//! operations as that to a position, is never the larger one: rounding keeps
//! order. So (d² of the box, smallest index) is a bound on every (d², index)
//! within, to the bit, and nothing needs a margin: neither far offsets, where
//! differences lose most of their bits, nor squares that underflow, where all
//! is tied and the index alone decides.

use std::collections::BinaryHeap;

use super::neighbors::{NeighborIndex, Neighbors, Query, Wanted, looked, one_by_one};
use crate::{Result, memory, parallel};

/// Positions of a leaf, at most.
const LEAF: usize = 12;

/// What memory is for.
const WHAT: &str = "The tree of positions";

/// An exact index of scan positions in a tree.
pub struct BoxTree {
    /// Behind a node come those of its first half, then those of its second:
    /// with `leaves` below it, `leaves - 1` of each.
    nodes: Vec<Node>,
    /// A power of two.
    leaves: usize,
    /// The positions in the order of the leaves.
    xs: Vec<f64>,
    ys: Vec<f64>,
    points: Vec<i32>,
    place_of_point: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Node {
    low: [f64; 2],
    high: [f64; 2],
    /// The smallest index.
    first: i32,
}

/// A position on its way into the tree.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub x: f64,
    pub y: f64,
    pub point: i32,
}

impl BoxTree {
    /// Builds the index of positions that were checked.
    pub(super) fn of(mut entries: Vec<Entry>, threads: usize) -> Result<Self> {
        let n = entries.len();
        let leaves = n.div_ceil(LEAF).next_power_of_two();
        let none = Node {
            low: [f64::INFINITY; 2],
            high: [f64::NEG_INFINITY; 2],
            first: i32::MAX,
        };
        let mut nodes = memory::repeat(WHAT, &none, 2 * leaves - 1)?;
        // The first halvings one after another, until there are enough parts.
        let threads = parallel::worth(n / 4, threads);
        let parts = if threads == 1 { 1 } else { 8 * threads };
        let mut halves = memory::room(WHAT, 4 * parts)?;
        let mut next = memory::room(WHAT, 4 * parts)?;
        halves.push((&mut nodes[..], &mut entries[..]));
        while halves.len() < parts && halves[0].0.len() > 1 {
            parallel::for_each_chunk(&mut halves, 1, threads, |_, half| {
                *half[0].0.first_mut().unwrap_or(&mut { none }) = halve(half[0].1);
                Ok(())
            })?;
            for (nodes, entries) in halves.drain(..) {
                let (_, nodes) = nodes.split_at_mut(1);
                let nodes = nodes.split_at_mut(nodes.len() / 2);
                let entries = entries.split_at_mut(entries.len() / 2);
                next.push((nodes.0, entries.0));
                next.push((nodes.1, entries.1));
            }
            std::mem::swap(&mut halves, &mut next);
        }
        parallel::for_each_chunk(&mut halves, 1, threads, |_, half| {
            let (nodes, entries) = &mut half[0];
            halve_all(nodes, entries);
            Ok(())
        })?;

        let mut place_of_point = memory::cleared(WHAT, n)?;
        for (entry, place) in entries.iter().zip(0_u32..) {
            place_of_point[entry.point as usize] = place;
        }
        Ok(Self {
            leaves,
            xs: memory::collect(WHAT, entries.iter().map(|entry| entry.x))?,
            ys: memory::collect(WHAT, entries.iter().map(|entry| entry.y))?,
            points: memory::collect(WHAT, entries.iter().map(|entry| entry.point))?,
            nodes,
            place_of_point,
        })
    }

    /// Leaves the `k` nearest of those wanted in the scratch, in order.
    fn search(&self, center: usize, k: usize, wanted: Wanted, scratch: &mut Scratch) -> Result<()> {
        let Scratch(nearest) = scratch;
        nearest.clear();
        memory::make_room("The neighbors of a position", nearest, k)?;
        let place = self.place_of_point[center] as usize;
        let mut search = Search {
            tree: self,
            place,
            x: self.xs[place],
            y: self.ys[place],
            k,
            wanted,
            nearest: BinaryHeap::from(std::mem::take(nearest)),
            worst: key(wanted.most, -1),
        };
        let whole = (0, self.xs.len());
        if wanted.is_all() {
            search.visit::<false>(0, self.leaves, whole);
        } else if !search.is_vain(&self.nodes[0]) {
            search.visit::<true>(0, self.leaves, whole);
        }
        *nearest = search.nearest.into_sorted_vec();
        Ok(())
    }
}

/// Floats that are not negative order like their bits.
#[inline(always)]
fn key(d2: f64, point: i32) -> u128 {
    u128::from(d2.to_bits()) << 32 | u128::from(point as u32)
}

/// Moves the smaller half of the positions along the longer side of their box
/// to the front.
fn halve(entries: &mut [Entry]) -> Node {
    let node = box_of(entries);
    let [width, height] = [0, 1].map(|axis| node.high[axis] - node.low[axis]);
    let middle = entries.len() / 2;
    // Equal along one side: then along the other, then by index, and the halves
    // do not overlap. Where all is tied, only indices tell them apart.
    if width * width + height * height == 0.0 {
        entries.select_nth_unstable_by_key(middle, |entry| entry.point);
    } else if width >= height {
        entries.select_nth_unstable_by(middle, |a, b| {
            let order = a.x.total_cmp(&b.x);
            order.then_with(|| a.y.total_cmp(&b.y).then(a.point.cmp(&b.point)))
        });
    } else {
        entries.select_nth_unstable_by(middle, |a, b| {
            let order = a.y.total_cmp(&b.y);
            order.then_with(|| a.x.total_cmp(&b.x).then(a.point.cmp(&b.point)))
        });
    }
    node
}

/// The same down to the leaves.
fn halve_all(nodes: &mut [Node], entries: &mut [Entry]) {
    let Some((node, below)) = nodes.split_first_mut() else {
        return;
    };
    if below.is_empty() {
        *node = box_of(entries);
        return;
    }
    *node = halve(entries);
    let (first, second) = below.split_at_mut(below.len() / 2);
    let (smaller, larger) = entries.split_at_mut(entries.len() / 2);
    halve_all(first, smaller);
    halve_all(second, larger);
}

/// The box that positions fill.
fn box_of(entries: &[Entry]) -> Node {
    let mut node = Node {
        low: [f64::INFINITY; 2],
        high: [f64::NEG_INFINITY; 2],
        first: i32::MAX,
    };
    for &Entry { x, y, point } in entries {
        node.low = [node.low[0].min(x), node.low[1].min(y)];
        node.high = [node.high[0].max(x), node.high[1].max(y)];
        node.first = node.first.min(point);
    }
    node
}

/// What one query leaves to the next.
#[derive(Default)]
pub struct Scratch(Vec<u128>);

/// A search for the nearest of one position.
struct Search<'a> {
    tree: &'a BoxTree,
    place: usize,
    x: f64,
    y: f64,
    k: usize,
    wanted: Wanted,
    nearest: BinaryHeap<u128>,
    /// Only smaller keys are of use.
    worst: u128,
}

impl Search<'_> {
    /// No key of a node's positions is smaller.
    #[inline(always)]
    fn bound(&self, node: &Node) -> u128 {
        let beyond = |value: f64, axis: usize| {
            let [below, above] = [node.low[axis] - value, value - node.high[axis]];
            let farther = if below > above { below } else { above };
            if farther > 0.0 { farther } else { 0.0 }
        };
        let [dx, dy] = [beyond(self.x, 0), beyond(self.y, 1)];
        key(dx * dx + dy * dy, node.first)
    }

    /// Whether a node holds nobody who is wanted.
    fn is_vain(&self, node: &Node) -> bool {
        let low = [node.low[0] - self.x, node.low[1] - self.y];
        let high = [node.high[0] - self.x, node.high[1] - self.y];
        self.wanted.is_vain(low, high)
    }

    /// Goes through a node with so many leaves, whose positions stand in that
    /// range. With `SOME` only who is wanted counts.
    fn visit<const SOME: bool>(&mut self, node: usize, leaves: usize, range: (usize, usize)) {
        looked(1);
        if leaves == 1 {
            self.read::<SOME>(range);
            return;
        }
        let middle = range.0 + (range.1 - range.0) / 2;
        let halves = [
            (node + 1, (range.0, middle)),
            (node + leaves, (middle, range.1)),
        ];
        let [first, second] = halves.map(|(node, _)| self.bound(&self.tree.nodes[node]));
        let order = if first < second { [0, 1] } else { [1, 0] };
        for half in order {
            let (node, range) = halves[half];
            if [first, second][half] < self.worst && !(SOME && self.is_vain(&self.tree.nodes[node]))
            {
                self.visit::<SOME>(node, leaves / 2, range);
            }
        }
    }

    fn read<const SOME: bool>(&mut self, (first, end): (usize, usize)) {
        looked(end - first);
        let tree = self.tree;
        let positions = tree.xs[first..end].iter().zip(&tree.ys[first..end]);
        for ((place, (x, y)), &point) in (first..).zip(positions).zip(&tree.points[first..end]) {
            let shift @ [dx, dy] = [x - self.x, y - self.y];
            let d2 = dx * dx + dy * dy;
            let key = key(d2, point);
            if key >= self.worst || place == self.place || SOME && !self.wanted.holds(shift) {
                continue;
            }
            if self.nearest.len() < self.k {
                self.nearest.push(key);
            } else if let Some(mut last) = self.nearest.peek_mut() {
                *last = key;
            }
            if self.nearest.len() == self.k
                && let Some(&last) = self.nearest.peek()
            {
                self.worst = last;
            }
        }
    }
}

impl Neighbors for BoxTree {
    fn positions(&self) -> usize {
        self.points.len()
    }

    fn batches<S>(
        &self,
        query: Query<'_>,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&[i32], &mut S, &mut [i32], &mut [i32]) -> Result<()> + Sync,
    ) -> Result<Vec<i32>> {
        let place = |center: i32| self.place_of_point[center as usize];
        one_by_one(self, place, query, scratch, work)
    }
}

impl NeighborIndex for BoxTree {
    type Scratch = Scratch;

    fn nearest(&self, center: usize, scratch: &mut Scratch, out: &mut [i32]) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.search(center, out.len(), Wanted::ALL, scratch)?;
        for (out, &key) in out.iter_mut().zip(&scratch.0) {
            *out = key as u32 as i32;
        }
        Ok(())
    }

    fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Scratch,
        out: &mut Vec<i32>,
    ) -> Result<bool> {
        self.search(center, k, wanted, scratch)?;
        memory::make_room("The neighbors of a position", out, scratch.0.len())?;
        out.extend(scratch.0.iter().map(|&key| key as u32 as i32));
        Ok(true)
    }
}
