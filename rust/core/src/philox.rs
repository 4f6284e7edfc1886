//! Philox4x64-10, the generator of `numpy.random.Philox`, addressed by counter.
//!
//! Every random word is a function of (key, stage, replicate, block). So any group
//! can be drawn alone, in any order and on any thread, with the same result.
//!
//! Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011, <https://doi.org/10.1145/2063384.2063405>.

/// The multipliers of the paper's Philox4x64.
const MULTIPLIERS: [u64; 2] = [0xD2E7_470E_E14C_6C93, 0xCA5A_8263_9512_1157];
/// The Weyl increments of its key: the fractional parts of the golden ratio and of
/// the square root of 3.
const WEYL: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xBB67_AE85_84CA_A73B];
const ROUNDS: usize = 10;

/// What random words are used for. Words of different stages are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stage {
    /// Which positions become centres, and in which order.
    Centers = 1,
    /// Which of its neighbours join a centre.
    Choice = 2,
    /// Which positions join a growing group (rule `overlap`).
    Growth = 3,
    /// In which order a centre goes through its possible groups (rule
    /// `oversample`).
    Numbering = 4,
    /// Which groups of a pool are sampled.
    Pool = 5,
    /// In which order an epoch visits its groups.
    Order = 6,
}

/// The key that selects a stream of random words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u64; 2]);

impl Key {
    /// The key of an epoch of a seed: in `NumPy`,
    /// `SeedSequence(seed, spawn_key=(epoch,)).generate_state(2, uint64)`.
    ///
    /// Source: M. E. O'Neill, "Developing a `seed_seq` Alternative" (2015),
    /// <https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html>. In
    /// `NumPy`, a seed has four words, and the epoch is the fifth.
    #[must_use]
    pub fn new(seed: u128, epoch: u32) -> Self {
        let mut hash = Hash::new(0x43b0_d7e5, 0x931e_8875);
        let mut pool = [0, 32, 64, 96].map(|shift| hash.of((seed >> shift) as u32));
        for from in 0..4 {
            for to in (0..4).filter(|&to| to != from) {
                pool[to] = mixed(pool[to], hash.of(pool[from]));
            }
        }
        for word in &mut pool {
            *word = mixed(*word, hash.of(epoch));
        }
        let mut hash = Hash::new(0x8b51_f9dd, 0x58f3_8ded);
        let [a, b, c, d] = pool.map(|word| u64::from(hash.of(word)));
        Self([a | b << 32, c | d << 32])
    }

    /// The four words of one block. Blocks are numbered from 1, as in `NumPy`.
    #[must_use]
    pub fn block(self, stage: Stage, replicate: u64, block: u64) -> [u64; 4] {
        philox4x64([block, 0, replicate, stage as u64], self.0)
    }
}

/// A hash of 32-bit words, in which each word is multiplied by another factor.
struct Hash {
    factor: u32,
    step: u32,
}

impl Hash {
    fn new(factor: u32, step: u32) -> Self {
        Self { factor, step }
    }

    fn of(&mut self, word: u32) -> u32 {
        let word = word ^ self.factor;
        self.factor = self.factor.wrapping_mul(self.step);
        folded(word.wrapping_mul(self.factor))
    }
}

/// A word that depends on two.
fn mixed(a: u32, b: u32) -> u32 {
    let [a, b] = [a.wrapping_mul(0xca01_f9dd), b.wrapping_mul(0x4973_f715)];
    folded(a.wrapping_sub(b))
}

fn folded(word: u32) -> u32 {
    word ^ word >> 16
}

/// The generator: ten rounds on a 256-bit counter, whose word 0 is the lowest.
#[must_use]
pub fn philox4x64(mut counter: [u64; 4], mut key: [u64; 2]) -> [u64; 4] {
    for _ in 0..ROUNDS {
        let (high0, low0) = product(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = product(MULTIPLIERS[1], counter[2]);
        counter = [
            high1 ^ counter[1] ^ key[0],
            low1,
            high0 ^ counter[3] ^ key[1],
            low0,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// A random number in `0..n`: `floor(word * n / 2**64)`, computed exactly in 128
/// bits.
#[must_use]
pub fn below(word: u64, n: usize) -> usize {
    product(word, n as u64).0 as usize
}

fn product(a: u64, b: u64) -> (u64, u64) {
    let wide = u128::from(a) * u128::from(b);
    ((wide >> 64) as u64, wide as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 (`tests/kat_vectors`, philox4x64 10).
    #[test]
    fn words_are_those_of_the_authors() {
        assert_eq!(
            philox4x64([0; 4], [0; 2]),
            [
                0x16554D9ECA36314C,
                0xDB20FE9D672D0FDC,
                0xD7E772CEE186176B,
                0x7E68B68AEC7BA23B
            ]
        );
        assert_eq!(
            philox4x64([u64::MAX; 4], [u64::MAX; 2]),
            [
                0x87B092C3013FE90B,
                0x438C3C67BE8D0224,
                0x9CC7D7C69CD777B6,
                0xA09CAEBF594F0BA0
            ]
        );
    }

    /// As `NumPy` 2.4 prints them.
    #[test]
    fn keys_are_those_of_seed_sequences() {
        let known = [
            ((0, 0), [8668861027912758289, 14584187760040447831]),
            ((42, 0), [16138347438539916964, 4837878136300915231]),
            ((42, 7), [16176970332176372554, 15375011468152818850]),
            (
                (u128::MAX, u32::MAX),
                [2368576445770480809, 16367857629898070480],
            ),
            (
                ((1 << 64) + 5, 3),
                [8364573397541990950, 12448635756105125509],
            ),
        ];
        for ((seed, epoch), words) in known {
            assert_eq!(Key::new(seed, epoch), Key(words));
        }
    }

    #[test]
    fn below_covers_its_range_and_no_more() {
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u64::MAX, 7), 6);
        assert_eq!(below(u64::MAX, 1), 0);
        assert_eq!(below(1 << 63, 7), 3);
    }
}
