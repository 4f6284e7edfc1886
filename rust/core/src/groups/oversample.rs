//! The rule `oversample`: more groups than positions, no set of a centre twice
//! until all are spent.
//!
//! A centre's M sets are numbered in colexicographic order (by the largest
//! slot, then the next), and set r is number `(a + r * b) mod M`, with a and b
//! drawn once and b coprime to M. The sets are never listed.

use super::nearest::choose;
use super::slots::{Draw, Drawn};
use crate::index::NeighborIndex;
use crate::parallel::Lazy;
use crate::philox::{Stage, below};
use crate::{Result, check, memory};

/// What memory is for.
const WHAT: &str = "The numbering of sets";

/// Draws `count` groups, round after round of all centres.
pub fn draw<I: NeighborIndex>(draw: &Draw<'_, I>, count: usize) -> Result<Drawn> {
    draw.check()?;
    let (c, tried) = (draw.c, draw.centers.len().max(1));
    check::within("group_size of the rule oversample", c, 2, usize::MAX)?;
    let longest = draw.k.min(draw.index.positions());
    let binomials = Binomials::new(longest, c)?;
    // A centre may have fewer slots than others, and so other sets.
    let mut sets = memory::room(WHAT, longest + 1)?;
    sets.extend((0..=longest).map(|_| Lazy::<Sets>::default()));
    // Behind its groups a row holds its number of slots.
    let width = count.div_ceil(tried).saturating_mul(c).saturating_add(1);
    let rows = draw.rows(false, width, Vec::new, |center, members, slots, out| {
        memory::resize(WHAT, members, c, 0)?;
        let sets = sets[slots.len()].get(|| Sets::new(slots.len(), c, &binomials))?;
        let block = 1 + center as u64;
        let [first, step, ..] = draw.key.block(Stage::Numbering, 0, block);
        let mut walk = sets.walk(first, step)?;
        for (replicate, group) in (0..).zip(out.chunks_exact_mut(c)) {
            walk.members(sets, &binomials, members)?;
            walk.step(sets);
            for member in &mut *members {
                *member = slots[*member as usize];
            }
            choose(center, false, replicate, draw.key, members, group);
        }
        out[width - 1] = slots.len() as i32;
        Ok(())
    })?;
    let (mut spent, mut fewest) = (0, u64::MAX);
    for (row, values) in rows.chunks_exact(width).enumerate() {
        let asked = count / tried + usize::from(row < count % tried);
        let slots = usize::try_from(values[width - 1]).ok();
        let sets = slots.and_then(|slots| sets[slots].found());
        if let Some(few) = sets.and_then(|sets| sets.fewer_than(asked)) {
            spent += 1;
            fewest = fewest.min(few);
        }
    }
    Ok(Drawn {
        spent,
        fewest: if spent == 0 { 0 } else { fewest },
        ..draw.collect(rows, count)?
    })
}

/// Binomial coefficients, as far as 64 bits and a little memory reach.
struct Binomials {
    /// Column i - 1 holds i out of 0, 1, ... slots; what overflows is the
    /// largest number, which no rank reaches.
    columns: Vec<Vec<u64>>,
    slots: usize,
}

impl Binomials {
    const MOST: usize = 1 << 22;

    fn new(longest: usize, c: usize) -> Result<Self> {
        let slots = longest.min(Self::MOST / c);
        let mut columns: Vec<Vec<u64>> = memory::room(WHAT, c)?;
        for i in 0..c {
            let mut column = memory::cleared::<u64>(WHAT, slots + 1)?;
            for slot in 1..=slots {
                let with = if i == 0 { 1 } else { columns[i - 1][slot - 1] };
                column[slot] = column[slot - 1].saturating_add(with);
            }
            columns.push(column);
        }
        Ok(Self { columns, slots })
    }
}

/// The sets of C out of some slots.
struct Sets {
    slots: usize,
    c: usize,
    count: Count,
    /// The primes that divide how many they are.
    primes: Vec<u64>,
}

/// How many sets there are: M.
enum Count {
    /// Below 2^63, and the binomials are at hand.
    Small(u64),
    Large(Natural),
}

/// Where a centre stands in its sets.
enum Walk {
    Small { rank: u64, step: u64 },
    Large { rank: Natural, step: Natural },
}

impl Sets {
    fn new(slots: usize, c: usize, binomials: &Binomials) -> Result<Self> {
        let small = (slots <= binomials.slots)
            .then(|| binomials.columns[c - 1][slots])
            .filter(|&count| count < 1 << 63);
        Ok(Self {
            slots,
            c,
            count: match small {
                Some(count) => Count::Small(count),
                None => Count::Large(Natural::binomial(slots, c)?),
            },
            primes: primes_of_binomial(slots as u64, c as u64)?,
        })
    }

