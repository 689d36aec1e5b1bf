//! AES (FIPS 197): the key schedule, and counter blocks by the pair.

use std::arch::x86_64::*;

use zeroize::{Zeroize, Zeroizing};

use super::memory::{BLOCK_LEN, Block, fetch, load, load_twice, store, turn_pair};

/// Rounds of AES-128.
const ROUNDS_SHORT: usize = 10;
/// Rounds of AES-256.
const ROUNDS_LONG: usize = 14;
/// Round keys of AES-256.
const ROUND_KEY_COUNT_MAX: usize = ROUNDS_LONG + 1;

/// An expanded key. What AES-128 has of it comes first, so that it lies in as few cache lines as it takes.
#[repr(C)]
pub(super) struct Schedule {
    /// The last round's.
    pub(super) last: Block,
    /// Of those before it, as many as AES-128 has.
    pub(super) short: [Block; ROUNDS_SHORT],
    /// AES-256, which is no secret.
    pub(super) is_long: bool,
    /// And what that has besides.
    pub(super) long: [Block; ROUNDS_LONG - ROUNDS_SHORT],
}

/// An array of registers, each of its blocks encrypted. No function, as the compiler can only be made to put it where it
/// is used, with the registers as they are, by not asking.
macro_rules! encrypt {
    ($schedule:expr, $blocks:expr) => {{
        let (schedule, mut blocks): (&Schedule, _) = (&$schedule, $blocks);
        let key = load_twice(&schedule.short[0]);
        for block in &mut blocks {
            *block = _mm256_xor_si256(*block, key);
        }
        for key in &schedule.short[1..] {
            let key = load_twice(key);
            for block in &mut blocks {
                *block = _mm256_aesenc_epi128(*block, key);
            }
        }
        if schedule.is_long {
            for key in &schedule.long {
                let key = load_twice(key);
                for block in &mut blocks {
                    *block = _mm256_aesenc_epi128(*block, key);
                }
            }
        }
        let key = load_twice(&schedule.last);
        for block in &mut blocks {
            *block = _mm256_aesenclast_epi128(*block, key);
        }
        blocks
    }};
}
pub(super) use encrypt;

impl Schedule {
    /// Of no key yet.
    pub(super) const EMPTY: Schedule = Schedule {
        last: [0; BLOCK_LEN],
        short: [[0; BLOCK_LEN]; ROUNDS_SHORT],
        is_long: false,
        long: [[0; BLOCK_LEN]; ROUNDS_LONG - ROUNDS_SHORT],
    };

    /// Expands a key, where the schedule lies (FIPS 197 §5.2, word by word).
    ///
    /// # Panics
    /// Unless `key` has 16 or 32 bytes.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn expand(&mut self, key: &[u8]) {
        assert!(key.len() == 16 || key.len() == 32, "an AES key of {} bytes", key.len());
        let (key_words, _) = key.as_chunks();
        let len = key_words.len();
        let rounds = len + 6;
        let mut words = Zeroizing::new([0; 4 * ROUND_KEY_COUNT_MAX]);
        for (word, bytes) in words.iter_mut().zip(key_words) {
            *word = u32::from_le_bytes(*bytes);
        }
        let mut round_constant: u32 = 1;
        for at in len..4 * (rounds + 1) {
            let mut word = words[at - 1];
            if at % len == 0 {
                // The instruction's word is little-endian, so this turns the other way.
                word = substitute(word).rotate_right(8) ^ round_constant;
                round_constant = (round_constant << 1) ^ ((round_constant >> 7) * 0x11B);
            } else if len == 8 && at % len == 4 {
                word = substitute(word);
            }
            words[at] = words[at - len] ^ word;
        }
        self.is_long = len == 8;
        let (round_keys, _) = words.as_chunks::<4>();
        for (place, round_key) in self.short.iter_mut().chain(&mut self.long).zip(&round_keys[..rounds]) {
            write(round_key, place);
        }
        write(&round_keys[rounds], &mut self.last);
    }

    /// What AES-128 has is wanted in a moment.
    pub(super) fn fetch_short(&self) {
        fetch(&self.last);
        fetch(&self.short);
    }

    /// Encrypts one block, in place.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn encrypt_block(&self, block: &mut Block) {
        let [pair] = encrypt!(*self, [_mm256_zextsi128_si256(load(block))]);
        store(block, _mm256_castsi256_si128(pair));
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        self.last.zeroize();
        self.short.zeroize();
        self.long.zeroize();
    }
}

fn write(round_key: &[u32; 4], place: &mut Block) {
    for (bytes, word) in place.as_chunks_mut().0.iter_mut().zip(round_key) {
        *bytes = word.to_le_bytes();
    }
}

/// SubWord of FIPS 197, in constant time.
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn substitute(word: u32) -> u32 {
    let assisted = _mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word.cast_signed()));
    _mm_cvtsi128_si32(assisted).cast_unsigned()
}

/// Counter blocks of one packet: 96 bits that stay, a counter of 32 bits.
#[derive(Clone, Copy)]
pub(super) struct Counter {
    /// The block with counter 0, last byte first, in both halves.
    block: __m256i,
}

impl Counter {
    /// The high 96 bits of `iv` stay; what it counts from is its low word.
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn new(iv: u128) -> Counter {
        let block = _mm_set_epi64x((iv >> 64) as i64, iv as i64);
        Counter { block: _mm256_broadcastsi128_si256(block) }
    }

    /// The counter blocks `first`, `first` + 1, … .
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn blocks<const N: usize>(self, first: u32) -> [__m256i; N] {
        let first = first.cast_signed();
        let step = _mm256_set_epi64x(0, 2, 0, 2);
        let mut block =
            _mm256_add_epi32(self.block, _mm256_set_epi64x(0, i64::from(first + 1), 0, i64::from(first)));
        std::array::from_fn(|_| {
            let turned = turn_pair(block);
            block = _mm256_add_epi32(block, step);
            turned
        })
    }
}
