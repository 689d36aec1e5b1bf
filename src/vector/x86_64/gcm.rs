//! AES-GCM (NIST SP 800-38D §7), for nonces of 96 bits and tags of 128.

use std::arch::x86_64::*;
use std::mem;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::aes::{Counter, Schedule, encrypt};
use super::cpu::Vaes;
use super::ghash::{Powers, Sum};
use super::memory::{
    BLOCK_LEN, Block, PAIR_LEN, Pair, array_at, array_at_mut, fetch, first, load, load_end, load_pair,
    load_twice, load_up_to_block, ones, pair, second, store, store_pair,
};
use crate::vector::{Forged, LINE_LEN};

/// Length of a tag.
const TAG_LEN: usize = BLOCK_LEN;

/// Blocks that fit beside the tag's own into the registers of one go.
const SHORT_BLOCK_COUNT_MAX: usize = 15;
/// Registers of one go.
const PAIR_COUNT: usize = 8;
/// Bytes of one go.
const STRIDE: usize = PAIR_COUNT * PAIR_LEN;

/// One key, expanded. In cache lines of its own; those that a packet of some hundred bytes takes stand side by side: the
/// low powers, and the round keys behind them.
#[repr(C, align(64))]
pub struct Gcm {
    powers: Powers,
    schedule: Schedule,
    made_with: Vaes,
}

const _: () = assert!(mem::offset_of!(Gcm, schedule).is_multiple_of(LINE_LEN));

/// Begins the hash: all of `aad` but its last block, which is given back to be paired with what comes next.
/// `behind` blocks stand behind that. No function, for the reason that [`encrypt`] is none.
macro_rules! begin {
    ($gcm:expr, $sum:ident, $aad:expr, $behind:expr) => {{
        let (gcm, aad, behind): (&Gcm, &[u8], usize) = ($gcm, $aad, $behind);
        if aad.len() <= BLOCK_LEN {
            load_up_to_block(aad)
        } else if aad.len() <= 2 * BLOCK_LEN {
            $sum.add(&gcm.powers, behind + 3, pair(_mm_setzero_si128(), load(array_at(aad, 0))));
            load_end(aad, aad.len() - BLOCK_LEN)
        } else {
            let (begun, last) = gcm.begin_long($sum, aad, behind);
            $sum = begun;
            last
        }
    }};
}

impl Gcm {
    /// Expands a key.
    ///
    /// # Panics
    /// Unless `key` has 16 or 32 bytes.
    pub fn new(vaes: Vaes, key: &[u8]) -> Box<Gcm> {
        // Filled where it stays: a move would leave a copy behind that nobody wipes.
        let mut gcm = Box::new(Gcm { powers: Powers::EMPTY, schedule: Schedule::EMPTY, made_with: vaes });
        // SAFETY: `vaes` is proof that the processor has what this asks for.
        unsafe { gcm.expand(key) };
        gcm
    }

    /// Encrypts `plaintext` into `out`, which is longer by 16 bytes, and writes the tag behind it. The nonce is a
    /// big-endian number of 96 bits; a number stays in registers on its way here.
    ///
    /// # Panics
    /// When `out` is of another length.
    pub fn seal(&self, nonce: u128, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        assert_eq!(out.len(), plaintext.len() + TAG_LEN, "room for ciphertext and tag");
        // SAFETY: `self` was made with proof that the processor has what this asks for.
        unsafe { self.seal_vector(nonce << 32, aad, plaintext, out) }
    }

    /// Decrypts in place what lies before the tag, the last 16 bytes, if that verifies.
    ///
    /// # Errors
    /// [`Forged`], and nothing is changed.
    ///
    /// # Panics
    /// When there are fewer bytes than a tag has.
    pub fn open(&self, nonce: u128, aad: &[u8], bytes: &mut [u8]) -> Result<(), Forged> {
        assert!(bytes.len() >= TAG_LEN, "a tag");
        // SAFETY: `self` was made with proof that the processor has what this asks for.
        unsafe { self.open_vector(nonce << 32, aad, bytes) }
    }

    /// A short packet is sealed or opened in a moment.
    pub fn fetch(&self) {
        fetch(self.powers.low());
        self.schedule.fetch_short();
    }

