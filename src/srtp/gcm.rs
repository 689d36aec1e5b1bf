//! AEAD_AES_128_GCM and AEAD_AES_256_GCM (RFC 7714 §8, §9).

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::context::{E_BIT, RTCP_HEADER_LEN, RTCP_INDEX_LEN};
use super::path::CryptoPath;
use crate::ids::Ssrc;
use crate::packet::DropReason;
use crate::vector::{self, Forged};

/// Length of the tag (RFC 7714 §12).
pub(super) const TAG_LEN: usize = 16;
/// Length of a session salt (RFC 7714 §12).
pub(super) const SALT_LEN: usize = 12;

/// One session key and its salt.
pub(super) struct Gcm {
    key: Key,
    salt: Zeroizing<u128>,
}

/// An expanded key, which wipes itself.
enum Key {
    Vector(Box<vector::Gcm>),
    Portable(LessSafeKey),
}

impl Gcm {
    /// # Panics
    /// Unless `key` has 16 or 32 bytes.
    pub(super) fn new(path: CryptoPath, key: &[u8], salt: &[u8; SALT_LEN]) -> Gcm {
        let key = match path {
            CryptoPath::Vector(vaes) => Key::Vector(vector::Gcm::new(vaes, key)),
            CryptoPath::Portable => {
                let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
                let key = UnboundKey::new(algorithm, key).expect("a key of 16 or 32 bytes");
                Key::Portable(LessSafeKey::new(key))
            }
        };
        let salt = salt.iter().fold(0, |salt, &byte| salt << 8 | u128::from(byte));
        Gcm { key, salt: Zeroizing::new(salt) }
    }

    /// The key is wanted in a moment.
    pub(super) fn fetch(&self) {
        match &self.key {
            Key::Vector(key) => key.fetch(),
            Key::Portable(key) => vector::fetch(key),
        }
    }

    /// RFC 7714 §8.1: two zero bytes, SSRC, ROC, SEQ. §9.1: two zero bytes, SSRC, two zero bytes, SRTCP
    /// index. Both are the SSRC above 48 bits of index, XOR the salt.
    fn nonce(&self, ssrc: Ssrc, index: u64) -> u128 {
        *self.salt ^ (u128::from(ssrc.0) << 48 | u128::from(index))
    }

    /// `out` is exactly header, payload and tag long. The payload is encrypted from where it lies into
    /// `out`, without a copy.
    pub(super) fn seal_rtp(&self, ssrc: Ssrc, index: u64, header: &[u8], payload: &[u8], out: &mut [u8]) {
        let (out_header, out) = out.split_at_mut(header.len());
        out_header.copy_from_slice(header);
        self.seal(self.nonce(ssrc, index), header, payload, out);
    }

    /// Decrypts in place what lies between header and tag. On failure those bytes are spoilt.
    pub(super) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: u64,
        header_len: usize,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        let (header, ciphertext_and_tag) = bytes.split_at_mut(header_len);
        self.open(self.nonce(ssrc, index), header, ciphertext_and_tag)
    }

    /// `out` is exactly packet, tag and index word long, in that order (RFC 7714 §9.2).
    pub(super) fn seal_rtcp(&self, ssrc: Ssrc, index: u32, packet: &[u8], out: &mut [u8]) {
        let index_word = (E_BIT | index).to_be_bytes();
        let (header, plaintext) = packet.split_at(RTCP_HEADER_LEN);
        let (out_header, out) = out.split_at_mut(RTCP_HEADER_LEN);
        let (out, out_index) = out.split_at_mut(plaintext.len() + TAG_LEN);
        out_header.copy_from_slice(header);
        out_index.copy_from_slice(&index_word);
        self.seal(self.nonce(ssrc, index.into()), &rtcp_aad(header, index_word), plaintext, out);
    }

    /// Decrypts in place what lies between header and tag. On failure those bytes are spoilt.
    pub(super) fn open_rtcp(&self, ssrc: Ssrc, index: u32, bytes: &mut [u8]) -> Result<(), DropReason> {
        let (header, rest) = bytes.split_at_mut(RTCP_HEADER_LEN);
        let (ciphertext_and_tag, _) = rest.split_at_mut(rest.len() - RTCP_INDEX_LEN);
        let aad = rtcp_aad(header, (E_BIT | index).to_be_bytes());
        self.open(self.nonce(ssrc, index.into()), &aad, ciphertext_and_tag)
    }

    fn seal(&self, nonce: u128, aad: &[u8], plaintext: &[u8], out: &mut [u8]) {
        match &self.key {
            Key::Vector(key) => key.seal(nonce, aad, plaintext, out),
            Key::Portable(key) => {
                let (nonce, aad) = (portable(nonce), Aad::from(aad));
                let (ciphertext, tag) = out.split_at_mut(plaintext.len());
                key.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], tag)
                    .expect("lengths that match, far below the limit of 2^36 bytes");
            }
        }
    }

    fn open(&self, nonce: u128, aad: &[u8], ciphertext_and_tag: &mut [u8]) -> Result<(), DropReason> {
        match &self.key {
            Key::Vector(key) => {
                key.open(nonce, aad, ciphertext_and_tag).map_err(|Forged| DropReason::BadAuthTag)
            }
            Key::Portable(key) => {
                let (nonce, aad) = (portable(nonce), Aad::from(aad));
                match key.open_in_place(nonce, aad, ciphertext_and_tag) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(DropReason::BadAuthTag),
                }
            }
        }
    }

    /// What it runs on.
    pub(super) fn path(&self) -> CryptoPath {
        match &self.key {
            Key::Vector(key) => CryptoPath::Vector(key.vaes()),
            Key::Portable(_) => CryptoPath::Portable,
        }
    }
}

