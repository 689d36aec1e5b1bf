//! The workers' UDP sockets: who binds what, and the options that the backends rely on.
//!
//! Sockets stay blocking: a ring refuses to poll for a descriptor that is not. Whoever sends says
//! `MSG_DONTWAIT`.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::busy_poll::BusyPollError;
use super::steer;
use crate::packet::SocketId;

/// Sockets that one worker may have.
pub const SOCKET_COUNT_MAX: usize = 8;

/// Asked for in each direction, bytes. The usual default holds 256 voice datagrams, a few milliseconds'
/// worth of a busy server.
pub const BUFFER_LEN_WANTED: usize = 8 << 20;

/// Ports tried until one is free in both families, when any port will do.
const ANY_PORT_TRIES: usize = 32;

/// Where datagrams to any address of this machine come in; IPv6 where it has that.
pub const WILDCARDS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// One worker's sockets, one a family, IPv4 first. A [`SocketId`] is a place in them.
#[derive(Debug)]
pub struct WorkerSockets {
    port: u16,
    sockets: Vec<UdpSocket>,
    is_steered: bool,
}

impl WorkerSockets {
    /// The port that all of them have.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// In the order of their [`SocketId`].
    pub fn sockets(&self) -> &[UdpSocket] {
        &self.sockets
    }

    /// The kernel brings Binding requests to the worker that the user name names. Without, as without a
    /// shared port, it is up to the workers.
    pub fn is_steered(&self) -> bool {
        self.is_steered
    }

    /// What they are bound to, in the order of their [`SocketId`].
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let local = |socket: &UdpSocket| socket.local_addr().map_or(WILDCARDS[0], |local| local.ip());
        self.sockets.iter().map(local)
    }

    /// The socket that reaches `remote`: the one of its family.
    pub fn towards(&self, remote: SocketAddr) -> Option<SocketId> {
        let is_same_family =
            |socket: &UdpSocket| socket.local_addr().is_ok_and(|local| local.is_ipv6() == remote.is_ipv6());
        self.sockets.iter().position(is_same_family).map(|index| SocketId(index as u8))
    }

    /// What the kernel granted; the smallest of all sockets.
    pub fn buffer_lens(&self) -> BufferLens {
        let smallest = |name| {
            let granted =
                |socket: &UdpSocket| option(socket.as_raw_fd(), libc::SOL_SOCKET, name).unwrap_or(0);
            // The kernel reports twice what it was asked for, to cover its own book-keeping.
            self.sockets.iter().map(granted).min().unwrap_or(0) as usize / 2
        };
        BufferLens { receive: smallest(libc::SO_RCVBUF), send: smallest(libc::SO_SNDBUF) }
    }

    /// Where several sockets would do, the kernel is to choose these for what `cpu` received (`SO_INCOMING_CPU`).
    ///
    /// Not for sockets that share their port: since Linux 6.2 it would decide between them, the hash no longer, and
    /// a card with one queue would bring everything to one worker.
    pub fn prefer_cpu(&self, cpu: usize) {
        for fd in self.fds() {
            // A hint: nothing is missing without.
            let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_INCOMING_CPU, cpu as libc::c_int);
        }
    }

    /// Whoever waits for one of them looks into the card's queue first, for `time` at most.
    pub(super) fn set_busy_poll(&self, time: Duration) -> Result<(), BusyPollError> {
        let micros = libc::c_int::try_from(time.as_micros()).unwrap_or(libc::c_int::MAX);
        for fd in self.fds() {
            set_option(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, micros).map_err(BusyPollError::Socket)?;
        }
        for fd in self.fds() {
            set_option(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)
                .map_err(BusyPollError::Preference)?;
        }
        Ok(())
    }

    /// Which of them cut one send into segments.
    pub(super) fn has_segmentation(&self) -> [bool; SOCKET_COUNT_MAX] {
        let mut has = [false; SOCKET_COUNT_MAX];
        assert!(self.sockets.len() <= SOCKET_COUNT_MAX);
        has.iter_mut().zip(self.fds()).for_each(|(has, fd)| *has = has_segmentation(fd));
        has
    }

    /// The one address that a socket's datagrams leave from, whatever their path; none on a wildcard address.
    pub(super) fn sources(&self) -> [Option<IpAddr>; SOCKET_COUNT_MAX] {
        let mut sources = [None; SOCKET_COUNT_MAX];
        sources.iter_mut().zip(self.ips()).for_each(|(source, ip)| {
            *source = Some(ip).filter(|ip| !ip.is_unspecified());
        });
        sources
    }

    /// Datagrams that the kernel dropped because a buffer was full; wraps.
    pub(super) fn overflows(&self) -> u32 {
        self.fds().map(drop_count).fold(0, u32::wrapping_add)
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        self.sockets.iter().map(AsRawFd::as_raw_fd)
    }
}

