//! `ptycho_fast._core`: the core crate for Python, and nothing else.
//!
//! Each function guards its arrays, takes views of them, releases the GIL,
//! calls the core, and hands over the core's memory without copying it. Large
//! outputs come in as arrays to fill: `NumPy` allocates them, so a failed
//! allocation is a `MemoryError`. What people type stands in the Python layer.
#![expect(
    clippy::needless_pass_by_value,
    reason = "PyO3 hands arguments over by value"
)]

mod draw;
mod kinds;

use kinds::{Kind, of_kind};
use num_complex::Complex32;
use numpy::{
    Element, IntoPyArray, PyArray, PyArray1, PyArray2, PyArray4, PyArrayMethods, PyReadonlyArray1,
    PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArray4, PyReadwriteArray, PyUntypedArrayMethods,
    ndarray::Dimension,
};
use ptycho_fast_core::groups::legacy_rng::MersenneTwister;
use ptycho_fast_core::groups::{
    self, Draw, Drawn, Labelled, Limits, nearest, overlap, oversample, pool, quadrant,
};
use ptycho_fast_core::index::{self, Engine, Few, Index, Listed, Neighbors};
use ptycho_fast_core::philox::Key;
use ptycho_fast_core::{Error, check, energy, gather, parallel, patches, simd};
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

type Indices<'py> = Bound<'py, PyArray2<i32>>;
type TwisterState<'py> = (Bound<'py, PyArray1<u32>>, usize);

/// The one place where refusals become exceptions.
fn refuse(error: &Error) -> PyErr {
    match error {
        Error::OutOfMemory { .. } | Error::NoMemory { .. } => {
            PyMemoryError::new_err(error.to_string())
        }
        _ => PyValueError::new_err(error.to_string()),
    }
}

/// Runs the core without the GIL.
fn run<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce(usize) -> ptycho_fast_core::Result<T> + Send,
) -> PyResult<T> {
    py.detach(|| work(parallel::threads(threads)?))
        .map_err(|error| refuse(&error))
}

/// Hands the core's memory to `NumPy`, as rows.
fn rows<T: Element>(
    py: Python<'_>,
    values: Vec<T>,
    rows: usize,
    width: usize,
) -> PyResult<Bound<'_, PyArray2<T>>> {
    values.into_pyarray(py).reshape([rows, width])
}

/// Borrows an array to fill. That fails where it overlaps one being read.
fn writeable<'py, T: Element, D: Dimension>(
    array: &Bound<'py, PyArray<T, D>>,
) -> PyResult<PyReadwriteArray<'py, T, D>> {
    array.try_readwrite().map_err(|_| {
        PyValueError::new_err(
            "The array to fill is read-only, or it shares memory with an input. Pass another one.",
        )
    })
}

fn engine(name: &str) -> PyResult<Engine> {
    match name {
        "auto" => Ok(Engine::Auto),
        "grid" => Ok(Engine::Grid),
        "kdtree" => Ok(Engine::KdTree),
        _ => Err(PyValueError::new_err(format!(
            "engine must be one of 'auto', 'grid', 'kdtree', got {name:?}."
        ))),
    }
}

fn name(index: &Index) -> &'static str {
    match index {
        Index::Grid(_) => "grid",
        Index::KdTree(_) => "kdtree",
    }
}

