//! AES-GCM, AES in counter mode and HMAC-SHA1 on wide registers: equal to other implementations, and content with the
//! bytes they were given.
//!
//! Everything it reads and writes lies between two pages that nobody may touch: one byte too far ends the test. On a
//! processor that lacks the instructions all but the first test pass without having looked at anything.
#![expect(unsafe_code, reason = "pages that nobody may touch")]

use std::fs;
use std::ops::Range;

use aes::Aes128;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use gryt_sfu::dtls::keying::{MasterKey, SrtpProfile};
use gryt_sfu::srtp::context::{SrtpRx, SrtpTx};
use gryt_sfu::srtp::path::CryptoPath;
use gryt_sfu::vector::{Ctr, Forged, Gcm, HmacSha1, Vaes};
use hmac::{Hmac, Mac};
use proptest::collection::vec;
use proptest::prelude::*;
use sha1::Sha1;
use zeroize::Zeroizing;

const LEN_MAX: usize = 1500;
const TAG_LEN: usize = 16;
/// An RTP header with each number of CSRCs, without and with extensions; what SRTCP authenticates is as long as the
/// shortest.
const AAD_LENS: [usize; 17] = [12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 84];

/// Memory between two pages that nobody may touch.
struct Guarded {
    base: *mut u8,
}

const PAGE_LEN: usize = 4096;
const INSIDE: Range<usize> = PAGE_LEN..2 * PAGE_LEN;

impl Guarded {
    fn new() -> Guarded {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping of the kernel's choosing touches no memory of ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), 3 * PAGE_LEN, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: inside our own mapping.
        let inside = unsafe { base.byte_add(INSIDE.start) };
        // SAFETY: the middle page of our own mapping.
        let result = unsafe { libc::mprotect(inside, INSIDE.len(), access) };
        assert_eq!(result, 0);
        Guarded { base: base.cast() }
    }

    /// `len` bytes right behind the first page, or right before the last.
    fn bytes(&mut self, len: usize, is_at_start: bool) -> &mut [u8] {
        assert!(len <= INSIDE.len());
        let start = if is_at_start { INSIDE.start } else { INSIDE.end - len };
        // SAFETY: inside our own mapping.
        let start = unsafe { self.base.add(start) };
        // SAFETY: in the middle page by the assertion, zeroed by the kernel, lent once at a time.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    fn copy_of(&mut self, bytes: &[u8], is_at_start: bool) -> &mut [u8] {
        let copy = self.bytes(bytes.len(), is_at_start);
        copy.copy_from_slice(bytes);
        copy
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and whoever borrowed from it is gone.
        unsafe { libc::munmap(self.base.cast(), 3 * PAGE_LEN) };
    }
}

/// Both implementations of one key.
struct Twins {
    ours: Box<Gcm>,
    oracle: LessSafeKey,
    aad: Guarded,
    input: Guarded,
    output: Guarded,
}

/// As our side takes it.
fn number(nonce: [u8; 12]) -> u128 {
    nonce.iter().fold(0, |number, &byte| number << 8 | u128::from(byte))
}

impl Twins {
    /// `None` where the processor lacks the instructions.
    fn new(key: &[u8]) -> Option<Twins> {
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        Some(Twins {
            ours: Gcm::new(Vaes::detect()?, key),
            oracle: LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key's length")),
            aad: Guarded::new(),
            input: Guarded::new(),
            output: Guarded::new(),
        })
    }

    /// What the oracle makes of it.
    fn expected(&self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut bytes = plaintext.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.oracle.seal_in_place_append_tag(nonce, Aad::from(aad), &mut bytes).expect("it seals");
        bytes
    }

    /// There and back, at both ends of the page, held against the oracle.
    fn exchange(&mut self, nonce: [u8; 12], aad: &[u8], plaintext: &[u8]) {
        let expected = self.expected(nonce, aad, plaintext);
        let len = plaintext.len();
        for is_at_start in [true, false] {
            let what = (is_at_start, aad.len(), len);
            let aad = self.aad.copy_of(aad, is_at_start);
            let input = self.input.copy_of(plaintext, is_at_start);
            let sealed = self.output.bytes(len + TAG_LEN, is_at_start);
            sealed.fill(0xEE);
            self.ours.seal(number(nonce), aad, input, sealed);
            assert_eq!(sealed, expected, "{what:?}");
            assert_eq!(self.ours.open(number(nonce), aad, sealed), Ok(()), "{what:?}");
            assert_eq!(sealed[..len], *plaintext, "{what:?}");
            assert_eq!(sealed[len..], expected[len..], "the tag stays as it is: {what:?}");
        }
    }

