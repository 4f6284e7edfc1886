//! Natural numbers of any size: the number of groups that many neighbours allow can
//! exceed 64 bits.

use crate::{Result, memory};

/// What memory is allocated for, as the error says if there is none.
const WHAT: &str = "the numbers of the groups";

/// A natural number in limbs of 64 bits, lowest first. Numbers that are combined must
/// have the same number of limbs, with room for a product by one limb.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Natural(Vec<u64>);

impl Natural {
    pub(super) fn one(like: &Self) -> Result<Self> {
        let mut limbs = memory::cleared(WHAT, like.0.len())?;
        limbs[0] = 1;
        Ok(Self(limbs))
    }

    pub(super) fn copy(&self) -> Result<Self> {
        memory::copy(WHAT, &self.0).map(Self)
    }

    pub(super) fn binomial(slots: usize, c: usize) -> Result<Self> {
        let few = c.min(slots - c);
        // Each factor brings at most 32 bits.
        let mut count = Self(memory::cleared(WHAT, few / 2 + 2)?);
        count.0[0] = 1;
        for i in 0..few as u64 {
            count.multiply(slots as u64 - i);
            count.divide(i + 1);
        }
        // One more limb, for a product.
        let used = count.0.iter().rposition(|&limb| limb > 0).unwrap_or(0) + 1;
        memory::resize(WHAT, &mut count.0, used + 1, 0)?;
        Ok(count)
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        self.0[1..]
            .iter()
            .all(|&limb| limb == 0)
            .then_some(self.0[0])
    }

    pub(super) fn multiply(&mut self, factor: u64) {
        let mut carry = 0;
        for limb in &mut self.0 {
            let wide = u128::from(*limb) * u128::from(factor) + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
    }

    pub(super) fn divide(&mut self, divisor: u64) {
        let mut left = 0;
        for limb in self.0.iter_mut().rev() {
            let wide = left << 64 | u128::from(*limb);
            *limb = (wide / u128::from(divisor)) as u64;
            left = wide % u128::from(divisor);
        }
    }

    pub(super) fn remainder(&self, divisor: u64) -> u64 {
        let divisor = u128::from(divisor);
        let step = |left: u128, &limb: &u64| (left << 64 | u128::from(limb)) % divisor;
        self.0.iter().rev().fold(0, step) as u64
    }

    /// `floor(word * self / 2**64)`.
    pub(super) fn scaled(mut self, word: u64) -> Self {
        self.multiply(word);
        self.0.rotate_left(1);
        if let Some(last) = self.0.last_mut() {
            *last = 0;
        }
        self
    }

    pub(super) fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, &more) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = limb.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
    }

    pub(super) fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (limb, &less) in self.0.iter_mut().zip(&other.0) {
            let (rest, first) = limb.overflowing_sub(less);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, first || second);
        }
    }

    pub(super) fn at_least(&self, other: &Self) -> bool {
        self.0.iter().rev().ge(other.0.iter().rev())
    }
}