    /// How many sets there are, if fewer than asked for.
    fn fewer_than(&self, asked: usize) -> Option<u64> {
        match &self.count {
            Count::Small(count) => (*count < asked as u64).then_some(*count),
            Count::Large(count) => count.as_u64().filter(|&count| count < asked as u64),
        }
    }

    /// From the two words of a centre: a is the rank of its first set, b the
    /// step to the next.
    fn walk(&self, first: u64, step: u64) -> Result<Walk> {
        Ok(match &self.count {
            &Count::Small(count) => {
                let rank = below(first, count as usize) as u64;
                let mut step = 1 + below(step, count as usize - 1) as u64;
                while self.primes.iter().any(|&prime| step.is_multiple_of(prime)) {
                    step += 1; // M - 1 is coprime to M: it ends there
                }
                Walk::Small { rank, step }
            }
            Count::Large(count) => {
                let rank = count.copy()?.scaled(first);
                let one = Natural::one(count)?;
                let mut less = count.copy()?;
                less.subtract(&one);
                let mut step = less.scaled(step);
                step.add(&one);
                while self.primes.iter().any(|&prime| step.remainder(prime) == 0) {
                    step.add(&one);
                }
                Walk::Large { rank, step }
            }
        })
    }
}

impl Walk {
    /// Moves on to the centre's next set.
    fn step(&mut self, sets: &Sets) {
        match (self, &sets.count) {
            (Self::Small { rank, step }, Count::Small(count)) => {
                *rank += *step;
                if *rank >= *count {
                    *rank -= count;
                }
            }
            (Self::Large { rank, step }, Count::Large(count)) => {
                rank.add(step);
                if rank.at_least(count) {
                    rank.subtract(count);
                }
            }
            _ => {}
        }
    }

    /// The slots of the set, rising. The largest is the last slot out of which
    /// no more than `rank` sets can be made, and so on with what is left.
    fn members(&self, sets: &Sets, binomials: &Binomials, members: &mut [i32]) -> Result<()> {
        match self {
            &Self::Small { mut rank, .. } => {
                let mut end = sets.slots;
                for (column, member) in binomials.columns.iter().zip(members).rev() {
                    let column = &column[..end];
                    end = if end <= 16 {
                        // A short look from above beats halving.
                        column.iter().rposition(|&sets| sets <= rank).unwrap_or(0)
                    } else {
                        column.partition_point(|&sets| sets <= rank) - 1
                    };
                    rank -= column[end];
                    *member = end as i32;
                }
            }
            Self::Large { rank, .. } => {
                let Count::Large(count) = &sets.count else {
                    return Ok(());
                };
                // All binomials on the way, from one to the next.
                let (mut slot, mut i) = (sets.slots as u64, sets.c as u64);
                let mut ways = count.copy()?;
                let mut rank = rank.copy()?;
                ways.multiply(slot - i);
                ways.divide(slot);
                slot -= 1;
                while i > 0 {
                    let taken = rank.at_least(&ways);
                    if taken {
                        rank.subtract(&ways);
                        members[i as usize - 1] = slot as i32;
                    }
                    if slot > 0 {
                        ways.multiply(if taken { i } else { slot.saturating_sub(i) });
                        ways.divide(slot);
                        slot -= 1;
                    }
                    i -= u64::from(taken);
                }
            }
        }
        Ok(())
    }
}

/// The primes that divide the number of ways to take `c` of `slots`: those
/// with which adding c and the rest carries (Kummer's theorem).
fn primes_of_binomial(slots: u64, c: u64) -> Result<Vec<u64>> {
    let few = c.min(slots - c);
    let mut primes: Vec<u64> = Vec::new();
    for factor in slots - few + 1..=slots {
        let mut left = factor;
        let mut divisor = 2;
        while divisor * divisor <= left {
            if left % divisor == 0 {
                memory::push(WHAT, &mut primes, divisor)?;
                while left % divisor == 0 {
                    left /= divisor;
                }
            }
            divisor += 1;
        }
        if left > 1 {
            memory::push(WHAT, &mut primes, left)?;
        }
    }
    primes.sort_unstable();
    primes.dedup();
    let carries = |prime: u64| {
        let (mut a, mut b) = (few, slots - few);
        while a > 0 {
            // Without a carry so far, the digits alone decide.
            if a % prime + b % prime >= prime {
                return true;
            }
            (a, b) = (a / prime, b / prime);
        }
        false
    };
    primes.retain(|&prime| carries(prime));
    Ok(primes)
}

/// A natural number of any size, lowest limb first. Those that meet have the
/// same number of limbs, with room for a product by one limb.
#[derive(Debug, PartialEq, Eq)]
struct Natural(Vec<u64>);

