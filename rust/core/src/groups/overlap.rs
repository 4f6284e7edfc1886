//! The rule `overlap`: a group grows from its centre, and each position that joins it
//! overlaps all that joined before.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the instructions chosen at run time"
)]

use pulp::{Simd, WithSimd};

use super::draw::{Draw, Drawn, NO_GROUP, TOO_FEW};
use super::nearest;
use crate::index::NeighborIndex;
use crate::philox::{Key, Stage};
use crate::{Result, check, memory, parallel, simd};

/// If no candidate overlaps enough, the smallest overlap allowed is divided by this.
const RELAX: f64 = 1.5;
/// How many times it is divided for one group, at most.
const RELAXATIONS: usize = 3;

/// Turns 53 random bits into a number in 0..1.
const UNIT: f64 = 1.0 / (1_u64 << 53) as f64;

/// How many groups grow side by side: as many as the widest vectors have lanes.
const LANES: usize = 8;
type Lanes = [f64; LANES];

/// The coefficients of the Taylor polynomial of exp of degree 12, highest first. The
/// exp of a library could differ from machine to machine in the last bit.
const TAYLOR: [f64; 13] = [
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// Grows `rounds` groups from each centre. `window` is N, the pixels per side of a
/// diffraction pattern; `min_overlap` is the share of this area that two positions
/// must have in common. A group is left out if no candidate qualifies even after the
/// limit was relaxed three times.
pub fn draw<I: NeighborIndex>(
    draw: &Draw<'_, I>,
    window: usize,
    min_overlap: f64,
    rounds: usize,
) -> Result<Drawn> {
    const GROUPS_PER_CHUNK: usize = 32 * LANES;
    draw.check()?;
    check::within("N", window, 1, i32::MAX as usize)?;
    let c = draw.c;
    if c == 1 {
        return nearest::draw_rounds(draw, true, rounds);
    }
    let width = draw.k.min(draw.index.positions() - 1);
    let slots = draw.rows(
        true,
        width,
        || (),
        |_, (), slots, out| {
            let (known, beyond) = out.split_at_mut(slots.len());
            known.copy_from_slice(slots);
            beyond.fill(TOO_FEW);
            Ok(())
        },
    )?;
    let count = rounds.saturating_mul(draw.centers.len());
    let mut groups = memory::zeros(count, c)?;
    let growth = Growth {
        positions: draw.positions,
        centers: draw.centers,
        slots: &slots,
        width,
        window: window as f64,
        least: min_overlap,
        key: draw.key,
        rounds,
        c,
    };
    parallel::for_each_chunk(
        &mut groups,
        GROUPS_PER_CHUNK * c,
        draw.threads,
        |chunk, groups| {
            simd::run(Chunk {
                growth: &growth,
                first: chunk * GROUPS_PER_CHUNK,
                groups,
            })?
        },
    )?;
    draw.collect(groups, count)
}

/// What all groups grow from: the `rounds` groups of a centre follow one another.
struct Growth<'a> {
    positions: &'a [f64],
    centers: &'a [i32],
    /// The slots of each centre, nearest first, in rows of `width`.
    slots: &'a [i32],
    width: usize,
    window: f64,
    least: f64,
    key: Key,
    rounds: usize,
    c: usize,
}

/// The kernel: grows the groups from number `first` on.
struct Chunk<'a> {
    growth: &'a Growth<'a>,
    first: usize,
    groups: &'a mut [i32],
}

impl WithSimd for Chunk<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Result<()> {
        let growth = self.growth;
        let mut growing = Growing::new(growth.width)?;
        let lanes = self.groups.chunks_mut(LANES * growth.c);
        for (first, groups) in (self.first..).step_by(LANES).zip(lanes) {
            growing.start(growth, first, groups);
            for pick in 1..growth.c {
                growing.grow(growth, pick, groups);
            }
            for (group, &failed) in groups.chunks_exact_mut(growth.c).zip(&growing.failed) {
                if failed && group[0] >= 0 {
                    group.fill(NO_GROUP);
                }
            }
        }
        Ok(())
    }
}

/// Groups that grow side by side, each in one lane of a vector. Within a group the
/// work is sequential, because weights are summed in the order of the slots.
struct Growing {
    candidates: Vec<Candidate>,
    /// The position that joined last.
    newest: [Lanes; 2],
    least: Lanes,
    relaxed: [usize; LANES],
    /// Lanes without work: the group was left out, or there is none.
    failed: [bool; LANES],
    words: [[u64; 4]; LANES],
    rows: [usize; LANES],
    replicates: [u64; LANES],
}

/// The slot with the same number in each lane.
#[derive(Clone, Copy)]
struct Candidate {
    x: Lanes,
    y: Lanes,
    /// The smallest area shared with any position in the group, in pixels. It is
    /// negative if the slot is in the group itself, or if there is no such slot.
    shared: Lanes,
    /// The sum of the weights up to this slot.
    running: Lanes,
}

impl Growing {
    fn new(width: usize) -> Result<Self> {
        let none = Candidate {
            x: [0.0; LANES],
            y: [0.0; LANES],
            shared: [-1.0; LANES],
            running: [0.0; LANES],
        };
        Ok(Self {
            candidates: memory::repeat("the candidates of groups", &none, width)?,
            newest: [[0.0; LANES]; 2],
            least: [0.0; LANES],
            relaxed: [0; LANES],
            failed: [true; LANES],
            words: [[0; 4]; LANES],
            rows: [0; LANES],
            replicates: [0; LANES],
        })
    }

