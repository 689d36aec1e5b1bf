//! AES128_CM_HMAC_SHA1_80: AES in counter mode and HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1).

use std::hint::black_box;

use aes::Aes128Enc;
use ctr::Ctr32BE;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::context::{E_BIT, RTCP_HEADER_LEN, RTCP_INDEX_LEN};
use super::path::CryptoPath;
use crate::ids::Ssrc;
use crate::packet::DropReason;
use crate::vector;

/// Length of the tag: 80 bits of the HMAC, for SRTP and SRTCP (RFC 5764 §4.1.2).
pub(super) const TAG_LEN: usize = 10;
/// Length of the session key.
pub(super) const KEY_LEN: usize = 16;
/// Length of the session authentication key.
pub(super) const AUTH_KEY_LEN: usize = 20;
/// Length of the session salt.
pub(super) const SALT_LEN: usize = 14;

/// One session key with its authentication key and salt.
pub(super) struct CmSha1 {
    keys: Keys,
    salt: Zeroizing<u128>,
}

/// Both keys, expanded once: the AES schedule, and the two states of SHA-1 that have taken in the padded key. They
/// wipe themselves.
enum Keys {
    Vector(Box<Vector>),
    Portable(Box<Portable>),
}

struct Vector {
    cipher: vector::Ctr,
    mac: vector::HmacSha1,
}

struct Portable {
    cipher: Aes128Enc,
    mac: Hmac<Sha1>,
}

impl CmSha1 {
    pub(super) fn new(
        path: CryptoPath,
        key: &[u8; KEY_LEN],
        auth_key: &[u8; AUTH_KEY_LEN],
        salt: &[u8; SALT_LEN],
    ) -> CmSha1 {
        let salt = salt.iter().fold(0, |salt, &byte| salt << 8 | u128::from(byte)) << 16;
        let keys = match path {
            CryptoPath::Vector(vaes) => Keys::Vector(Box::new(Vector {
                cipher: vector::Ctr::new(vaes, key),
                mac: vector::HmacSha1::new(vaes, auth_key),
            })),
            CryptoPath::Portable => Keys::Portable(Box::new(Portable::new(key, auth_key))),
        };
        CmSha1 { keys, salt: Zeroizing::new(salt) }
    }

    /// What it runs on.
    pub(super) fn path(&self) -> CryptoPath {
        match &self.keys {
            Keys::Vector(keys) => CryptoPath::Vector(keys.cipher.vaes()),
            Keys::Portable(_) => CryptoPath::Portable,
        }
    }

    /// The keys are wanted in a moment.
    pub(super) fn fetch(&self) {
        match &self.keys {
            Keys::Vector(keys) => vector::fetch(&**keys),
            Keys::Portable(keys) => vector::fetch(&**keys),
        }
    }

    /// IV = (salt * 2^16) XOR (SSRC * 2^64) XOR (index * 2^16). A packet has fewer than 2^16 blocks, so
    /// the counter in the low 16 bits never carries into the index.
    fn iv(&self, ssrc: Ssrc, index: u64) -> u128 {
        *self.salt ^ u128::from(ssrc.0) << 64 ^ u128::from(index) << 16
    }

