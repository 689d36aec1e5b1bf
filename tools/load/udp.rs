//! A UDP socket that is read in batches; the kernel says when each datagram came and how many it had to drop.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use gryt_sfu::time::Now;
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;

/// Datagrams a call.
pub(crate) const BATCH_LEN: usize = 32;
/// Longer datagrams are of no use to us.
const DATAGRAM_LEN_MAX: usize = 1_600;
/// Room for a timestamp and a count, with their headers.
const CONTROL_LEN: usize = 64;
/// Asked of the kernel, which may give less (`net.core.rmem_max`).
const RECEIVE_BUFFER_LEN: usize = 1 << 20;

/// What a datagram is read into, and what the kernel says of it; one for all sockets of a thread.
pub(crate) struct Batch {
    bytes: Box<[[u8; DATAGRAM_LEN_MAX]]>,
    controls: Box<[Control]>,
    sources: Box<[libc::sockaddr_storage]>,
    read: Vec<Read>,
}

#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL_LEN]);

#[derive(Clone, Copy, Default)]
struct Read {
    len: usize,
    source_len: libc::socklen_t,
    control_len: usize,
    is_whole: bool,
}

/// A datagram of a [`Batch`].
pub(crate) struct Datagram<'a> {
    pub(crate) bytes: &'a [u8],
    /// When the kernel had it, in nanoseconds since 1970.
    pub(crate) arrived_at: Option<u64>,
    /// Datagrams that this socket lost for want of room, ever.
    pub(crate) dropped: Option<u32>,
}

impl Batch {
    pub(crate) fn new() -> Batch {
        // SAFETY: all zeros is a valid `sockaddr_storage`, of no family.
        let nobody: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Batch {
            bytes: vec![[0; DATAGRAM_LEN_MAX]; BATCH_LEN].into(),
            controls: vec![Control([0; CONTROL_LEN]); BATCH_LEN].into(),
            sources: vec![nobody; BATCH_LEN].into(),
            read: Vec::with_capacity(BATCH_LEN),
        }
    }