    /// What it was made with.
    pub fn vaes(&self) -> Vaes {
        self.made_with
    }

    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn expand(&mut self, key: &[u8]) {
        self.schedule.expand(key);
        let mut hash_key = Zeroizing::new([0; BLOCK_LEN]);
        self.schedule.encrypt_block(&mut hash_key);
        self.powers.expand(&hash_key);
    }

    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn seal_vector(&self, iv: u128, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        let counter = Counter::new(iv);
        match plaintext.len().div_ceil(BLOCK_LEN) {
            0 => self.seal_short::<1, false>(counter, aad, plaintext, out),
            1 => self.seal_short::<1, true>(counter, aad, plaintext, out),
            2 => self.seal_short::<2, false>(counter, aad, plaintext, out),
            3 => self.seal_short::<2, true>(counter, aad, plaintext, out),
            4 => self.seal_short::<3, false>(counter, aad, plaintext, out),
            5 => self.seal_short::<3, true>(counter, aad, plaintext, out),
            6 => self.seal_short::<4, false>(counter, aad, plaintext, out),
            7 => self.seal_short::<4, true>(counter, aad, plaintext, out),
            8 => self.seal_short::<5, false>(counter, aad, plaintext, out),
            9 => self.seal_short::<5, true>(counter, aad, plaintext, out),
            10 => self.seal_short::<6, false>(counter, aad, plaintext, out),
            11 => self.seal_short::<6, true>(counter, aad, plaintext, out),
            12 => self.seal_short::<7, false>(counter, aad, plaintext, out),
            13 => self.seal_short::<7, true>(counter, aad, plaintext, out),
            14 => self.seal_short::<8, false>(counter, aad, plaintext, out),
            15 => self.seal_short::<8, true>(counter, aad, plaintext, out),
            _ => self.seal_long(counter, aad, plaintext, out),
        }
    }

    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn open_vector(&self, iv: u128, aad: &[u8], bytes: &mut [u8]) -> Result<(), Forged> {
        let counter = Counter::new(iv);
        match bytes.len().div_ceil(BLOCK_LEN) - 1 {
            0..=1 => self.open_short::<1>(counter, aad, bytes),
            2..=3 => self.open_short::<2>(counter, aad, bytes),
            4..=5 => self.open_short::<3>(counter, aad, bytes),
            6..=7 => self.open_short::<4>(counter, aad, bytes),
            8..=9 => self.open_short::<5>(counter, aad, bytes),
            10..=11 => self.open_short::<6>(counter, aad, bytes),
            12..=13 => self.open_short::<7>(counter, aad, bytes),
            14..=SHORT_BLOCK_COUNT_MAX => self.open_short::<8>(counter, aad, bytes),
            _ => self.open_long(counter, aad, bytes),
        }
    }

    /// 2N − 2 blocks, or one more if `IS_ODD`, the last of which may not be whole: `N` registers hold the tag's
    /// keystream and theirs.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    #[expect(clippy::needless_range_loop, reason = "a register's number says where its bytes are, too")]
    fn seal_short<const N: usize, const IS_ODD: bool>(
        &self,
        counter: Counter,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut [u8],
    ) {
        let len = plaintext.len();
        let block_count = 2 * N - 2 + usize::from(IS_ODD);
        assert!(len.div_ceil(BLOCK_LEN) == block_count && out.len() == len + TAG_LEN);
        let keystream = encrypt!(self.schedule, counter.blocks::<N>(1));
        let lengths = lengths(aad.len(), len);
        let mut sum = Sum::new();
        let last_of_aad = begin!(self, sum, aad, block_count + 1);
        // How many blocks stand behind the first of the last register, itself included.
        let end = 2 + usize::from(IS_ODD);
        let power = |at: usize| 2 * (N - 1 - at) + end;

        if N == 1 {
            let ciphertext =
                _mm_and_si128(_mm_xor_si128(load_up_to_block(plaintext), second(keystream[0])), ones(len));
            store(array_at_mut(out, 0), ciphertext);
            let behind = if len == 0 { lengths } else { ciphertext };
            sum.add(&self.powers, power(0), pair(last_of_aad, behind));
        } else {
            let ciphertext = _mm_xor_si128(load(array_at(plaintext, 0)), second(keystream[0]));
            store(array_at_mut(out, 0), ciphertext);
            sum.add(&self.powers, power(0), pair(last_of_aad, ciphertext));
            for at in 1..N - 1 {
                let start = place(at);
                let ciphertext = _mm256_xor_si256(load_pair(array_at(plaintext, start)), keystream[at]);
                store_pair(array_at_mut(out, start), ciphertext);
                sum.add(&self.powers, power(at), ciphertext);
            }
            let (start, keystream) = (place(N - 1), keystream[N - 1]);
            let last = if IS_ODD {
                seal_last_pair(plaintext, out, start, keystream)
            } else {
                pair(seal_last_block(plaintext, out, start, keystream), lengths)
            };
            sum.add(&self.powers, end, last);
        }
        if IS_ODD {
            sum.add(&self.powers, 1, _mm256_zextsi128_si256(lengths));
        }
        let tag = _mm_xor_si128(sum.reduce(), first(keystream[0]));
        store(array_at_mut(out, len), tag);
    }