    fn tag(&self, authenticated: &[u8], roc: &[u8]) -> [u8; TAG_LEN] {
        let digest = match &self.keys {
            Keys::Vector(keys) => keys.mac.digest(authenticated, roc),
            Keys::Portable(keys) => {
                keys.mac.clone().chain_update(authenticated).chain_update(roc).finalize().into_bytes().into()
            }
        };
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&digest[..TAG_LEN]);
        tag
    }

    fn verify(&self, authenticated: &[u8], roc: &[u8], tag: &[u8]) -> Result<(), DropReason> {
        if bool::from(self.tag(authenticated, roc)[..].ct_eq(tag)) {
            Ok(())
        } else {
            Err(DropReason::BadAuthTag)
        }
    }

    /// `out` is exactly header, payload and tag long. The payload is encrypted from where it lies into
    /// `out`, without a copy.
    pub(super) fn seal_rtp(&self, ssrc: Ssrc, index: u64, header: &[u8], payload: &[u8], out: &mut [u8]) {
        let (authenticated, tag) = out.split_at_mut(header.len() + payload.len());
        let (out_header, ciphertext) = authenticated.split_at_mut(header.len());
        out_header.copy_from_slice(header);
        self.encrypt(ssrc, index, payload, ciphertext);
        tag.copy_from_slice(&self.tag(authenticated, &roc(index)));
    }

    /// Decrypts in place what lies between header and tag. On failure nothing is changed.
    pub(super) fn open_rtp(
        &self,
        ssrc: Ssrc,
        index: u64,
        header_len: usize,
        bytes: &mut [u8],
    ) -> Result<(), DropReason> {
        let (authenticated, tag) = bytes.split_at_mut(bytes.len() - TAG_LEN);
        self.verify(authenticated, &roc(index), tag)?;
        self.decrypt(ssrc, index, &mut authenticated[header_len..]);
        Ok(())
    }

    /// `out` is exactly packet, index word and tag long, in that order (RFC 3711 §3.4).
    pub(super) fn seal_rtcp(&self, ssrc: Ssrc, index: u32, packet: &[u8], out: &mut [u8]) {
        let (header, plaintext) = packet.split_at(RTCP_HEADER_LEN);
        let (authenticated, tag) = out.split_at_mut(packet.len() + RTCP_INDEX_LEN);
        let (out_packet, out_index) = authenticated.split_at_mut(packet.len());
        let (out_header, ciphertext) = out_packet.split_at_mut(RTCP_HEADER_LEN);
        out_header.copy_from_slice(header);
        out_index.copy_from_slice(&(E_BIT | index).to_be_bytes());
        self.encrypt(ssrc, index.into(), plaintext, ciphertext);
        tag.copy_from_slice(&self.tag(authenticated, &[]));
    }

    /// Decrypts in place what lies between header and index word. On failure nothing is changed.
    pub(super) fn open_rtcp(&self, ssrc: Ssrc, index: u32, bytes: &mut [u8]) -> Result<(), DropReason> {
        let (authenticated, tag) = bytes.split_at_mut(bytes.len() - TAG_LEN);
        self.verify(authenticated, &[], tag)?;
        let packet_len = authenticated.len() - RTCP_INDEX_LEN;
        self.decrypt(ssrc, index.into(), &mut authenticated[RTCP_HEADER_LEN..packet_len]);
        Ok(())
    }

    fn encrypt(&self, ssrc: Ssrc, index: u64, plaintext: &[u8], ciphertext: &mut [u8]) {
        let iv = self.iv(ssrc, index);
        match &self.keys {
            Keys::Vector(keys) => keys.cipher.apply(iv, plaintext, ciphertext),
            Keys::Portable(keys) => keys
                .keystream(iv)
                .apply_keystream_b2b(plaintext, ciphertext)
                .expect("equal lengths, fewer than 2^32 blocks"),
        }
    }

    fn decrypt(&self, ssrc: Ssrc, index: u64, bytes: &mut [u8]) {
        let iv = self.iv(ssrc, index);
        match &self.keys {
            Keys::Vector(keys) => keys.cipher.apply_in_place(iv, bytes),
            Keys::Portable(keys) => keys.keystream(iv).apply_keystream(bytes),
        }
    }
}

impl Portable {
    fn new(key: &[u8; KEY_LEN], auth_key: &[u8; AUTH_KEY_LEN]) -> Portable {
        Portable {
            cipher: Aes128Enc::new(key.into()),
            mac: <Hmac<Sha1> as KeyInit>::new_from_slice(auth_key).expect("HMAC takes any key length"),
        }
    }

    fn keystream(&self, iv: u128) -> Ctr32BE<&Aes128Enc> {
        Ctr32BE::from_core(ctr::CtrCore::inner_iv_init(&self.cipher, &iv.to_be_bytes().into()))
    }
}

/// SRTP authenticates the ROC without sending it (RFC 3711 §4.2).
fn roc(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

/// The cipher wipes itself.
const fn wipes_itself<T: ZeroizeOnDrop>() {}
const _: () = wipes_itself::<Aes128Enc>();

impl Drop for Portable {
    /// The mac does not wipe itself, so it is overwritten with that of a zero key; the black box keeps the
    /// compiler from leaving this out as unread.
    fn drop(&mut self) {
        self.mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&[0; AUTH_KEY_LEN]).expect("any key length");
        black_box(&mut self.mac);
    }
}

