//! The rule `quadrant`: one position from each of the four quadrants around the
//! centre.

use super::draw::{Draw, Drawn, NO_GROUP};
use crate::index::NeighborIndex;
use crate::philox::{Stage, below};
use crate::{Result, check, memory};

/// The quadrant, and so the channel, of a position at this vector from the centre:
/// 0 has dx < 0 < dy, 1 has 0 < dx, dy, 2 has dx, dy < 0, and 3 has dy < 0 < dx. A
/// position with the x or the y of the centre is in none.
fn quadrant([dx, dy]: [f64; 2]) -> Option<usize> {
    (dx != 0.0 && dy != 0.0).then(|| usize::from(dx > 0.0) + 2 * usize::from(dy < 0.0))
}

/// Of each quadrant, whether dx > 0, and whether dy > 0.
const QUADRANTS: [[bool; 2]; 4] = [[false, true], [true, true], [false, false], [true, false]];

/// Draws `rounds` groups for each centre. Each channel is one of the K nearest
/// positions in its quadrant. A centre with an empty quadrant is left out.
pub fn draw<I: NeighborIndex>(draw: &Draw<'_, I>, rounds: usize) -> Result<Drawn> {
    check::within("group_size (C) with rule='quadrant'", draw.c, 4, 4)?;
    let k = draw.k;
    let read = |center: i32, near: &[i32]| {
        let within = draw.within(center, near);
        let mut counts = [0; 4];
        for (seen, &neighbor) in near[within.clone()].iter().enumerate() {
            if let Some(q) = quadrant(draw.shift(center, neighbor)) {
                counts[q] += 1;
                if counts.iter().all(|&count| count >= k) {
                    return Some(within.start + seen + 1);
                }
            }
        }
        (within.end < near.len()).then_some(within.end + 1)
    };
    let rows = draw.rows_until(
        read,
        &QUADRANTS.map(Some),
        rounds.saturating_mul(4),
        <[Vec<i32>; 4]>::default,
        |center, quadrants, near, out| {
            for slots in &mut *quadrants {
                slots.clear();
            }
            for &neighbor in &near[draw.within(center, near)] {
                if let Some(q) = quadrant(draw.shift(center, neighbor))
                    && quadrants[q].len() < k
                {
                    memory::push(
                        "the neighbors in each quadrant",
                        &mut quadrants[q],
                        neighbor,
                    )?;
                }
            }
            if quadrants.iter().any(Vec::is_empty) {
                out.fill(NO_GROUP);
                return Ok(());
            }
            for (replicate, group) in (0..).zip(out.chunks_exact_mut(4)) {
                let words = draw.key.block(Stage::Choice, replicate, 1 + center as u64);
                for ((slots, word), chosen) in quadrants.iter().zip(words).zip(group) {
                    *chosen = slots[below(word, slots.len())];
                }
            }
            Ok(())
        },
    )?;
    draw.collect(rows, rounds.saturating_mul(draw.centers.len()))
}
