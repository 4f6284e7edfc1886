//! Extracting patches of an object, and adding patches to it (the adjoint).

use num_complex::Complex32;
use numpy::{
    PyArray2, PyArray4, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArray4, PyUntypedArrayMethods,
};
use ptycho_fast_core::patches;
use pyo3::prelude::*;

use crate::boundary::{run, writeable};

#[pyfunction]
pub fn extract_patches(
    py: Python<'_>,
    object: PyReadonlyArray2<'_, Complex32>,
    positions: PyReadonlyArray3<'_, f64>,
    out: &Bound<'_, PyArray4<Complex32>>,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let (height, width) = (object.shape()[0], object.shape()[1]);
    let mut out = writeable(out)?;
    let (n, channels) = (out.shape()[1], out.shape()[3]);
    let (object, positions, out) = (
        object.as_slice()?,
        positions.as_slice()?,
        out.as_slice_mut()?,
    );
    run(py, num_threads, |threads| {
        let object = patches::Object::new(object, height, width)?;
        patches::extract(object, positions, n, channels, out, threads)
    })
}

#[pyfunction]
pub fn add_patches(
    py: Python<'_>,
    patches: PyReadonlyArray4<'_, Complex32>,
    positions: PyReadonlyArray3<'_, f64>,
    object: &Bound<'_, PyArray2<Complex32>>,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let mut object = writeable(object)?;
    let (n, channels, width) = (patches.shape()[1], patches.shape()[3], object.shape()[1]);
    let (patches, positions, object) = (
        patches.as_slice()?,
        positions.as_slice()?,
        object.as_slice_mut()?,
    );
    run(py, num_threads, |threads| {
        patches::add(patches, positions, n, channels, object, width, threads)
    })
}
