//! A compound's packets (RFC 3550 §6.1). Reduced-size compounds (RFC 5506) are taken too, so the order
//! of packets is not looked at.

use super::feedback::{Fir, LostPackets};
use super::report::{REPORT_BLOCK_LEN, ReportBlocks, SenderInfo};
use crate::ids::Ssrc;
use crate::packet::DropReason;

/// Bytes in front of every packet.
pub(super) const HEADER_LEN: usize = 4;
/// Most report blocks, SSRCs or chunks of one packet: its count has 5 bits.
pub const ITEM_COUNT_MAX: usize = 31;

/// Packet types (RFC 3550 §12.1, RFC 4585 §6.1).
pub(super) mod packet_type {
    pub(in crate::rtcp) const SENDER_REPORT: u8 = 200;
    pub(in crate::rtcp) const RECEIVER_REPORT: u8 = 201;
    pub(in crate::rtcp) const SOURCE_DESCRIPTION: u8 = 202;
    pub(in crate::rtcp) const BYE: u8 = 203;
    pub(in crate::rtcp) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(in crate::rtcp) const PAYLOAD_FEEDBACK: u8 = 206;
}

/// Feedback message types (RFC 4585 §6.2, §6.3, RFC 5104 §4.3).
pub(super) mod format {
    pub(in crate::rtcp) const NACK: u8 = 1;
    pub(in crate::rtcp) const PLI: u8 = 1;
    pub(in crate::rtcp) const FIR: u8 = 4;
    pub(in crate::rtcp) const APPLICATION: u8 = 15;
}

/// The SDES item that names a participant (RFC 3550 §6.5.1).
pub(super) const CNAME: u8 = 1;

/// A well-formed compound: at least one packet, and every length as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a>(&'a [u8]);

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// SR (RFC 3550 §6.4.1).
    SenderReport {
        /// What the sender says of its own stream.
        info: SenderInfo,
        /// What it says of those it receives.
        reports: ReportBlocks<'a>,
    },
    /// RR (RFC 3550 §6.4.2).
    ReceiverReport {
        /// Who reports.
        ssrc: Ssrc,
        /// On those it receives.
        reports: ReportBlocks<'a>,
    },
    /// SDES (RFC 3550 §6.5).
    Sdes(Sdes<'a>),
    /// BYE (RFC 3550 §6.6).
    Bye {
        /// Who leaves.
        ssrcs: Ssrcs<'a>,
    },
    /// Generic NACK (RFC 4585 §6.2.1).
    Nack {
        /// Who asks.
        sender: Ssrc,
        /// Whose packets are wanted again.
        media: Ssrc,
        /// Which ones.
        lost: LostPackets<'a>,
    },
    /// Picture Loss Indication (RFC 4585 §6.3.1).
    Pli {
        /// Who asks.
        sender: Ssrc,
        /// Whose keyframe is wanted.
        media: Ssrc,
    },
    /// Full Intra Request (RFC 5104 §4.3.1).
    Fir {
        /// Who asks.
        sender: Ssrc,
        /// Whose keyframes are wanted.
        requests: Fir<'a>,
    },
    /// Receiver Estimated Maximum Bitrate (draft-alvestrand-rmcat-remb-03 §2.2).
    Remb {
        /// Who estimates.
        sender: Ssrc,
        /// Bits a second, saturating.
        bitrate_bps: u64,
        /// Of which streams together.
        ssrcs: Ssrcs<'a>,
    },
    /// A packet that is not read here.
    Other {
        /// 0–255; 192–223 in what is RTCP for sure (RFC 5761 §4).
        packet_type: u8,
        /// Count, subtype or feedback message type: 5 bits.
        format: u8,
    },
}

/// A list of SSRCs.
#[derive(Clone, Copy, Debug)]
pub struct Ssrcs<'a>(&'a [[u8; 4]]);

/// The chunks of an SDES packet.
#[derive(Clone, Copy, Debug)]
pub struct Sdes<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// What an SDES packet says of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The source.
    pub ssrc: Ssrc,
    /// Its canonical name, at most 255 bytes; UTF-8 if the peer keeps to RFC 3550.
    pub cname: Option<&'a [u8]>,
}

impl<'a> Compound<'a> {
    /// Checks every packet of a datagram.
    ///
    /// # Errors
    /// [`DropReason::RtcpMalformed`] when it is empty, a length is a lie, the version is not 2, or
    /// anything but the last packet has padding.
    pub fn parse(bytes: &'a [u8]) -> Result<Compound<'a>, DropReason> {
        let mut rest = bytes;
        loop {
            let (_, next) = Packet::split(rest).ok_or(DropReason::RtcpMalformed)?;
            if next.is_empty() {
                return Ok(Compound(bytes));
            }
            rest = next;
        }
    }

    /// Its packets, in order.
    pub fn packets(&self) -> impl Iterator<Item = Packet<'a>> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (packet, next) = Packet::split(rest)?;
            rest = next;
            Some(packet)
        })
    }
}

impl<'a> Packet<'a> {
    /// The first packet, and the bytes after it.
    fn split(bytes: &'a [u8]) -> Option<(Packet<'a>, &'a [u8])> {
        let ([first, packet_type, l0, l1], rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([*l0, *l1])) * 4;
        let (mut body, next) = rest.split_at_checked(len)?;
        let (version, has_padding, count) = (first >> 6, first & 0x20 != 0, first & 0x1F);
        if version != 2 || has_padding && !next.is_empty() {
            return None;
        }
        if has_padding {
            body = without_padding(body)?;
        }
        Some((Packet::read(*packet_type, count, body)?, next))
    }

