//! Socket addresses and control messages as the kernel lays them out in memory, written and read as
//! plain bytes: `sockaddr_in`, `sockaddr_in6`, `cmsghdr` with `in_pktinfo`, `in6_pktinfo` and
//! `UDP_SEGMENT`.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use crate::packet::DropReason;

/// Room for either family's socket address.
pub(super) const NAME_LEN: usize = mem::size_of::<libc::sockaddr_in6>();

/// Room for all control messages of a datagram: a source address and a segment length.
pub(super) const CONTROL_LEN: usize = 64;

/// Room for what the kernel says of a datagram that came: `in6_pktinfo` and the time.
pub(super) const SAID_LEN: usize = space(PKTINFO_V6_LEN) + space(mem::size_of::<libc::timespec>());

/// Alignment of control messages.
const WORD_LEN: usize = mem::size_of::<usize>();

/// Length of `cmsghdr`, which the data follows at once.
const HEADER_LEN: usize = mem::size_of::<libc::cmsghdr>();

const fn space(data_len: usize) -> usize {
    HEADER_LEN + data_len.next_multiple_of(WORD_LEN)
}

const PKTINFO_V4_LEN: usize = mem::size_of::<libc::in_pktinfo>();
const PKTINFO_V6_LEN: usize = mem::size_of::<libc::in6_pktinfo>();
const SEGMENT_LEN_LEN: usize = mem::size_of::<u16>();

const _: () = assert!(HEADER_LEN == WORD_LEN + 8 && HEADER_LEN.is_multiple_of(WORD_LEN));
const _: () = assert!(space(PKTINFO_V6_LEN) + space(SEGMENT_LEN_LEN) <= CONTROL_LEN);
const _: () = assert!(PKTINFO_V4_LEN <= PKTINFO_V6_LEN);

/// A socket address in the kernel's layout.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Name {
    bytes: [u8; NAME_LEN],
    len: u32,
}

impl Name {
    pub(super) fn new(address: SocketAddr) -> Name {
        let mut name = Name { bytes: [0; NAME_LEN], len: 0 };
        let bytes = &mut name.bytes;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&address.ip().octets());
                name.len = mem::size_of::<libc::sockaddr_in>() as u32;
            }
            SocketAddr::V6(address) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&address.ip().octets());
                bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                name.len = NAME_LEN as u32;
            }
        }
        name
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// What it was made of.
    pub(in crate::net) fn address(&self) -> Option<SocketAddr> {
        parse_name(&self.bytes)
    }
}

/// The address that the kernel wrote; the flow label is left out, so that a peer has one address only.
fn parse_name(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip = Ipv4Addr::from_octets(*bytes.get(4..)?.first_chunk()?);
            Some(SocketAddrV4::new(ip, port).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from_octets(*bytes.get(8..)?.first_chunk()?);
            let scope_id = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(ip, port, 0, scope_id).into())
        }
        _ => None,
    }
}

/// Control messages in the kernel's layout.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control {
    bytes: [u8; CONTROL_LEN],
    len: usize,
}

impl Control {
    pub(super) fn new() -> Control {
        Control { bytes: [0; CONTROL_LEN], len: 0 }
    }

