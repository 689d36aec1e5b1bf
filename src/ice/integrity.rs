//! MESSAGE-INTEGRITY and FINGERPRINT (RFC 8489 §14.5, §14.7).

use std::fmt;

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// Bytes of MESSAGE-INTEGRITY.
pub const INTEGRITY_LEN: usize = 20;

/// What FINGERPRINT is XORed with: "STUN" (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// HMAC-SHA1 keyed with a password: the short-term credential mechanism (RFC 8489 §9.1).
///
/// Keying costs as much as a short message does, so whoever checks often keeps it.
#[derive(Clone)]
pub struct IntegrityKey(Hmac<Sha1>);

impl IntegrityKey {
    /// Passwords of ICE are ASCII, which OpaqueString (RFC 8265) leaves as it is.
    pub fn new(password: &str) -> IntegrityKey {
        // HMAC takes a key of any length.
        IntegrityKey(Hmac::new_from_slice(password.as_bytes()).expect("HMAC takes any key"))
    }

    /// MESSAGE-INTEGRITY of a message whose attributes before it end where `before` does.
    ///
    /// `before` is at least a header; its length field may say anything.
    pub(super) fn sign(&self, before: &[u8]) -> [u8; INTEGRITY_LEN] {
        self.mac(before).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(super) fn verify(&self, before: &[u8], tag: &[u8]) -> bool {
        self.mac(before).verify_slice(tag).is_ok()
    }

    /// The header's length counts up to the end of MESSAGE-INTEGRITY, whatever follows (§14.5).
    fn mac(&self, before: &[u8]) -> Hmac<Sha1> {
        let (header, rest) = before.split_at(4);
        let len = (before.len() - 20 + 4 + INTEGRITY_LEN) as u16;
        let mut mac = self.0.clone();
        mac.update(&header[..2]);
        mac.update(&len.to_be_bytes());
        mac.update(rest);
        mac
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

/// FINGERPRINT of a message that `before` is all of, but for FINGERPRINT itself. Its length field must
/// count FINGERPRINT already.
pub(super) fn fingerprint(before: &[u8]) -> u32 {
    crc32(before) ^ FINGERPRINT_XOR
}

/// CRC-32 of ITU V.42 (ISO-HDLC), four bytes a step: byte by byte it would cost more than the HMAC.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let [a, b, c, d] = (crc ^ u32::from_le_bytes(*word)).to_le_bytes().map(usize::from);
        crc = CRC_TABLES[3][a] ^ CRC_TABLES[2][b] ^ CRC_TABLES[1][c] ^ CRC_TABLES[0][d];
    }
    for byte in rest {
        crc = CRC_TABLES[0][usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    }
    !crc
}

/// `CRC_TABLES[n][byte]` is the remainder of `byte` followed by `n` zero bytes.
static CRC_TABLES: [[u32; 256]; 4] = crc_tables();

const fn crc_tables() -> [[u32; 256]; 4] {
    let mut tables = [[0; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut n = 1;
    while n < 4 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[n - 1][byte];
            tables[n][byte] = (crc >> 8) ^ tables[0][(crc & 0xFF) as usize];
            byte += 1;
        }
        n += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the polynomial has it.
    fn crc32_slow(bytes: &[u8]) -> u32 {
        let mut crc = !0_u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
            }
        }
        !crc
    }

    #[test]
    fn crc32_agrees_with_the_slow_one_at_every_length() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926); // The check value of ISO-HDLC.
        let bytes: Vec<u8> = (0..200_u32).map(|i| (i * 151 + 7) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(crc32(&bytes[..len]), crc32_slow(&bytes[..len]), "{len}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        assert_eq!(format!("{:?}", IntegrityKey::new("secret")), "IntegrityKey(..)");
    }
}
