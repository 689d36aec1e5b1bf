//! HMAC-SHA1 (RFC 2104, FIPS 180-4 §6.1) with the processor's SHA instructions.

use std::arch::x86_64::*;

use zeroize::{Zeroize, Zeroizing};

use super::cpu::Vaes;
use super::memory::{Block, array_at, array_at_mut, load, store, turn};

/// Length of a digest.
const DIGEST_LEN: usize = 20;
/// Bytes that one step takes.
const STEP_LEN: usize = 64;
/// Most bytes of an `end`.
const END_LEN_MAX: usize = 16;
/// Length of the length that ends the padding.
const LEN_LEN: usize = 8;
/// Behind the whole steps of a message: less than one, an end, and the padding.
const REST_LEN_MAX: usize = 2 * STEP_LEN;

const _: () = assert!(STEP_LEN - 1 + END_LEN_MAX + 1 + LEN_LEN <= REST_LEN_MAX);

/// One key, expanded: the two states of SHA-1 that have taken in the padded key.
pub struct HmacSha1 {
    inner: Stored,
    outer: Stored,
    _made_with: Vaes,
}

/// A state between two steps, in memory.
struct Stored {
    abcd: Block,
    e: Block,
}

/// The same in registers: a, b, c and d from the top down, and e at the top.
#[derive(Clone, Copy)]
struct State {
    abcd: __m128i,
    e: __m128i,
}

/// Sixteen words, each four from the top down.
type Words = [__m128i; 4];

impl HmacSha1 {
    /// Expands a key of up to 64 bytes.
    ///
    /// # Panics
    /// When it is longer.
    pub fn new(vaes: Vaes, key: &[u8]) -> HmacSha1 {
        assert!(key.len() <= STEP_LEN, "a key of {} bytes", key.len());
        let mut hmac = HmacSha1 { inner: Stored::EMPTY, outer: Stored::EMPTY, _made_with: vaes };
        for (state, pad) in [(&mut hmac.inner, 0x36), (&mut hmac.outer, 0x5C)] {
            // SAFETY: `vaes` is proof that the processor has what this asks for.
            unsafe { state.begin(key, pad) };
        }
        hmac
    }

    /// The digest of `message` and `end` (at most 16 bytes) behind it.
    ///
    /// # Panics
    /// When `end` is longer.
    pub fn digest(&self, message: &[u8], end: &[u8]) -> [u8; DIGEST_LEN] {
        assert!(end.len() <= END_LEN_MAX, "an end of {} bytes", end.len());
        // SAFETY: the key was made with proof that the processor has what this asks for.
        unsafe { digest(self, message, end) }
    }
}

impl Drop for HmacSha1 {
    fn drop(&mut self) {
        for state in [&mut self.inner, &mut self.outer] {
            state.abcd.zeroize();
            state.e.zeroize();
        }
    }
}

#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn digest(key: &HmacSha1, message: &[u8], end: &[u8]) -> [u8; DIGEST_LEN] {
    let mut state = key.inner.load();
    // Whole steps of the message are read where they lie; what is left has end and padding put behind it (FIPS 180-4
    // §5.1.1).
    let (whole, left) = message.as_chunks::<STEP_LEN>();
    for bytes in whole {
        state = step(state, words(bytes));
    }
    let mut rest = [0; REST_LEN_MAX];
    rest[..left.len()].copy_from_slice(left);
    for (to, from) in rest[left.len()..].iter_mut().zip(end) {
        *to = *from;
    }
    let len = left.len() + end.len();
    rest[len] = 0x80;
    let rest_len = (len + 1 + LEN_LEN).next_multiple_of(STEP_LEN);
    let bits = 8 * (STEP_LEN + message.len() + end.len()) as u64;
    *array_at_mut(&mut rest, rest_len - LEN_LEN) = bits.to_be_bytes();
    for at in (0..rest_len).step_by(STEP_LEN) {
        state = step(state, words(array_at(&rest, at)));
    }
    // The digest stands in its registers just as the outer hash wants its first five words.
    let bits = 8 * (STEP_LEN + DIGEST_LEN) as i32;
    let e = _mm_or_si128(state.e, _mm_set_epi32(0, i32::MIN, 0, 0));
    let inner = [state.abcd, e, _mm_setzero_si128(), _mm_set_epi32(0, 0, 0, bits)];
    step(key.outer.load(), inner).digest()
}

impl Stored {
    /// Of no key yet.
    const EMPTY: Stored = Stored { abcd: [0; 16], e: [0; 16] };

    /// The state after the padded key (RFC 2104 §2).
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn begin(&mut self, key: &[u8], pad: u8) {
        let mut padded = Zeroizing::new([pad; STEP_LEN]);
        for (byte, key) in padded.iter_mut().zip(key) {
            *byte ^= key;
        }
        let start = State {
            abcd: _mm_set_epi32(
                0x6745_2301,
                0xEFCD_AB89_u32.cast_signed(),
                0x98BA_DCFE_u32.cast_signed(),
                0x1032_5476,
            ),
            e: _mm_set_epi32(0xC3D2_E1F0_u32.cast_signed(), 0, 0, 0),
        };
        let state = step(start, words(&padded));
        store(&mut self.abcd, state.abcd);
        store(&mut self.e, state.e);
    }

    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn load(&self) -> State {
        State { abcd: load(&self.abcd), e: load(&self.e) }
    }
}

impl State {
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn digest(self) -> [u8; DIGEST_LEN] {
        let mut digest = [0; DIGEST_LEN];
        store(array_at_mut(&mut digest, 0), turn(self.abcd));
        *array_at_mut(&mut digest, 16) = _mm_extract_epi32::<3>(self.e).to_be_bytes();
        digest
    }
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn words(bytes: &[u8; STEP_LEN]) -> Words {
    [0, 16, 32, 48].map(|at| turn(load(array_at(bytes, at))))
}

/// One step of the hash (FIPS 180-4 §6.1.2): eighty rounds, four at a time, with one of four functions for each twenty.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn step(state: State, mut words: Words) -> State {
    let mut current = state.abcd;
    let mut before = state.abcd;
    macro_rules! rounds {
        ($function:literal, $($at:literal)*) => {$(
            if $at >= 4 {
                let [a, b, c, d] = [0, 1, 2, 3].map(|back| words[($at + back) % 4]);
                words[$at % 4] = _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(a, b), c), d);
            }
            let word = words[$at % 4];
            let with_e =
                if $at == 0 { _mm_add_epi32(state.e, word) } else { _mm_sha1nexte_epu32(before, word) };
            before = current;
            current = _mm_sha1rnds4_epu32::<$function>(current, with_e);
        )*};
    }
    rounds!(0, 0 1 2 3 4);
    rounds!(1, 5 6 7 8 9);
    rounds!(2, 10 11 12 13 14);
    rounds!(3, 15 16 17 18 19);
    State { abcd: _mm_add_epi32(current, state.abcd), e: _mm_sha1nexte_epu32(before, state.e) }
}