/// Socket buffers as granted, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLens {
    /// `SO_RCVBUF`.
    pub receive: usize,
    /// `SO_SNDBUF`.
    pub send: usize,
}

/// Why the sockets could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error("UDP port {0} is in use by another process")]
    PortInUse(u16),
    /// This machine has no such address.
    #[error("this machine has no address {0}")]
    NoSuchAddress(IpAddr),
    /// A range names fewer ports than there are workers.
    #[error(
        "UDP ports {first}-{last} are too few for {worker_count} workers: one port a worker, or one for all"
    )]
    TooFewPorts {
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// How many workers there are to be.
        worker_count: usize,
    },
    /// The kernel refused.
    #[error("cannot open UDP port {port}: {source}")]
    Refused {
        /// The port asked for.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> BindError {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::PortInUse(address.port()),
            Some(libc::EADDRNOTAVAIL) => BindError::NoSuchAddress(address.ip()),
            _ => BindError::Refused { port: address.port(), source },
        }
    }
}

/// Binds the sockets of `worker_count` workers, in the workers' order, to each of `ips`: one of a family at most.
///
/// A range of several ports gives each worker the next one. One port is shared by all workers
/// (`SO_REUSEPORT`); port 0 stands for any that is free. Beside IPv4, IPv6's wildcard is done without where
/// the machine has no IPv6.
///
/// # Errors
/// When a port is taken, even by somebody who would share it, the range is too short, or the machine has no such address.
pub fn bind(
    ports: RangeInclusive<u16>,
    worker_count: usize,
    ips: &[IpAddr],
) -> Result<Vec<WorkerSockets>, BindError> {
    let (first, last) = (*ports.start(), *ports.end());
    if first == last {
        return bind_shared(first, worker_count, ips);
    }
    if ports.len() < worker_count {
        return Err(BindError::TooFewPorts { first, last, worker_count });
    }
    ports.take(worker_count).map(|port| Ok(bind_shared(port, 1, ips)?.remove(0))).collect()
}

/// Binds one port `worker_count` times.
fn bind_shared(port: u16, worker_count: usize, ips: &[IpAddr]) -> Result<Vec<WorkerSockets>, BindError> {
    if port != 0 {
        return bind_port(port, worker_count, ips);
    }
    let any = SocketAddr::new(ips.first().copied().unwrap_or(WILDCARDS[0]), 0);
    let mut tries = ANY_PORT_TRIES;
    loop {
        // The kernel picks a port that is free in one family; the other may have it taken.
        let picked = open(any).and_then(|socket| port_of(&socket));
        let port = picked.map_err(|source| BindError::new(any, source))?;
        tries -= 1;
        match bind_port(port, worker_count, ips) {
            Err(BindError::PortInUse(_)) if tries > 0 => {}
            result => return result,
        }
    }
}

