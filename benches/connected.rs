//! Would a connected socket for each receiver pay?
//!
//! A connected socket keeps its route, and a send by it names neither address; a server's one socket for all looks the
//! route up for every send. But each connected socket is one more on the port, which the kernel looks through for whoever
//! is not connected yet, and each needs a call of its own where there is no ring. Four questions, each asked of sockets
//! alone, on loopback, where a send's CPU time has the receiver's half of the kernel in it:
//!
//! 1. What does a send cost, to 100 receivers in turn?
//! 2. What does a datagram of a stranger cost, with 0, 256 and 5000 connected sockets on the port?
//! 3. What does one of a peer with a connected socket cost then?
//! 4. What does it cost to open such a socket, and to close it?
//!
//! What else was found (Linux 6.18): the kernel takes a socket out of the group that shares the port when it is connected, and
//! the numbers that steering goes by stay those of the workers; until then it is in the group, and has strangers' datagrams
//! in its queue.
//!
//! `cargo bench --bench connected`; with `--test` one short round, to see that it works.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use gryt_sfu::net::{limits, socket};
use io_uring::{IoUring, opcode, squeue, types};
use socket2::{Domain, SockAddr, Socket, Type};

const SINK_COUNT: usize = 100;
const ROUND_COUNT: usize = 101;
/// Sends to each receiver between two readings of the clock.
const SEND_COUNT: usize = 10;
/// A voice packet as it leaves.
const LEN: usize = 170;
/// Messages of one `sendmmsg`: as many as the server's.
const CALL_LEN: usize = 128;
/// Connected sockets beside the one that is looked at.
const CROWDS: [usize; 3] = [0, 256, 5000];
/// Datagrams of one round of the crowd's questions. They fit the usual socket buffer.
const DATAGRAM_COUNT: usize = 100;

fn main() {
    // Cargo passes `--bench` for a measurement.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let round_count = if is_trial { 2 } else { ROUND_COUNT };
    for each in [1, 4] {
        sends(each, round_count);
    }
    let wanted = 2 * CROWDS[CROWDS.len() - 1] as u64;
    let granted = limits::raise_descriptors(wanted).unwrap_or(0);
    println!("\nns of CPU, medians:");
    println!("connected   stranger's   connected peer's    open    close");
    for count in CROWDS {
        if granted < count as u64 + 500 {
            println!("{count:9}   not with {granted} descriptors");
            continue;
        }
        crowd(count, round_count);
    }
}

/// Question 1. `each`: datagrams of a send.
fn sends(each: usize, round_count: usize) {
    let sinks: Vec<UdpSocket> = (0..SINK_COUNT).map(|_| any_port()).collect();
    let addresses: Vec<SocketAddr> = sinks.iter().map(|sink| sink.local_addr().expect("bound")).collect();
    let shared = server_socket(0);
    let port = port_of(&shared);
    let own: Vec<Socket> = addresses.iter().map(|peer| connected(port, *peer)).collect();
    let shared_fds = vec![shared.as_raw_fd(); SINK_COUNT];
    let own_fds: Vec<RawFd> = own.iter().map(AsRawFd::as_raw_fd).collect();
    let mut named = Messages::new(&addresses, each, true);
    let mut bare = Messages::new(&addresses, each, false);
    let mut ring = Ring::new(&shared_fds[..1], &own_fds).ok();
    let names =
        ["sendmmsg, shared", "sendmsg, shared", "sendmsg, connected", "ring, shared", "ring, connected"];
    let mut samples = [const { Vec::new() }; 5];
    for _ in 0..round_count {
        let mut sample = |way: usize, send: &mut dyn FnMut()| {
            let before = thread_cpu_time();
            for _ in 0..SEND_COUNT {
                send();
            }
            let spent = thread_cpu_time() - before;
            samples[way].push(spent.as_nanos() as f64 / (SEND_COUNT * SINK_COUNT * each) as f64);
            sinks.iter().for_each(|sink| drain(sink, SEND_COUNT * each));
        };
        sample(0, &mut || named.send_many(shared_fds[0]));
        sample(1, &mut || named.send(&shared_fds));
        sample(2, &mut || bare.send(&own_fds));
        if let Some(ring) = &mut ring {
            sample(3, &mut || ring.send(&named, |_| 0));
            sample(4, &mut || ring.send(&bare, |index| 1 + index as u32));
        }
    }
    println!("{each} of {LEN} bytes a send: ns of CPU a datagram, medians (ratio to the first)");
    let medians = samples.map(median);
    for (name, median) in names.into_iter().zip(&medians) {
        match median {
            Some(median) => {
                println!("  {name:20} {median:7.0} ({:.2})", median / medians[0].unwrap_or(f64::NAN));
            }
            None => println!("  {name:20} no ring here"),
        }
    }
}

