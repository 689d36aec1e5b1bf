//! AES-GCM (NIST SP 800-38D §7), for nonces of 96 bits and tags of 128.

use std::arch::x86_64::*;

use subtle::ConstantTimeEq;

use super::Forged;
use super::aes::{Counter, ROUNDS_LONG, ROUNDS_SHORT, Schedule, encrypt};
use super::cpu::Vaes;
use super::ghash::{Powers, Sum};
use super::memory::{
    BLOCK_LEN, Block, PAIR_LEN, array_at, array_at_mut, first, load, load_end, load_pair, load_short,
    load_twice, ones, pair, second, store, store_pair,
};

/// Length of a nonce.
const NONCE_LEN: usize = 12;
/// Length of a tag.
const TAG_LEN: usize = BLOCK_LEN;

/// Blocks that fit beside the tag's own into the registers of one go.
const SHORT_BLOCK_COUNT_MAX: usize = 15;
/// Registers of one go.
const PAIR_COUNT: usize = 8;
/// Bytes of one go.
const STRIDE: usize = PAIR_COUNT * PAIR_LEN;

/// One key, expanded.
pub struct Gcm {
    schedule: Schedule,
    powers: Powers,
    made_with: Vaes,
}

impl Gcm {
    /// Expands a key.
    ///
    /// # Panics
    /// Unless `key` has 16 or 32 bytes.
    pub fn new(vaes: Vaes, key: &[u8]) -> Gcm {
        // SAFETY: `vaes` is proof that the processor has what this asks for.
        let (schedule, powers) = unsafe { expand(key) };
        Gcm { schedule, powers, made_with: vaes }
    }

    /// Encrypts `plaintext` into `out`, which is longer by 16 bytes, and writes the tag behind it.
    ///
    /// # Panics
    /// When `out` is of another length.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        assert_eq!(out.len(), plaintext.len() + TAG_LEN, "room for ciphertext and tag");
        // SAFETY: `self` was made with proof that the processor has what this asks for.
        unsafe { self.seal_vector(iv(nonce), aad, plaintext, out) }
    }

    /// Decrypts in place what lies before the tag, the last 16 bytes, if that verifies.
    ///
    /// # Errors
    /// [`Forged`], and nothing is changed.
    ///
    /// # Panics
    /// When there are fewer bytes than a tag has.
    pub fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], bytes: &mut [u8]) -> Result<(), Forged> {
        assert!(bytes.len() >= TAG_LEN, "a tag");
        // SAFETY: `self` was made with proof that the processor has what this asks for.
        unsafe { self.open_vector(iv(nonce), aad, bytes) }
    }

    /// What it was made with.
    pub fn vaes(&self) -> Vaes {
        self.made_with
    }

    #[target_feature(enable = "vaes,vpclmulqdq")]
    fn seal_vector(&self, iv: u128, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        let counter = Counter::new(iv);
        match plaintext.len().div_ceil(BLOCK_LEN) {
            0..=1 => self.seal_short::<1>(counter, aad, plaintext, out),
            2..=3 => self.seal_short::<2>(counter, aad, plaintext, out),
            4..=5 => self.seal_short::<3>(counter, aad, plaintext, out),
            6..=7 => self.seal_short::<4>(counter, aad, plaintext, out),
            8..=9 => self.seal_short::<5>(counter, aad, plaintext, out),
            10..=11 => self.seal_short::<6>(counter, aad, plaintext, out),
            12..=13 => self.seal_short::<7>(counter, aad, plaintext, out),
            14..=SHORT_BLOCK_COUNT_MAX => self.seal_short::<8>(counter, aad, plaintext, out),
            _ => self.seal_long(counter, aad, plaintext, out),
        }
    }

    #[target_feature(enable = "vaes,vpclmulqdq")]
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

    /// 2N − 2 or 2N − 1 blocks, the last of which may not be whole: `N` registers hold the tag's keystream and
    /// theirs.
    #[target_feature(enable = "vaes,vpclmulqdq")]
    #[expect(clippy::needless_range_loop, reason = "a register's number says where its bytes are, too")]
    fn seal_short<const N: usize>(&self, counter: Counter, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        let len = plaintext.len();
        let block_count = len.div_ceil(BLOCK_LEN);
        assert!(block_count / 2 + 1 == N && out.len() == len + TAG_LEN);
        let keystream = encrypt!(self.schedule, counter.blocks::<N>(1));
        let lengths = lengths(aad.len(), len);
        let mut sum = Sum::new();
        let last_of_aad = self.begin(&mut sum, aad, block_count + 1);
        // How many blocks stand behind the first of the last register, itself included.
        let end = 2 + block_count % 2;
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
            let last = seal_end(plaintext, out, place(N - 1), keystream[N - 1], lengths);
            sum.add(&self.powers, end, last);
        }
        if block_count % 2 == 1 {
            sum.add(&self.powers, 1, _mm256_zextsi128_si256(lengths));
        }
        let tag = _mm_xor_si128(sum.reduce(), first(keystream[0]));
        store(array_at_mut(out, len), tag);
    }

    /// As many blocks as [`Gcm::seal_short`]. Keystream and hash are independent, and computed side by side.
    #[target_feature(enable = "vaes,vpclmulqdq")]
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
        let last_of_aad = self.begin(&mut sum, aad, block_count + 1);
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
    #[target_feature(enable = "vaes,vpclmulqdq")]
    #[expect(clippy::needless_range_loop, reason = "a register's number says where its bytes are, too")]
    fn seal_long(&self, counter: Counter, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        let len = plaintext.len();
        assert!(len > SHORT_BLOCK_COUNT_MAX * BLOCK_LEN && out.len() == len + TAG_LEN);
        let keystream = encrypt!(self.schedule, counter.blocks::<PAIR_COUNT>(1));
        let mask = first(keystream[0]);
        let mut sum = Sum::new();
        let last_of_aad = self.begin(&mut sum, aad, SHORT_BLOCK_COUNT_MAX);
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
            let ciphertext = seal_end(plaintext, out, start, keystream, lengths);
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
    #[target_feature(enable = "vaes,vpclmulqdq")]
    fn open_long(&self, counter: Counter, aad: &[u8], bytes: &mut [u8]) -> Result<(), Forged> {
        let len = bytes.len() - TAG_LEN;
        let [mask] = encrypt!(self.schedule, counter.blocks(1));
        let mut sum = Sum::new();
        let last_of_aad = self.begin(&mut sum, aad, 1);
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

    /// Begins the hash: all of `aad` but its last block, which is given back to be paired with what comes next.
    /// `behind` blocks stand behind that.
    #[inline]
    #[target_feature(enable = "vaes,vpclmulqdq")]
    fn begin(&self, sum: &mut Sum, aad: &[u8], behind: usize) -> __m128i {
        if aad.len() <= BLOCK_LEN {
            load_up_to_block(aad)
        } else if aad.len() <= 2 * BLOCK_LEN {
            sum.add(&self.powers, behind + 3, pair(_mm_setzero_si128(), load(array_at(aad, 0))));
            load_end(aad, aad.len() - BLOCK_LEN)
        } else {
            self.begin_long(sum, aad, behind)
        }
    }

    /// [`Gcm::begin`] for headers with CSRCs or many extensions.
    #[target_feature(enable = "vaes,vpclmulqdq")]
    #[inline(never)]
    fn begin_long(&self, sum: &mut Sum, aad: &[u8], behind: usize) -> __m128i {
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
            _ => return _mm_xor_si128(last, self.powers.slowly(_mm_setzero_si128(), whole)),
        }
        last
    }
}

