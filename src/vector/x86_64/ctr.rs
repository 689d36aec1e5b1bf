//! AES in counter mode (NIST SP 800-38A §6.5).

use std::arch::x86_64::*;

use super::aes::{Counter, Schedule, encrypt};
use super::cpu::Vaes;
use super::memory::{
    BLOCK_LEN, PAIR_LEN, array_at, array_at_mut, first, load, load_pair, load_twice, load_up_to_block, pair,
    second, store, store_pair, store_up_to_block,
};

/// Registers of one go.
const PAIR_COUNT: usize = 4;
/// Bytes of one go.
const STRIDE: usize = PAIR_COUNT * PAIR_LEN;

/// One key, expanded.
pub struct Ctr {
    schedule: Schedule,
    made_with: Vaes,
}

impl Ctr {
    /// Expands a key.
    ///
    /// # Panics
    /// Unless `key` has 16 or 32 bytes.
    pub fn new(vaes: Vaes, key: &[u8]) -> Ctr {
        let mut ctr = Ctr { schedule: Schedule::EMPTY, made_with: vaes };
        // SAFETY: `vaes` is proof that the processor has what this asks for.
        unsafe { ctr.schedule.expand(key) };
        ctr
    }

    /// What it was made with.
    pub fn vaes(&self) -> Vaes {
        self.made_with
    }

    /// Encrypts or decrypts `from` into `to`. The counter is the low word of `iv`, and does not carry further.
    ///
    /// # Panics
    /// Unless both are equally long.
    pub fn apply(&self, iv: u128, from: &[u8], to: &mut [u8]) {
        assert_eq!(from.len(), to.len(), "room for all of it");
        // SAFETY: `self` was made with proof that the processor has what this asks for.
        unsafe { self.apply_vector(iv, from, to) }
    }

    /// [`Ctr::apply`] in place.
    pub fn apply_in_place(&self, iv: u128, bytes: &mut [u8]) {
        // SAFETY: `self` was made with proof that the processor has what this asks for.
        unsafe { self.apply_in_place_vector(iv, bytes) }
    }

    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn apply_vector(&self, iv: u128, from: &[u8], to: &mut [u8]) {
        let counter = Counter::new(iv);
        let (from, from_end) = from.as_chunks::<STRIDE>();
        let (to, to_end) = to.as_chunks_mut::<STRIDE>();
        let mut next = 0;
        for (from, to) in from.iter().zip(to) {
            let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(next));
            for (at, keystream) in keystream.into_iter().enumerate() {
                let value = load_pair(array_at(from, at * PAIR_LEN));
                store_pair(array_at_mut(to, at * PAIR_LEN), _mm256_xor_si256(value, keystream));
            }
            next += 2 * PAIR_COUNT as u32;
        }
        if !from_end.is_empty() {
            let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(next));
            for (at, keystream) in keystream.into_iter().enumerate() {
                let start = at * PAIR_LEN;
                if start >= from_end.len() {
                    break;
                }
                let value = load_up_to_pair(&from_end[start..]);
                store_up_to_pair(&mut to_end[start..], _mm256_xor_si256(value, keystream));
            }
        }
    }

    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn apply_in_place_vector(&self, iv: u128, bytes: &mut [u8]) {
        let counter = Counter::new(iv);
        let mut next = 0;
        for bytes in bytes.chunks_mut(STRIDE) {
            let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(next));
            for (at, keystream) in keystream.into_iter().enumerate() {
                let start = at * PAIR_LEN;
                if start >= bytes.len() {
                    break;
                }
                let value = load_up_to_pair(&bytes[start..]);
                store_up_to_pair(&mut bytes[start..], _mm256_xor_si256(value, keystream));
            }
            next += 2 * PAIR_COUNT as u32;
        }
    }
}

/// The first 32 bytes, or as many as there are and zeros behind them.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn load_up_to_pair(bytes: &[u8]) -> __m256i {
    if let Some(pair) = bytes.first_chunk() {
        load_pair(pair)
    } else if let Some((block, rest)) = bytes.split_first_chunk() {
        pair(load(block), load_up_to_block(rest))
    } else {
        _mm256_zextsi128_si256(load_up_to_block(bytes))
    }
}

/// Where [`load_up_to_pair`] came from.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn store_up_to_pair(bytes: &mut [u8], value: __m256i) {
    if let Some(pair) = bytes.first_chunk_mut() {
        store_pair(pair, value);
    } else if bytes.len() < BLOCK_LEN {
        store_up_to_block(bytes, first(value));
    } else if let Some((block, rest)) = bytes.split_first_chunk_mut() {
        store(block, first(value));
        store_up_to_block(rest, second(value));
    }
}
