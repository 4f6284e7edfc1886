//! The likelihood of the counts of diffraction patterns.

use num_complex::{Complex32, Complex64};
use numpy::{
    PyArray1, PyArray2, PyArray3, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3,
    PyUntypedArrayMethods,
};
use ptycho_fast_core::diffraction::{Counts, Diffraction, Patterns, Sample, Wanted};
use ptycho_fast_core::patches::Object;
use pyo3::prelude::*;

use crate::boundary::{refuse, run, writeable};

/// The diffraction of N x N pixels.
#[pyclass(frozen, name = "Diffraction")]
pub struct PyDiffraction(Diffraction);

#[pymethods]
impl PyDiffraction {
    #[new]
    fn new(n: usize) -> PyResult<Self> {
        Diffraction::new(n)
            .map(Self)
            .map_err(|error| refuse(&error))
    }

    #[expect(clippy::too_many_arguments, reason = "one for each array")]
    #[pyo3(signature = (object, probe, positions, rows, exposure, background, counts, good,
        of_object, of_probe, of_positions, of_exposure, num_threads))]
    fn gradient(
        &self,
        py: Python<'_>,
        object: PyReadonlyArray2<'_, Complex32>,
        probe: PyReadonlyArray3<'_, Complex32>,
        positions: PyReadonlyArray2<'_, f64>,
        rows: PyReadonlyArray1<'_, i32>,
        exposure: Option<PyReadonlyArray1<'_, f64>>,
        background: f64,
        counts: PyReadonlyArray3<'_, f32>,
        good: Option<PyReadonlyArray3<'_, bool>>,
        of_object: Option<&Bound<'_, PyArray2<Complex32>>>,
        of_probe: Option<&Bound<'_, PyArray3<Complex64>>>,
        of_positions: Option<&Bound<'_, PyArray2<f64>>>,
        of_exposure: Option<&Bound<'_, PyArray1<f64>>>,
        num_threads: Option<usize>,
    ) -> PyResult<f64> {
        let (height, width) = (object.shape()[0], object.shape()[1]);
        let mut of_object = of_object.map(writeable).transpose()?;
        let mut of_probe = of_probe.map(writeable).transpose()?;
        let mut of_positions = of_positions.map(writeable).transpose()?;
        let mut of_exposure = of_exposure.map(writeable).transpose()?;
        let patterns = patterns(&positions, exposure.as_ref(), background, &rows)?;
        let counts = Counts {
            values: counts.as_slice()?,
            good: good.as_ref().map(|all| all.as_slice()).transpose()?,
        };
        let (object, probe) = (object.as_slice()?, probe.as_slice()?);
        let wanted = Wanted {
            object: of_object
                .as_mut()
                .map(|out| out.as_slice_mut())
                .transpose()?,
            probe: of_probe
                .as_mut()
                .map(|out| out.as_slice_mut())
                .transpose()?,
            positions: of_positions
                .as_mut()
                .map(|out| out.as_slice_mut())
                .transpose()?,
            exposure: of_exposure
                .as_mut()
                .map(|out| out.as_slice_mut())
                .transpose()?,
        };
        run(py, num_threads, |threads| {
            let object = Object::new(object, height, width)?;
            let sample = Sample { object, probe };
            self.0
                .gradient(&sample, &patterns, &counts, wanted, threads)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one for each array")]
    #[pyo3(signature = (object, probe, change, positions, rows, exposure, background, good, out, num_threads))]
    fn curvature(
        &self,
        py: Python<'_>,
        object: PyReadonlyArray2<'_, Complex32>,
        probe: PyReadonlyArray3<'_, Complex32>,
        change: PyReadonlyArray2<'_, Complex32>,
        positions: PyReadonlyArray2<'_, f64>,
        rows: PyReadonlyArray1<'_, i32>,
        exposure: Option<PyReadonlyArray1<'_, f64>>,
        background: f64,
        good: Option<PyReadonlyArray3<'_, bool>>,
        out: &Bound<'_, PyArray2<Complex32>>,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let [shape, of_change] = [object.shape(), change.shape()].map(|s| (s[0], s[1]));
        let mut out = writeable(out)?;
        let patterns = patterns(&positions, exposure.as_ref(), background, &rows)?;
        let good = good.as_ref().map(|all| all.as_slice()).transpose()?;
        let (object, probe, change) = (object.as_slice()?, probe.as_slice()?, change.as_slice()?);
        let out = out.as_slice_mut()?;
        run(py, num_threads, |threads| {
            let object = Object::new(object, shape.0, shape.1)?;
            let change = Object::new(change, of_change.0, of_change.1)?;
            let sample = Sample { object, probe };
            self.0
                .curvature(&sample, change, &patterns, good, out, threads)
        })
    }

    #[expect(clippy::too_many_arguments, reason = "one for each array")]
    #[pyo3(signature = (object, probe, positions, rows, exposure, background, out, num_threads))]
    fn intensity(
        &self,
        py: Python<'_>,
        object: PyReadonlyArray2<'_, Complex32>,
        probe: PyReadonlyArray3<'_, Complex32>,
        positions: PyReadonlyArray2<'_, f64>,
        rows: PyReadonlyArray1<'_, i32>,
        exposure: Option<PyReadonlyArray1<'_, f64>>,
        background: f64,
        out: &Bound<'_, PyArray3<f32>>,
        num_threads: Option<usize>,
    ) -> PyResult<()> {
        let (height, width) = (object.shape()[0], object.shape()[1]);
        let mut out = writeable(out)?;
        let patterns = patterns(&positions, exposure.as_ref(), background, &rows)?;
        let (object, probe, out) = (object.as_slice()?, probe.as_slice()?, out.as_slice_mut()?);
        run(py, num_threads, |threads| {
            let object = Object::new(object, height, width)?;
            self.0
                .intensity(&Sample { object, probe }, &patterns, out, threads)
        })
    }
}

fn patterns<'a>(
    positions: &'a PyReadonlyArray2<'_, f64>,
    exposure: Option<&'a PyReadonlyArray1<'_, f64>>,
    background: f64,
    rows: &'a PyReadonlyArray1<'_, i32>,
) -> PyResult<Patterns<'a>> {
    Ok(Patterns {
        positions: positions.as_slice()?,
        exposure: exposure.map(|all| all.as_slice()).transpose()?,
        background,
        rows: rows.as_slice()?,
    })
}
