//! Diffraction patterns: gathering them into groups, scaling them, and their energies.

use numpy::{
    Element, IntoPyArray, PyArray1, PyArray4, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3,
    PyUntypedArrayMethods,
};
use ptycho_fast_core::{check, energy, gather};
use pyo3::prelude::*;

use crate::boundary::{run, writeable};
use crate::kinds::{Kind, of_kind, unknown_kind};

/// The arguments of `gather_patterns`, except the stack.
struct Gathering<'a, 'py> {
    indices: PyReadonlyArray2<'py, i32>,
    out: &'a Bound<'py, PyAny>,
    scales: Option<PyReadonlyArray1<'py, f32>>,
    mask: Option<PyReadonlyArray2<'py, bool>>,
    num_threads: Option<usize>,
}

impl Gathering<'_, '_> {
    /// Fills `out` with patterns of a stack. Values become `convert(scale, value)`, and
    /// masked pixels 0.
    fn fill<T: Element + Copy, U: Element + Copy + Default>(
        &self,
        stack: &Bound<'_, PyAny>,
        convert: impl Fn(f32, T) -> U + Copy + Sync + Send,
    ) -> PyResult<()> {
        let py = stack.py();
        let stack: PyReadonlyArray3<'_, T> = stack.extract()?;
        let mut out = writeable(self.out.cast::<PyArray4<U>>()?)?;
        let pixels = stack.shape()[1] * stack.shape()[2];
        let (groups, channels) = (self.indices.shape()[0], self.indices.shape()[1]);
        let (stack, out) = (stack.as_slice()?, out.as_slice_mut()?);
        let indices = self.indices.as_slice()?;
        let scales = self
            .scales
            .as_ref()
            .map(|scales| scales.as_slice())
            .transpose()?;
        let mask = self.mask.as_ref().map(|mask| mask.as_slice()).transpose()?;
        run(py, self.num_threads, |threads| {
            if let Some(scales) = scales {
                check::length("scales", scales.len(), groups, "one for each group")?;
            }
            let convert = |group: usize| {
                let scale = scales.map_or(1.0, |scales| scales[group]);
                move |value| convert(scale, value)
            };
            let stack = gather::Stack::new(stack, pixels)?;
            gather::gather(stack, mask, indices, channels, out, convert, threads)
        })
    }
}

/// Gathers the patterns of groups unchanged, or times a scale as float32.
///
/// `stack` is viewed as unsigned words; `kind` is its dtype, as in "f4".
#[pyfunction]
pub fn gather_patterns<'py>(
    stack: &Bound<'py, PyAny>,
    kind: &str,
    indices: PyReadonlyArray2<'py, i32>,
    out: &Bound<'py, PyAny>,
    scales: Option<PyReadonlyArray1<'py, f32>>,
    mask: Option<PyReadonlyArray2<'py, bool>>,
    num_threads: Option<usize>,
) -> PyResult<()> {
    fn scaled<K: Kind>(gathering: &Gathering<'_, '_>, stack: &Bound<'_, PyAny>) -> PyResult<()> {
        // The value is rounded to float32 before it is multiplied.
        gathering.fill(stack, |scale, word: K::Word| scale * K::single(word))
    }
    let is_scaled = scales.is_some();
    let gathering = Gathering {
        indices,
        out,
        scales,
        mask,
        num_threads,
    };
    if is_scaled {
        return of_kind!(kind, scaled(&gathering, stack));
    }
    match kind.get(1..) {
        Some("1") => gathering.fill(stack, |_, word: u8| word),
        Some("2") => gathering.fill(stack, |_, word: u16| word),
        Some("4") => gathering.fill(stack, |_, word: u32| word),
        Some("8") => gathering.fill(stack, |_, word: u64| word),
        _ => Err(unknown_kind(kind)),
    }
}

/// Gathers the patterns of groups unchanged and scaled, in one pass.
#[pyfunction]
pub fn gather_twice<'py>(
    stack: &Bound<'py, PyAny>,
    kind: &str,
    indices: PyReadonlyArray2<'py, i32>,
    out: &Bound<'py, PyAny>,
    scaled: &Bound<'py, PyArray4<f32>>,
    scale: f32,
    num_threads: Option<usize>,
) -> PyResult<()> {
    fn fill<K: Kind>(
        stack: &Bound<'_, PyAny>,
        indices: &PyReadonlyArray2<'_, i32>,
        out: &Bound<'_, PyAny>,
        scaled: &Bound<'_, PyArray4<f32>>,
        scale: f32,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let py = stack.py();
        let stack: PyReadonlyArray3<'_, K::Word> = stack.extract()?;
        let mut out = writeable(out.cast::<PyArray4<K::Word>>()?)?;
        let mut scaled = writeable(scaled)?;
        let pixels = stack.shape()[1] * stack.shape()[2];
        let channels = indices.shape()[1];
        let (stack, indices) = (stack.as_slice()?, indices.as_slice()?);
        let (out, scaled) = (out.as_slice_mut()?, scaled.as_slice_mut()?);
        run(py, num_threads, |threads| {
            let stack = gather::Stack::new(stack, pixels)?;
            let convert = |word| scale * K::single(word);
            gather::gather_twice(stack, indices, channels, out, scaled, convert, threads)
        })
    }
    of_kind!(kind, fill(stack, &indices, out, scaled, scale, num_threads))
}

#[pyfunction]
pub fn pattern_energies<'py>(
    py: Python<'py>,
    stack: &Bound<'py, PyAny>,
    kind: &str,
    rows: Option<PyReadonlyArray1<'py, i32>>,
    mask: Option<PyReadonlyArray2<'py, bool>>,
    num_threads: Option<usize>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    fn sum_squares<K: Kind>(
        stack: &Bound<'_, PyAny>,
        rows: Option<&[i32]>,
        mask: Option<&[bool]>,
        num_threads: Option<usize>,
    ) -> PyResult<Vec<f64>> {
        let py = stack.py();
        let stack: PyReadonlyArray3<'_, K::Word> = stack.extract()?;
        let pixels = stack.shape()[1] * stack.shape()[2];
        let stack = stack.as_slice()?;
        run(py, num_threads, |threads| {
            energy::energies(stack, pixels, rows, mask, K::double, threads)
        })
    }
    let rows = rows.as_ref().map(|rows| rows.as_slice()).transpose()?;
    let mask = mask.as_ref().map(|mask| mask.as_slice()).transpose()?;
    let energies = of_kind!(kind, sum_squares(stack, rows, mask, num_threads))?;
    Ok(energies.into_pyarray(py))
}