    /// Reads what is there, up to [`BATCH_LEN`].
    fn fill(&mut self, socket: RawFd) -> io::Result<usize> {
        self.read.clear();
        let mut parts: [libc::iovec; BATCH_LEN] = std::array::from_fn(|i| libc::iovec {
            iov_base: self.bytes[i].as_mut_ptr().cast(),
            iov_len: DATAGRAM_LEN_MAX,
        });
        let mut messages: [libc::mmsghdr; BATCH_LEN] = std::array::from_fn(|i| {
            // SAFETY: all zeros is a valid `mmsghdr`: null pointers with zero lengths.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut self.sources[i]).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut parts[i];
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = CONTROL_LEN;
            message
        });
        let flags = libc::MSG_DONTWAIT;
        // SAFETY: every pointer is into `self` or a local that outlives the call; the count is the array's.
        let count = unsafe {
            libc::recvmmsg(socket, messages.as_mut_ptr(), BATCH_LEN as u32, flags as _, std::ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        self.read.extend(messages.iter().take(count).map(|message| Read {
            len: (message.msg_len as usize).min(DATAGRAM_LEN_MAX),
            source_len: message.msg_hdr.msg_namelen,
            control_len: message.msg_hdr.msg_controllen.min(CONTROL_LEN),
            is_whole: message.msg_hdr.msg_flags & libc::MSG_TRUNC == 0,
        }));
        Ok(count)
    }

    /// The `i`-th of the last reading; `None` for one that was too long.
    pub(crate) fn datagram(&self, i: usize) -> Option<Datagram<'_>> {
        let read = self.read.get(i).filter(|read| read.is_whole)?;
        let mut datagram = Datagram { bytes: &self.bytes[i][..read.len], arrived_at: None, dropped: None };
        let mut rest = &self.controls[i].0[..read.control_len];
        while let Some((kind, data, after)) = next_control(rest) {
            rest = after;
            match kind {
                libc::SCM_TIMESTAMPNS => datagram.arrived_at = timestamp(data),
                libc::SO_RXQ_OVFL => {
                    datagram.dropped = data.first_chunk().map(|count| u32::from_ne_bytes(*count));
                }
                _ => {}
            }
        }
        Some(datagram)
    }

    /// Whose the `i`-th is.
    pub(crate) fn source(&self, i: usize) -> Option<SocketAddr> {
        let read = self.read.get(i)?;
        let storage = self.sources[i];
        let mut copy = socket2::SockAddrStorage::zeroed();
        // SAFETY: `SockAddrStorage` is a transparent `sockaddr_storage`, as socket2 promises by `view_as`.
        let view = unsafe { copy.view_as::<libc::sockaddr_storage>() };
        *view = storage;
        // SAFETY: the kernel wrote an address of this length.
        unsafe { SockAddr::new(copy, read.source_len) }.as_socket()
    }
}

/// Type and data of the first control message, and the rest; only those of `SOL_SOCKET` are asked for.
fn next_control(control: &[u8]) -> Option<(libc::c_int, &[u8], &[u8])> {
    const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
    let len = usize::from_ne_bytes(*control.first_chunk()?);
    let kind = libc::c_int::from_ne_bytes(*control.get(HEADER_LEN - 4..)?.first_chunk()?);
    let data = control.get(HEADER_LEN..len)?;
    Some((kind, data, control.get(len.next_multiple_of(8)..).unwrap_or_default()))
}

/// A `timespec` as nanoseconds.
fn timestamp(data: &[u8]) -> Option<u64> {
    let (seconds, rest) = data.split_first_chunk::<8>()?;
    let nanos = u64::from_ne_bytes(*rest.first_chunk()?);
    u64::from_ne_bytes(*seconds).checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// What turns the kernel's wall-clock timestamps into this process's monotonic time.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) instant: Instant,
    wall: u64,
}

impl Clocks {
    pub(crate) fn read() -> Clocks {
        let now = Now::read();
        let fraction = ((now.ntp.0 & 0xFFFF_FFFF) * 1_000_000_000) >> 32;
        Clocks { instant: now.instant, wall: u64::from(now.ntp.unix_seconds()) * 1_000_000_000 + fraction }
    }

    /// Nanoseconds since 1970.
    pub(crate) fn wall(self) -> u64 {
        self.wall
    }

    /// Nanoseconds from then until this reading.
    pub(crate) fn since(self, arrived_at: u64) -> u64 {
        self.wall.saturating_sub(arrived_at)
    }
}

/// A socket that either wakes its task for each datagram or waits until it is asked.
pub(crate) enum Port {
    Awake(tokio::net::UdpSocket),
    Asleep(std::net::UdpSocket),
    /// Between the two.
    Gone,
}

impl Port {
    /// A free port of this address.
    pub(crate) fn bind(ip: IpAddr) -> io::Result<Port> {
        let address = SocketAddr::new(ip, 0);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_LEN)?;
        for option in [libc::SO_TIMESTAMPNS, libc::SO_RXQ_OVFL] {
            switch_on(socket.as_raw_fd(), option)?;
        }
        socket.bind(&address.into())?;
        socket.set_nonblocking(true)?;
        Ok(Port::Awake(tokio::net::UdpSocket::from_std(socket.into())?))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Port::Awake(socket) => socket.local_addr(),
            Port::Asleep(socket) => socket.local_addr(),
            Port::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Its number in this process, by which to tell it from others; none of one that is gone.
    pub(crate) fn number(&self) -> RawFd {
        match self {
            Port::Awake(socket) => socket.as_raw_fd(),
            Port::Asleep(socket) => socket.as_raw_fd(),
            Port::Gone => -1,
        }
    }

    /// No datagram wakes anybody from now on.
    pub(crate) fn sleep(&mut self) -> io::Result<()> {
        if let Port::Awake(_) = self
            && let Port::Awake(socket) = std::mem::replace(self, Port::Gone)
        {
            *self = Port::Asleep(socket.into_std()?);
        }
        Ok(())
    }

