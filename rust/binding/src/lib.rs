//! `ptycho_fast._core`: the core crate for Python, and nothing else.
//!
//! Each function borrows its arrays, releases the GIL, calls the core, and passes the
//! core's memory on without copying it. Large outputs are arrays that the caller passes
//! to be filled: `NumPy` allocates them, so that a failed allocation is a
//! `MemoryError`. Users call the Python package, not this module.
#![expect(
    clippy::needless_pass_by_value,
    reason = "PyO3 hands arguments over by value"
)]

mod boundary;
mod diffraction;
mod groups;
mod index;
mod kinds;
mod machine;
mod patches;
mod patterns;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::diffraction::PyDiffraction;
    #[pymodule_export]
    use crate::groups::{check_group, draw, draw_centers, draw_order, philox_key, sample_pool};
    #[pymodule_export]
    use crate::index::{LabelledIndex, ScanIndex, check_positions};
    #[pymodule_export]
    use crate::machine::{count_threads, simd_name};
    #[pymodule_export]
    use crate::patches::{add_patches, extract_patches};
    #[pymodule_export]
    use crate::patterns::{gather_patterns, gather_twice, pattern_energies};
}
