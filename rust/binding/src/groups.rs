//! Drawing groups of overlapping scan positions.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use ptycho_fast_core::check;
use ptycho_fast_core::groups::{self, Draw, Known, Limits, Rule};
use ptycho_fast_core::index::{Engine, Listed};
use ptycho_fast_core::philox::Key;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::boundary::{Indices, rows, run};
use crate::index::{LabelledIndex, ScanIndex, engine, engine_name};

/// What is known of the neighbours: an index, or lists of them.
#[derive(FromPyObject)]
enum Source<'py> {
    Index(Bound<'py, ScanIndex>),
    Labelled(Bound<'py, LabelledIndex>),
    Lists(PyReadonlyArray2<'py, i32>),
}

/// The request: a dict whose keys may be missing if they have a default.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Request<'py> {
    rule: PyBackedStr,
    positions: PyReadonlyArray2<'py, f64>,
    centers: PyReadonlyArray1<'py, i32>,
    n_neighbors: usize,
    group_size: usize,
    key: [u64; 2],
    #[pyo3(default)]
    source: Option<Source<'py>>,
    #[pyo3(default)]
    engine: Option<PyBackedStr>,
    #[pyo3(default)]
    n_groups: Option<usize>,
    #[pyo3(default)]
    include_center: bool,
    #[pyo3(default)]
    groups_per_center: Option<usize>,
    #[pyo3(default)]
    limits: Option<(f64, f64)>,
    #[pyo3(default)]
    window: Option<usize>,
    #[pyo3(default)]
    min_overlap: Option<f64>,
    #[pyo3(default)]
    labels: Option<PyReadonlyArray1<'py, i32>>,
    #[pyo3(default)]
    num_threads: Option<usize>,
}

impl Request<'_> {
    fn rule(&self) -> PyResult<Rule> {
        let rounds = self.groups_per_center.unwrap_or(1);
        let count = self.n_groups;
        Ok(match &*self.rule {
            "nearest" => Rule::Nearest {
                include_center: self.include_center,
                rounds,
            },
            "oversample" => Rule::Oversample {
                count: count.unwrap_or(self.centers.len()),
            },
            "quadrant" => Rule::Quadrant { rounds },
            "overlap" => Rule::Overlap {
                window: self.window.unwrap_or(0),
                min_overlap: self.min_overlap.unwrap_or(0.0),
                rounds,
            },
            "pool" => Rule::Pool { count },
            other => {
                return Err(PyValueError::new_err(format!(
                    "rule must be one of 'nearest', 'oversample', 'quadrant', 'overlap', 'pool', got {other:?}."
                )));
            }
        })
    }
}

/// What `draw` returns; `_core.pyi` says what each is.
type Answer<'py> = (
    Bound<'py, PyArray1<i32>>,
    Indices<'py>,
    Bound<'py, PyArray1<i32>>,
    usize,
    usize,
    u64,
    Option<usize>,
    &'static str,
);

#[pyfunction]
pub fn draw<'py>(py: Python<'py>, request: Request<'py>) -> PyResult<Answer<'py>> {
    let rule = request.rule()?;
    let asked = request.engine.as_deref().map_or(Ok(Engine::Auto), engine)?;
    let labels = request.labels.as_ref();
    let labels = labels.map(|labels| labels.as_slice()).transpose()?;
    let known = match (&request.source, labels) {
        (Some(Source::Index(index)), None) => Ok(Known::Index(&index.get().0)),
        (Some(Source::Labelled(index)), _) => Ok(Known::Labelled(&index.get().0)),
        (Some(Source::Lists(lists)), None) => Err((lists.as_slice()?, lists.shape())),
        (_, labels) => Ok(Known::Nothing {
            engine: asked,
            labels,
        }),
    };
    let (positions, centers) = (request.positions.as_slice()?, request.centers.as_slice()?);
    let (drawn, engine) = run(py, request.num_threads, |threads| {
        let known = match known {
            Ok(known) => known,
            Err((lists, shape)) => Known::Lists(Listed::new(lists, shape[1], shape[0])?),
        };
        rule.draw(&Draw {
            index: &known,
            positions,
            centers,
            k: request.n_neighbors,
            c: request.group_size,
            limits: request.limits.map(|(least, most)| Limits::new(least, most)),
            key: Key(request.key),
            threads,
        })
    })?;
    let count = drawn.groups.len() / request.group_size;
    let around = match drawn.centers {
        Some(centers) => centers.into_pyarray(py),
        None => (*request.centers).clone(),
    };
    Ok((
        around,
        rows(py, drawn.groups, count, request.group_size)?,
        drawn.too_few.into_pyarray(py),
        drawn.no_group,
        drawn.spent,
        drawn.fewest,
        drawn.pool,
        engine_name(engine.unwrap_or(asked)),
    ))
}

#[pyfunction]
pub fn philox_key(seed: u128, epoch: u32) -> (u64, u64) {
    Key::new(seed, epoch).0.into()
}

#[pyfunction]
pub fn draw_centers(
    py: Python<'_>,
    n_positions: usize,
    n_groups: usize,
    key: [u64; 2],
    num_threads: Option<usize>,
) -> PyResult<Bound<'_, PyArray1<i32>>> {
    let centers = run(py, num_threads, |threads| {
        groups::centers(n_positions, n_groups, Key(key), threads)
    })?;
    Ok(centers.into_pyarray(py))
}

#[pyfunction]
pub fn draw_order(
    py: Python<'_>,
    n_groups: usize,
    key: [u64; 2],
    num_threads: Option<usize>,
) -> PyResult<Bound<'_, PyArray1<i32>>> {
    let order = run(py, num_threads, |threads| {
        groups::order(n_groups, Key(key), threads)
    })?;
    Ok(order.into_pyarray(py))
}

#[pyfunction]
pub fn sample_pool(
    py: Python<'_>,
    n_pool: usize,
    n_groups: usize,
    key: [u64; 2],
    num_threads: Option<usize>,
) -> PyResult<Bound<'_, PyArray1<i32>>> {
    let rows = run(py, num_threads, |threads| {
        groups::sample_pool(n_pool, n_groups, Key(key), threads)
    })?;
    Ok(rows.into_pyarray(py))
}

#[pyfunction]
pub fn check_group(
    py: Python<'_>,
    n_positions: usize,
    n_neighbors: usize,
    group_size: usize,
) -> PyResult<()> {
    run(py, Some(1), |_| {
        check::group(n_positions, n_neighbors, group_size)
    })
}
