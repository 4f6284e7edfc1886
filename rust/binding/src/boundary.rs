//! The boundary between Python and the core: arrays, the GIL and exceptions.

use numpy::ndarray::Dimension;
use numpy::{Element, IntoPyArray, PyArray, PyArray2, PyArrayMethods, PyReadwriteArray};
use ptycho_fast_core::{Error, parallel};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

/// Rows of indices of scan positions.
pub type Indices<'py> = Bound<'py, PyArray2<i32>>;

/// The exception of an error of the core. Errors become exceptions only here.
pub fn refuse(error: &Error) -> PyErr {
    match error {
        Error::OutOfMemory { .. } | Error::NoMemory { .. } => {
            PyMemoryError::new_err(error.to_string())
        }
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// Runs `work(threads)` without holding the GIL.
pub fn run<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce(usize) -> ptycho_fast_core::Result<T> + Send,
) -> PyResult<T> {
    py.detach(|| work(parallel::threads(threads)?))
        .map_err(|error| refuse(&error))
}

/// Makes a two-dimensional array of a vector without copying it.
pub fn rows<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    rows: usize,
    width: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    values.into_pyarray(py).reshape([rows, width])
}

/// Borrows an array to fill. That fails if it overlaps an array that is borrowed
/// already.
pub fn writeable<'py, T: Element, D: Dimension>(
    array: &Bound<'py, PyArray<T, D>>,
) -> PyResult<PyReadwriteArray<'py, T, D>> {
    array.try_readwrite().map_err(|_| {
        PyValueError::new_err(
            "The array to fill is read-only, or it shares memory with an input. Pass another array.",
        )
    })
}
