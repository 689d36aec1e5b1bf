//! What the transforms run on.

use std::fmt;

use crate::vector::Vaes;

/// Which of two implementations, equal but in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptoPath {
    /// Our own, on wide registers.
    Vector(Vaes),
    /// That of libraries, on any processor.
    Portable,
}

impl CryptoPath {
    /// The fastest that this processor has.
    pub fn best() -> CryptoPath {
        Vaes::detect().map_or(CryptoPath::Portable, CryptoPath::Vector)
    }
}

impl fmt::Display for CryptoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CryptoPath::Vector(_) => "vector: VAES, VPCLMULQDQ",
            CryptoPath::Portable => "portable: this processor lacks VAES, VPCLMULQDQ or AVX2",
        })
    }
}