    fn is_refused(&mut self, nonce: [u8; 12], aad: &[u8], forged: &[u8]) {
        let aad = self.aad.copy_of(aad, false);
        let bytes = self.output.copy_of(forged, false);
        assert_eq!(self.ours.open(number(nonce), aad, bytes), Err(Forged));
        assert_eq!(bytes, forged, "nothing is changed");
    }
}

/// Bytes that do not repeat soon.
fn filler(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| ((at + seed * 131).wrapping_mul(0x9E37_79B1) >> 11) as u8).collect()
}

/// The processor is asked a second time, another way.
#[test]
fn the_path_is_the_processors() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("Linux");
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag| flags.split_whitespace().any(|word| word == flag);
    let is_vector = ["avx2", "aes", "vaes", "pclmulqdq", "vpclmulqdq", "sha_ni"].into_iter().all(has);
    for profile in SrtpProfile::ALL {
        let master = MasterKey {
            key: Zeroizing::new(vec![1; profile.key_len()]),
            salt: Zeroizing::new(vec![2; profile.salt_len()]),
        };
        for path in [SrtpTx::new(profile, &master).path(), SrtpRx::new(profile, &master).path()] {
            assert_eq!(matches!(path, CryptoPath::Vector(_)), is_vector, "{profile:?} on {path:?}");
        }
        let portable = SrtpTx::on(CryptoPath::Portable, profile, &master).path();
        assert_eq!(portable, CryptoPath::Portable, "{profile:?}");
    }
    println!("this machine runs {}", CryptoPath::best());
}

#[test]
fn every_length_of_a_payload_is_sealed_as_the_oracle_does() {
    for key_len in [16, 32] {
        let Some(mut twins) = Twins::new(&filler(key_len, 1)) else { return };
        for len in 0..=LEN_MAX {
            let aad_len = AAD_LENS[len % AAD_LENS.len()];
            let nonce = std::array::from_fn(|at| (at * len) as u8);
            for aad_len in [12, 20, aad_len] {
                twins.exchange(nonce, &filler(aad_len, 2), &filler(len, 3));
            }
        }
    }
}

