//! What does the ring cost, and what does segmentation save, beside bare `sendmmsg`?
//!
//! The same datagrams go to the same loopback sinks in the same process: once by `sendmmsg` with headers
//! made beforehand, 64 a call; once through the ring's egress as the server uses it, which copies each
//! datagram and writes its header; with segmentation and without. The ways take turns, so that a noisy
//! neighbour hits all of them, and each is charged its thread's CPU time. Prints the median.
//!
//! `cargo bench --bench ring_loopback`; with `--test` one short round, to see that it works.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use gryt_sfu::net::uring::{Uring, probe};
use gryt_sfu::net::{Backend, Options, socket, wake};
use gryt_sfu::packet::{Path, SocketId, run};

const SINK_COUNT: usize = 100;
const ROUND_COUNT: usize = 41;
/// Flushes between two readings of the clock. What they send must fit the sinks' socket buffers.
const FLUSH_COUNT: usize = 10;
/// Messages of one `sendmmsg`.
const CALL_LEN: usize = 64;

fn main() {
    // Cargo passes `--bench` for a measurement.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let features = match probe() {
        Ok(features) => features,
        Err(error) => return println!("skipped: {error}"),
    };
    println!("{features}");
    println!("{SINK_COUNT} sinks, ns of CPU per datagram (ratio to sendmmsg)");
    println!("bytes  each  sendmmsg   ring, one by one      ring, segmented");
    let round_count = if is_trial { 1 } else { ROUND_COUNT };
    for len in [170, 1200] {
        for each in [1, 2, 4, 8] {
            compare(len, each, round_count);
        }
    }
}

fn compare(len: usize, each: usize, round_count: usize) {
    let sinks = Sinks::new();
    let datagram = vec![0x80; len];
    let mut bare = Bare::new(&sinks, &datagram, each);
    let mut single = ring(false);
    let mut segmented = ring(true);
    let mut samples = [const { Vec::new() }; 3];
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
        sample(0, &mut || bare.flush());
        sample(1, &mut || fan_out(&mut single, &sinks, &datagram, each));
        sample(2, &mut || fan_out(&mut segmented, &sinks, &datagram, each));
    }
    for uring in [&mut single, &mut segmented] {
        assert_eq!(uring.take_counters().drops.iter().sum::<u64>(), 0, "every datagram was sent");
    }
    let [bare, single, segmented] = samples.map(|mut samples| {
        // The first round only warms up.
        samples.remove(0);
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    });
    let (by_one, by_train) = (single / bare, segmented / bare);
    println!("{len:5} {each:5} {bare:9.0} {single:9.0} ({by_one:.2}) {segmented:13.0} ({by_train:.2})");
}

fn ring(segmentation: bool) -> Uring {
    let sockets = socket::bind(0..=0, 1, false).expect("some port is free").remove(0);
    let (_, reader) = wake::waker().expect("descriptors are left");
    let options = Options { segmentation, ..Options::default() };
    Uring::new(sockets, reader, options).expect("the probe had a ring")
}

fn fan_out(uring: &mut Uring, sinks: &Sinks, datagram: &[u8], each: usize) {
    for remote in &sinks.addresses {
        let path = Path { socket: SocketId(0), local: IpAddr::V4(Ipv4Addr::LOCALHOST), remote: *remote };
        let mut run = run(uring.egress(), path).expect("the kernel takes sends");
        for _ in 0..each {
            run.segment(datagram.len()).expect("the kernel takes sends").copy_from_slice(datagram);
            run.commit(datagram.len());
        }
    }
    uring.wait(Some(Duration::ZERO)).expect("the ring lives");
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
    _bytes: Box<libc::iovec>,
}

impl Bare {
    #[expect(unsafe_code, reason = "message headers start as zeroes")]
    fn new(sinks: &Sinks, datagram: &[u8], each: usize) -> Bare {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("some port is free");
        let names: Vec<socket2::SockAddr> = sinks.addresses.iter().map(|address| (*address).into()).collect();
        let mut bytes =
            Box::new(libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() });
        let mut messages = Vec::new();
        for name in names.iter().flat_map(|name| std::iter::repeat_n(name, each)) {
            // SAFETY: all zeroes is a valid message header.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = name.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = name.len();
            message.msg_hdr.msg_iov = &raw mut *bytes;
            message.msg_hdr.msg_iovlen = 1;
            messages.push(message);
        }
        Bare { socket, messages, _names: names, _bytes: bytes }
    }

    #[expect(unsafe_code, reason = "the call that the ring is compared with")]
    fn flush(&mut self) {
        for messages in self.messages.chunks_mut(CALL_LEN) {
            let (fd, len) = (self.socket.as_raw_fd(), messages.len() as u32);
            // SAFETY: `len` valid messages, whose names and bytes live as long as `self` and the datagram.
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