#[cfg(test)]
mod tests {
    use ctr::cipher::BlockEncrypt;

    use super::super::vectors::vector;
    use super::*;

    const HEADER_LEN: usize = 12;

    /// On both paths, where there are two.
    fn b2() -> [CmSha1; 2] {
        let key = vector("rfc3711_b2", "session_key").try_into().unwrap();
        let salt = vector("rfc3711_b2", "session_salt").try_into().unwrap();
        [CryptoPath::best(), CryptoPath::Portable]
            .map(|path| CmSha1::new(path, &key, &[0x55; AUTH_KEY_LEN], &salt))
    }

    /// The vector's SSRC and index are 0, and a payload of zeros shows the keystream itself. The vector
    /// goes on to counter FF01: further than a datagram, not further than the cipher.
    #[test]
    fn rfc3711_b2_keystream() {
        for cm in b2() {
            let mut keystream = vec![0; 0xFF02 * 16];
            cm.encrypt(Ssrc(0), 0, &vec![0; keystream.len()], &mut keystream);
            assert_eq!(keystream[..48], vector("rfc3711_b2", "keystream_first"));
            assert_eq!(keystream[0xFEFF * 16..], vector("rfc3711_b2", "keystream_last"));
        }
    }

    /// The first block against plain AES over an IV put together byte by byte.
    #[test]
    fn the_iv_is_salt_ssrc_and_index() {
        for cm in b2() {
            let aes = Aes128Enc::new_from_slice(&vector("rfc3711_b2", "session_key")).unwrap();
            let salt = vector("rfc3711_b2", "session_salt");
            for index in [0, 1, 0x1_0000, 0x8000_0000, 0x1234_5678_9ABC, (1 << 48) - 1_u64] {
                let mut block =
                    [&[0; 4][..], &0xCAFE_BABE_u32.to_be_bytes(), &index.to_be_bytes()[2..], &[0; 2]]
                        .concat();
                for (byte, salt) in block.iter_mut().zip(&salt) {
                    *byte ^= salt;
                }
                aes.encrypt_block(block.as_mut_slice().into());
                let mut keystream = [0; 16];
                cm.encrypt(Ssrc(0xCAFE_BABE), index, &[0; 16], &mut keystream);
                assert_eq!(keystream[..], block, "{index:x}");
            }
        }
    }

    #[test]
    fn the_tag_is_hmac_sha1_over_packet_and_roc() {
        for cm in b2() {
            let index = 0x0102_0304_0506;
            let mut out = [0; HEADER_LEN + 30 + TAG_LEN];
            cm.seal_rtp(Ssrc(7), index, &[0x80; HEADER_LEN], &[1; 30], &mut out);

            let mut plain_mac = <Hmac<Sha1> as KeyInit>::new_from_slice(&[0x55; AUTH_KEY_LEN]).unwrap();
            plain_mac.update(&out[..HEADER_LEN + 30]);
            plain_mac.update(&[1, 2, 3, 4]);
            assert_eq!(out[HEADER_LEN + 30..], plain_mac.finalize().into_bytes()[..TAG_LEN]);

            cm.open_rtp(Ssrc(7), index, HEADER_LEN, &mut out).unwrap();
            assert_eq!(out[..HEADER_LEN + 30], [&[0x80; HEADER_LEN][..], &[1; 30]].concat());
        }
    }

    #[test]
    fn any_flipped_bit_fails_and_changes_nothing() {
        for cm in b2() {
            let mut sealed = [0; 24 + RTCP_INDEX_LEN + TAG_LEN];
            cm.seal_rtcp(Ssrc(7), 9, &[0xC8; 24], &mut sealed);
            for bit in 0..sealed.len() * 8 {
                let mut bytes = sealed;
                bytes[bit / 8] ^= 1 << (bit % 8);
                let before = bytes;
                assert_eq!(cm.open_rtcp(Ssrc(7), 9, &mut bytes), Err(DropReason::BadAuthTag), "bit {bit}");
                assert_eq!(bytes, before);
            }
            cm.open_rtcp(Ssrc(7), 9, &mut sealed).unwrap();
            assert_eq!(sealed[..24], [0xC8; 24]);
        }
    }
}