/// Questions 2 to 4, with `count` connected sockets that nobody uses.
fn crowd(count: usize, round_count: usize) {
    let shared = server_socket(0);
    let port = port_of(&shared);
    // Peers that are not there: nothing is sent to them.
    let peer = |index: usize| {
        let [high, low] = (index as u16).to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 40_000))
    };
    let _crowd: Vec<Socket> = (1..=count).map(|index| connected(port, peer(index))).collect();
    let (stranger, member) = (any_port(), any_port());
    let own = connected(port, member.local_addr().expect("bound"));
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (shared, own): (UdpSocket, UdpSocket) = (shared.into(), own.into());
    let mut samples = [const { Vec::new() }; 4];
    for _ in 0..round_count {
        for (way, from, to) in [(0, &stranger, &shared), (1, &member, &own)] {
            let before = thread_cpu_time();
            for _ in 0..DATAGRAM_COUNT {
                from.send_to(&[0; LEN], server).expect("loopback takes it");
            }
            let spent = thread_cpu_time() - before;
            samples[way].push(spent.as_nanos() as f64 / DATAGRAM_COUNT as f64);
            drain(to, DATAGRAM_COUNT);
        }
        let before = thread_cpu_time();
        let opened: Vec<Socket> = (0..10).map(|index| connected(port, peer(count + 1 + index))).collect();
        let between = thread_cpu_time();
        drop(opened);
        samples[2].push((between - before).as_nanos() as f64 / 10.0);
        samples[3].push((thread_cpu_time() - between).as_nanos() as f64 / 10.0);
    }
    let [stranger, member, open, close] = samples.map(|samples| median(samples).unwrap_or(f64::NAN));
    println!("{count:9}   {stranger:10.0}   {member:16.0}   {open:5.0}   {close:6.0}");
}

/// As the server's own, on the wildcard address.
fn server_socket(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("descriptors are left");
    socket.set_reuse_port(true).expect("Linux");
    socket.set_nonblocking(true).expect("a plain socket");
    socket::set_may_fragment(socket.as_raw_fd(), false).expect("as the server's");
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).expect("the port is free");
    socket
}

/// On the server's port and its peer's alone. The wildcard first: bound to an address, it would have everybody's datagrams to
/// that address until it is connected.
fn connected(port: u16, peer: SocketAddr) -> Socket {
    let socket = server_socket(port);
    socket.connect(&peer.into()).expect("loopback has a route");
    socket
}

fn any_port() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free");
    socket.set_nonblocking(true).expect("a plain socket");
    socket
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().ok().and_then(|address| address.as_socket()).expect("bound").port()
}