fn portable(nonce: u128) -> Nonce {
    let [_, _, _, _, nonce @ ..] = nonce.to_be_bytes();
    Nonce::assume_unique_for_key(nonce)
}

/// Header and index word are authenticated, not encrypted (RFC 7714 §9.2).
fn rtcp_aad(header: &[u8], index_word: [u8; RTCP_INDEX_LEN]) -> [u8; RTCP_HEADER_LEN + RTCP_INDEX_LEN] {
    let mut aad = [0; RTCP_HEADER_LEN + RTCP_INDEX_LEN];
    aad[..RTCP_HEADER_LEN].copy_from_slice(header);
    aad[RTCP_HEADER_LEN..].copy_from_slice(&index_word);
    aad
}

#[cfg(test)]
mod tests {
    use super::super::vectors::vector;
    use super::*;

    const RTP_SSRC: Ssrc = Ssrc(0x5501_a0b2);
    const RTP_INDEX: u64 = 0xf17b;
    const RTP_HEADER_LEN: usize = 12;
    const RTCP_SSRC: Ssrc = Ssrc(0x4d61_7273);
    const RTCP_INDEX: u32 = 0x5d4;

    fn gcm(path: CryptoPath, key: &str) -> Gcm {
        Gcm::new(path, &vector("rfc7714_16", key), &vector("rfc7714_16", "salt").try_into().unwrap())
    }

    /// Both, where there are two.
    fn paths() -> [CryptoPath; 2] {
        [CryptoPath::best(), CryptoPath::Portable]
    }

    fn paths_and_keys() -> impl Iterator<Item = (CryptoPath, &'static str, &'static str)> {
        paths()
            .into_iter()
            .flat_map(|path| [(path, "key_128", "sealed_128"), (path, "key_256", "sealed_256")])
    }

    #[test]
    fn rfc7714_16_srtp() {
        for (path, key, sealed) in paths_and_keys() {
            let (plain, sealed) = (vector("rfc7714_16", "plain"), vector("rfc7714_16", sealed));
            let (header, payload) = plain.split_at(RTP_HEADER_LEN);
            let mut out = vec![0; plain.len() + TAG_LEN];
            gcm(path, key).seal_rtp(RTP_SSRC, RTP_INDEX, header, payload, &mut out);
            assert_eq!(out, sealed, "{path:?} {key}");

            gcm(path, key).open_rtp(RTP_SSRC, RTP_INDEX, RTP_HEADER_LEN, &mut out).unwrap();
            assert_eq!(out[..plain.len()], plain, "{path:?} {key}");
        }
    }

    #[test]
    fn rfc7714_17_srtcp() {
        for (path, key, sealed) in paths_and_keys() {
            let (plain, sealed) = (vector("rfc7714_17", "plain"), vector("rfc7714_17", sealed));
            let mut out = vec![0; plain.len() + TAG_LEN + RTCP_INDEX_LEN];
            gcm(path, key).seal_rtcp(RTCP_SSRC, RTCP_INDEX, &plain, &mut out);
            assert_eq!(out, sealed, "{path:?} {key}");

            gcm(path, key).open_rtcp(RTCP_SSRC, RTCP_INDEX, &mut out).unwrap();
            assert_eq!(out[..plain.len()], plain, "{path:?} {key}");
        }
    }

    /// Field by field, as the figures of RFC 7714 §8.1 and §9.1 draw it.
    #[test]
    fn the_nonce_is_as_drawn() {
        let salt = vector("rfc7714_16", "salt");
        let xor_salt = |fields: [&[u8]; 4]| -> Vec<u8> {
            fields.concat().iter().zip(&salt).map(|(field, salt)| field ^ salt).collect()
        };
        for index in [0, 1, 0xFFFF, 0x1_0000, 0x8000_0000, 0x1234_5678_9ABC, (1 << 48) - 1_u64] {
            let (roc, seq) = ((index >> 16) as u32, index as u16);
            let rtp = [&[0, 0], &RTP_SSRC.0.to_be_bytes()[..], &roc.to_be_bytes(), &seq.to_be_bytes()];
            assert_eq!(
                gcm(CryptoPath::best(), "key_128").nonce(RTP_SSRC, index).to_be_bytes()[4..],
                xor_salt(rtp),
                "{index:x}"
            );
        }
        for index in [0, 1, 0x5d4, 0x7FFF_FFFF_u32] {
            let rtcp = [&[0, 0], &RTCP_SSRC.0.to_be_bytes()[..], &[0, 0], &index.to_be_bytes()];
            let nonce = gcm(CryptoPath::best(), "key_128").nonce(RTCP_SSRC, index.into());
            assert_eq!(nonce.to_be_bytes()[4..], xor_salt(rtcp), "{index:x}");
        }
    }

    #[test]
    fn any_flipped_bit_fails() {
        let sealed = vector("rfc7714_16", "sealed_128");
        for path in paths() {
            let open = |ssrc, index, bytes: &mut [u8]| {
                gcm(path, "key_128").open_rtp(ssrc, index, RTP_HEADER_LEN, bytes)
            };
            for bit in 0..sealed.len() * 8 {
                let mut bytes = sealed.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let opened = open(RTP_SSRC, RTP_INDEX, &mut bytes);
                assert_eq!(opened, Err(DropReason::BadAuthTag), "{path:?} bit {bit}");
            }
            for (ssrc, index) in
                [(RTP_SSRC, RTP_INDEX + (1 << 16)), (RTP_SSRC, 1 << 47), (Ssrc(1), RTP_INDEX)]
            {
                let opened = open(ssrc, index, &mut sealed.clone());
                assert_eq!(opened, Err(DropReason::BadAuthTag), "{path:?} {ssrc:?} {index}");
            }
        }
    }
}