    /// Lets the datagram leave from `source`. The unspecified address leaves the choice to the kernel.
    /// `interface` matters for IPv6 link-local addresses, 0 otherwise.
    pub(super) fn push_source(&mut self, source: IpAddr, interface: u32) {
        if source.is_unspecified() {
            return;
        }
        match source {
            IpAddr::V4(source) => {
                // in_pktinfo: interface, source, destination as received.
                let mut info = [0; PKTINFO_V4_LEN];
                info[4..8].copy_from_slice(&source.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(source) => {
                // in6_pktinfo: source, interface.
                let mut info = [0; PKTINFO_V6_LEN];
                info[..16].copy_from_slice(&source.octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// Cuts the send into datagrams of `len` bytes, the last of what is left.
    pub(super) fn push_segment_len(&mut self, len: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &len.to_ne_bytes());
    }

    /// Takes back [`Control::push_segment_len`], if it was the last.
    pub(super) fn pop_segment_len(&mut self) {
        self.len = self.len.saturating_sub(space(SEGMENT_LEN_LEN));
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a look at what [`Control::push_source`] wrote.
    pub(in crate::net) fn source(&self) -> Option<IpAddr> {
        parse_control(&self.bytes[..self.len]).local
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let message = &mut self.bytes[self.len..][..space(data.len())];
        message[..WORD_LEN].copy_from_slice(&(HEADER_LEN + data.len()).to_ne_bytes());
        message[WORD_LEN..][..4].copy_from_slice(&level.to_ne_bytes());
        message[WORD_LEN + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER_LEN..][..data.len()].copy_from_slice(data);
        self.len += space(data.len());
    }
}

/// Where a datagram came from and when, or why it is none to be handed out.
pub(super) fn parse_origin(name: &[u8], control: &[u8]) -> Result<Origin, DropReason> {
    let remote = parse_name(name).ok_or(DropReason::UnknownPath)?;
    let said = parse_control(control);
    let local = said.local.ok_or(DropReason::UnknownPath)?;
    // IPv4 has a socket of its own: such a source is forged.
    if matches!(remote.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return Err(DropReason::UnknownPath);
    }
    Ok(Origin { local, remote, arrived: said.arrived })
}

/// What name and control messages of a datagram amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The address of ours that it was sent to.
    pub(super) local: IpAddr,
    /// Who sent it.
    pub(super) remote: SocketAddr,
    /// When it came, since 1970.
    pub(super) arrived: Option<Duration>,
}

/// What the kernel says of a datagram that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    /// The address of ours that it was sent to.
    local: Option<IpAddr>,
    /// When it came, since 1970 (`SO_TIMESTAMPNS`).
    arrived: Option<Duration>,
}

/// Reads control messages; what cannot be read ends the search.
fn parse_control(mut control: &[u8]) -> Said {
    let mut said = Said::default();
    while let Some((message, rest)) = split_message(control) {
        let data = message.data;
        match (message.level, message.kind) {
            // The address to answer from, which for a broadcast is not the one in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                said.local =
                    data.get(4..).and_then(<[u8]>::first_chunk).map(|ip| Ipv4Addr::from_octets(*ip).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                said.local = data.first_chunk().map(|ip| Ipv6Addr::from_octets(*ip).into());
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => said.arrived = parse_timespec(data),
            _ => {}
        }
        control = rest;
    }
    said
}

/// A control message.
struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

/// The first message, and what follows it.
fn split_message(control: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let len = usize::from_ne_bytes(*control.first_chunk()?);
    let level = i32::from_ne_bytes(*control.get(WORD_LEN..)?.first_chunk()?);
    let kind = i32::from_ne_bytes(*control.get(WORD_LEN + 4..)?.first_chunk()?);
    let data = control.get(HEADER_LEN..len)?;
    let rest = control.get(len.next_multiple_of(WORD_LEN)..).unwrap_or_default();
    Some((Message { level, kind, data }, rest))
}

fn parse_timespec(data: &[u8]) -> Option<Duration> {
    let seconds = i64::from_ne_bytes(*data.first_chunk()?);
    let nanos = i64::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds.try_into().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for text in ["127.0.0.2:3478", "[2001:db8::1]:65535", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let name = Name::new(address);
            assert_eq!(parse_name(&name.bytes[..name.len as usize]), Some(address));
            assert_eq!(name.address(), Some(address));
            for len in 0..name.len as usize {
                assert_eq!(parse_name(&name.bytes[..len]).filter(|_| len < 8), None);
            }
        }
        assert_eq!(parse_name(&[0xFF; NAME_LEN]), None);
    }

    #[test]
    fn a_peer_has_one_address_whatever_its_flow_label() {
        let mut name = Name::new("[2001:db8::1]:9".parse().unwrap());
        name.bytes[4..8].copy_from_slice(&[1, 2, 3, 4]);
        assert_eq!(parse_name(&name.bytes), Some("[2001:db8::1]:9".parse().unwrap()));
    }

    #[test]
    fn sources_round_trip_behind_other_messages() {
        for text in ["127.0.0.2", "2001:db8::1"] {
            let source: IpAddr = text.parse().unwrap();
            let mut control = Control::new();
            control.push_segment_len(1200);
            control.push_source(source, 3);
            assert_eq!(control.source(), Some(source));
        }
        let mut control = Control::new();
        control.push_source(Ipv4Addr::UNSPECIFIED.into(), 0);
        assert_eq!(control.len, 0);
    }

    #[test]
    fn a_datagram_without_an_address_of_ours_or_from_a_mapped_one_has_no_origin() {
        let remote: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let name = Name::new(remote);
        let name = &name.bytes[..name.len as usize];
        let mut control = Control::new();
        assert_eq!(parse_origin(name, &control.bytes[..control.len]), Err(DropReason::UnknownPath));
        let local = IpAddr::from([127, 0, 0, 2]);
        control.push_source(local, 0);
        let control = &control.bytes[..control.len];
        assert_eq!(parse_origin(name, control), Ok(Origin { local, remote, arrived: None }));
        assert_eq!(parse_origin(&name[..7], control), Err(DropReason::UnknownPath));
        let forged = Name::new("[::ffff:192.0.2.1]:9".parse().unwrap());
        assert_eq!(parse_origin(&forged.bytes, control), Err(DropReason::UnknownPath));
    }

    #[test]
    fn hostile_control_bytes_end_the_search() {
        let mut control = Control::new();
        control.push_segment_len(1200);
        for len in [0, 1, HEADER_LEN - 1, CONTROL_LEN + 1, usize::MAX] {
            control.bytes[..WORD_LEN].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(parse_control(&control.bytes), Said::default(), "{len}");
        }
        assert_eq!(parse_control(&[]), Said::default());
    }

    #[test]
    fn the_time_of_arrival_stands_before_or_behind_the_address() {
        let source = IpAddr::from([127, 0, 0, 2]);
        let arrived = Duration::new(1_800_000_000, 5);
        let timespec = [1_800_000_000_i64.to_ne_bytes(), 5_i64.to_ne_bytes()].concat();
        for is_before in [true, false] {
            let mut control = Control::new();
            let time =
                |control: &mut Control| control.push(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &timespec);
            if is_before {
                time(&mut control);
            }
            control.push_source(source, 0);
            if !is_before {
                time(&mut control);
            }
            let said = parse_control(&control.bytes[..control.len]);
            assert_eq!(said, Said { local: Some(source), arrived: Some(arrived) });
        }
        let negative = [(-1_i64).to_ne_bytes(), 5_i64.to_ne_bytes()].concat();
        assert_eq!(parse_timespec(&negative), None);
        assert_eq!(parse_timespec(&timespec[..15]), None);
    }
}
