//! Groups of overlapping scan positions, drawn around centres. Each rule of choosing
//! them has a file of its own; [`Rule::draw`] draws by any of them.

mod draw;
pub mod legacy;
pub mod legacy_rng;
mod natural;
mod nearest;
mod overlap;
mod oversample;
mod pool;
mod quadrant;
mod rule;
mod slots;
mod smallest;

pub use draw::{Draw, Drawn, Limits};
pub use pool::sample as sample_pool;
pub use rule::{Known, Rule};

use crate::philox::{Key, Stage};
use crate::{Result, check};
use smallest::smallest;

/// Samples `m` centres from a scan of `n` positions, in random order: the positions
/// with the smallest (random word, position), in that order.
///
/// So a larger `m` only appends centres to those of a smaller one.
pub fn centers(n: usize, m: usize, key: Key, threads: usize) -> Result<Vec<i32>> {
    check::scan_length(n)?;
    check::within("n_groups", m, 1, n)?;
    smallest(n, m, key, Stage::Centers, threads)
}

/// The random order in which an epoch visits `n` groups: by (random word, group).
pub fn order(n: usize, key: Key, threads: usize) -> Result<Vec<i32>> {
    check::within("The number of groups", n, 0, i32::MAX as usize)?;
    smallest(n, n, key, Stage::Order, threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_sample_of_centers_only_appends() {
        let key = Key([3, 4]);
        for n in [1_usize, 3, 4, 1001] {
            let all = centers(n, n, key, 1).unwrap();
            let mut sorted = all.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(0..n as i32));
            for m in [1, n / 2 + 1, n] {
                for threads in [1, 2, 8] {
                    assert_eq!(centers(n, m, key, threads).unwrap(), all[..m]);
                }
            }
        }
        assert!(centers(5, 6, key, 1).is_err());
        assert!(centers(5, 0, key, 1).is_err());
    }
}