/// Empties a socket, which must have got `count`.
fn drain(socket: &UdpSocket, count: usize) {
    let mut bytes = [0; 2048];
    let mut got = 0;
    while socket.recv(&mut bytes).is_ok() {
        got += 1;
    }
    assert_eq!(got, count, "nothing is lost or goes elsewhere");
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    // The first round only warms up.
    let mut samples = samples.split_off(samples.len().min(1));
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

/// Control messages of a send: where it is cut, and the source, which only an unconnected socket has to be told.
#[repr(C)]
struct Control {
    segment: libc::cmsghdr,
    segment_len: u16,
    padding: [u8; 6],
    source: libc::cmsghdr,
    information: libc::in_pktinfo,
    end: [u8; 4],
}

/// One message to each receiver.
struct Messages {
    headers: Vec<libc::mmsghdr>,
    /// What they point to.
    _names: Vec<SockAddr>,
    _bytes: Vec<u8>,
    _part: Box<libc::iovec>,
    _control: Box<Control>,
}

impl Messages {
    /// `are_named`: for the socket that all share.
    #[expect(unsafe_code, reason = "message headers start as zeroes")]
    fn new(addresses: &[SocketAddr], each: usize, are_named: bool) -> Messages {
        let names: Vec<SockAddr> = addresses.iter().map(|address| (*address).into()).collect();
        let mut bytes = vec![0x80; LEN * each];
        let mut part = Box::new(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        let segment_len = mem::offset_of!(Control, padding);
        let source_len = size_of::<libc::cmsghdr>() + size_of::<libc::in_pktinfo>();
        let local = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).ip().to_bits().to_be();
        let mut control = Box::new(Control {
            segment: libc::cmsghdr {
                cmsg_len: segment_len as _,
                cmsg_level: libc::SOL_UDP,
                cmsg_type: libc::UDP_SEGMENT,
            },
            segment_len: LEN as u16,
            padding: [0; 6],
            source: libc::cmsghdr {
                cmsg_len: source_len as _,
                cmsg_level: libc::IPPROTO_IP,
                cmsg_type: libc::IP_PKTINFO,
            },
            information: libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: local },
                ipi_addr: libc::in_addr { s_addr: 0 },
            },
            end: [0; 4],
        });
        let source_at = mem::offset_of!(Control, source);
        let first = if each > 1 { 0 } else { source_at };
        let last = if are_named { size_of::<Control>() } else { source_at };
        let start: *mut Control = &raw mut *control;
        let mut headers = Vec::new();
        for name in &names {
            // SAFETY: all zeroes is a valid message header.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            if are_named {
                message.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
                message.msg_hdr.msg_namelen = name.len();
            }
            message.msg_hdr.msg_iov = &raw mut *part;
            message.msg_hdr.msg_iovlen = 1;
            if last > first {
                message.msg_hdr.msg_control = start.wrapping_byte_add(first).cast();
                message.msg_hdr.msg_controllen = (last - first) as _;
            }
            headers.push(message);
        }
        Messages { headers, _names: names, _bytes: bytes, _part: part, _control: control }
    }

    #[expect(unsafe_code, reason = "the call that the server uses")]
    fn send_many(&mut self, fd: RawFd) {
        for messages in self.headers.chunks_mut(CALL_LEN) {
            // SAFETY: as many valid messages; what they point to lives as long as `self`.
            let sent = unsafe {
                libc::sendmmsg(fd, messages.as_mut_ptr(), messages.len() as u32, libc::MSG_DONTWAIT)
            };
            assert_eq!(usize::try_from(sent), Ok(messages.len()));
        }
    }

    #[expect(unsafe_code, reason = "the call that is compared")]
    fn send(&mut self, fds: &[RawFd]) {
        for (message, fd) in self.headers.iter().zip(fds) {
            // SAFETY: a valid message; what it points to lives as long as `self`.
            let sent = unsafe { libc::sendmsg(*fd, &raw const message.msg_hdr, libc::MSG_DONTWAIT) };
            assert!(sent > 0);
        }
    }
}

/// A ring that sends, on the shared socket and all others.
struct Ring(IoUring);

impl Ring {
    fn new(shared: &[RawFd], own: &[RawFd]) -> io::Result<Ring> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(256)?;
        ring.submitter().register_files(&[shared, own].concat())?;
        Ok(Ring(ring))
    }

    #[expect(unsafe_code, reason = "submissions point to memory")]
    fn send(&mut self, messages: &Messages, file_of: impl Fn(usize) -> u32) {
        for (index, message) in messages.headers.iter().enumerate() {
            let entry = opcode::SendMsg::new(types::Fixed(file_of(index)), &raw const message.msg_hdr)
                .flags(libc::MSG_DONTWAIT as u32)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS);
            // SAFETY: what it points to outlives the send, which is done when it was submitted.
            unsafe { self.0.submission().push(&entry) }.expect("the queue has an entry for each");
        }
        self.0.submit().expect("the ring lives");
        assert_eq!(self.0.completion().count(), 0, "none was refused");
    }
}

#[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
