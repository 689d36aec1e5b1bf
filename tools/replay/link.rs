//! From a captured frame to the UDP datagram in it: Ethernet, VLAN, Linux cooked, loopback, raw IP; IPv4 and IPv6.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::capture::LinkType;

/// A UDP datagram.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) payload: &'a [u8],
}

/// Why a frame holds no datagram for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Skipped {
    UnknownLink,
    NotIp,
    NotUdp,
    /// Voice is never fragmented, and to put fragments together one has to keep them.
    Fragment,
    /// The capture kept only its beginning.
    CutOff,
    Malformed,
}

impl Skipped {
    pub(crate) const ALL: [Skipped; 6] = [
        Skipped::UnknownLink,
        Skipped::NotIp,
        Skipped::NotUdp,
        Skipped::Fragment,
        Skipped::CutOff,
        Skipped::Malformed,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Skipped::UnknownLink => "of an unknown link layer",
            Skipped::NotIp => "not IP",
            Skipped::NotUdp => "not UDP",
            Skipped::Fragment => "that are fragments",
            Skipped::CutOff => "cut off by the capture",
            Skipped::Malformed => "malformed",
        }
    }
}

/// What a capture held: datagrams, and how many frames there were none in, and why.
#[derive(Debug, Default)]
pub(crate) struct Skips {
    pub(crate) datagrams: u64,
    frames: [u64; Skipped::ALL.len()],
}

impl Skips {
    pub(crate) fn skip(&mut self, reason: Skipped) {
        self.frames[reason as usize] += 1;
    }

    /// Frames that held no datagram.
    pub(crate) fn total(&self) -> u64 {
        self.frames.iter().sum()
    }

    /// Says what of the capture was no UDP datagram.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for (reason, count) in Skipped::ALL.into_iter().zip(self.frames).filter(|(_, count)| *count > 0) {
            writeln!(out, "{count} frames {}", reason.label())?;
        }
        Ok(())
    }
}

/// VLAN tags one in another.
const TAG_COUNT_MAX: usize = 4;
/// IPv6 extension headers before UDP.
const EXTENSION_COUNT_MAX: usize = 8;
const UDP: u8 = 17;

/// Finds the datagram in a frame.
pub(crate) fn datagram(link: LinkType, frame: &[u8]) -> Result<Datagram<'_>, Skipped> {
    match link.0 {
        0 | 108 => ip(frame.get(4..).ok_or(Skipped::Malformed)?),
        1 => ethertype(frame, 12),
        12 | 14 | 101 | 228 | 229 => ip(frame),
        113 => ethertype(frame, 14),
        // Linux cooked v2: the protocol comes first, the payload after 20 bytes.
        276 => match (frame.get(..2), frame.get(20..)) {
            (Some([0x08, 0x00] | [0x86, 0xDD]), Some(packet)) => ip(packet),
            (Some([0x81, 0x00] | [0x88, 0xA8]), Some(tagged)) => ethertype(tagged, 2),
            (Some(_), Some(_)) => Err(Skipped::NotIp),
            _ => Err(Skipped::Malformed),
        },
        _ => Err(Skipped::UnknownLink),
    }
}

/// An EtherType at `at`, VLAN tags before it.
fn ethertype(frame: &[u8], at: usize) -> Result<Datagram<'_>, Skipped> {
    let mut rest = frame.get(at..).ok_or(Skipped::Malformed)?;
    for _ in 0..=TAG_COUNT_MAX {
        match rest {
            [0x81, 0x00, _, _, inner @ ..]
            | [0x88, 0xA8, _, _, inner @ ..]
            | [0x91, 0x00, _, _, inner @ ..] => rest = inner,
            [0x08, 0x00, packet @ ..] | [0x86, 0xDD, packet @ ..] => return ip(packet),
            [_, _, ..] => return Err(Skipped::NotIp),
            _ => return Err(Skipped::Malformed),
        }
    }
    Err(Skipped::Malformed)
}

fn ip(packet: &[u8]) -> Result<Datagram<'_>, Skipped> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4(packet),
        Some(6) => ipv6(packet),
        Some(_) => Err(Skipped::NotIp),
        None => Err(Skipped::Malformed),
    }
}

fn ipv4(packet: &[u8]) -> Result<Datagram<'_>, Skipped> {
    let fixed = packet.first_chunk::<20>().ok_or(Skipped::CutOff)?;
    let header_len = usize::from(fixed[0] & 0x0F) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if header_len < 20 || total_len < header_len {
        return Err(Skipped::Malformed);
    }
    if fixed[9] != UDP {
        return Err(Skipped::NotUdp);
    }
    if u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3FFF != 0 {
        return Err(Skipped::Fragment);
    }
    let body = packet.get(header_len..total_len).ok_or(Skipped::CutOff)?;
    let source = Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]);
    let destination = Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]);
    udp(body, source.into(), destination.into())
}

fn ipv6(packet: &[u8]) -> Result<Datagram<'_>, Skipped> {
    let (fixed, rest) = packet.split_first_chunk::<40>().ok_or(Skipped::CutOff)?;
    let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
    let mut body = rest.get(..len).ok_or(Skipped::CutOff)?;
    let mut next = fixed[6];
    for _ in 0..EXTENSION_COUNT_MAX {
        match next {
            UDP => {
                let address = |at: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&fixed[at..at + 16]);
                    IpAddr::V6(Ipv6Addr::from(octets))
                };
                return udp(body, address(8), address(24));
            }
            0 | 43 | 60 => {
                let [after, words, ..] = body else { return Err(Skipped::Malformed) };
                next = *after;
                body = body.get((usize::from(*words) + 1) * 8..).ok_or(Skipped::Malformed)?;
            }
            44 => return Err(Skipped::Fragment),
            _ => return Err(Skipped::NotUdp),
        }
    }
    Err(Skipped::Malformed)
}

fn udp(body: &[u8], source: IpAddr, destination: IpAddr) -> Result<Datagram<'_>, Skipped> {
    let &[s0, s1, d0, d1, l0, l1, ..] = body else { return Err(Skipped::Malformed) };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let payload = body.get(8..len).ok_or(Skipped::Malformed)?;
    Ok(Datagram {
        source: SocketAddr::new(source, u16::from_be_bytes([s0, s1])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([d0, d1])),
        payload,
    })
}