    /// Starts the groups from number `first` on with their centres.
    fn start(&mut self, growth: &Growth<'_>, first: usize, groups: &mut [i32]) {
        let at = |i: i32| {
            let i = 2 * i as usize;
            [growth.positions[i], growth.positions[i + 1]]
        };
        self.least = [growth.least; LANES];
        self.relaxed = [0; LANES];
        self.failed = [true; LANES];
        for (lane, group) in groups.chunks_exact_mut(growth.c).enumerate() {
            let row = (first + lane) / growth.rounds;
            let slots = &growth.slots[row * growth.width..][..growth.width];
            if slots[0] < 0 {
                group.fill(TOO_FEW);
                continue;
            }
            self.failed[lane] = false;
            self.rows[lane] = row;
            self.replicates[lane] = ((first + lane) % growth.rounds) as u64;
            group[0] = growth.centers[row];
            let [x, y] = at(group[0]);
            (self.newest[0][lane], self.newest[1][lane]) = (x, y);
            for (candidate, &slot) in self.candidates.iter_mut().zip(slots) {
                candidate.shared[lane] = -1.0;
                if slot >= 0 {
                    let [x, y] = at(slot);
                    (candidate.x[lane], candidate.y[lane]) = (x, y);
                    candidate.shared[lane] = growth.window * growth.window;
                }
            }
        }
    }

    /// Adds one position to each group.
    #[inline(always)]
    fn grow(&mut self, growth: &Growth<'_>, pick: usize, groups: &mut [i32]) {
        let mut total = self.weigh(growth.window);
        while self.relax(&total) {
            total = self.weigh(growth.window);
        }
        let mut limit = total;
        for (lane, group) in groups.chunks_exact(growth.c).enumerate() {
            if (pick - 1).is_multiple_of(4) && !self.failed[lane] {
                let blocks = (growth.c - 1).div_ceil(4);
                let block = 1 + group[0] as u64 * blocks as u64 + (pick as u64 - 1) / 4;
                let replicate = self.replicates[lane];
                self.words[lane] = growth.key.block(Stage::Growth, replicate, block);
            }
            limit[lane] *= (self.words[lane][(pick - 1) % 4] >> 11) as f64 * UNIT;
        }
        // The running sums never fall, so the chosen slot is as far as there are sums
        // that do not exceed the limit.
        let mut passed = [0.0; LANES];
        for candidate in &self.candidates {
            for lane in 0..LANES {
                let beyond = candidate.running[lane] > limit[lane];
                passed[lane] += if beyond { 0.0 } else { 1.0 };
            }
        }
        for (lane, group) in groups.chunks_exact_mut(growth.c).enumerate() {
            if self.failed[lane] {
                continue;
            }
            let mut chosen = passed[lane] as usize;
            if chosen == self.candidates.len() {
                chosen = self.last(lane);
            }
            let slots = &growth.slots[self.rows[lane] * growth.width..];
            group[pick] = slots[chosen];
            let candidate = &mut self.candidates[chosen];
            (self.newest[0][lane], self.newest[1][lane]) = (candidate.x[lane], candidate.y[lane]);
            candidate.shared[lane] = -1.0;
        }
    }

    /// Updates the shared areas by the newest positions, and sums up the weights of the
    /// candidates that overlap enough.
    #[inline(always)]
    fn weigh(&mut self, window: f64) -> Lanes {
        let area = window * window;
        let [mx, my] = self.newest;
        let least = self.least;
        let mut total = [0.0; LANES];
        for candidate in &mut self.candidates {
            let mut score = [0.0; LANES];
            for lane in 0..LANES {
                let wide = window - (candidate.x[lane] - mx[lane]).abs();
                let high = window - (candidate.y[lane] - my[lane]).abs();
                let wide = if wide > 0.0 { wide } else { 0.0 };
                let high = if high > 0.0 { high } else { 0.0 };
                let product = wide * high;
                let shared = candidate.shared[lane];
                let shared = if product < shared { product } else { shared };
                candidate.shared[lane] = shared;
                score[lane] = shared / area;
            }
            let mut value = [TAYLOR[0]; LANES];
            for coefficient in &TAYLOR[1..] {
                for lane in 0..LANES {
                    value[lane] = value[lane] * (2.0 * score[lane]) + coefficient;
                }
            }
            for lane in 0..LANES {
                total[lane] += if score[lane] >= least[lane] {
                    value[lane]
                } else {
                    0.0
                };
            }
            candidate.running = total;
        }
        total
    }

    /// Where no candidate qualifies, lowers the limit, or gives the group up. Returns
    /// whether any limit was lowered.
    fn relax(&mut self, total: &Lanes) -> bool {
        let mut lowered = false;
        for (lane, &total) in total.iter().enumerate() {
            if total > 0.0 || self.failed[lane] {
                continue;
            }
            if self.relaxed[lane] == RELAXATIONS {
                self.failed[lane] = true;
            } else {
                self.least[lane] /= RELAX;
                self.relaxed[lane] += 1;
                lowered = true;
            }
        }
        lowered
    }

    /// The last slot that has a weight, which is the first at which the sum is complete.
    fn last(&self, lane: usize) -> usize {
        let total = self
            .candidates
            .last()
            .map_or(0.0, |last| last.running[lane]);
        let complete = |candidate: &Candidate| candidate.running[lane] >= total;
        self.candidates.iter().position(complete).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_polynomial_approximates_exp() {
        let mut factorial = 1.0;
        for (degree, coefficient) in TAYLOR.iter().rev().enumerate() {
            factorial *= degree.max(1) as f64;
            assert_eq!(*coefficient, 1.0 / factorial);
        }
        let value = TAYLOR.iter().fold(0.0, |value, c| value * 2.0 + c);
        assert!((value - 2_f64.exp()).abs() < 1e-5);
    }
}