fn bind_port(port: u16, worker_count: usize, ips: &[IpAddr]) -> Result<Vec<WorkerSockets>, BindError> {
    let mut families = Vec::new();
    for ip in ips {
        let address = SocketAddr::new(*ip, port);
        match bind_family(address, worker_count) {
            Err(error) if *ip == WILDCARDS[1] && ips.len() > 1 && is_without_ipv6(&error) => {}
            result => families.push(result.map_err(|source| BindError::new(address, source))?),
        }
    }
    let without_sockets = || WorkerSockets { port, sockets: Vec::new(), is_steered: worker_count > 1 };
    let mut workers: Vec<_> = std::iter::repeat_with(without_sockets).take(worker_count).collect();
    for sockets in families {
        // One program a group, and the families are groups of their own.
        if worker_count > 1 && steer::attach(sockets[0].as_raw_fd()).is_err() {
            workers.iter_mut().for_each(|worker| worker.is_steered = false);
        }
        for (worker, socket) in workers.iter_mut().zip(sockets) {
            worker.sockets.push(socket.into());
        }
    }
    Ok(workers)
}

/// Binds the sockets of one family, in the workers' order: the order in which they join the group that
/// shares the port is their number in it.
///
/// The first binds for itself alone and is opened to the others afterwards. So a second server cannot
/// join unnoticed and take half of the datagrams, and none can slip in between a trial and the real thing.
fn bind_family(address: SocketAddr, worker_count: usize) -> io::Result<Vec<Socket>> {
    let first = open(address)?;
    let mut sockets = vec![first];
    if worker_count > 1 {
        sockets[0].set_reuse_port(true)?;
    }
    for _ in 1..worker_count {
        let socket = unbound(Domain::for_address(address))?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = unbound(Domain::for_address(address))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn port_of(socket: &Socket) -> io::Result<u16> {
    let address = socket.local_addr()?;
    address.as_socket().map(|address| address.port()).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// A socket with every option but the port.
fn unbound(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    let fd = socket.as_raw_fd();
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    } else {
        set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        // A datagram that nobody may cut needs no number of its own (RFC 6864 §4.1), and the kernel's draw is a
        // twentieth of a send. Where it cannot be had, nothing else is missing.
        let _ = set_may_fragment(fd, false);
    }
    // For the latency that we add: where it cannot be had, nothing else is missing.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
    set_buffer_lens(fd)?;
    Ok(socket)
}

/// Room for what comes and for what leaves while nobody looks, past the system's limits where we may.
///
/// # Errors
/// The kernel's.
pub fn set_buffer_lens(fd: RawFd) -> io::Result<()> {
    set_buffer_len(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
    set_buffer_len(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)
}

/// Whether the kernel cuts what is longer than the path's MTU as it sends it on IPv4, instead of refusing it
/// (`EMSGSIZE`). What fits is never cut on the way, either way; on IPv6 this changes nothing.
///
/// # Errors
/// The kernel's.
pub fn set_may_fragment(fd: RawFd, may_fragment: bool) -> io::Result<()> {
    let discovery = if may_fragment { libc::IP_PMTUDISC_WANT } else { libc::IP_PMTUDISC_DO };
    set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discovery)
}

/// Past the system's limit where we may, else up to it.
fn set_buffer_len(fd: RawFd, forced: libc::c_int, limited: libc::c_int) -> io::Result<()> {
    let wanted = BUFFER_LEN_WANTED as libc::c_int;
    set_option(fd, libc::SOL_SOCKET, forced, wanted)
        .or_else(|_| set_option(fd, libc::SOL_SOCKET, limited, wanted))
}

/// No IPv6 in this kernel, or switched off: either is fine.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT | libc::ENOPROTOOPT)
    )
}

