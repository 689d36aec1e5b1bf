//! Between memory and registers: the only loads and stores of the room, and what is asked for before it is loaded.

use std::arch::x86_64::*;

use crate::vector::LINE_LEN;

/// Length of a block of AES, and of half a register.
pub(super) const BLOCK_LEN: usize = 16;
/// Length of a register.
pub(super) const PAIR_LEN: usize = 2 * BLOCK_LEN;

/// One block.
pub(super) type Block = [u8; BLOCK_LEN];
/// Two blocks, side by side.
pub(super) type Pair = [u8; PAIR_LEN];

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn load(block: &Block) -> __m128i {
    // SAFETY: the reference vouches for 16 bytes, and the instruction asks for no alignment.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn store(block: &mut Block, value: __m128i) {
    // SAFETY: the reference vouches for 16 bytes of ours, and the instruction asks for no alignment.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) }
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn load_pair(pair: &Pair) -> __m256i {
    // SAFETY: the reference vouches for 32 bytes, and the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(pair.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn store_pair(pair: &mut Pair, value: __m256i) {
    // SAFETY: the reference vouches for 32 bytes of ours, and the instruction asks for no alignment.
    unsafe { _mm256_storeu_si256(pair.as_mut_ptr().cast(), value) }
}

/// Has a value brought near that is wanted in a moment, without waiting for it. A hint: it reads nothing.
#[inline]
pub fn fetch<T>(value: &T) {
    let start = (&raw const *value).cast::<i8>();
    let head = start.addr() % LINE_LEN;
    for line in 0..(head + size_of::<T>()).div_ceil(LINE_LEN) {
        fetch_line(start.wrapping_sub(head).wrapping_add(line * LINE_LEN));
    }
}

/// As [`fetch`], of the cache line in which something begins that lies `distance` bytes behind `value`, for one of many
/// side by side. Whether there is something matters as little as what it is.
#[inline]
pub fn fetch_start_behind<T>(value: &T, distance: isize) {
    fetch_line((&raw const *value).cast::<i8>().wrapping_offset(distance));
}

#[inline]
fn fetch_line(line: *const i8) {
    // SAFETY: every x86-64 has the instruction, and it touches nothing.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line) };
}

/// `block` in both halves.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn load_twice(block: &Block) -> __m256i {
    _mm256_broadcastsi128_si256(load(block))
}

/// How a shuffle turns a block.
static TURNS: Block = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];

/// The bytes, the last first.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn turn(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, load(&TURNS))
}

/// The bytes of each half, the last first.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn turn_pair(pair: __m256i) -> __m256i {
    _mm256_shuffle_epi8(pair, load_twice(&TURNS))
}

/// Two blocks in one register.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn pair(first: __m128i, second: __m128i) -> __m256i {
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), second)
}

/// The first of two blocks.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn first(pair: __m256i) -> __m128i {
    _mm256_castsi256_si128(pair)
}

/// The second of two blocks.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn second(pair: __m256i) -> __m128i {
    _mm256_extracti128_si256::<1>(pair)
}

/// The bytes of `at` and the fifteen or thirty-one behind it.
#[inline(always)]
pub(super) fn array_at<const LEN: usize>(bytes: &[u8], at: usize) -> &[u8; LEN] {
    bytes[at..].first_chunk().expect("the caller has counted")
}

/// See [`array_at`].
#[inline(always)]
pub(super) fn array_at_mut<const LEN: usize>(bytes: &mut [u8], at: usize) -> &mut [u8; LEN] {
    bytes[at..].first_chunk_mut().expect("the caller has counted")
}

/// From 16 − n on: n bytes of ones, zeros behind.
static ONES_THEN_ZEROS: Pair = {
    let mut mask = [0; PAIR_LEN];
    let mut at = 0;
    while at < BLOCK_LEN {
        mask[at] = 0xFF;
        at += 1;
    }
    mask
};

/// From n on: how a shuffle moves bytes n places down, and zeros in behind.
static MOVES_DOWN: Pair = {
    let mut moves = [0x80; PAIR_LEN];
    let mut at = 0;
    while at < BLOCK_LEN {
        moves[at] = at as u8;
        at += 1;
    }
    moves
};

/// Ones in the first `len` bytes (at most 16).
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn ones(len: usize) -> __m128i {
    load(array_at(&ONES_THEN_ZEROS, BLOCK_LEN - len))
}

/// The last `len` bytes (1 to 16) of `bytes`, zeros behind them. There are at least 16.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn load_end(bytes: &[u8], len: usize) -> __m128i {
    let end = load(bytes.last_chunk().expect("the caller has counted"));
    _mm_shuffle_epi8(end, load(array_at(&MOVES_DOWN, BLOCK_LEN - len)))
}

/// Up to 15 bytes, zeros behind them: two words that may overlap.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
fn load_short(bytes: &[u8]) -> __m128i {
    let len = bytes.len();
    let value = if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        u128::from(u64::from_le_bytes(first)) | u128::from(u64::from_le_bytes(last)) << (8 * (len - 8))
    } else if let (Some(&first), Some(&last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let last = u64::from(u32::from_le_bytes(last)) << (8 * (len - 4));
        (u64::from(u32::from_le_bytes(first)) | last).into()
    } else {
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte))
    };
    _mm_set_epi64x((value >> 64) as i64, value as i64)
}

/// The first 16 bytes, or as many as there are and zeros behind them.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn load_up_to_block(bytes: &[u8]) -> __m128i {
    match bytes.first_chunk() {
        Some(block) => load(block),
        None => load_short(bytes),
    }
}

/// Where [`load_up_to_block`] came from: two words that may overlap.
#[inline]
#[target_feature(enable = "vaes,vpclmulqdq,sha")]
pub(super) fn store_up_to_block(bytes: &mut [u8], value: __m128i) {
    let len = bytes.len();
    if let Some(block) = bytes.first_chunk_mut() {
        return store(block, value);
    }
    let mut block = [0; BLOCK_LEN];
    store(&mut block, value);
    let value = u128::from_le_bytes(block);
    if let Some(first) = bytes.first_chunk_mut() {
        *first = (value as u64).to_le_bytes();
        *array_at_mut(bytes, len - 8) = ((value >> (8 * (len - 8))) as u64).to_le_bytes();
    } else if let Some(first) = bytes.first_chunk_mut() {
        *first = (value as u32).to_le_bytes();
        *array_at_mut(bytes, len - 4) = ((value >> (8 * (len - 4))) as u32).to_le_bytes();
    } else {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = (value >> (8 * at)) as u8;
        }
    }
}