    /// The kernel drops the RTP and RTCP that comes from now on, and lets through the rest (RFC 7983 §7).
    pub(crate) fn deafen(&self) -> io::Result<()> {
        // The program sees the UDP header, too: the first byte of the payload is the ninth.
        const PROGRAM: [SockFilter; 5] = [
            SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 8),
            SockFilter::new((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, 0b1100_0000),
            SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, 0b1000_0000),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
        ];
        match self {
            Port::Awake(socket) => SockRef::from(socket).attach_filter(&PROGRAM),
            Port::Asleep(socket) => SockRef::from(socket).attach_filter(&PROGRAM),
            Port::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ready when there is something to read; never when asleep.
    pub(crate) async fn readable(&self) {
        match self {
            // An error is told by the reading that follows.
            Port::Awake(socket) => drop(socket.readable().await),
            Port::Asleep(_) | Port::Gone => std::future::pending().await,
        }
    }

    /// How many datagrams were read; none are there after fewer than [`BATCH_LEN`].
    pub(crate) fn receive(&self, batch: &mut Batch) -> usize {
        let read = match self {
            Port::Awake(socket) => {
                let fd = socket.as_raw_fd();
                socket.try_io(Interest::READABLE, || batch.fill(fd))
            }
            Port::Asleep(socket) => batch.fill(socket.as_raw_fd()),
            Port::Gone => return 0,
        };
        // "Nothing there", or an ICMP error of a datagram that we sent: lost, as loss is counted.
        read.unwrap_or(0)
    }

    /// Sends, or loses what the kernel does not take.
    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) {
        let _ = match self {
            // The kernel is asked itself: tokio refuses what comes before it has first seen the socket writable.
            Port::Awake(socket) => SockRef::from(socket).send_to(datagram, &to.into()),
            Port::Asleep(socket) => socket.send_to(datagram, to),
            Port::Gone => Ok(0),
        };
    }
}

fn switch_on(socket: RawFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a local of the length given.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address from which the server is reached: our candidate names it.
pub(crate) fn local_ip(server: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = std::net::UdpSocket::bind((any, 0))?;
    probe.connect(server)?;
    Ok(probe.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn arrival_and_drops_are_told_by_the_kernel() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut port = Port::bind(Ipv4Addr::LOCALHOST.into()).unwrap();
            let sender = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let to = port.local_addr().unwrap();
            let mut batch = Batch::new();
            sender.send_to(&[1, 2, 3], to).unwrap();
            sender.send_to(&[0; 1_601], to).unwrap();
            sender.send_to(&[4], to).unwrap();
            port.readable().await;
            assert_eq!(port.receive(&mut batch), 3);
            let first = batch.datagram(0).unwrap();
            assert_eq!(first.bytes, [1, 2, 3]);
            let age = Clocks::read().since(first.arrived_at.unwrap());
            assert!(age < 20_000_000_000, "{age} ns");
            assert!(batch.datagram(1).is_none(), "too long");
            assert_eq!(batch.source(2), Some(sender.local_addr().unwrap()));
            assert_eq!(port.receive(&mut batch), 0);

            port.sleep().unwrap();
            for _ in 0..20_000 {
                sender.send_to(&[0; 1_000], to).unwrap();
            }
            let mut read = 0;
            let mut dropped = 0;
            loop {
                let count = port.receive(&mut batch);
                if count == 0 {
                    break;
                }
                read += count;
                dropped = batch.datagram(count - 1).unwrap().dropped.unwrap_or(dropped);
            }
            assert!(read < 20_000, "more than the buffer holds");
            sender.send_to(&[5], to).unwrap();
            assert_eq!(port.receive(&mut batch), 1);
            let dropped = batch.datagram(0).unwrap().dropped.unwrap_or(dropped);
            assert_eq!(dropped as usize, 20_000 - read);
        });
    }
}
