//! What feedback messages carry behind their two SSRCs (RFC 4585 §6.2.1, RFC 5104 §4.3.1).

use crate::ids::Ssrc;

/// The packets that a NACK asks for.
#[derive(Clone, Copy, Debug)]
pub struct LostPackets<'a>(&'a [[u8; 4]]);

/// The keyframes that a FIR asks for.
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a>(&'a [[u8; 8]]);

/// One of them. The same number again is the same request, repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirRequest {
    /// Whose keyframe.
    pub ssrc: Ssrc,
    /// Counts the requests.
    pub number: u8,
}

impl<'a> LostPackets<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<LostPackets<'a>> {
        let (entries, rest) = bytes.as_chunks();
        (!entries.is_empty() && rest.is_empty()).then_some(LostPackets(entries))
    }

    /// Their sequence numbers as the peer lists them: 1 to 17 an entry, in any order, any of them more
    /// than once. A datagram can list 6,000, so whoever sends again has to have a budget.
    pub fn seqs(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.0.iter().flat_map(|[p0, p1, m0, m1]| {
            let first = u16::from_be_bytes([*p0, *p1]);
            let following = u16::from_be_bytes([*m0, *m1]);
            // Bit n of the mask stands for the packet n + 1 after the first.
            let following = (1..=16).filter(move |n| following >> (n - 1) & 1 == 1);
            std::iter::once(first).chain(following.map(move |n| first.wrapping_add(n)))
        })
    }
}

impl<'a> Fir<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<Fir<'a>> {
        let (entries, rest) = bytes.as_chunks();
        (!entries.is_empty() && rest.is_empty()).then_some(Fir(entries))
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = FirRequest> + use<'a> {
        self.0.iter().map(|[a, b, c, d, number, ..]| FirRequest {
            ssrc: Ssrc(u32::from_be_bytes([*a, *b, *c, *d])),
            number: *number,
        })
    }
}