#[test]
fn every_length_of_associated_data_is_sealed_as_the_oracle_does() {
    for key_len in [16, 32] {
        let Some(mut twins) = Twins::new(&filler(key_len, 4)) else { return };
        for aad_len in 0..=200 {
            for len in [0, 1, 15, 16, 17, 31, 32, 33, 120, 160, 239, 240, 241, 495, 496, 497, 512, 1200] {
                twins.exchange([aad_len as u8; 12], &filler(aad_len, 5), &filler(len, 6));
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_and_changes_nothing() {
    for key_len in [16, 32] {
        let Some(mut twins) = Twins::new(&filler(key_len, 7)) else { return };
        for len in [0, 1, 16, 29, 120, 255, 300] {
            let (nonce, aad) = ([9; 12], filler(20, 8));
            let sealed = twins.expected(nonce, &aad, &filler(len, 9));
            for bit in 0..8 * sealed.len() {
                let mut forged = sealed.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                twins.is_refused(nonce, &aad, &forged);
            }
            for bit in 0..8 * aad.len() {
                let mut aad = aad.clone();
                aad[bit / 8] ^= 1 << (bit % 8);
                twins.is_refused(nonce, &aad, &sealed);
            }
            for bit in 0..8 * nonce.len() {
                let mut nonce = nonce;
                nonce[bit / 8] ^= 1 << (bit % 8);
                twins.is_refused(nonce, &aad, &sealed);
            }
        }
    }
}

fn expected_keystream(key: &[u8], iv: u128, plaintext: &[u8]) -> Vec<u8> {
    let mut bytes = plaintext.to_vec();
    let mut cipher = Ctr32BE::<Aes128>::new_from_slices(key, &iv.to_be_bytes()).expect("a key's length");
    cipher.apply_keystream(&mut bytes);
    bytes
}

fn expected_digest(key: &[u8], message: &[u8], end: &[u8]) -> [u8; 20] {
    let mac = <Hmac<Sha1> as Mac>::new_from_slice(key).expect("any length");
    mac.chain_update(message).chain_update(end).finalize().into_bytes().into()
}

#[test]
fn every_length_is_counted_through_as_the_oracle_does() {
    let Some(vaes) = Vaes::detect() else { return };
    let key = filler(16, 10);
    let cipher = Ctr::new(vaes, &key);
    let (mut input, mut output) = (Guarded::new(), Guarded::new());
    for len in 0..=LEN_MAX {
        // As RFC 3711 §4.1.1 makes it: the low 16 bits are the counter's.
        let iv = (0x0123_4567_89AB_CDEF_u128 * (len as u128 + 1)) << 16;
        let plaintext = filler(len, 11);
        let expected = expected_keystream(&key, iv, &plaintext);
        for is_at_start in [true, false] {
            let output = output.bytes(len, is_at_start);
            cipher.apply(iv, input.copy_of(&plaintext, is_at_start), output);
            assert_eq!(output, expected, "{is_at_start} {len}");
            cipher.apply_in_place(iv, output);
            assert_eq!(output, plaintext, "{is_at_start} {len}");
        }
    }
}

#[test]
fn every_length_has_the_digest_of_the_oracle() {
    let Some(vaes) = Vaes::detect() else { return };
    let (mut input, mut end) = (Guarded::new(), Guarded::new());
    for len in 0..=LEN_MAX {
        let key = filler(len % 65, 12);
        let mac = HmacSha1::new(vaes, &key);
        let message = filler(len, 13);
        for end_len in [0, 4, 16] {
            let tail = filler(end_len, 14);
            let expected = expected_digest(&key, &message, &tail);
            for is_at_start in [true, false] {
                let message = input.copy_of(&message, is_at_start);
                let end = end.copy_of(&tail, is_at_start);
                assert_eq!(mac.digest(message, end), expected, "{is_at_start} {len} {end_len}");
            }
        }
    }
}

#[test]
fn wrong_lengths_are_the_callers_fault() {
    let Some(vaes) = Vaes::detect() else { return };
    let faults: [fn(Vaes); 7] = [
        |vaes| drop(Gcm::new(vaes, &[0; 24])),
        |vaes| Gcm::new(vaes, &[0; 16]).seal(0, &[], &[0; 40], &mut [0; 55]),
        |vaes| Gcm::new(vaes, &[0; 16]).seal(0, &[], &[0; 40], &mut [0; 57]),
        |vaes| assert!(Gcm::new(vaes, &[0; 16]).open(0, &[], &mut [0; 15]).is_err()),
        |vaes| Ctr::new(vaes, &[0; 16]).apply(0, &[0; 5], &mut [0; 4]),
        |vaes| drop(HmacSha1::new(vaes, &[0; 65])),
        |vaes| assert_ne!(HmacSha1::new(vaes, &[0; 20]).digest(&[], &[0; 17]), [0; 20]),
    ];
    for fault in faults {
        assert!(std::panic::catch_unwind(|| fault(vaes)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn seals_and_opens_as_the_oracle_does(
        key in any::<[u8; 32]>(),
        is_long: bool,
        nonce: [u8; 12],
        aad in vec(any::<u8>(), 0..160),
        plaintext in vec(any::<u8>(), 0..=LEN_MAX),
        flip in any::<prop::sample::Index>(),
    ) {
        let Some(mut twins) = Twins::new(&key[..if is_long { 32 } else { 16 }]) else { return Ok(()) };
        twins.exchange(nonce, &aad, &plaintext);
        let mut forged = twins.expected(nonce, &aad, &plaintext);
        let bit = flip.index(8 * forged.len());
        forged[bit / 8] ^= 1 << (bit % 8);
        twins.is_refused(nonce, &aad, &forged);
    }
}
