//! What does a backend cost, and what does segmentation save, beside the bare system call?
//!
//! The same datagrams go to the same loopback sinks in the same process: by bare `sendmmsg` with headers made
//! beforehand, 128 a call, each datagram by itself and several to a send (`UDP_SEGMENT`); and through the egress of
//! both backends as the server uses them, which copies each datagram and writes its header; with segmentation and
//! without. The ways take turns, so that a noisy neighbour hits all of them, and each is charged its thread's CPU
//! time. Prints the median, and its ratio to `sendmmsg`.
//!
//! `cargo bench --bench ring_loopback`; with `--test` one short round, to see that it works.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use gryt_sfu::net::mmsg::{self, Mmsg};
use gryt_sfu::net::uring::{self, Uring};
use gryt_sfu::net::wake::WakeReader;
use gryt_sfu::net::{Backend, Options, socket, wake};
use gryt_sfu::packet::{Path, SocketId, run};

const SINK_COUNT: usize = 100;
const ROUND_COUNT: usize = 41;
/// Flushes between two readings of the clock. What they send must fit the sinks' socket buffers.
const FLUSH_COUNT: usize = 10;
/// Messages of one `sendmmsg`: as many as the server's.
const CALL_LEN: usize = 128;

/// The columns.
const WAYS: [&str; 6] = ["sendmmsg", "GSO", "uring", "uring+GSO", "mmsg", "mmsg+GSO"];

fn main() {
    // Cargo passes `--bench` for a measurement.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let has_ring = match uring::probe() {
        Ok(features) => {
            println!("{features}");
            true
        }
        Err(error) => {
            println!("without a ring: {error}");
            false
        }
    };
    println!("{}", mmsg::probe());
    println!("{SINK_COUNT} sinks, ns of CPU per datagram (ratio to sendmmsg)");
    print!("bytes  each");
    WAYS.iter().for_each(|way| print!(" {way:>14}"));
    println!();
    let round_count = if is_trial { 1 } else { ROUND_COUNT };
    for len in [170, 1200] {
        for each in [1, 2, 4, 8] {
            compare(len, each, round_count, has_ring);
        }
    }
}

fn compare(len: usize, each: usize, round_count: usize, has_ring: bool) {
    let sinks = Sinks::new();
    let datagram = vec![0x80; len];
    let mut singles = Bare::new(&sinks, &datagram, each, false);
    let mut trains = Bare::new(&sinks, &datagram, each, true);
    let ring = |sockets, reader, options| Uring::new(sockets, reader, options).expect("the probe had a ring");
    let mut rings = has_ring.then(|| [false, true].map(|segmentation| start(segmentation, ring)));
    let mmsg = |sockets, reader, options| Mmsg::new(sockets, reader, options).expect("descriptors are left");
    let mut mmsgs = [false, true].map(|segmentation| start(segmentation, mmsg));
    let mut samples = [const { Vec::new() }; WAYS.len()];
    for _ in 0..=round_count {
        let flush_count = FLUSH_COUNT.min(160 / each);
        let mut sample = |way: usize, flush: &mut dyn FnMut()| {
            let before = thread_cpu_time();
            for _ in 0..flush_count {
                flush();
            }
            let spent = thread_cpu_time() - before;
            samples[way].push(spent.as_nanos() as f64 / (flush_count * SINK_COUNT * each) as f64);
            sinks.drain(flush_count * each);
        };
        sample(0, &mut || singles.flush());
        sample(1, &mut || trains.flush());
        for (index, ring) in rings.iter_mut().flatten().enumerate() {
            sample(2 + index, &mut || fan_out(ring, &sinks, &datagram, each));
        }
        for (index, mmsg) in mmsgs.iter_mut().enumerate() {
            sample(4 + index, &mut || fan_out(mmsg, &sinks, &datagram, each));
        }
    }
    rings.iter_mut().flatten().for_each(assert_all_sent);
    mmsgs.iter_mut().for_each(assert_all_sent);
    let medians = samples.map(|mut samples| {
        // The first round only warms up.
        let mut samples = samples.split_off(samples.len().min(1));
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied()
    });
    print!("{len:5} {each:5}");
    for median in medians {
        match median.zip(medians[0]) {
            Some((median, bare)) => print!(" {median:7.0} ({:.2})", median / bare),
            None => print!(" {:>14}", "-"),
        }
    }
    println!();
}

