//! How positions and patches lie in their arrays: `(B, 2, C)` and `(B, N, N, C)`.

use crate::{Result, check};

/// What memory is allocated for, as the error says if there is none.
pub(super) const WHAT: &str = "the patches of the object";

/// Checks that positions and patches fit together, and returns the number of groups.
pub(super) fn layout(
    positions: &[f64],
    n: usize,
    channels: usize,
    patches: usize,
) -> Result<usize> {
    check::within("N", n, 1, i32::MAX as usize)?;
    check::within("channels", channels, 1, i32::MAX as usize)?;
    let groups = positions.len() / (2 * channels);
    check::length(
        "positions",
        positions.len(),
        groups * 2 * channels,
        "a multiple of 2 C, for shape (B, 2, C)",
    )?;
    check::finite("Positions of patches", positions, 2 * channels)?;
    let pixels = (n as u128) * (n as u128) * (channels as u128) * (groups as u128);
    let expected = usize::try_from(pixels).unwrap_or(usize::MAX);
    check::length("patches", patches, expected, "shape (B, N, N, C)")?;
    Ok(groups)
}

/// x and y of one group's channels.
pub(super) fn axes(positions: &[f64], group: usize, channels: usize) -> [&[f64]; 2] {
    let (xs, ys) = positions[group * 2 * channels..][..2 * channels].split_at(channels);
    [xs, ys]
}
