//! Session keys from a master key (RFC 3711 §4.3; AES-256 by RFC 6188 §2, salts of 96 bits by RFC 7714 §11).

use aes::{Aes128Enc, Aes256Enc};
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::dtls::keying::MasterKey;

/// What a session key is for (RFC 3711 §4.3.2).
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Label {
    RtpKey = 0x00,
    RtpAuth = 0x01,
    RtpSalt = 0x02,
    RtcpKey = 0x03,
    RtcpAuth = 0x04,
    RtcpSalt = 0x05,
}

/// The first `N` bytes of the AES-CM pseudorandom function under the master key.
///
/// DTLS-SRTP has no key derivation rate (RFC 5764 §4.1.2), so `r` is 0 and keys are derived once.
///
/// # Panics
/// When the master key is of no known profile, which is ours to keep right.
pub(super) fn derive<const N: usize>(master: &MasterKey, label: Label) -> Zeroizing<[u8; N]> {
    // x * 2^16, where x = key_id XOR master_salt, is 14 bytes before a counter of 2 bytes. The label
    // stands above the 48 bits of r; a salt of 12 bytes is padded with zeros on the right.
    let mut iv = Zeroizing::new([0; 16]);
    iv[..master.salt.len()].copy_from_slice(&master.salt);
    iv[7] ^= label as u8;

    let mut out = Zeroizing::new([0; N]);
    match master.key.len() {
        16 => keystream::<Ctr32BE<Aes128Enc>>(&master.key, &iv, &mut out[..]),
        32 => keystream::<Ctr32BE<Aes256Enc>>(&master.key, &iv, &mut out[..]),
        len => panic!("no SRTP profile has a master key of {len} bytes"),
    }
    out
}

fn keystream<C: KeyIvInit + StreamCipher>(key: &[u8], iv: &[u8; 16], out: &mut [u8]) {
    C::new_from_slices(key, iv).expect("AES key and IV lengths").apply_keystream(out);
}

#[cfg(test)]
mod tests {
    use super::super::vectors::vector;
    use super::*;

    fn master(section: &str) -> MasterKey {
        MasterKey {
            key: Zeroizing::new(vector(section, "master_key")),
            salt: Zeroizing::new(vector(section, "master_salt")),
        }
    }

    #[test]
    fn rfc3711_b3() {
        let master = master("rfc3711_b3");
        assert_eq!(derive::<16>(&master, Label::RtpKey)[..], vector("rfc3711_b3", "cipher_key"));
        assert_eq!(derive::<14>(&master, Label::RtpSalt)[..], vector("rfc3711_b3", "cipher_salt"));
        // 94 bytes, though HMAC-SHA1 takes 20: six blocks of the counter.
        assert_eq!(derive::<94>(&master, Label::RtpAuth)[..], vector("rfc3711_b3", "auth_key"));
    }

    #[test]
    fn rfc6188_7_2() {
        let master = master("rfc6188_7_2");
        assert_eq!(derive::<32>(&master, Label::RtpKey)[..], vector("rfc6188_7_2", "cipher_key"));
        assert_eq!(derive::<14>(&master, Label::RtpSalt)[..], vector("rfc6188_7_2", "cipher_salt"));
        assert_eq!(derive::<20>(&master, Label::RtpAuth)[..], vector("rfc6188_7_2", "auth_key"));
    }

    #[test]
    fn every_label_gives_another_key() {
        use Label::*;
        let master = master("rfc3711_b3");
        let keys = [RtpKey, RtpAuth, RtpSalt, RtcpKey, RtcpAuth, RtcpSalt].map(|l| *derive::<14>(&master, l));
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key));
        }
    }
}