    /// As many blocks as [`Gcm::seal_short`]. Keystream and hash are independent, and computed side by side.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    #[expect(clippy::needless_range_loop, reason = "a register's number says where its bytes are, too")]
    fn open_short<const N: usize>(
        &self,
        counter: Counter,
        aad: &[u8],
        bytes: &mut [u8],
    ) -> Result<(), Forged> {
        let len = bytes.len() - TAG_LEN;
        let block_count = len.div_ceil(BLOCK_LEN);
        assert!(block_count / 2 + 1 == N);
        let keystream = encrypt!(self.schedule, counter.blocks::<N>(1));
        let lengths = lengths(aad.len(), len);
        let mut sum = Sum::new();
        let last_of_aad = begin!(self, sum, aad, block_count + 1);
        let end = 2 + block_count % 2;
        let power = |at: usize| 2 * (N - 1 - at) + end;

        if N == 1 {
            let ciphertext = _mm_and_si128(load(array_at(bytes, 0)), ones(len));
            let behind = if len == 0 { lengths } else { ciphertext };
            sum.add(&self.powers, power(0), pair(last_of_aad, behind));
        } else {
            sum.add(&self.powers, power(0), pair(last_of_aad, load(array_at(bytes, 0))));
            for at in 1..N - 1 {
                sum.add(&self.powers, power(at), load_pair(array_at(bytes, place(at))));
            }
            sum.add(&self.powers, end, load_sealed_end(bytes, place(N - 1), lengths));
        }
        if block_count % 2 == 1 {
            sum.add(&self.powers, 1, _mm256_zextsi128_si256(lengths));
        }
        verify(_mm_xor_si128(sum.reduce(), first(keystream[0])), bytes)?;

        if N == 1 {
            decrypt(array_at_mut(bytes, 0), _mm_and_si128(second(keystream[0]), ones(len)));
        } else {
            decrypt(array_at_mut(bytes, 0), second(keystream[0]));
            for at in 1..N - 1 {
                decrypt_pair(array_at_mut(bytes, place(at)), keystream[at]);
            }
            decrypt_end(bytes, place(N - 1), keystream[N - 1]);
        }
        Ok(())
    }

    /// Sixteen blocks or more.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    #[expect(clippy::needless_range_loop, reason = "a register's number says where its bytes are, too")]
    fn seal_long(&self, counter: Counter, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        let len = plaintext.len();
        assert!(len > SHORT_BLOCK_COUNT_MAX * BLOCK_LEN && out.len() == len + TAG_LEN);
        let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(1));
        let mask = first(keystream[0]);
        let mut sum = Sum::new();
        let last_of_aad = begin!(self, sum, aad, SHORT_BLOCK_COUNT_MAX);
        let ciphertext = _mm_xor_si128(load(array_at(plaintext, 0)), second(keystream[0]));
        store(array_at_mut(out, 0), ciphertext);
        sum.add(&self.powers, 2 * PAIR_COUNT, pair(last_of_aad, ciphertext));
        for at in 1..PAIR_COUNT {
            let ciphertext = _mm256_xor_si256(load_pair(array_at(plaintext, place(at))), keystream[at]);
            store_pair(array_at_mut(out, place(at)), ciphertext);
            sum.add(&self.powers, 2 * (PAIR_COUNT - at), ciphertext);
        }
        let mut state = sum.reduce();

