//! Where media comes in: UDP ports, and the addresses that clients are told.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::ids::{WORKER_COUNT_MAX, WorkerId};

/// UDP ports of media: one that all workers share, or one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPorts {
    first: u16,
    /// Of the range; `None` for one shared port.
    last: Option<u16>,
}

impl UdpPorts {
    /// One port for all workers; 0: the kernel chooses.
    pub const fn shared(port: u16) -> UdpPorts {
        UdpPorts { first: port, last: None }
    }

    /// Whether all workers bind the same port.
    pub const fn is_shared(self) -> bool {
        self.last.is_none()
    }

    /// The port that a worker binds; 0: the kernel chooses. A worker beyond the range has the last one;
    /// there is none in a [`Config`](super::Config).
    pub fn of(self, worker: WorkerId) -> u16 {
        self.first.saturating_add(self.offset(worker)).min(self.last.unwrap_or(self.first))
    }

    pub(super) fn offset(self, worker: WorkerId) -> u16 {
        if self.is_shared() { 0 } else { worker.0.into() }
    }

    pub(super) fn worker_count_max(self) -> usize {
        self.last.map_or(WORKER_COUNT_MAX, |last| usize::from(last - self.first) + 1)
    }
}

impl FromStr for UdpPorts {
    type Err = ();

    fn from_str(text: &str) -> Result<UdpPorts, ()> {
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| ());
        match text.split_once('-') {
            None => Ok(UdpPorts::shared(port(text)?)),
            Some((first, last)) => {
                let (first, last) = (port(first)?, port(last)?);
                if 0 < first && first <= last { Ok(UdpPorts { first, last: Some(last) }) } else { Err(()) }
            }
        }
    }
}

impl fmt::Display for UdpPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last {
            None => write!(f, "{}", self.first),
            Some(last) => write!(f, "{}-{last}", self.first),
        }
    }
}

/// An address that clients are told; a unicast one, never an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    ip: IpAddr,
    pub(super) port: Option<u16>,
}

impl Advertised {
    /// The address.
    pub const fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Where clients reach a worker that is bound to `bound_port`: there, unless a port was given. Given a
    /// range, the port given is the first worker's and the others' follow.
    pub fn of(&self, ports: UdpPorts, worker: WorkerId, bound_port: u16) -> SocketAddr {
        let port = self.port.map_or(bound_port, |port| port.saturating_add(ports.offset(worker)));
        SocketAddr::new(self.ip, port)
    }
}

impl FromStr for Advertised {
    type Err = ();

    fn from_str(text: &str) -> Result<Advertised, ()> {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let (ip, port) = if let Ok(ip) = text.parse::<IpAddr>() {
            (ip, None)
        } else if let Some(Ok(ip)) = bare.map(str::parse) {
            (IpAddr::V6(ip), None)
        } else {
            let address: SocketAddr = text.parse().map_err(|_| ())?;
            (address.ip(), Some(address.port()))
        };
        let ip = ip.to_canonical();
        let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || is_broadcast || port == Some(0) {
            return Err(());
        }
        Ok(Advertised { ip, port })
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => self.ip.fmt(f),
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
        }
    }
}
