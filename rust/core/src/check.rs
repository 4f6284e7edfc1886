//! The preconditions of the core's functions. Each is checked here and nowhere
//! else.

use crate::{Error, Result};

/// Coordinates beyond this have squares that overflow float64.
pub(crate) const FARTHEST: f64 = 1e150;

/// The largest int32: indices are 32-bit.
const MOST_POSITIONS: usize = i32::MAX as usize;

/// Checks the positions of a scan, x and y in turn, and returns how many they are.
///
/// There must be at least one, few enough for 32-bit indices, all finite and with
/// squares that are finite.
pub fn scan(positions: &[f64]) -> Result<usize> {
    let n = positions.len() / 2;
    if positions.len() != 2 * n {
        return Err(Error::Length {
            what: "positions",
            found: positions.len(),
            expected: 2 * n + 2,
            why: "an x and a y for each position",
        });
    }
    scan_length(n)?;
    finite("Positions", positions, 2)?;
    let far = |row: &&[f64]| row.iter().any(|v| v.abs() > FARTHEST);
    if let Some((row, count)) = first_and_count(positions.chunks_exact(2), far) {
        return Err(Error::TooFar {
            row,
            count,
            total: n,
        });
    }
    Ok(n)
}

/// Checks that a scan has at least one position, and few enough for 32-bit indices.
pub fn scan_length(n: usize) -> Result<()> {
    match n {
        0 => Err(Error::EmptyScan),
        1..=MOST_POSITIONS => Ok(()),
        _ => Err(Error::TooManyPositions {
            n,
            most: MOST_POSITIONS,
        }),
    }
}

/// Checks that rows of `width` coordinates hold neither NaN nor infinity.
pub fn finite(what: &'static str, coordinates: &[f64], width: usize) -> Result<()> {
    let bad = |row: &&[f64]| !row.iter().all(|v| v.is_finite());
    match first_and_count(coordinates.chunks_exact(width), bad) {
        None => Ok(()),
        Some((row, count)) => Err(Error::NotFinite {
            what,
            row,
            count,
            total: coordinates.len() / width,
        }),
    }
}

/// Checks that K and the scan are large enough for groups of `c` positions.
pub fn group(n: usize, k: usize, c: usize) -> Result<()> {
    within("group_size", c, 1, MOST_POSITIONS)?;
    if k < c {
        return Err(Error::TooFewNeighbors { k, c });
    }
    within("n_neighbors", k, 1, MOST_POSITIONS)?;
    if n < c {
        return Err(Error::TooFewPositions { n, c });
    }
    Ok(())
}

/// Checks that a number lies between two limits, which are allowed themselves.
pub fn within(what: &'static str, found: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        Err(Error::OutOfRange {
            what,
            least,
            most,
            found,
        })
    }
}

/// Checks that all indices are from 0 to `n` - 1.
pub fn indices(what: &'static str, indices: &[i32], n: usize) -> Result<()> {
    let outside = |i: &&i32| usize::try_from(**i).map_or(true, |i| i >= n);
    match first_and_count(indices.iter(), outside) {
        None => Ok(()),
        Some((row, count)) => Err(Error::IndexOutOfRange {
            what,
            row,
            found: indices[row].into(),
            count,
            total: indices.len(),
            last: n.saturating_sub(1),
        }),
    }
}

/// Checks that an array has the number of elements that the arguments beside it
/// imply.
pub fn length(what: &'static str, found: usize, expected: usize, why: &'static str) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::Length {
            what,
            found,
            expected,
            why,
        })
    }
}

/// The place of the first item that is `bad`, and how many items are; None if no
/// item is.
fn first_and_count<I: Iterator + Clone>(
    items: I,
    bad: impl Fn(&I::Item) -> bool,
) -> Option<(usize, usize)> {
    let first = items.clone().position(|item| bad(&item))?;
    Some((first, items.filter(|item| bad(item)).count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_first_bad_row_and_how_many_there_are() {
        let mut positions = vec![0.0; 20];
        positions[7] = f64::NAN;
        positions[12] = f64::INFINITY;
        let refusal = scan(&positions).unwrap_err();
        assert_eq!(
            refusal,
            Error::NotFinite {
                what: "Positions",
                row: 3,
                count: 2,
                total: 10
            }
        );
        positions[7] = 0.0;
        positions[12] = -1.1e150;
        assert_eq!(
            scan(&positions),
            Err(Error::TooFar {
                row: 6,
                count: 1,
                total: 10
            })
        );
    }

    #[test]
    fn limits_themselves_are_allowed() {
        assert_eq!(scan(&[1e150, -1e150]), Ok(1));
        assert_eq!(scan(&[]), Err(Error::EmptyScan));
        assert_eq!(group(4, 4, 4), Ok(()));
        assert_eq!(group(3, 4, 4), Err(Error::TooFewPositions { n: 3, c: 4 }));
        assert_eq!(group(9, 3, 4), Err(Error::TooFewNeighbors { k: 3, c: 4 }));
        assert!(group(9, 1 << 31, 4).is_err());
        assert!(scan_length(1 << 31).is_err());
    }

    #[test]
    fn negative_and_large_indices_are_refused() {
        assert_eq!(indices("centers", &[0, 4], 5), Ok(()));
        let refusal = indices("centers", &[0, -1, 5], 5).unwrap_err();
        assert!(matches!(
            refusal,
            Error::IndexOutOfRange {
                row: 1,
                found: -1,
                count: 2,
                ..
            }
        ));
    }
}