        let mut start = SHORT_BLOCK_COUNT_MAX * BLOCK_LEN;
        let mut next = SHORT_BLOCK_COUNT_MAX as u32 + 2;
        while len - start >= STRIDE {
            let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(next));
            let plaintext: &[u8; STRIDE] = array_at(plaintext, start);
            let out: &mut [u8; STRIDE] = array_at_mut(out, start);
            let mut sum = Sum::new();
            let mut carried = _mm256_zextsi128_si256(state);
            for (at, keystream) in keystream.into_iter().enumerate() {
                let ciphertext = _mm256_xor_si256(load_pair(array_at(plaintext, at * PAIR_LEN)), keystream);
                store_pair(array_at_mut(out, at * PAIR_LEN), ciphertext);
                sum.add(&self.powers, 2 * (PAIR_COUNT - at), _mm256_xor_si256(ciphertext, carried));
                carried = _mm256_setzero_si256();
            }
            state = sum.reduce();
            start += STRIDE;
            next += 2 * PAIR_COUNT as u32;
        }

        let lengths = lengths(aad.len(), len);
        let mut behind = (len - start).div_ceil(BLOCK_LEN) + 1;
        let mut sum = Sum::new();
        let mut carried = _mm256_zextsi128_si256(state);
        let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(next));
        for keystream in keystream {
            if behind < 2 {
                break;
            }
            let ciphertext = match len - start {
                PAIR_LEN.. => {
                    let plain: &Pair = array_at(plaintext, start);
                    let ciphertext = _mm256_xor_si256(load_pair(plain), keystream);
                    store_pair(array_at_mut(out, start), ciphertext);
                    ciphertext
                }
                rest if rest > BLOCK_LEN => seal_last_pair(plaintext, out, start, keystream),
                _ => pair(seal_last_block(plaintext, out, start, keystream), lengths),
            };
            sum.add(&self.powers, behind, _mm256_xor_si256(ciphertext, carried));
            carried = _mm256_setzero_si256();
            start += PAIR_LEN;
            behind -= 2;
        }
        if behind == 1 {
            sum.add(&self.powers, 1, _mm256_xor_si256(_mm256_zextsi128_si256(lengths), carried));
        }
        store(array_at_mut(out, len), _mm_xor_si128(sum.reduce(), mask));
    }

    /// Sixteen blocks or more: first the hash, then the keystream.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    fn open_long(&self, counter: Counter, aad: &[u8], bytes: &mut [u8]) -> Result<(), Forged> {
        let len = bytes.len() - TAG_LEN;
        let [mask] = encrypt!(self.schedule, counter.blocks(1));
        let mut sum = Sum::new();
        let last_of_aad = begin!(self, sum, aad, 1);
        sum.add(&self.powers, 2, pair(last_of_aad, load(array_at(bytes, 0))));
        let mut state = sum.reduce();
        let mut start = BLOCK_LEN;
        while len - start >= STRIDE {
            let ciphertext: &[u8; STRIDE] = array_at(bytes, start);
            let mut sum = Sum::new();
            let mut carried = _mm256_zextsi128_si256(state);
            for at in 0..PAIR_COUNT {
                let ciphertext = load_pair(array_at(ciphertext, at * PAIR_LEN));
                sum.add(&self.powers, 2 * (PAIR_COUNT - at), _mm256_xor_si256(ciphertext, carried));
                carried = _mm256_setzero_si256();
            }
            state = sum.reduce();
            start += STRIDE;
        }
        let lengths = lengths(aad.len(), len);
        let mut behind = (len - start).div_ceil(BLOCK_LEN) + 1;
        let mut sum = Sum::new();
        let mut carried = _mm256_zextsi128_si256(state);
        while behind >= 2 {
            let ciphertext = load_sealed_end(bytes, start, lengths);
            sum.add(&self.powers, behind, _mm256_xor_si256(ciphertext, carried));
            carried = _mm256_setzero_si256();
            start += PAIR_LEN;
            behind -= 2;
        }
        if behind == 1 {
            sum.add(&self.powers, 1, _mm256_xor_si256(_mm256_zextsi128_si256(lengths), carried));
        }
        verify(_mm_xor_si128(sum.reduce(), first(mask)), bytes)?;

        let (mut start, mut next) = (0, 2);
        while start < len {
            let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(next));
            for keystream in keystream {
                if start >= len {
                    break;
                }
                decrypt_end(bytes, start, keystream);
                start += PAIR_LEN;
            }
            next += 2 * PAIR_COUNT as u32;
        }
        Ok(())
    }

    /// [`begin`] for headers with CSRCs or many extensions.
    #[target_feature(enable = "vaes,vpclmulqdq,sha")]
    #[inline(never)]
    fn begin_long(&self, mut sum: Sum, aad: &[u8], behind: usize) -> (Sum, __m128i) {
        let whole_len = (aad.len() - 1) / BLOCK_LEN * BLOCK_LEN;
        let (whole, last) = aad.split_at(whole_len);
        let (whole, _) = whole.as_chunks::<BLOCK_LEN>();
        let last = load_end(aad, last.len());
        match whole {
            [a, b] => sum.add(&self.powers, behind + 3, pair(load(a), load(b))),
            [a, b, c] => {
                sum.add(&self.powers, behind + 5, pair(_mm_setzero_si128(), load(a)));
                sum.add(&self.powers, behind + 3, pair(load(b), load(c)));
            }
            _ => {
                let state = self.powers.slowly(_mm_setzero_si128(), whole);
                return (sum, _mm_xor_si128(last, state));
            }
        }
        (sum, last)
    }
}