/// The index of a scan: shared between threads, never changed.
#[pyclass(frozen, module = "ptycho_fast._core")]
struct ScanIndex(Index);

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
        name(&self.0)
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
    fn draw_nearest<'py>(
        &self,
        py: Python<'py>,
        centers: PyReadonlyArray1<'py, i32>,
        n_neighbors: usize,
        group_size: usize,
        include_center: bool,
        key: [u64; 2],
        num_threads: Option<usize>,
    ) -> PyResult<Indices<'py>> {
        let centers = centers.as_slice()?;
        let values = run(py, num_threads, |threads| {
            nearest::draw(
                &self.0,
                centers,
                n_neighbors,
                group_size,
                include_center,
                Key(key),
                threads,
            )
        })?;
        rows(py, values, centers.len(), group_size)
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
            let (centers, values) = nearest::draw_legacy(
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

#[pyfunction]
fn draw_centers(
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
fn simd_name() -> PyResult<&'static str> {
    simd::name().map_err(|error| refuse(&error))
}

#[pyfunction]
fn count_threads(asked: Option<usize>) -> PyResult<usize> {
    parallel::threads(asked).map_err(|error| refuse(&error))
}

#[pyfunction]
fn draw_order(
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

/// The rule `nearest` for so few centres that an index of the whole scan would
/// be most of the work; None where they are too many for that.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "one each for what a draw depends on"
)]
fn draw_few<'py>(
    py: Python<'py>,
    positions: PyReadonlyArray2<'py, f64>,
    centers: PyReadonlyArray1<'py, i32>,
    n_neighbors: usize,
    group_size: usize,
    include_center: bool,
    key: [u64; 2],
    num_threads: Option<usize>,
) -> PyResult<Option<Indices<'py>>> {
    let (positions, centers) = (positions.as_slice()?, centers.as_slice()?);
    let values = run(py, num_threads, |threads| {
        let Some(index) = Few::new(positions, centers.len(), threads)? else {
            return Ok(None);
        };
        nearest::draw(
            &index,
            centers,
            n_neighbors,
            group_size,
            include_center,
            Key(key),
            threads,
        )
        .map(Some)
    })?;
    values
        .map(|values| rows(py, values, centers.len(), group_size))
        .transpose()
}

/// The rule `nearest` from lists of neighbours that were found before.
#[pyfunction]
#[expect(
    clippy::too_many_arguments,
    reason = "one each for what a draw depends on"
)]
fn draw_listed<'py>(
    py: Python<'py>,
    neighbors: PyReadonlyArray2<'py, i32>,
    centers: PyReadonlyArray1<'py, i32>,
    n_neighbors: usize,
    group_size: usize,
    include_center: bool,
    key: [u64; 2],
    num_threads: Option<usize>,
) -> PyResult<Indices<'py>> {
    let (positions, width) = (neighbors.shape()[0], neighbors.shape()[1]);
    let (neighbors, centers) = (neighbors.as_slice()?, centers.as_slice()?);
    let values = run(py, num_threads, |threads| {
        let index = Listed::new(neighbors, width, positions)?;
        let needed = n_neighbors.min(positions - 1);
        check::within("n_neighbors, of those listed,", needed, 0, width)?;
        nearest::draw(
            &index,
            centers,
            n_neighbors,
            group_size,
            include_center,
            Key(key),
            threads,
        )
    })?;
    rows(py, values, centers.len(), group_size)
}

/// An index for each label of a scan.
#[pyclass(frozen, module = "ptycho_fast._core")]
struct LabelledIndex(Labelled<Index>);

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

    /// A tree, if that of any label is.
    #[getter]
    fn engine(&self) -> &'static str {
        let mut names = self.0.indexes().map(name);
        names.find(|&name| name == "kdtree").unwrap_or("grid")
    }
}

/// Who knows the neighbours: an index, or lists of them.
#[derive(FromPyObject)]
enum Source<'py> {
    Index(Bound<'py, ScanIndex>),
    Labelled(Bound<'py, LabelledIndex>),
    Listed(PyReadonlyArray2<'py, i32>),
}

/// What the rules share, as Python passes it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Request<'py> {
    source: Source<'py>,
    positions: PyReadonlyArray2<'py, f64>,
    centers: PyReadonlyArray1<'py, i32>,
    n_neighbors: usize,
    group_size: usize,
    limits: Option<(f64, f64)>,
    key: [u64; 2],
    num_threads: Option<usize>,
}

impl Request<'_> {
    fn view(&self) -> PyResult<View<'_>> {
        Ok(View {
            positions: self.positions.as_slice()?,
            centers: self.centers.as_slice()?,
            k: self.n_neighbors,
            c: self.group_size,
            limits: self.limits.map(|(least, most)| Limits::new(least, most)),
            key: Key(self.key),
        })
    }
}

/// A request as the core sees it, without its index.
#[derive(Clone, Copy)]
struct View<'a> {
    positions: &'a [f64],
    centers: &'a [i32],
    k: usize,
    c: usize,
    limits: Option<Limits>,
    key: Key,
}

