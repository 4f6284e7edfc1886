//! The engine of `ptycho_fast`, free of Python.
//!
//! Ptychography records a diffraction pattern at each position of a scan;
//! neighbouring positions overlap. This crate
//!
//! - finds the neighbours of scan positions ([`index`]),
//! - draws groups of overlapping positions from them ([`groups`]), by random
//!   numbers that are a function of (key, point) alone ([`philox`]),
//! - gathers the groups' patterns ([`gather`]), sums their energies
//!   ([`energy`]), and cuts the patches of an object under them
//!   ([`patches`]).
//!
//! Slices come in, vectors or the caller's buffers go out. Nothing that a
//! caller passes makes it panic: every precondition stands in [`check`], every
//! refusal in [`Error`]. Neither the number of threads ([`parallel`]) nor the
//! instruction set ([`simd`]) changes a bit of a result.
//!
//! ```
//! use ptycho_fast_core::groups::{self, Draw, Known, Rule};
//! use ptycho_fast_core::{index::Engine, philox::Key};
//!
//! // A raster of 6 x 6 positions, x then y.
//! let positions: Vec<f64> = (0..36).flat_map(|i| [f64::from(i % 6), f64::from(i / 6)]).collect();
//! let key = Key([1, 2]);
//! let centers = groups::centers(36, 10, key, 1)?;
//! let rule = Rule::Nearest { include_center: false, rounds: 1 };
//! let (drawn, _) = rule.draw(&Draw {
//!     index: &Known::Nothing { engine: Engine::Auto, labels: None },
//!     positions: &positions,
//!     centers: &centers,
//!     k: 7,
//!     c: 4,
//!     limits: None,
//!     key,
//!     threads: 1,
//! })?;
//! assert_eq!(drawn.groups.len(), 10 * 4);
//! # Ok::<(), ptycho_fast_core::Error>(())
//! ```

// See clippy.toml: what tests take is little.
#![cfg_attr(test, allow(clippy::disallowed_macros, clippy::disallowed_methods))]

pub mod bounds;
pub mod check;
pub mod energy;
mod error;
pub mod gather;
pub mod groups;
pub mod index;
mod interleave;
mod memory;
pub mod parallel;
pub mod patches;
pub mod philox;
mod shared;
pub mod simd;

pub use error::{Error, Result};