/// Whether the kernel cuts one send into segments (`UDP_SEGMENT`, Linux 4.18).
pub(super) fn has_segmentation(fd: RawFd) -> bool {
    option(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
}

fn set_option(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a live integer of `len` bytes.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a live integer of `len` bytes, and the kernel writes no more than that.
    let result = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel dropped on this socket since it was opened; 0 where it does not say (Linux 4.12).
fn drop_count(fd: RawFd) -> u32 {
    // `SO_MEMINFO`: nine counts of `linux/sock_diag.h`, the last of them `SK_MEMINFO_DROPS`.
    let mut counts = [0_u32; 9];
    let mut len = mem::size_of_val(&counts) as libc::socklen_t;
    let option = libc::SO_MEMINFO;
    // SAFETY: `counts` is alive and `len` bytes long, and the kernel writes no more than that.
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, counts.as_mut_ptr().cast(), &raw mut len) };
    counts[8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_share_the_port_and_nobody_else_joins() {
        let workers = bind(0..=0, 3, &WILDCARDS).unwrap();
        let port = workers[0].port();
        assert_ne!(port, 0);
        for worker in &workers {
            for socket in worker.sockets() {
                assert_eq!(socket.local_addr().unwrap().port(), port);
            }
            assert_eq!(worker.port(), port);
        }
        let error = bind(port..=port, 2, &WILDCARDS).unwrap_err();
        assert_eq!(error.to_string(), format!("UDP port {port} is in use by another process"));
    }

    #[test]
    fn a_port_that_another_process_would_share_is_in_use_as_well() {
        let other = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        other.set_reuse_port(true).unwrap();
        other.bind(&SocketAddr::new(WILDCARDS[0], 0).into()).unwrap();
        let port = port_of(&other).unwrap();
        assert!(matches!(bind(port..=port, 2, &WILDCARDS), Err(BindError::PortInUse(p)) if p == port));
        assert!(matches!(bind(port..=port, 1, &WILDCARDS[..1]), Err(BindError::PortInUse(p)) if p == port));
    }

    #[test]
    fn a_range_gives_each_worker_its_own_port_or_says_that_it_cannot() {
        let error = bind(4000..=4001, 3, &WILDCARDS).unwrap_err();
        assert_eq!(
            error.to_string(),
            "UDP ports 4000-4001 are too few for 3 workers: one port a worker, or one for all"
        );
        // Some neighbours among the ephemeral ports are free.
        let workers = (0..50).find_map(|_| {
            let first = bind(0..=0, 1, &WILDCARDS[..1]).ok()?[0].port();
            bind(first..=first.checked_add(1)?, 2, &WILDCARDS[..1]).ok()
        });
        let workers = workers.unwrap();
        assert_eq!(workers[1].port(), workers[0].port() + 1);
    }

    #[test]
    fn families_are_apart_and_each_is_found_by_the_remote() {
        let worker = bind(0..=0, 1, &WILDCARDS).unwrap().remove(0);
        assert_eq!(worker.towards("127.0.0.1:9".parse().unwrap()), Some(SocketId(0)));
        let v6 = worker.ips().any(|ip| ip.is_ipv6()).then_some(SocketId(1));
        assert_eq!(worker.towards("[::1]:9".parse().unwrap()), v6);
        assert!(worker.buffer_lens().receive > 0);
    }

    #[test]
    fn a_socket_of_one_address_leaves_the_others_to_others() {
        let [here, there] = [IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3])];
        let worker = bind(0..=0, 1, &[here]).unwrap().remove(0);
        assert_eq!(worker.ips().collect::<Vec<_>>(), [here]);
        assert_eq!(worker.sources()[..2], [Some(here), None]);
        let port = worker.port();
        assert!(matches!(bind(port..=port, 1, &[here]), Err(BindError::PortInUse(p)) if p == port));
        assert!(bind(port..=port, 1, &[there]).is_ok());
        let elsewhere = IpAddr::from([192, 0, 2, 1]);
        let error = bind(0..=0, 1, &[elsewhere]).unwrap_err();
        assert_eq!(error.to_string(), "this machine has no address 192.0.2.1");
        let wild = bind(0..=0, 1, &WILDCARDS).unwrap().remove(0);
        assert!(wild.sources().iter().all(Option::is_none));
    }
}
