//! Groups: a centre and the overlapping positions that go with it. One file a
//! rule.

mod labels;
pub mod legacy_rng;
pub mod nearest;
pub mod overlap;
pub mod oversample;
pub mod pool;
pub mod quadrant;
mod rule;
mod slots;
mod smallest;

pub use labels::Labelled;
pub use rule::{Known, Rule};
pub use slots::{Draw, Drawn, Limits};

use crate::philox::{Key, Stage};
use crate::{Result, check};
use smallest::smallest;

/// The `m` centres of a scan of `n` positions: those with the smallest
/// (word, position), in that order.
///
/// So the order is random, a prefix of a sample is a sample, and a larger `m`
/// only appends.
pub fn centers(n: usize, m: usize, key: Key, threads: usize) -> Result<Vec<i32>> {
    check::scan_length(n)?;
    check::within("n_groups", m, 1, n)?;
    smallest(n, m, key, Stage::Centers, threads)
}

/// The order in which an epoch visits `n` groups: by (word, group).
pub fn order(n: usize, key: Key, threads: usize) -> Result<Vec<i32>> {
    check::within("The number of groups", n, 0, i32::MAX as usize)?;
    smallest(n, n, key, Stage::Order, threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_of_a_sample_is_a_sample_and_all_is_a_permutation() {
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
