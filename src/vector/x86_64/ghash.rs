//! GHASH (NIST SP 800-38D §6.4), as the POLYVAL of RFC 8452 §3 on blocks read last byte first: its bits stand the
//! way that the processor multiplies, and nothing need be shifted.
//!
//! A sum of products needs one reduction, whatever its length: block i of n goes with the power n − i of the key.

use std::arch::x86_64::*;

use zeroize::{Zeroize, Zeroizing};

use super::memory::{BLOCK_LEN, Block, PAIR_LEN, array_at, load, load_pair, store, turn, turn_pair};

/// Blocks that one sum takes: four of associated data, sixteen of ciphertext and the lengths, made even.
pub(super) const SUM_BLOCK_COUNT_MAX: usize = 22;

/// Places for the powers and for the zeros behind them, by whole cache lines.
const PLACE_COUNT: usize = (SUM_BLOCK_COUNT_MAX + 1).next_multiple_of(4);
/// Places of those that a short packet takes: a header of three blocks, ten of payload and the lengths.
const LOW_PLACE_COUNT: usize = 16;

/// The powers of one key.
pub(super) struct Powers {
    /// The highest first, the key itself last but one, then zeros for the second place of a pair that has none.
    powers: [Block; PLACE_COUNT],
}

impl Powers {
    /// Of no key yet.
    pub(super) const EMPTY: Powers = Powers { powers: [[0; BLOCK_LEN]; PLACE_COUNT] };

    /// Those of a key, which is the block of zeros, encrypted.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn expand(&mut self, key: &Block) {
        // RFC 8452, appendix A: the key times x in POLYVAL's field.
        let mut key = Zeroizing::new(u128::from_be_bytes(*key));
        let carried = (*key >> 127).wrapping_neg() & (0xC2 << 120 | 1);
        *key = *key << 1 ^ carried;
        let key = load(&Zeroizing::new(key.to_le_bytes()));
        let mut power = key;
        for place in self.powers[..PLACE_COUNT - 1].iter_mut().rev() {
            store(place, power);
            power = product(power, key);
        }
    }

    /// The hash goes on from `state` over whole blocks, one after the other.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn slowly(&self, state: __m128i, blocks: &[Block]) -> __m128i {
        let key = _mm256_castsi256_si128(self.pair(1));
        let mut state = turn(state);
        for block in blocks {
            state = product(_mm_xor_si128(state, turn(load(block))), key);
        }
        turn(state)
    }

    /// Those that a short packet takes.
    #[inline]
    pub(super) fn low(&self) -> &[Block; LOW_PLACE_COUNT] {
        self.powers.last_chunk().expect("fewer than all")
    }

    /// The power `n` of the key, and behind it the next lower.
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn pair(&self, n: usize) -> __m256i {
        load_pair(array_at::<PAIR_LEN>(self.powers.as_flattened(), BLOCK_LEN * (PLACE_COUNT - 1 - n)))
    }
}

impl Drop for Powers {
    fn drop(&mut self) {
        self.powers.zeroize();
    }
}

/// A sum of products that is not reduced yet, the one of each half by itself.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    low: __m256i,
    middle: __m256i,
    high: __m256i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn new() -> Sum {
        let zero = _mm256_setzero_si256();
        Sum { low: zero, middle: zero, high: zero }
    }

    /// Adds two blocks, of which the first has `n` − 1 behind it.
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn add(&mut self, powers: &Powers, n: usize, pair: __m256i) {
        let (pair, power) = (turn_pair(pair), powers.pair(n));
        self.low = _mm256_xor_si256(self.low, _mm256_clmulepi64_epi128::<0x00>(pair, power));
        self.high = _mm256_xor_si256(self.high, _mm256_clmulepi64_epi128::<0x11>(pair, power));
        self.middle = _mm256_xor_si256(self.middle, _mm256_clmulepi64_epi128::<0x01>(pair, power));
        self.middle = _mm256_xor_si256(self.middle, _mm256_clmulepi64_epi128::<0x10>(pair, power));
    }

    /// The sum, as one block.
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    pub(super) fn reduce(self) -> __m128i {
        let [low, middle, high] = [self.low, self.middle, self.high]
            .map(|pair| _mm_xor_si128(_mm256_castsi256_si128(pair), _mm256_extracti128_si256::<1>(pair)));
        turn(reduce(low, middle, high))
    }
}

/// Of two blocks, turned, as is the result.
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn product(a: __m128i, b: __m128i) -> __m128i {
    let middle = _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    reduce(_mm_clmulepi64_si128::<0x00>(a, b), middle, _mm_clmulepi64_si128::<0x11>(a, b))
}

/// 256 bits to 128: twice the low word is taken away by a multiple of the field's polynomial.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn reduce(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    let polynomial = _mm_set_epi64x(0, 0xC2 << 56);
    let mut low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
    let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
    for _ in 0..2 {
        let folded = _mm_clmulepi64_si128::<0x00>(low, polynomial);
        low = _mm_xor_si128(_mm_shuffle_epi32::<0b01_00_11_10>(low), folded);
    }
    _mm_xor_si128(low, high)
}