/// Where the register `at` of a short packet begins, the first but one block of which is the tag's.
const fn place(at: usize) -> usize {
    (2 * at - 1) * BLOCK_LEN
}

/// The last block of the hash: both lengths, in bits.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn lengths(aad_len: usize, len: usize) -> __m128i {
    let big_endian = |len: usize| (8 * len as u64).swap_bytes().cast_signed();
    _mm_set_epi64x(big_endian(len), big_endian(aad_len))
}

/// Encrypts the last 17 to 32 bytes of `plaintext`, from `start` on, and gives what the hash takes. The tag, which is
/// not written yet, makes room for a block that is not whole.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn seal_last_pair(plaintext: &[u8], out: &mut [u8], start: usize, keystream: __m256i) -> __m256i {
    let second_len = plaintext.len() - start - BLOCK_LEN;
    let plain = pair(load(array_at(plaintext, start)), load_end(plaintext, second_len));
    let ciphertext = _mm256_and_si256(_mm256_xor_si256(plain, keystream), ones_pair(second_len));
    store_pair(array_at_mut(out, start), ciphertext);
    ciphertext
}

/// The same for the last 1 to 16 bytes, of at least 16 altogether.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn seal_last_block(plaintext: &[u8], out: &mut [u8], start: usize, keystream: __m256i) -> __m128i {
    let len = plaintext.len() - start;
    let ciphertext = _mm_and_si128(_mm_xor_si128(load_end(plaintext, len), first(keystream)), ones(len));
    store(array_at_mut(out, start), ciphertext);
    ciphertext
}

/// What the hash takes of up to 32 bytes from `start` to the tag: both blocks, or one and the lengths.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn load_sealed_end(bytes: &[u8], start: usize, lengths: __m128i) -> __m256i {
    let len = bytes.len() - TAG_LEN - start;
    if len >= PAIR_LEN {
        load_pair(array_at(bytes, start))
    } else if len > BLOCK_LEN {
        _mm256_and_si256(load_pair(array_at(bytes, start)), ones_pair(len - BLOCK_LEN))
    } else {
        pair(_mm_and_si128(load(array_at(bytes, start)), ones(len)), lengths)
    }
}

/// Decrypts up to 32 bytes from `start` to the tag, and leaves that as it is.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn decrypt_end(bytes: &mut [u8], start: usize, keystream: __m256i) {
    let len = bytes.len() - TAG_LEN - start;
    if len >= PAIR_LEN {
        decrypt_pair(array_at_mut(bytes, start), keystream);
    } else if len > BLOCK_LEN {
        decrypt_pair(array_at_mut(bytes, start), _mm256_and_si256(keystream, ones_pair(len - BLOCK_LEN)));
    } else {
        decrypt(array_at_mut(bytes, start), _mm_and_si128(first(keystream), ones(len)));
    }
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn decrypt(block: &mut Block, keystream: __m128i) {
    let plaintext = _mm_xor_si128(load(block), keystream);
    store(block, plaintext);
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn decrypt_pair(pair: &mut [u8; PAIR_LEN], keystream: __m256i) {
    let plaintext = _mm256_xor_si256(load_pair(pair), keystream);
    store_pair(pair, plaintext);
}

/// Ones in the first block and in the first `len` bytes of the second.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn ones_pair(len: usize) -> __m256i {
    pair(_mm_set1_epi8(-1), ones(len))
}

/// Compares with the tag at the end of `bytes`, in constant time.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn verify(tag: __m128i, bytes: &[u8]) -> Result<(), Forged> {
    let mut expected = [0; TAG_LEN];
    store(&mut expected, tag);
    let found = u128::from_ne_bytes(*array_at(bytes, bytes.len() - TAG_LEN));
    if bool::from(u128::from_ne_bytes(expected).ct_eq(&found)) { Ok(()) } else { Err(Forged) }
}
