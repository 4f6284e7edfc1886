//! What the kernels share: the patterns of an experiment, and what is checked and cut.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into `with_simd` gets its instructions"
)]

use std::f64::consts::TAU;

use num_complex::{Complex32, Complex64};

use crate::patches::{self, Object, Window};
use crate::{Result, check, memory, parallel, simd};

use super::loss::UNMEASURED;
use super::transform::{Transform, WHAT};

/// Patterns that one thread computes one after another.
pub(super) const TOGETHER: usize = 8;

/// Bytes of patches that are computed before they are added to the object.
const BLOCK: usize = 4 << 20;

/// The diffraction of N x N pixels: its Fourier transforms are planned once.
pub struct Diffraction {
    pub(super) transform: Transform,
}

/// The patterns of some scan positions.
#[derive(Clone, Copy)]
pub struct Patterns<'a> {
    /// x and y of every position, in pixels of the object.
    pub positions: &'a [f64],
    /// The exposure of every position: a factor of the intensity.
    pub exposure: Option<&'a [f64]>,
    /// Counts that are added to the intensity of every pixel.
    pub background: f64,
    /// The positions that are used.
    pub rows: &'a [i32],
}

/// Counts, `(n, N, N)`, and which of them were measured, `(n, N, N)` or `(1, N, N)`.
#[derive(Clone, Copy)]
pub struct Counts<'a> {
    /// Counts, zero frequency at pixel `[N/2, N/2]`.
    pub values: &'a [f32],
    /// False for pixels that were not measured.
    pub good: Option<&'a [bool]>,
}

/// The complex object, `(height, width)`, and the modes of the probe, `(modes, N, N)`.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// The object.
    pub object: Object<'a>,
    /// The modes of the probe.
    pub probe: &'a [Complex32],
}

impl Diffraction {
    /// The diffraction of `n * n` pixels.
    pub fn new(n: usize) -> Result<Self> {
        Ok(Self {
            transform: Transform::new(n)?,
        })
    }

    /// Pixels per side.
    #[must_use]
    pub fn n(&self) -> usize {
        self.transform.n()
    }

    pub(super) fn pixels(&self) -> usize {
        self.n() * self.n()
    }

    /// Checks that everything fits together, and returns the number of modes.
    pub(super) fn fit(&self, sample: &Sample<'_>, patterns: &Patterns<'_>) -> Result<usize> {
        simd::name()?; // an error in PTYCHO_FAST_SIMD is found here, before threads start
        let n = check::scan(patterns.positions)?;
        if let Some(exposure) = patterns.exposure {
            check::length("exposure", exposure.len(), n, "one for each position")?;
            check::finite("Exposures", exposure, 1)?;
        }
        check::finite("The background", &[patterns.background], 1)?;
        check::indices("rows", patterns.rows, n)?;
        let modes = sample.probe.len() / self.pixels();
        check::within("modes of the probe", modes, 1, i32::MAX as usize)?;
        let expected = modes * self.pixels();
        check::length("probe", sample.probe.len(), expected, "(modes, N, N)")?;
        Ok(modes)
    }

    pub(super) fn fit_counts(&self, counts: &Counts<'_>, patterns: &Patterns<'_>) -> Result<()> {
        let expected = patterns.positions.len() / 2 * self.pixels();
        check::length("counts", counts.values.len(), expected, "(n, N, N)")?;
        self.fit_good(counts.good, expected)
    }

    pub(super) fn fit_good(&self, good: Option<&[bool]>, all: usize) -> Result<()> {
        match good {
            Some(good) if good.len() != self.pixels() => {
                check::length("good", good.len(), all, "(n, N, N) or (1, N, N)")
            }
            _ => Ok(()),
        }
    }

    /// The probe, multiplied by what the centred transform does before the plain one:
    /// a phase ramp moves frequency 0 to pixel `[N/2, N/2]`, and 1/N normalises it.
    pub(super) fn modulated(&self, probe: &[Complex32]) -> Result<Vec<Complex32>> {
        let ramp = self.ramp()?;
        let values = probe.chunks_exact(self.pixels()).flat_map(|mode| {
            let factor = mode.iter().zip(&ramp);
            factor.map(|(value, ramp)| {
                let product = Complex64::new(value.re.into(), value.im.into()) * ramp;
                Complex32::new(product.re as f32, product.im as f32)
            })
        });
        let mut modulated = memory::room(WHAT, probe.len())?;
        modulated.extend(values);
        Ok(modulated)
    }

    /// `exp(2 pi i (N/2) (row + column) / N) / N` at every pixel.
    pub(super) fn ramp(&self) -> Result<Vec<Complex64>> {
        let n = self.n();
        let turn = |i: usize| {
            if n.is_multiple_of(2) {
                Complex64::new(if i.is_multiple_of(2) { 1.0 } else { -1.0 }, 0.0)
            } else {
                Complex64::from_polar(1.0, TAU * ((n / 2 * i) % n) as f64 / n as f64)
            }
        };
        let pixels = (0..n * n).map(|i| turn(i / n + i % n) / n as f64);
        memory::collect(WHAT, pixels)
    }

