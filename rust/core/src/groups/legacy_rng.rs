//! The random stream of `numpy.random.seed` and `numpy.random.choice`: a seed that was
//! used with older code gives the same groups here.
//!
//! Source of the generator: Matsumoto and Nishimura, "Mersenne twister", ACM
//! TOMACS 8 (1998), <https://doi.org/10.1145/272991.272995>. What is drawn
//! from it is `NumPy`'s `RandomState`, frozen since 1.17 (NEP 19).

use crate::{Error, Result, check, memory};

const WORDS: usize = 624;
const MIDDLE: usize = 397;

/// The generator MT19937 at some place of its stream, with the state that
/// `RandomState.get_state` returns.
#[derive(Debug, Clone)]
pub struct MersenneTwister {
    words: [u32; WORDS],
    place: usize,
}

impl MersenneTwister {
    /// The generator in the state (`words`, `place`).
    pub fn from_state(words: &[u32], place: usize) -> Result<Self> {
        match <[u32; WORDS]>::try_from(words) {
            Ok(words) if place <= WORDS => Ok(Self { words, place }),
            _ => Err(Error::TwisterState {
                words: words.len(),
                place,
            }),
        }
    }

    /// The state, in the form in which `NumPy` takes it back.
    #[must_use]
    pub fn state(&self) -> (&[u32], usize) {
        (&self.words, self.place)
    }

    fn refill(&mut self) {
        for i in 0..WORDS {
            let joined = self.words[i] & 0x8000_0000 | self.words[(i + 1) % WORDS] & 0x7fff_ffff;
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[i] = self.words[(i + MIDDLE) % WORDS] ^ joined >> 1 ^ twist;
        }
        self.place = 0;
    }

    fn word(&mut self) -> u32 {
        if self.place == WORDS {
            self.refill();
        }
        let mut y = self.words[self.place];
        self.place += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }

    /// A number in `0..=most`: words are masked to as many bits as `most` has, until
    /// one is not larger.
    fn up_to(&mut self, most: u32) -> u32 {
        if most == 0 {
            return 0; // takes no word from the stream
        }
        let mask = u32::MAX >> most.leading_zeros();
        loop {
            let value = self.word() & mask;
            if value <= most {
                return value;
            }
        }
    }

    /// `RandomState.shuffle`. The first k items are `choice(items, k, replace=False)`.
    pub fn shuffle(&mut self, items: &mut [i32]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.up_to(i as u32) as usize);
        }
    }

    /// `choice(n, m, replace=False)`, or all numbers in order if `m == n`.
    pub fn centers(&mut self, n: usize, m: usize) -> Result<Vec<i32>> {
        check::scan_length(n)?;
        check::within("n_groups", m, 1, n)?;
        let mut centers = memory::zeros(n, 1)?;
        for (center, i) in centers.iter_mut().zip(0..) {
            *center = i;
        }
        if m < n {
            self.shuffle(&mut centers);
            centers.truncate(m);
        }
        Ok(centers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The authors' test output (`mt19937ar.out`) for `init_by_array`
    /// {0x123, 0x234, 0x345, 0x456}.
    #[test]
    fn words_are_those_of_the_authors() {
        let mut words = [0_u32; WORDS];
        words[0] = 19_650_218;
        for i in 1..WORDS {
            let before = words[i - 1] ^ words[i - 1] >> 30;
            words[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let key = [0x123_u32, 0x234, 0x345, 0x456];
        let mut i = 1;
        for k in 0..WORDS {
            let before = (words[i - 1] ^ words[i - 1] >> 30).wrapping_mul(1_664_525);
            words[i] = (words[i] ^ before)
                .wrapping_add(key[k % 4])
                .wrapping_add((k % 4) as u32);
            i += 1;
            if i == WORDS {
                words[0] = words[WORDS - 1];
                i = 1;
            }
        }
        for _ in 1..WORDS {
            let before = (words[i - 1] ^ words[i - 1] >> 30).wrapping_mul(1_566_083_941);
            words[i] = (words[i] ^ before).wrapping_sub(i as u32);
            i += 1;
            if i == WORDS {
                words[0] = words[WORDS - 1];
                i = 1;
            }
        }
        words[0] = 0x8000_0000;
        let mut twister = MersenneTwister::from_state(&words, WORDS).unwrap();
        let first: Vec<u32> = (0..5).map(|_| twister.word()).collect();
        assert_eq!(
            first,
            [1067595299, 955945823, 477289528, 4107218783, 4228976476]
        );
    }

    #[test]
    fn a_state_of_the_wrong_size_is_refused() {
        assert!(MersenneTwister::from_state(&[0; 623], 0).is_err());
        assert!(MersenneTwister::from_state(&[0; WORDS], WORDS + 1).is_err());
    }
}