impl<'a> View<'a> {
    fn on<I>(self, index: &'a I, threads: usize) -> Draw<'a, I> {
        let Self {
            positions,
            centers,
            k,
            c,
            limits,
            key,
        } = self;
        Draw {
            index,
            positions,
            centers,
            k,
            c,
            limits,
            key,
            threads,
        }
    }
}

/// Runs a rule on a request, whatever kind its index is of.
macro_rules! draw {
    ($py:expr, $request:expr, $rule:expr) => {{
        let view = $request.view()?;
        let threads = $request.num_threads;
        match &$request.source {
            Source::Index(index) => {
                let index = &index.get().0;
                run($py, threads, |threads| $rule(&view.on(index, threads)))
            }
            Source::Labelled(index) => {
                let index = &index.get().0;
                run($py, threads, |threads| $rule(&view.on(index, threads)))
            }
            Source::Listed(rows) => {
                let (n, width) = (rows.shape()[0], rows.shape()[1]);
                let rows = rows.as_slice()?;
                run($py, threads, |threads| {
                    let index = Listed::new(rows, width, n)?;
                    let needed = view.k.min(n - 1);
                    check::within("n_neighbors, of those listed,", needed, 0, width)?;
                    $rule(&view.on(&index, threads))
                })
            }
        }
    }};
}

/// Centres, groups, the centres with too few slots, how many the rule left out.
type Found<'py> = (
    Bound<'py, PyArray1<i32>>,
    Indices<'py>,
    Bound<'py, PyArray1<i32>>,
    usize,
);

fn found(py: Python<'_>, drawn: Drawn, group_size: usize) -> PyResult<Found<'_>> {
    let count = drawn.centers.len();
    Ok((
        drawn.centers.into_pyarray(py),
        rows(py, drawn.groups, count, group_size)?,
        drawn.too_few.into_pyarray(py),
        drawn.no_group,
    ))
}

#[pyfunction]
fn draw_within<'py>(
    py: Python<'py>,
    request: Request<'py>,
    include_center: bool,
    groups_per_center: usize,
) -> PyResult<Found<'py>> {
    let c = request.group_size;
    let drawn = draw!(py, request, |draw: &Draw<'_, _>| {
        nearest::draw_rounds(draw, include_center, groups_per_center)
    })?;
    found(py, drawn, c)
}

#[pyfunction]
fn draw_oversample<'py>(
    py: Python<'py>,
    request: Request<'py>,
    n_groups: usize,
) -> PyResult<(Found<'py>, usize, u64)> {
    let c = request.group_size;
    let drawn = draw!(py, request, |draw: &Draw<'_, _>| {
        oversample::draw(draw, n_groups)
    })?;
    let (spent, fewest) = (drawn.spent, drawn.fewest);
    Ok((found(py, drawn, c)?, spent, fewest))
}

#[pyfunction]
fn draw_quadrant<'py>(
    py: Python<'py>,
    request: Request<'py>,
    groups_per_center: usize,
) -> PyResult<Found<'py>> {
    let c = request.group_size;
    let drawn = draw!(py, request, |draw: &Draw<'_, _>| {
        quadrant::draw(draw, groups_per_center)
    })?;
    found(py, drawn, c)
}

#[pyfunction]
fn draw_overlap<'py>(
    py: Python<'py>,
    request: Request<'py>,
    window: usize,
    min_overlap: f64,
    groups_per_center: usize,
) -> PyResult<Found<'py>> {
    let c = request.group_size;
    let drawn = draw!(py, request, |draw: &Draw<'_, _>| {
        overlap::draw(draw, window, min_overlap, groups_per_center)
    })?;
    found(py, drawn, c)
}