    /// Computes patches of all patterns block by block, and adds them to an object of
    /// some width.
    ///
    /// `work(first, patches)` fills the patches of the rows from `first`; `gather`
    /// receives what else it made, in the order of the rows.
    pub(super) fn add_blocks<P: Send>(
        &self,
        patterns: &Patterns<'_>,
        mut object: Option<(&mut [Complex32], usize)>,
        threads: usize,
        work: impl Fn(usize, &mut [Complex32]) -> Result<P> + Sync,
        mut gather: impl FnMut(usize, P),
    ) -> Result<()> {
        let pixels = self.pixels();
        let part = TOGETHER * pixels;
        let rows = (BLOCK / size_of::<Complex32>() / part).max(1) * TOGETHER;
        let rows = rows.min(patterns.rows.len().next_multiple_of(TOGETHER));
        let mut waves = memory::cleared::<Complex32>(WHAT, rows * pixels)?;
        for (block, some) in patterns.rows.chunks(rows.max(1)).enumerate() {
            let waves = &mut waves[..some.len() * pixels];
            let mut parts = memory::room(WHAT, some.len().div_ceil(TOGETHER))?;
            for (i, waves) in waves.chunks_mut(part).enumerate() {
                parts.push((block * rows + i * TOGETHER, waves, None));
            }
            parallel::for_each_chunk(&mut parts, 1, threads, |_, parts| {
                for (first, waves, made) in parts {
                    *made = Some(work(*first, waves)?);
                }
                Ok(())
            })?;
            for (first, _, made) in parts {
                if let Some(made) = made {
                    gather(first, made);
                }
            }
            let Some((object, width)) = &mut object else {
                continue;
            };
            let mut places = memory::room(WHAT, 2 * some.len())?;
            places.extend(some.iter().flat_map(|&row| at(patterns.positions, row)));
            patches::add(waves, &places, self.n(), 1, object, *width, threads)?;
        }
        Ok(())
    }
}

/// x and y of a position.
pub(super) fn at(positions: &[f64], row: i32) -> [f64; 2] {
    let row = row as usize;
    [positions[2 * row], positions[2 * row + 1]]
}

/// Copies the counts of a pattern, transposed as the waves at the detector are.
#[inline(always)]
pub(super) fn load_counts(counts: &Counts<'_>, row: i32, n: usize, out: &mut [f32]) {
    let pixels = n * n;
    let pattern = &counts.values[row as usize * pixels..][..pixels];
    transpose::transpose(pattern, out, n, n);
    if let Some(good) = counts.good {
        hide_unmeasured(good, row, n, out);
    }
}

/// Marks the pixels that were not measured.
pub(super) fn hide_unmeasured(good: &[bool], row: i32, n: usize, out: &mut [f32]) {
    let pixels = n * n;
    let first = if good.len() == pixels {
        0
    } else {
        row as usize * pixels
    };
    for (r, good) in good[first..][..pixels].chunks_exact(n).enumerate() {
        for (k, &good) in good.iter().enumerate() {
            if !good {
                out[k * n + r] = UNMEASURED;
            }
        }
    }
}

/// Cuts the patch of a position.
#[inline(always)]
pub(super) fn cut(
    object: Object<'_>,
    window: Window,
    padded: &mut [Complex32],
    n: usize,
    out: &mut [Complex32],
) {
    for (r, out) in out.chunks_exact_mut(n).enumerate() {
        window.cut_row(object, r as i64, padded, out);
    }
}

/// Multiplies two waves pixel by pixel.
#[inline(always)]
pub(super) fn multiply(a: &[Complex32], b: &[Complex32], out: &mut [Complex32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = Complex32::new(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
    }
}

/// Computes `conj(a) b` pixel by pixel.
#[inline(always)]
pub(super) fn product(a: &[Complex32], b: &[Complex32], out: &mut [Complex32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = Complex32::new(a.re * b.re + a.im * b.im, a.re * b.im - a.im * b.re);
    }
}

/// Adds `conj(a) b` pixel by pixel.
#[inline(always)]
pub(super) fn add_product(a: &[Complex32], b: &[Complex32], out: &mut [Complex32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        out.re += a.re * b.re + a.im * b.im;
        out.im += a.re * b.im - a.im * b.re;
    }
}

/// Multiplies a wave by a real factor at every pixel.
#[inline(always)]
pub(super) fn scale(wave: &mut [Complex32], factor: &[f32]) {
    for (value, factor) in wave.iter_mut().zip(factor) {
        value.re *= factor;
        value.im *= factor;
    }
}
