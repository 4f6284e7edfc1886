//! `_core.draw`: groups by any rule, from whatever is known of the neighbours.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use ptycho_fast_core::groups::{Draw, Known, Limits, Rule};
use ptycho_fast_core::index::{Engine, Listed};
use ptycho_fast_core::philox::Key;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::{Indices, LabelledIndex, ScanIndex, engine, rows, run};

/// Who knows the neighbours: an index, or lists of them.
#[derive(FromPyObject)]
enum Source<'py> {
    Index(Bound<'py, ScanIndex>),
    Labelled(Bound<'py, LabelledIndex>),
    Lists(PyReadonlyArray2<'py, i32>),
}

/// What is asked for. Keys that have a default may be missing.
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

/// Centres, groups, the centres with too few slots, how many the rule left out,
/// how many centres spent their sets, the fewest sets of these, groups in the
/// pool, the engine.
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
        (Some(Source::Labelled(index)), _) => Ok(Known::Labelled(&index.get().0)),
        (Some(Source::Index(index)), None) => Ok(Known::Index(&index.get().0)),
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
    let count = drawn.centers.len();
    Ok((
        drawn.centers.into_pyarray(py),
        rows(py, drawn.groups, count, request.group_size)?,
        drawn.too_few.into_pyarray(py),
        drawn.no_group,
        drawn.spent,
        drawn.fewest,
        drawn.pool,
        match engine.unwrap_or(asked) {
            Engine::KdTree => "kdtree",
            Engine::Auto | Engine::Grid => "grid",
        },
    ))
}