#[pyfunction]
fn draw_pool<'py>(
    py: Python<'py>,
    request: Request<'py>,
    n_groups: usize,
) -> PyResult<(Found<'py>, usize)> {
    let c = request.group_size;
    let drawn = draw!(py, request, |draw: &Draw<'_, _>| pool::draw(draw, n_groups))?;
    let pool = drawn.pool.unwrap_or(0);
    Ok((found(py, drawn, c)?, pool))
}

#[pyfunction]
fn list_pool<'py>(py: Python<'py>, request: Request<'py>) -> PyResult<Found<'py>> {
    let c = request.group_size;
    let drawn = draw!(py, request, |draw: &Draw<'_, _>| pool::list(draw))?;
    found(py, drawn, c)
}

#[pyfunction]
fn sample_pool(
    py: Python<'_>,
    n_pool: usize,
    n_groups: usize,
    key: [u64; 2],
    num_threads: Option<usize>,
) -> PyResult<Bound<'_, PyArray1<i32>>> {
    let rows = run(py, num_threads, |threads| {
        pool::sample(n_pool, n_groups, Key(key), threads)
    })?;
    Ok(rows.into_pyarray(py))
}

#[pyfunction]
fn check_positions(py: Python<'_>, positions: PyReadonlyArray2<'_, f64>) -> PyResult<usize> {
    let positions = positions.as_slice()?;
    run(py, None, |threads| {
        check::bounds(positions, threads).map(|_| positions.len() / 2)
    })
}

#[pyfunction]
fn check_group(
    py: Python<'_>,
    n_positions: usize,
    n_neighbors: usize,
    group_size: usize,
) -> PyResult<()> {
    run(py, Some(1), |_| {
        check::group(n_positions, n_neighbors, group_size)
    })
}

#[pyfunction]
fn extract_patches(
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
fn add_patches(
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

/// What `gather_patterns` is asked for, beside the stack.
struct Gathering<'a, 'py> {
    indices: PyReadonlyArray2<'py, i32>,
    out: &'a Bound<'py, PyAny>,
    scales: Option<PyReadonlyArray1<'py, f32>>,
    mask: Option<PyReadonlyArray2<'py, bool>>,
    num_threads: Option<usize>,
}

impl Gathering<'_, '_> {
    /// Fills `out` with a stack's patterns, each value through
    /// `convert(scale, value)`, and 0 where a pixel is masked.
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
                check::length("scales", scales.len(), groups, "one a group")?;
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

fn unknown_kind(kind: &str) -> PyErr {
    PyValueError::new_err(format!("diffraction can't be of {kind}."))
}

/// The patterns of groups, as they are, or times a scale as float32.
///
/// `stack` is of unsigned words; `kind` says what they mean, as "f4".
#[pyfunction]
fn gather_patterns<'py>(
    stack: &Bound<'py, PyAny>,
    kind: &str,
    indices: PyReadonlyArray2<'py, i32>,
    out: &Bound<'py, PyAny>,
    scales: Option<PyReadonlyArray1<'py, f32>>,
    mask: Option<PyReadonlyArray2<'py, bool>>,
    num_threads: Option<usize>,
) -> PyResult<()> {
    fn scaled<K: Kind>(gathering: &Gathering<'_, '_>, stack: &Bound<'_, PyAny>) -> PyResult<()> {
        // The scale times the value as float32, in this order.
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

/// The patterns of groups as they are, and scaled, in one pass.
#[pyfunction]
fn gather_twice<'py>(
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
fn pattern_energies<'py>(
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

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<ScanIndex>()?;
    module.add_function(wrap_pyfunction!(draw_centers, module)?)?;
    module.add_function(wrap_pyfunction!(count_threads, module)?)?;
    module.add_function(wrap_pyfunction!(draw_order, module)?)?;
    module.add_function(wrap_pyfunction!(draw::draw, module)?)?;
    module.add_function(wrap_pyfunction!(draw_few, module)?)?;
    module.add_function(wrap_pyfunction!(draw_listed, module)?)?;
    module.add_function(wrap_pyfunction!(simd_name, module)?)?;
    module.add_class::<LabelledIndex>()?;
    module.add_function(wrap_pyfunction!(draw_within, module)?)?;
    module.add_function(wrap_pyfunction!(draw_oversample, module)?)?;
    module.add_function(wrap_pyfunction!(draw_quadrant, module)?)?;
    module.add_function(wrap_pyfunction!(draw_overlap, module)?)?;
    module.add_function(wrap_pyfunction!(draw_pool, module)?)?;
    module.add_function(wrap_pyfunction!(list_pool, module)?)?;
    module.add_function(wrap_pyfunction!(sample_pool, module)?)?;
    module.add_function(wrap_pyfunction!(check_positions, module)?)?;
    module.add_function(wrap_pyfunction!(check_group, module)?)?;
    module.add_function(wrap_pyfunction!(extract_patches, module)?)?;
    module.add_function(wrap_pyfunction!(add_patches, module)?)?;
    module.add_function(wrap_pyfunction!(gather_patterns, module)?)?;
    module.add_function(wrap_pyfunction!(gather_twice, module)?)?;
    module.add_function(wrap_pyfunction!(pattern_energies, module)?)?;
    Ok(())
}