impl Natural {
    fn one(like: &Self) -> Result<Self> {
        let mut limbs = memory::cleared(WHAT, like.0.len())?;
        limbs[0] = 1;
        Ok(Self(limbs))
    }

    fn copy(&self) -> Result<Self> {
        memory::copy(WHAT, &self.0).map(Self)
    }

    fn binomial(slots: usize, c: usize) -> Result<Self> {
        let few = c.min(slots - c);
        // Each factor brings at most 32 bits.
        let mut count = Self(memory::cleared(WHAT, few / 2 + 2)?);
        count.0[0] = 1;
        for i in 0..few as u64 {
            count.multiply(slots as u64 - i);
            count.divide(i + 1);
        }
        // And one more limb, for a product.
        let used = count.0.iter().rposition(|&limb| limb > 0).unwrap_or(0) + 1;
        memory::resize(WHAT, &mut count.0, used + 1, 0)?;
        Ok(count)
    }

    fn as_u64(&self) -> Option<u64> {
        self.0[1..]
            .iter()
            .all(|&limb| limb == 0)
            .then_some(self.0[0])
    }

    fn multiply(&mut self, factor: u64) {
        let mut carry = 0;
        for limb in &mut self.0 {
            let wide = u128::from(*limb) * u128::from(factor) + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
    }

    fn divide(&mut self, divisor: u64) {
        let mut left = 0;
        for limb in self.0.iter_mut().rev() {
            let wide = left << 64 | u128::from(*limb);
            *limb = (wide / u128::from(divisor)) as u64;
            left = wide % u128::from(divisor);
        }
    }

    fn remainder(&self, divisor: u64) -> u64 {
        let divisor = u128::from(divisor);
        let step = |left: u128, &limb: &u64| (left << 64 | u128::from(limb)) % divisor;
        self.0.iter().rev().fold(0, step) as u64
    }

    /// `floor(word * self / 2**64)`.
    fn scaled(mut self, word: u64) -> Self {
        self.multiply(word);
        self.0.rotate_left(1);
        if let Some(last) = self.0.last_mut() {
            *last = 0;
        }
        self
    }

    fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, &more) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
    }

    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (limb, &less) in self.0.iter_mut().zip(&other.0) {
            let (rest, first) = limb.overflowing_sub(less);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, first || second);
        }
    }

    fn at_least(&self, other: &Self) -> bool {
        self.0.iter().rev().ge(other.0.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn large(slots: usize, c: usize) -> Sets {
        Sets {
            count: Count::Large(Natural::binomial(slots, c).unwrap()),
            ..Sets::new(slots, c, &Binomials::new(slots, c).unwrap()).unwrap()
        }
    }

    proptest! {
        #[test]
        fn numbers_of_any_size_walk_as_small_ones(
            c in 1..9_usize, more in 0..30_usize, first: u64, step: u64
        ) {
            let slots = c + more;
            let binomials = Binomials::new(slots, c).unwrap();
            let (small, large) = (Sets::new(slots, c, &binomials).unwrap(), large(slots, c));
            prop_assert!(matches!(small.count, Count::Small(_)));
            if more > 0 {
                let mut walks = [&small, &large].map(|sets| (sets.walk(first, step).unwrap(), sets));
                for _ in 0..5 {
                    let mut found = [vec![0; c], vec![0; c]];
                    for ((walk, sets), members) in walks.iter_mut().zip(&mut found) {
                        walk.members(sets, &binomials, members).unwrap();
                        walk.step(sets);
                    }
                    prop_assert_eq!(&found[0], &found[1]);
                    prop_assert!(found[0].is_sorted_by(|a, b| a < b));
                }
            }
        }

        #[test]
        fn primes_are_those_that_divide(slots in 1..200_usize, c in 1..200_usize) {
            let c = c.min(slots);
            let count = Natural::binomial(slots, c).unwrap();
            let dividing = (2..=slots as u64)
                .filter(|&p| (2..p).all(|d| p % d != 0) && count.remainder(p) == 0);
            let found = primes_of_binomial(slots as u64, c as u64).unwrap();
            prop_assert_eq!(found, dividing.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_hundred_of_two_hundred() {
        let mut count = Natural::binomial(200, 100).unwrap();
        assert!(count.as_u64().is_none());
        let mut digits = Vec::new();
        while count.as_u64() != Some(0) {
            digits.push(b'0' + count.remainder(10) as u8);
            count.divide(10);
        }
        digits.reverse();
        let expected = "90548514656103281165404177077484163874504589675413336841320";
        assert_eq!(String::from_utf8(digits).unwrap(), expected);
    }
}
