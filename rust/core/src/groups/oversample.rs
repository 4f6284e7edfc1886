//! The rule `oversample`: more groups than positions. A centre repeats a group only
//! after it has had each of its possible groups once.
//!
//! The possible groups of a centre are the M sets of C of its slots. They are numbered
//! in colexicographic order (by the largest slot, then the next). The centre's group r
//! is the set number `(a + r * b) mod M`, where a and b are drawn once for the centre
//! and b is coprime to M. So no list of the sets is needed.

use super::draw::{Draw, Drawn};
use super::natural::Natural;
use super::nearest::choose;
use crate::index::NeighborIndex;
use crate::parallel::Lazy;
use crate::philox::{Stage, below};
use crate::{Result, check, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the numbers of the groups";

/// Draws `count` groups: one for every centre, then a second for every centre, and so
/// on.
pub fn draw<I: NeighborIndex>(draw: &Draw<'_, I>, count: usize) -> Result<Drawn> {
    draw.check()?;
    let (c, tried) = (draw.c, draw.centers.len().max(1));
    check::within("group_size (C) with rule='oversample'", c, 2, usize::MAX)?;
    let longest = draw.k.min(draw.index.positions());
    let binomials = Binomials::new(longest, c)?;
    // Centres may differ in their number of slots, and so in their sets.
    let mut sets = memory::room(WHAT, longest + 1)?;
    sets.extend((0..=longest).map(|_| Lazy::<Sets>::default()));
    // The last number of a row, behind the groups, is the number of slots.
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

/// Binomial coefficients, as far as they fit in 64 bits and a little memory.
struct Binomials {
    /// Column i - 1 holds the ways to choose i of 0, 1, ... slots. What overflows is
    /// saturated; no rank is as large.
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

/// The sets of C of a number of slots.
struct Sets {
    slots: usize,
    c: usize,
    count: Count,
    /// The primes that divide the number of sets.
    primes: Vec<u64>,
}

/// The number of sets, M.
enum Count {
    /// Below 2^63, with binomials in the table.
    Small(u64),
    Large(Natural),
}

/// The position of a centre in the walk through its sets.
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

    /// The number of sets, if it is less than `asked`.
    fn fewer_than(&self, asked: usize) -> Option<u64> {
        match &self.count {
            Count::Small(count) => (*count < asked as u64).then_some(*count),
            Count::Large(count) => count.as_u64().filter(|&count| count < asked as u64),
        }
    }

    /// The walk of a centre, from its two random words: a is the number of its first
    /// set, b the step to the next.
    fn walk(&self, first: u64, step: u64) -> Result<Walk> {
        Ok(match &self.count {
            &Count::Small(count) => {
                let rank = below(first, count as usize) as u64;
                let mut step = 1 + below(step, count as usize - 1) as u64;
                while self.primes.iter().any(|&prime| step.is_multiple_of(prime)) {
                    step += 1; // ends at M - 1, which is coprime to M
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
    /// Steps to the next set.
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

    /// Writes the slots of the current set, in rising order.
    ///
    /// The largest is the last slot below which no more than `rank` sets of C slots
    /// exist; the others follow in the same way from the rest of the rank.
    fn members(&self, sets: &Sets, binomials: &Binomials, members: &mut [i32]) -> Result<()> {
        match self {
            &Self::Small { mut rank, .. } => {
                let mut end = sets.slots;
                for (column, member) in binomials.columns.iter().zip(members).rev() {
                    let column = &column[..end];
                    end = if end <= 16 {
                        // For few slots, linear search from above beats bisection.
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
                // Each binomial on the way is computed from the one before.
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

/// The primes that divide the number of ways to choose `c` of `slots`. By Kummer's
/// theorem these are the primes in whose base the sum c + (slots - c) has a carry.
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
            // As there was no carry so far, the digits alone decide.
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
        fn large_numbers_give_the_same_walk_as_small_ones(
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
        fn primes_divide_the_number_of_sets(slots in 1..200_usize, c in 1..200_usize) {
            let c = c.min(slots);
            let count = Natural::binomial(slots, c).unwrap();
            let dividing = (2..=slots as u64)
                .filter(|&p| (2..p).all(|d| p % d != 0) && count.remainder(p) == 0);
            let found = primes_of_binomial(slots as u64, c as u64).unwrap();
            prop_assert_eq!(found, dividing.collect::<Vec<_>>());
        }
    }

    #[test]
    fn large_binomials_are_exact() {
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
