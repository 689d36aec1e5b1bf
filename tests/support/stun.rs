//! Binding requests written by hand (RFC 8489, RFC 8445 §7.1), for members who do not behave.

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// A Binding request from the controlling side with MESSAGE-INTEGRITY and FINGERPRINT.
pub struct BindingRequest<'a> {
    /// `theirs:ours`
    pub username: &'a str,
    /// Password of the side that is asked.
    pub password: &'a str,
    /// Nominates the pair.
    pub use_candidate: bool,
    /// Transaction id.
    pub transaction: [u8; 12],
}

impl BindingRequest<'_> {
    /// The datagram.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut message = vec![0x00, 0x01, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        message.extend_from_slice(&self.transaction);
        attribute(&mut message, 0x0006, self.username.as_bytes());
        attribute(&mut message, 0x0024, &0x6E00_01FF_u32.to_be_bytes()); // PRIORITY
        attribute(&mut message, 0x802A, &7_u64.to_be_bytes()); // ICE-CONTROLLING
        if self.use_candidate {
            attribute(&mut message, 0x0025, &[]);
        }
        set_len(&mut message, 24);
        let mut mac = Hmac::<Sha1>::new_from_slice(self.password.as_bytes()).expect("any key length");
        mac.update(&message);
        let tag = mac.finalize().into_bytes();
        attribute(&mut message, 0x0008, &tag);
        set_len(&mut message, 8);
        let crc = crc32(&message) ^ 0x5354_554E;
        attribute(&mut message, 0x8028, &crc.to_be_bytes());
        message
    }
}

/// A success response?
pub fn is_success(datagram: &[u8]) -> bool {
    datagram.starts_with(&[0x01, 0x01])
}

/// RFC 7983 §7: the first byte of STUN is 0 to 3.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|&first| first < 4)
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
    set_len(message, 0);
}

/// The length field counts what follows the header, and `more` bytes still to come.
fn set_len(message: &mut [u8], more: usize) {
    let len = (message.len() - 20 + more) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
}

/// CRC-32 of ITU V.42, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}
