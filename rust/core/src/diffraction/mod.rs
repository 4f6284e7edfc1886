//! Diffraction: from an object and a probe to the likelihood of measured counts, and
//! its gradients.
//!
//! ```text
//! I[j] = s[j] sum over m of |F(P[m] O(x[j]))|^2 + b
//! L = sum over measured pixels of  I - k + k ln(k / I)
//! ```
//!
//! F is the centred orthonormal Fourier transform, O(x) the patch of
//! [`crate::patches`], k the counts, s the exposure of a pattern, b the background. L
//! is half the Poisson deviance. The gradient with respect to a complex number z is
//! `dL/d Re(z) + i dL/d Im(z)`.
//!
//! Waves are float32, sums over patterns float64. Patterns are cut into parts that do
//! not depend on the number of threads, so no result does.

mod curvature;
mod experiment;
mod gradient;
mod intensity;
mod loss;
mod transform;

pub use experiment::{Counts, Diffraction, Patterns, Sample};
pub use gradient::Wanted;
pub use loss::FLOOR;
