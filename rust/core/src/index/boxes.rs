//! A tree of boxes, which is exact where rounding leaves the other indexes in doubt.
//!
//! Each node divides its positions into halves along the longer side of their bounding
//! box. So positions that span hundreds of decades do not make the tree deeper than a
//! raster does. A node knows its bounding box and the smallest index of its positions.
//!
//! The squared distance to a box is computed by the same float64 operations as that to
//! a position. Rounding preserves order, so the distance to the box is never the larger
//! one. Hence (d² of the box, smallest index) is a lower bound of every (d², index)
//! within, to the bit, and no margin for rounding is needed. That also holds for far
//! offsets, where differences lose most of their bits, and for squares that underflow,
//! where all distances are tied and the index alone decides.

use std::collections::BinaryHeap;

use super::neighbors::{Wanted, looked};
use crate::{Result, memory};

/// The largest number of positions in a leaf.
const LEAF: usize = 12;

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the tree of scan positions";
const WHAT_FOUND: &str = "the neighbors of a position";

/// An exact index of scan positions in a tree.
pub struct BoxTree {
    /// A node is followed by the nodes of its first half, then by those of its second.
    /// If it has `leaves` leaves, each half has `leaves - 1` nodes.
    nodes: Vec<Node>,
    /// The number of leaves, a power of two.
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

/// A position while the tree is built.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub x: f64,
    pub y: f64,
    pub point: i32,
}

impl BoxTree {
    /// Builds the tree of positions that were checked before.
    pub(super) fn of(mut entries: Vec<Entry>) -> Result<Self> {
        let n = entries.len();
        let leaves = n.div_ceil(LEAF).next_power_of_two();
        let none = Node {
            low: [f64::INFINITY; 2],
            high: [f64::NEG_INFINITY; 2],
            first: i32::MAX,
        };
        let mut nodes = memory::repeat(WHAT, &none, 2 * leaves - 1)?;
        halve_all(&mut nodes, &mut entries);

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

    /// Appends the `k` nearest neighbours that are wanted to `out`, or all of them if
    /// they are fewer.
    pub fn nearest_wanted(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &mut Scratch,
        out: &mut Vec<i32>,
    ) -> Result<()> {
        let found = self.search(center, k, wanted, scratch)?;
        memory::make_room(WHAT_FOUND, out, found.len())?;
        out.extend(found.map(|(_, point)| point));
        Ok(())
    }

    /// Finds the `k` nearest that are wanted, or all of them if they are fewer: the bits
    /// of the squared distance and the index of each, in order.
    pub(super) fn search<'a>(
        &self,
        center: usize,
        k: usize,
        wanted: Wanted,
        scratch: &'a mut Scratch,
    ) -> Result<impl ExactSizeIterator<Item = (u64, i32)> + use<'a>> {
        let Scratch(nearest) = scratch;
        nearest.clear();
        memory::make_room(WHAT_FOUND, nearest, k)?;
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
        } else if !search.excludes(&self.nodes[0]) {
            search.visit::<true>(0, self.leaves, whole);
        }
        *nearest = search.nearest.into_sorted_vec();
        Ok(nearest
            .iter()
            .map(|&key| ((key >> 32) as u64, key as u32 as i32)))
    }
}

/// The order (d², index) as one number: non-negative floats order like their bits.
#[inline(always)]
fn key(d2: f64, point: i32) -> u128 {
    u128::from(d2.to_bits()) << 32 | u128::from(point as u32)
}

/// Moves the half of the positions that is smaller along the longer side of their box
/// to the front, and returns the node with that box.
fn halve(entries: &mut [Entry]) -> Node {
    let node = box_of(entries);
    let [width, height] = [0, 1].map(|axis| node.high[axis] - node.low[axis]);
    let middle = entries.len() / 2;
    // Positions that are equal along one side are ordered by the other, then by index,
    // so that the halves do not overlap. If squares underflow, all distances are tied
    // and only the indices matter.
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

/// Halves the positions of a node and of all nodes below it, down to the leaves.
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

/// The node of some positions: their bounding box and smallest index.
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

/// Memory that is reused from one search to the next.
#[derive(Default)]
pub struct Scratch(Vec<u128>);

/// A search for the neighbours of one position.
struct Search<'a> {
    tree: &'a BoxTree,
    place: usize,
    x: f64,
    y: f64,
    k: usize,
    wanted: Wanted,
    nearest: BinaryHeap<u128>,
    /// Only smaller keys than this can still be among the nearest.
    worst: u128,
}

impl Search<'_> {
    /// A lower bound of the keys of a node's positions.
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

    /// Whether no position of a node can be wanted.
    fn excludes(&self, node: &Node) -> bool {
        let low = [node.low[0] - self.x, node.low[1] - self.y];
        let high = [node.high[0] - self.x, node.high[1] - self.y];
        self.wanted.excludes(low, high)
    }

    /// Searches a node, given its number of leaves and the range of its positions. If
    /// not all neighbours are wanted, `SOME` is true.
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
            if [first, second][half] < self.worst
                && !(SOME && self.excludes(&self.tree.nodes[node]))
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