#[target_feature(enable = "vaes,vpclmulqdq")]
fn expand(key: &[u8]) -> (Schedule, Powers) {
    let schedule = Schedule::new(key);
    let powers = Powers::new(&schedule.encrypt_block(&[0; BLOCK_LEN]));
    (schedule, powers)
}

/// The counter block with counter 0 (NIST SP 800-38D §7.1).
#[inline]
fn iv(nonce: [u8; NONCE_LEN]) -> u128 {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = nonce;
    u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0])
}

/// Where the register `at` of a short packet begins, the first but one block of which is the tag's.
const fn place(at: usize) -> usize {
    (2 * at - 1) * BLOCK_LEN
}

/// The last block of the hash: both lengths, in bits.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
fn lengths(aad_len: usize, len: usize) -> __m128i {
    let big_endian = |len: usize| (8 * len as u64).swap_bytes().cast_signed();
    _mm_set_epi64x(big_endian(len), big_endian(aad_len))
}

/// Up to 16 bytes, zeros behind them.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
fn load_up_to_block(bytes: &[u8]) -> __m128i {
    match bytes.first_chunk() {
        Some(block) => load(block),
        None => load_short(bytes),
    }
}

/// Encrypts up to 32 bytes from `start` to the end of `plaintext`, and gives what the hash takes: both blocks, or one
/// and the lengths. The tag, which is not written yet, makes room for a block that is not whole.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
fn seal_end(plaintext: &[u8], out: &mut [u8], start: usize, keystream: __m256i, lengths: __m128i) -> __m256i {
    let len = plaintext.len() - start;
    if len >= PAIR_LEN {
        let ciphertext = _mm256_xor_si256(load_pair(array_at(plaintext, start)), keystream);
        store_pair(array_at_mut(out, start), ciphertext);
        ciphertext
    } else if len > BLOCK_LEN {
        let plain = pair(load(array_at(plaintext, start)), load_end(plaintext, len - BLOCK_LEN));
        let ciphertext = _mm256_and_si256(_mm256_xor_si256(plain, keystream), ones_pair(len - BLOCK_LEN));
        store_pair(array_at_mut(out, start), ciphertext);
        ciphertext
    } else {
        let ciphertext = _mm_and_si128(_mm_xor_si128(load_end(plaintext, len), first(keystream)), ones(len));
        store(array_at_mut(out, start), ciphertext);
        pair(ciphertext, lengths)
    }
}

/// What [`seal_end`] gave for the same bytes. Behind them is the tag.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
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
#[target_feature(enable = "vaes,vpclmulqdq")]
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
#[target_feature(enable = "vaes,vpclmulqdq")]
fn decrypt(block: &mut Block, keystream: __m128i) {
    let plaintext = _mm_xor_si128(load(block), keystream);
    store(block, plaintext);
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
fn decrypt_pair(pair: &mut [u8; PAIR_LEN], keystream: __m256i) {
    let plaintext = _mm256_xor_si256(load_pair(pair), keystream);
    store_pair(pair, plaintext);
}

/// Ones in the first block and in the first `len` bytes of the second.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
fn ones_pair(len: usize) -> __m256i {
    pair(_mm_set1_epi8(-1), ones(len))
}

/// Compares with the tag at the end of `bytes`, in constant time.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq")]
fn verify(tag: __m128i, bytes: &[u8]) -> Result<(), Forged> {
    let mut expected = [0; TAG_LEN];
    store(&mut expected, tag);
    let found = u128::from_ne_bytes(*array_at(bytes, bytes.len() - TAG_LEN));
    if bool::from(u128::from_ne_bytes(expected).ct_eq(&found)) { Ok(()) } else { Err(Forged) }
}
