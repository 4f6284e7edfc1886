//! The boundary between Python and the core: arrays in and out, the GIL, and the
//! one place where refusals become exceptions.

use numpy::ndarray::Dimension;
use numpy::{Element, IntoPyArray, PyArray, PyArray2, PyArrayMethods, PyReadwriteArray};
use ptycho_fast_core::{Error, parallel};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

/// Rows of scan positions.
pub type Indices<'py> = Bound<'py, PyArray2<i32>>;

/// The one place where refusals become exceptions.
pub fn refuse(error: &Error) -> PyErr {
    match error {
        Error::OutOfMemory { .. } | Error::NoMemory { .. } => {
            PyMemoryError::new_err(error.to_string())
        }
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// Runs the core without the GIL.
pub fn run<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce(usize) -> ptycho_fast_core::Result<T> + Send,
) -> PyResult<T> {
    py.detach(|| work(parallel::threads(threads)?))
        .map_err(|error| refuse(&error))
}

/// Hands the core's memory to `NumPy`, as rows.
pub fn rows<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    rows: usize,
    width: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    values.into_pyarray(py).reshape([rows, width])
}

/// Borrows an array to fill. That fails where it overlaps one being read.
pub fn writeable<'py, T: Element, D: Dimension>(
    array: &Bound<'py, PyArray<T, D>>,
) -> PyResult<PyReadwriteArray<'py, T, D>> {
    array.try_readwrite().map_err(|_| {
        PyValueError::new_err(
            "The array to fill is read-only, or it shares memory with an input. Pass another one.",
        )
    })
}
