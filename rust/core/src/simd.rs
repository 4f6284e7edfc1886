//! Vector instructions, chosen at run time.
//!
//! A kernel is written once, generic over [`pulp::Simd`], and compiled for several
//! instruction sets. The widest that the processor supports is used, unless the
//! environment variable `PTYCHO_FAST_SIMD` names another. The choice does not
//! change any bit of a result.

use std::env;
use std::sync::OnceLock;

use pulp::{Arch, Scalar256b, WithSimd};

use crate::{Error, Result};

/// An instruction set.
#[derive(Clone, Copy)]
enum Instructions {
    /// The instructions that every processor of the architecture has.
    Portable,
    /// AVX2, AVX-512, NEON.
    Wide(Arch),
}

/// Runs `kernel` with the widest instructions of the processor, or with those that
/// `PTYCHO_FAST_SIMD` names.
pub fn run<K: WithSimd>(kernel: K) -> Result<K::Output> {
    static CHOSEN: OnceLock<Result<Instructions>> = OnceLock::new();
    match CHOSEN.get_or_init(|| choose(env::var("PTYCHO_FAST_SIMD").ok().as_deref())) {
        Ok(Instructions::Portable) => Ok(kernel.with_simd(Scalar256b)),
        Ok(Instructions::Wide(arch)) => Ok(arch.dispatch(kernel)),
        Err(error) => Err(error.clone()),
    }
}

/// The name of the instructions that [`run`] uses.
pub fn name() -> Result<&'static str> {
    struct Name;
    impl WithSimd for Name {
        type Output = &'static str;

        fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
            let name = std::any::type_name::<S>();
            if name.ends_with("V4") {
                "avx512"
            } else if name.ends_with("V3") {
                "avx2"
            } else if name.ends_with("Neon") {
                "neon"
            } else {
                "portable"
            }
        }
    }
    run(Name)
}

fn choose(asked: Option<&str>) -> Result<Instructions> {
    let found = match asked {
        None => Some(Instructions::Wide(Arch::new())),
        Some("portable") => Some(Instructions::Portable),
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => pulp::x86::V3::try_new().map(|v3| Instructions::Wide(Arch::V3(v3))),
        #[cfg(target_arch = "x86_64")]
        Some("avx512") => pulp::x86::V4::try_new().map(|v4| Instructions::Wide(Arch::V4(v4))),
        Some(_) => None,
    };
    found.ok_or_else(|| Error::SimdVariable {
        found: asked.unwrap_or_default().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_instructions_are_refused() {
        assert!(choose(None).is_ok());
        assert!(choose(Some("portable")).is_ok());
        for name in ["", "AVX2", "sse9"] {
            let refusal = choose(Some(name)).err();
            assert_eq!(
                refusal,
                Some(Error::SimdVariable {
                    found: name.to_owned()
                })
            );
        }
        assert!(name().is_ok());
    }
}
