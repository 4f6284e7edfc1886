//! The window of a patch on the object: whole pixels, and a fraction of one.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` gets its instructions"
)]

use num_complex::Complex32;
use pulp::bytemuck::{cast_slice, cast_slice_mut};

use crate::{Result, check};

/// The complex object, `(height, width)`, row by row.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    pixels: &'a [Complex32],
    height: usize,
    width: usize,
}

impl<'a> Object<'a> {
    /// An object of this shape.
    pub fn new(pixels: &'a [Complex32], height: usize, width: usize) -> Result<Self> {
        check::length("object", pixels.len(), height * width, "height times width")?;
        Ok(Self {
            pixels,
            height,
            width,
        })
    }

    /// Its height and width.
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    fn row(&self, row: i64) -> Option<&'a [Complex32]> {
        let row = usize::try_from(row).ok().filter(|&row| row < self.height)?;
        Some(&self.pixels[row * self.width..][..self.width])
    }

    /// `length` pixels of a row from column `left`, if all are within the object.
    #[inline(always)]
    fn inside(&self, row: i64, left: i64, length: usize) -> Option<&'a [Complex32]> {
        self.row(row)?
            .get(usize::try_from(left).ok()?..)?
            .get(..length)
    }

    /// Pixels from the first of a block to its last, if all of it is within the object.
    /// Its rows are `self.width` apart.
    #[inline(always)]
    fn block(&self, [top, left]: [i64; 2], [rows, length]: [usize; 2]) -> Option<&'a [Complex32]> {
        self.inside(top, left, length)?;
        self.inside(top + rows as i64 - 1, left, length)?;
        let first = top as usize * self.width + left as usize;
        Some(&self.pixels[first..][..(rows - 1) * self.width + length])
    }

    /// Fills `out` with pixels of a row from column `left`, 0 outside the object.
    fn pad(&self, row: i64, left: i64, out: &mut [Complex32]) {
        out.fill(Complex32::ZERO);
        let columns = overlap(out.len(), left, self.width);
        if let (Some(row), false) = (self.row(row), columns.is_empty()) {
            let from = (columns.start as i64 + left) as usize;
            let length = columns.len();
            out[columns].copy_from_slice(&row[from..][..length]);
        }
    }
}

/// Splits a coordinate into the first pixel of the patch and a fraction in 0..1.
///
/// Both are computed in float64. Positions far beyond any object are clamped, so that
/// adding a pixel number cannot overflow.
pub(super) fn split(coordinate: f64, half: usize) -> (i64, f32) {
    let whole = coordinate.floor();
    let limit = (1_i64 << 40) as f64;
    (
        whole.clamp(-limit, limit) as i64 - half as i64,
        (coordinate - whole) as f32,
    )
}

/// The indices i of `0..length` for which `i + shift` is in `0..within`.
pub(super) fn overlap(length: usize, shift: i64, within: usize) -> std::ops::Range<usize> {
    let clip = |i: i64| i.clamp(0, length as i64) as usize;
    let first = clip(-shift);
    first..clip(within as i64 - shift).max(first)
}

/// Where a patch lies: its first pixel, and the fractional shift of all its pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub left: i64,
    pub top: i64,
    fx: f32,
    fy: f32,
}

impl Window {
    /// The window of `n * n` pixels around a position.
    pub fn new(x: f64, y: f64, n: usize) -> Self {
        let (left, fx) = split(x, n / 2);
        let (top, fy) = split(y, n / 2);
        Self { left, top, fx, fy }
    }

    /// Cuts rows of a patch of `n * n` pixels out of the object, from row `first` on.
    ///
    /// `padded` is that of [`cut_row`](Self::cut_row).
    #[inline(always)]
    pub fn cut_rows(
        &self,
        object: Object<'_>,
        first: i64,
        n: usize,
        padded: &mut [Complex32],
        out: &mut [Complex32],
    ) {
        let (corner, length) = ([self.top + first, self.left], n + 1);
        let rows = out.chunks_exact_mut(n);
        if let Some(block) = object.block(corner, [rows.len() + 1, length]) {
            for (r, out) in rows.enumerate() {
                let row = |r: usize| cast_slice(&block[r * object.width..][..length]);
                self.blend([row(r), row(r + 1)], out);
            }
        } else {
            for (r, out) in (first..).zip(rows) {
                self.cut_row(object, r, padded, out);
            }
        }
    }

    /// Cuts row `r` of the patch out of the object.
    ///
    /// `padded` holds `2 (n + 1)` pixels, for rows that reach beyond the object.
    #[inline(always)]
    pub fn cut_row(
        &self,
        object: Object<'_>,
        r: i64,
        padded: &mut [Complex32],
        out: &mut [Complex32],
    ) {
        let rows = self.rows(object, r, padded, out.len());
        self.blend(rows, out);
    }

    /// Computes a row of the patch from the two rows of the object around it.
    #[inline(always)]
    fn blend(&self, [upper, lower]: [&[f32]; 2], out: &mut [Complex32]) {
        let (fx, fy) = (self.fx, self.fy);
        let out: &mut [f32] = cast_slice_mut(out);
        // Rows and columns are blended in one pass. To read blended rows again,
        // shifted by a pixel, would have to wait for the stores before.
        let blend = |(u, l): (&f32, &f32)| u * (1.0 - fy) + l * fy;
        let left = upper.iter().zip(lower).map(blend);
        let right = upper[2..].iter().zip(&lower[2..]).map(blend);
        for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
            *out = left * (1.0 - fx) + right * fx;
        }
    }

    /// How row `r` of the patch changes per pixel that the window moves along x, and
    /// along y.
    #[inline(always)]
    pub fn slope_row(
        &self,
        object: Object<'_>,
        r: i64,
        padded: &mut [Complex32],
        along: [&mut [Complex32]; 2],
    ) {
        let [along_x, along_y] = along;
        let [upper, lower] = self.rows(object, r, padded, along_x.len());
        let (fx, fy) = (self.fx, self.fy);
        let [along_x, along_y]: [&mut [f32]; 2] =
            [cast_slice_mut(along_x), cast_slice_mut(along_y)];
        let corners = upper
            .iter()
            .zip(&upper[2..])
            .zip(lower.iter().zip(&lower[2..]));
        let along = along_x.iter_mut().zip(along_y);
        for (((u, u1), (l, l1)), (x, y)) in corners.zip(along) {
            *x = (u1 - u) * (1.0 - fy) + (l1 - l) * fy;
            *y = (l - u) * (1.0 - fx) + (l1 - u1) * fx;
        }
    }

    /// The two rows of the object that row `r` of the patch lies between.
    #[inline(always)]
    fn rows<'a>(
        &self,
        object: Object<'a>,
        r: i64,
        padded: &'a mut [Complex32],
        n: usize,
    ) -> [&'a [f32]; 2] {
        let above = self.top + r;
        let inside = |row| object.inside(row, self.left, n + 1);
        let rows = if let (Some(upper), Some(lower)) = (inside(above), inside(above + 1)) {
            [upper, lower]
        } else {
            let (upper, lower) = padded.split_at_mut(n + 1);
            object.pad(above, self.left, upper);
            object.pad(above + 1, self.left, lower);
            [&*upper, &*lower]
        };
        rows.map(cast_slice)
    }
}
