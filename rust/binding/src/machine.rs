//! Which threads and vector instructions of the machine are used.

use ptycho_fast_core::{parallel, simd};
use pyo3::prelude::*;

use crate::boundary::refuse;

#[pyfunction]
pub fn simd_name() -> PyResult<&'static str> {
    simd::name().map_err(|error| refuse(&error))
}

#[pyfunction]
pub fn count_threads(asked: Option<usize>) -> PyResult<usize> {
    parallel::threads(asked).map_err(|error| refuse(&error))
}
