//! What SRTP computes: AES and GHASH two blocks at a time on the 256-bit registers of x86-64 (VAES, VPCLMULQDQ, AVX2),
//! SHA-1 with its SHA instructions. One of the two rooms with `unsafe` in it; the other is `net`.
//!
//! The contract. Everything public is safe and takes slices; wrong lengths panic before anything is written.
//! * *Processor.* A function that needs more than x86-64 has `#[target_feature]`, and is entered only through a
//!   value that was made with [`Vaes`], which exists only where the processor was asked.
//! * *Memory.* Loads and stores take a reference to an array of just their width (`x86_64::memory`), which only a
//!   bounds-checked split of a slice gives. So nothing before or behind a slice is ever touched.
//! * *Secrets.* No branch and no address depends on a key, a plaintext or a tag; lengths are public. Keys and what is
//!   made of them are wiped when dropped, and so is what else holds them while a key is expanded. Not promised:
//!   registers, what the compiler spills of them, and the copy that a move leaves behind. A [`Gcm`] is filled in its box
//!   and not moved; a [`Ctr`] and an [`HmacSha1`] are.
//!
//! Other processors get types of the same names that nobody can make: they lose speed, nothing else. `--cfg
//! vector_absent` gives them to any, for the check.

#[cfg(any(not(target_arch = "x86_64"), vector_absent))]
mod absent;
#[cfg(all(target_arch = "x86_64", not(vector_absent)))]
mod x86_64;

#[cfg(any(not(target_arch = "x86_64"), vector_absent))]
pub use absent::{Ctr, Gcm, HmacSha1, Vaes, fetch, fetch_start_behind};
#[cfg(all(target_arch = "x86_64", not(vector_absent)))]
pub use x86_64::{Ctr, Gcm, HmacSha1, Vaes, fetch, fetch_start_behind};

/// Bytes of a cache line: what memory gives at once.
pub const LINE_LEN: usize = 64;

/// A tag that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forged;
