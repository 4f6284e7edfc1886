//! The neighbours of one position as the definition says, from growing rings of cells.

use super::build::Grid;
use super::cells::{OCCUPANCY, margin};
use crate::index::neighbors::looked;
use crate::{Result, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the neighbors of scan positions";

impl Grid {
    /// How many rings of cells usually hold `k` neighbours.
    pub(super) fn rings(&self, k: usize) -> usize {
        let wanted = 1.5 * (k + 1) as f64 / OCCUPANCY;
        let rings = if self.x.cells == 1 || self.y.cells == 1 {
            0.5 * wanted
        } else {
            (wanted / std::f64::consts::PI).sqrt()
        };
        (rings.ceil() as usize).max(1)
    }

    /// Finds the `k` nearest neighbours of the position stored at `place`, with distances
    /// in float64. The search begins with `rings` rings of cells. Positions at a larger
    /// squared distance than `bound` are not considered, as it is known to hold `k`.
    pub(super) fn nearest_by_definition(
        &self,
        place: usize,
        k: usize,
        mut rings: usize,
        mut bound: f64,
        found: &mut Vec<u128>,
        out: &mut Vec<i32>,
    ) -> Result<()> {
        let [x, y] = [self.xs[place], self.ys[place]];
        let [column, row] = [self.x.cell(x), self.y.cell(y)];
        loop {
            let columns = self.x.around(column, rings);
            let rows = self.y.around(row, rings);
            let mut count = 0;
            for row in rows[0]..=rows[1] {
                let run = self.run(row, columns);
                if found.len() < count + run.len() {
                    memory::resize(WHAT, found, count + run.len(), 0)?;
                }
                looked(1 + run.len());
                let first = run.start;
                let near = &mut found[..];
                let candidates = self.xs[run.clone()].iter().zip(&self.ys[run.clone()]);
                for ((i, (cx, cy)), &point) in candidates.enumerate().zip(&self.points[run]) {
                    let [dx, dy] = [cx - x, cy - y];
                    let d2 = dx * dx + dy * dy;
                    near[count] = u128::from(d2.to_bits()) << 32 | point as u128;
                    count += usize::from(d2 <= bound && first + i != place);
                }
            }
            let margin = margin([self.x, self.y], [columns, rows], [x, y]);
            let near = &mut found[..count];
            if count < k {
                if margin.0 == f64::INFINITY {
                    // `bound` held too few. This should not happen; if it does, the
                    // result is still right.
                    bound = f64::INFINITY;
                }
                rings *= 2;
                continue;
            }
            if count > k {
                near.select_nth_unstable(k - 1);
            }
            let near = &mut near[..k];
            let farthest = near.iter().max().map_or(0, |&key| (key >> 32) as u64);
            let farthest = f64::from_bits(farthest);
            if margin.exceeds(farthest) {
                near.sort_unstable();
                memory::make_room(WHAT, out, k)?;
                out.extend(near.iter().map(|&key| key as u32 as i32));
                return Ok(());
            }
            bound = farthest;
            let missing = (farthest.sqrt() - margin.0) / self.x.size.max(self.y.size);
            rings += 1 + missing.clamp(0.0, rings as f64) as usize;
        }
    }
}
