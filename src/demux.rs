//! What a datagram is, by its first two bytes (RFC 7983 §7, updated by RFC 9443; RFC 5761 §4).

use crate::packet::DropReason;

/// The protocols that share the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 8489.
    Stun,
    /// RFC 6347.
    Dtls,
    /// RFC 3711, media.
    Rtp,
    /// RFC 3711, control.
    Rtcp,
}

impl Protocol {
    /// Tells the protocol of a datagram.
    ///
    /// # Errors
    /// [`DropReason::TooShort`] or [`DropReason::UnknownProtocol`].
    pub fn of(datagram: &[u8]) -> Result<Protocol, DropReason> {
        match *datagram {
            [] | [_] => Err(DropReason::TooShort),
            [0..=3, ..] => Ok(Protocol::Stun),
            [20..=63, ..] => Ok(Protocol::Dtls),
            [128..=191, 192..=223, ..] => Ok(Protocol::Rtcp),
            [128..=191, ..] => Ok(Protocol::Rtp),
            _ => Err(DropReason::UnknownProtocol),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_two_bytes_as_the_rfcs_have_them() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let expected = match first {
                    0..=3 => Ok(Protocol::Stun),
                    20..=63 => Ok(Protocol::Dtls),
                    // RFC 5761 §4: RTCP packet types 192–223 are payload types 64–95 with the marker bit.
                    128..=191 if (64..=95).contains(&(second & 0x7F)) && second & 0x80 != 0 => {
                        Ok(Protocol::Rtcp)
                    }
                    128..=191 => Ok(Protocol::Rtp),
                    _ => Err(DropReason::UnknownProtocol),
                };
                assert_eq!(Protocol::of(&[first, second]), expected);
            }
        }
        assert_eq!(Protocol::of(&[128]), Err(DropReason::TooShort));
        assert_eq!(Protocol::of(&[]), Err(DropReason::TooShort));
    }
}