fn start<B>(segmentation: bool, make: impl Fn(socket::WorkerSockets, WakeReader, Options) -> B) -> B {
    let sockets = socket::bind(0..=0, 1, &socket::WILDCARDS[..1]).expect("some port is free").remove(0);
    let (_, reader) = wake::waker().expect("descriptors are left");
    make(sockets, reader, Options { segmentation, ..Options::default() })
}

fn assert_all_sent(backend: &mut impl Backend) {
    assert_eq!(backend.take_counters().drops.iter().sum::<u64>(), 0, "every datagram was sent");
}

fn fan_out(backend: &mut impl Backend, sinks: &Sinks, datagram: &[u8], each: usize) {
    for remote in &sinks.addresses {
        let path = Path { socket: SocketId(0), local: IpAddr::V4(Ipv4Addr::LOCALHOST), remote: *remote };
        let mut run = run(backend.egress(), path);
        for _ in 0..each {
            run.segment(datagram.len()).copy_from_slice(datagram);
            run.commit(datagram.len());
        }
    }
    backend.wait(Some(Duration::ZERO)).expect("the backend lives");
}

struct Sinks {
    sockets: Vec<UdpSocket>,
    addresses: Vec<SocketAddr>,
}

impl Sinks {
    fn new() -> Sinks {
        let sockets: Vec<_> =
            (0..SINK_COUNT).map(|_| UdpSocket::bind("127.0.0.1:0").expect("some port is free")).collect();
        for socket in &sockets {
            socket.set_nonblocking(true).expect("a plain socket");
        }
        let addresses = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        Sinks { sockets, addresses }
    }

    /// Empties the sinks, which must have got `count` each.
    fn drain(&self, count: usize) {
        let mut bytes = [0; 2048];
        for socket in &self.sockets {
            let mut got = 0;
            while socket.recv(&mut bytes).is_ok() {
                got += 1;
            }
            assert_eq!(got, count, "nothing is lost on the way");
        }
    }
}

/// `sendmmsg` with everything prepared.
struct Bare {
    socket: UdpSocket,
    messages: Vec<libc::mmsghdr>,
    /// What the messages point to.
    _names: Vec<socket2::SockAddr>,
    _bytes: Vec<u8>,
    _part: Box<libc::iovec>,
    _control: Box<SegmentLen>,
}

/// The control message that cuts a send into segments.
#[repr(C)]
struct SegmentLen {
    header: libc::cmsghdr,
    len: u16,
    padding: [u8; 6],
}

impl Bare {
    /// What goes to one sink leaves one by one, or as one.
    #[expect(unsafe_code, reason = "message headers start as zeroes")]
    fn new(sinks: &Sinks, datagram: &[u8], each: usize, as_one: bool) -> Bare {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("some port is free");
        socket::set_may_fragment(socket.as_raw_fd(), false).expect("as the server's");
        let names: Vec<socket2::SockAddr> = sinks.addresses.iter().map(|address| (*address).into()).collect();
        let (datagrams, sends) = if as_one { (each, 1) } else { (1, each) };
        let mut bytes = datagram.repeat(datagrams);
        let mut part = Box::new(libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() });
        let mut control = Box::new(SegmentLen {
            header: libc::cmsghdr {
                cmsg_len: (mem::offset_of!(SegmentLen, len) + size_of::<u16>()) as _,
                cmsg_level: libc::SOL_UDP,
                cmsg_type: libc::UDP_SEGMENT,
            },
            len: datagram.len() as u16,
            padding: [0; 6],
        });
        let mut messages = Vec::new();
        for name in names.iter().flat_map(|name| std::iter::repeat_n(name, sends)) {
            // SAFETY: all zeroes is a valid message header.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = name.len();
            message.msg_hdr.msg_iov = &raw mut *part;
            message.msg_hdr.msg_iovlen = 1;
            if datagrams > 1 {
                message.msg_hdr.msg_control = (&raw mut *control).cast();
                message.msg_hdr.msg_controllen = size_of::<SegmentLen>() as _;
            }
            messages.push(message);
        }
        Bare { socket, messages, _names: names, _bytes: bytes, _part: part, _control: control }
    }

    #[expect(unsafe_code, reason = "the call that the backends are compared with")]
    fn flush(&mut self) {
        for messages in self.messages.chunks_mut(CALL_LEN) {
            let (fd, len) = (self.socket.as_raw_fd(), messages.len() as u32);
            // SAFETY: `len` valid messages, whose names and bytes live as long as `self`.
            let sent = unsafe { libc::sendmmsg(fd, messages.as_mut_ptr(), len, libc::MSG_DONTWAIT) };
            assert_eq!(usize::try_from(sent), Ok(messages.len()));
        }
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
