//! The index of a scan.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2};
use ptycho_fast_core::groups::legacy;
use ptycho_fast_core::groups::legacy_rng::MersenneTwister;
use ptycho_fast_core::index::{self, Engine, Index, Labelled, Neighbors};
use ptycho_fast_core::{bounds, check};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::boundary::{Indices, rows, run};

/// The state of the Mersenne Twister: its words, and the place of the next.
pub type TwisterState<'py> = (Bound<'py, PyArray1<u32>>, usize);

/// The engine with this name.
pub fn engine(name: &str) -> PyResult<Engine> {
    match name {
        "auto" => Ok(Engine::Auto),
        "grid" => Ok(Engine::Grid),
        "kdtree" => Ok(Engine::KdTree),
        _ => Err(PyValueError::new_err(format!(
            "engine must be one of 'auto', 'grid', 'kdtree', got {name:?}."
        ))),
    }
}

/// The name of an engine that searched. `Auto` is the grid, unless positions crowd.
pub fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::KdTree => "kdtree",
        Engine::Auto | Engine::Grid => "grid",
    }
}

/// The index of a scan. It never changes, so threads can share it.
#[pyclass(frozen, module = "ptycho_fast._core")]
pub struct ScanIndex(pub Index);

#[pymethods]
impl ScanIndex {
    #[new]
    #[pyo3(signature = (positions, engine, num_threads))]
    fn new(
        py: Python<'_>,
        positions: PyReadonlyArray2<'_, f64>,
        engine: &str,
        num_threads: Option<usize>,
    ) -> PyResult<Self> {
        let (positions, engine) = (positions.as_slice()?, self::engine(engine)?);
        run(py, num_threads, |threads| {
            Index::build(positions, engine, threads)
        })
        .map(Self)
    }

    fn __len__(&self) -> usize {
        self.0.positions()
    }

    #[getter]
    fn engine(&self) -> &'static str {
        engine_name(self.0.engine())
    }

    fn neighbors<'py>(
        &self,
        py: Python<'py>,
        centers: PyReadonlyArray1<'py, i32>,
        n_neighbors: usize,
        num_threads: Option<usize>,
    ) -> PyResult<Indices<'py>> {
        let centers = centers.as_slice()?;
        let (values, width) = run(py, num_threads, |threads| {
            check::within("n_neighbors", n_neighbors, 1, i32::MAX as usize)?;
            index::neighbors(&self.0, centers, n_neighbors, threads)
        })?;
        rows(py, values, centers.len(), width)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one each for what a draw depends on"
    )]
    fn draw_legacy<'py>(
        &self,
        py: Python<'py>,
        centers: Option<PyReadonlyArray1<'py, i32>>,
        n_groups: usize,
        n_neighbors: usize,
        group_size: usize,
        twister_words: PyReadonlyArray1<'py, u32>,
        twister_place: usize,
        num_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyArray1<i32>>, Indices<'py>, TwisterState<'py>)> {
        let words = twister_words.as_slice()?;
        let centers = centers.as_ref().map(|c| c.as_slice()).transpose()?;
        let (centers, values, twister) = run(py, num_threads, |threads| {
            let mut twister = MersenneTwister::from_state(words, twister_place)?;
            let (centers, values) = legacy::draw(
                &self.0,
                centers,
                n_groups,
                n_neighbors,
                group_size,
                &mut twister,
                threads,
            )?;
            Ok((centers, values, twister))
        })?;
        let count = centers.len();
        let (words, place) = twister.state();
        Ok((
            centers.into_pyarray(py),
            rows(py, values, count, group_size)?,
            (PyArray1::from_slice(py, words), place),
        ))
    }
}

/// An index for each label of a scan.
#[pyclass(frozen, module = "ptycho_fast._core")]
pub struct LabelledIndex(pub Labelled<Index>);

#[pymethods]
impl LabelledIndex {
    #[new]
    #[pyo3(signature = (positions, labels, engine, num_threads))]
    fn new(
        py: Python<'_>,
        positions: PyReadonlyArray2<'_, f64>,
        labels: PyReadonlyArray1<'_, i32>,
        engine: &str,
        num_threads: Option<usize>,
    ) -> PyResult<Self> {
        let (positions, labels) = (positions.as_slice()?, labels.as_slice()?);
        let engine = self::engine(engine)?;
        run(py, num_threads, |threads| {
            Labelled::build(positions, labels, |own| Index::build(own, engine, threads))
        })
        .map(Self)
    }
}

#[pyfunction]
pub fn check_positions(py: Python<'_>, positions: PyReadonlyArray2<'_, f64>) -> PyResult<usize> {
    let positions = positions.as_slice()?;
    run(py, None, |threads| {
        bounds::of(positions, threads).map(|_| positions.len() / 2)
    })
}
