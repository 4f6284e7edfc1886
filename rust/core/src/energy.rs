//! The energy of each diffraction pattern, which normalisation needs. Nothing is
//! gathered for it.

use crate::{Result, check, memory, parallel};

/// The sum of the squares of each pattern's values, in float64.
///
/// `stack` holds patterns of `pixels` values, which `value` turns into float64.
/// Pixels where `mask` is false do not count. With `rows` only these patterns are
/// summed, in their order.
pub fn energies<T: Copy + Sync>(
    stack: &[T],
    pixels: usize,
    rows: Option<&[i32]>,
    mask: Option<&[bool]>,
    value: impl Fn(T) -> f64 + Sync,
    threads: usize,
) -> Result<Vec<f64>> {
    /// Independent sums let the processor overlap the additions.
    const SUMS: usize = 8;
    check::within("pixels", pixels, 1, usize::MAX)?;
    let n = stack.len() / pixels;
    check::length(
        "diffraction",
        stack.len(),
        n * pixels,
        "whole diffraction patterns",
    )?;
    if let Some(mask) = mask {
        check::length("mask", mask.len(), pixels, "one for each pixel")?;
    }
    if let Some(rows) = rows {
        check::indices("rows", rows, n)?;
    }
    let count = rows.map_or(n, <[i32]>::len);
    let mut energies = memory::cleared("the energies of the diffraction patterns", count)?;
    parallel::for_each_chunk(&mut energies, 16, threads, |chunk, energies| {
        for (i, energy) in (chunk * 16..).zip(energies) {
            let row = rows.map_or(i, |rows| rows[i] as usize);
            let pattern = &stack[row * pixels..][..pixels];
            let mut sums = [0.0; SUMS];
            if let Some(mask) = mask {
                for (values, mask) in pattern.chunks(SUMS).zip(mask.chunks(SUMS)) {
                    for ((sum, &word), &good) in sums.iter_mut().zip(values).zip(mask) {
                        // A dead pixel may hold anything, NaN too.
                        let value = if good { value(word) } else { 0.0 };
                        *sum += value * value;
                    }
                }
            } else {
                for values in pattern.chunks(SUMS) {
                    for (sum, &word) in sums.iter_mut().zip(values) {
                        let value = value(word);
                        *sum += value * value;
                    }
                }
            }
            *energy = sums.iter().sum();
        }
        Ok(())
    })?;
    Ok(energies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energies_are_sums_of_squares() {
        let stack: Vec<u16> = (0..37 * 11).map(|i| i * 100).collect();
        for threads in [1, 3] {
            let energies = energies(&stack, 11, None, None, f64::from, threads).unwrap();
            for (energy, pattern) in energies.iter().zip(stack.chunks_exact(11)) {
                let expected: u64 = pattern.iter().map(|&v| u64::from(v) * u64::from(v)).sum();
                assert_eq!(*energy, expected as f64); // whole numbers: exact
            }
            let mask: Vec<bool> = (0..11).map(|p| p % 3 != 0).collect();
            let masked =
                super::energies(&stack, 11, None, Some(&mask), f64::from, threads).unwrap();
            for (energy, pattern) in masked.iter().zip(stack.chunks_exact(11)) {
                let good = pattern.iter().zip(&mask).filter(|&(_, &good)| good);
                let expected: u64 = good.map(|(&v, _)| u64::from(v) * u64::from(v)).sum();
                assert_eq!(*energy, expected as f64);
            }
            let rows = [30, 0, 36, 30];
            let some = super::energies(&stack, 11, Some(&rows), None, f64::from, threads).unwrap();
            assert_eq!(some, rows.map(|row| energies[row as usize]));
        }
        assert!(energies(&stack, 11, None, Some(&[true; 10]), f64::from, 1).is_err());
        assert!(energies(&stack, 0, None, None, f64::from, 1).is_err());
        assert!(energies(&stack, 10, None, None, f64::from, 1).is_err());
        assert!(energies(&stack, 11, Some(&[37]), None, f64::from, 1).is_err());
        assert!(energies(&stack, 11, Some(&[-1]), None, f64::from, 1).is_err());
    }
}