    fn read(packet_type: u8, count: u8, body: &'a [u8]) -> Option<Packet<'a>> {
        Some(match (packet_type, count) {
            (packet_type::SENDER_REPORT, _) => {
                let (info, rest) = body.split_first_chunk()?;
                Packet::SenderReport { info: SenderInfo::read(info), reports: reports(rest, count)? }
            }
            (packet_type::RECEIVER_REPORT, _) => {
                let (ssrc, rest) = ssrc(body)?;
                Packet::ReceiverReport { ssrc, reports: reports(rest, count)? }
            }
            (packet_type::SOURCE_DESCRIPTION, _) => Packet::Sdes(Sdes::read(body, count)?),
            (packet_type::BYE, _) => Packet::Bye { ssrcs: Ssrcs::read(body, count)? },
            (packet_type::TRANSPORT_FEEDBACK | packet_type::PAYLOAD_FEEDBACK, _) => {
                let (sender, rest) = ssrc(body)?;
                let (media, control_information) = ssrc(rest)?;
                Packet::read_feedback(packet_type, count, sender, media, control_information)?
            }
            (packet_type, format) => Packet::Other { packet_type, format },
        })
    }

    fn read_feedback(
        packet_type: u8,
        format: u8,
        sender: Ssrc,
        media: Ssrc,
        control_information: &'a [u8],
    ) -> Option<Packet<'a>> {
        use packet_type::{PAYLOAD_FEEDBACK, TRANSPORT_FEEDBACK};

        Some(match (packet_type, format) {
            (TRANSPORT_FEEDBACK, format::NACK) => {
                Packet::Nack { sender, media, lost: LostPackets::read(control_information)? }
            }
            (PAYLOAD_FEEDBACK, format::PLI) => Packet::Pli { sender, media },
            // The header's media SSRC is unused: each request names its own.
            (PAYLOAD_FEEDBACK, format::FIR) => {
                Packet::Fir { sender, requests: Fir::read(control_information)? }
            }
            (PAYLOAD_FEEDBACK, format::APPLICATION) => match control_information {
                [b'R', b'E', b'M', b'B', count, a, b, c, rest @ ..] => Packet::Remb {
                    sender,
                    bitrate_bps: remb_bitrate([*a, *b, *c]),
                    ssrcs: Ssrcs::read(rest, *count)?,
                },
                _ => Packet::Other { packet_type, format },
            },
            _ => Packet::Other { packet_type, format },
        })
    }
}

/// The last byte says how many bytes are padding, itself included. RFC 3550 §6.4.1 wants whole words;
/// some implementations pad the reason of a BYE by the byte, and browsers take that, so we do.
fn without_padding(body: &[u8]) -> Option<&[u8]> {
    let padding_len = usize::from(*body.last()?);
    let len = body.len().checked_sub(padding_len)?;
    (padding_len != 0).then_some(&body[..len])
}

fn ssrc(bytes: &[u8]) -> Option<(Ssrc, &[u8])> {
    let (ssrc, rest) = bytes.split_first_chunk()?;
    Some((Ssrc(u32::from_be_bytes(*ssrc)), rest))
}

/// What follows the blocks is a profile's own and skipped (RFC 3550 §6.4.3).
fn reports(bytes: &[u8], count: u8) -> Option<ReportBlocks<'_>> {
    let (blocks, _) = bytes.as_chunks::<REPORT_BLOCK_LEN>();
    Some(ReportBlocks::new(blocks.get(..usize::from(count))?))
}

/// 6 bits of exponent, 18 of mantissa.
fn remb_bitrate([a, b, c]: [u8; 3]) -> u64 {
    let mantissa = u64::from(a & 3) << 16 | u64::from(b) << 8 | u64::from(c);
    let exponent = u32::from(a >> 2);
    if exponent > mantissa.leading_zeros() { u64::MAX } else { mantissa << exponent }
}

impl<'a> Ssrcs<'a> {
    fn read(bytes: &'a [u8], count: u8) -> Option<Ssrcs<'a>> {
        let (ssrcs, _) = bytes.as_chunks::<4>();
        ssrcs.get(..usize::from(count)).map(Ssrcs)
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Ssrc> + use<'a> {
        self.0.iter().map(|ssrc| Ssrc(u32::from_be_bytes(*ssrc)))
    }
}

impl<'a> Sdes<'a> {
    fn read(bytes: &'a [u8], count: u8) -> Option<Sdes<'a>> {
        let sdes = Sdes { bytes, count: usize::from(count) };
        (sdes.chunks().count() == sdes.count).then_some(sdes)
    }

    /// Each of them, in order.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut rest = self.bytes;
        (0..self.count).map_while(move |_| {
            let (chunk, next) = Chunk::split(rest)?;
            rest = next;
            Some(chunk)
        })
    }
}

impl<'a> Chunk<'a> {
    /// Items end with a null one, and the chunk with the word that has it (RFC 3550 §6.5).
    fn split(bytes: &'a [u8]) -> Option<(Chunk<'a>, &'a [u8])> {
        let (ssrc, mut rest) = ssrc(bytes)?;
        let mut cname = None;
        while let [kind, len, after @ ..] = rest
            && *kind != 0
        {
            let (text, next) = after.split_at_checked(usize::from(*len))?;
            if *kind == CNAME {
                cname = cname.or(Some(text));
            }
            rest = next;
        }
        if *rest.first()? != 0 {
            return None; // One byte of an item.
        }
        let items_len = bytes.len() - rest.len();
        let next = bytes.get((items_len + 1).next_multiple_of(4)..)?;
        Some((Chunk { ssrc, cname }, next))
    }
}
