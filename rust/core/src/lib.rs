//! The engine of `ptycho_fast`, without any Python.
//!
//! Ptychography records a diffraction pattern at each position of a scan, and
//! neighbouring positions overlap. This crate
//!
//! - finds the neighbours of scan positions ([`index`]),
//! - draws groups of overlapping positions ([`groups`]) by random words that are a
//!   function of (key, position) alone ([`philox`]),
//! - gathers the diffraction patterns of groups ([`gather`]) and computes their
//!   energies ([`energy`]),
//! - extracts the patches of an object at the positions of groups ([`patches`]),
//! - computes the likelihood of the counts of diffraction patterns, and its gradients
//!   ([`diffraction`]).
//!
//! Functions take slices, and return vectors or fill the caller's buffers. No input
//! makes them panic: [`check`] holds the preconditions, [`Error`] the messages.
//! Neither the number of threads ([`parallel`]) nor the instruction set ([`simd`])
//! changes any bit of a result.
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

// Tests may allocate in the ways that clippy.toml forbids: they need little.
#![cfg_attr(test, allow(clippy::disallowed_macros, clippy::disallowed_methods))]

pub mod bounds;
pub mod check;
pub mod diffraction;
pub mod energy;
mod error;
pub mod gather;
pub mod groups;
mod hints;
pub mod index;
mod interleave;
mod memory;
pub mod parallel;
pub mod patches;
pub mod philox;
mod shared;
pub mod simd;

pub use error::{Error, Result};
