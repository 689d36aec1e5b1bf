//! Both backends over real loopback sockets: what goes in comes out, and nothing that a peer or the kernel
//! does ends the loop.

#[path = "support/network.rs"]
#[allow(unreachable_pub, reason = "shared with tests that are crates of several files")]
mod network;

use std::io::ErrorKind;
use std::mem;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use gryt_sfu::net::busy_poll::BusyPollError;
use gryt_sfu::net::mmsg::Mmsg;
use gryt_sfu::net::socket::{self, WorkerSockets};
use gryt_sfu::net::uring::{self, Uring};
use gryt_sfu::net::wake::{WakeReader, Waker, waker};
use gryt_sfu::net::{Backend, Options, Wake};
use gryt_sfu::packet::{DATAGRAM_LEN_MAX, DropReason, Egress, Path, SocketId, run};
use gryt_sfu::time::Now;
use network::{in_a_network_of_its_own, ip};

const PATIENCE: Duration = Duration::from_secs(5);

macro_rules! on_both_backends {
    ($($test:ident,)*) => { $(
        mod $test {
            #[test]
            fn uring() {
                super::$test::<super::Uring>();
            }

            #[test]
            fn mmsg() {
                super::$test::<super::Mmsg>();
            }
        }
    )* };
}

on_both_backends! {
    answers_leave_from_the_address_that_was_asked,
    a_socket_of_one_address_sends_from_it,
    more_datagrams_than_buffers_are_received_all_the_same,
    a_run_of_any_lengths_arrives_in_order,
    a_flush_larger_than_the_queue_submits_on_its_way,
    a_datagram_that_is_too_long_or_empty_is_counted_and_the_next_one_comes,
    empty_datagrams_keep_nothing_waiting,
    refused_destinations_are_counted_by_datagram_and_the_loop_goes_on,
    segments_that_are_refused_as_one_arrive_one_by_one,
    what_is_sent_again_one_by_one_is_overtaken_by_nothing,
    a_refused_flush_larger_than_the_queue_arrives_as_well,
    what_is_longer_than_the_mtu_arrives_all_the_same,
    an_error_on_the_socket_begins_the_receive_again,
    what_the_kernel_drops_is_counted,
    what_is_submitted_is_with_the_kernel_before_the_next_wait,
    a_path_that_cuts_nothing_up_is_asked_once,
    a_full_send_buffer_costs_datagrams_that_are_counted_and_no_time,
    what_is_queued_at_the_end_still_leaves,
    a_worker_that_ended_gives_its_port_back,
}

#[path = "net_backend/waits.rs"]
mod waits;

trait Start: Backend + Sized {
    /// `None`, with a word about it, where this kernel or its seccomp profile has no such thing.
    fn start(sockets: WorkerSockets, waker: WakeReader, options: Options) -> Option<Self>;
}

impl Start for Uring {
    fn start(sockets: WorkerSockets, waker: WakeReader, options: Options) -> Option<Uring> {
        if let Err(error) = uring::probe() {
            eprintln!("skipped: {error}");
            return None;
        }
        Some(Uring::new(sockets, waker, options).unwrap())
    }
}

impl Start for Mmsg {
    fn start(sockets: WorkerSockets, waker: WakeReader, options: Options) -> Option<Mmsg> {
        Some(Mmsg::new(sockets, waker, options).unwrap())
    }
}

struct Loop<B> {
    backend: B,
    waker: Waker,
    port: u16,
}

fn start<B: Start>(options: Options) -> Option<Loop<B>> {
    start_on(&socket::WILDCARDS, options)
}

fn start_on<B: Start>(ips: &[IpAddr], options: Options) -> Option<Loop<B>> {
    let sockets = socket::bind(0..=0, 1, ips).unwrap().remove(0);
    let port = sockets.port();
    let (waker, reader) = waker().unwrap();
    Some(Loop { backend: B::start(sockets, reader, options)?, waker, port })
}

fn peer(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 65_536];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((len, from)) => return (bytes[..len].to_vec(), from),
            // A ring of the same thread may interrupt it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
    }
}

/// Sends back all that comes, until `count` datagrams were sent back.
fn echo(backend: &mut impl Backend, count: usize) -> Vec<Path> {
    let mut paths = Vec::new();
    let start = Now::read().instant;
    while paths.len() < count {
        assert!(start.elapsed() < PATIENCE, "{} of {count} came", paths.len());
        backend.wait(Some(Duration::from_millis(100))).unwrap();
        while let Some((datagram, egress)) = backend.next() {
            let mut run = run(egress, datagram.path);
            let len = datagram.bytes.len();
            run.segment(len).copy_from_slice(datagram.bytes);
            run.commit(len);
            paths.push(datagram.path);
        }
    }
    // Submits the last answers.
    backend.wait(Some(Duration::ZERO)).unwrap();
    paths
}

fn send(egress: &mut impl Egress, path: Path, bytes: &[u8]) {
    let mut run = run(egress, path);
    run.segment(bytes.len()).copy_from_slice(bytes);
    run.commit(bytes.len());
}

/// Switches an option of the IPv4 socket on.
fn set_option<B: Backend>(this: &Loop<B>, level: i32, name: i32) {
    let fd = this.backend.sockets().sockets()[0].as_raw_fd();
    let on: libc::c_int = 1;
    let len = size_of_val(&on) as libc::socklen_t;
    // SAFETY: `on` is a live integer of `len` bytes.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const on).cast(), len) };
    assert_eq!(result, 0);
}

fn path_to(remote: SocketAddr) -> Path {
    Path { socket: SocketId(0), local: IpAddr::from([127, 0, 0, 1]), remote }
}

fn answers_leave_from_the_address_that_was_asked<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let mut addresses = vec![("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.2")];
    if this.backend.sockets().ips().any(|ip| ip.is_ipv6()) {
        addresses.push(("[::1]:0", "::1"));
    }
    for (own, asked) in addresses {
        let peer = peer(own);
        let asked = SocketAddr::new(asked.parse().unwrap(), this.port);
        peer.send_to(b"hello", asked).unwrap();
        let paths = echo(&mut this.backend, 1);
        assert_eq!((paths[0].local, paths[0].remote), (asked.ip(), peer.local_addr().unwrap()));
        assert_eq!(Some(paths[0].socket), this.backend.sockets().towards(asked));
        assert_eq!(receive(&peer), (b"hello".to_vec(), asked));
    }
}

fn more_datagrams_than_buffers_are_received_all_the_same<B: Start>() {
    let Some(mut this) = start::<B>(Options { buffer_count: 8, ..Options::default() }) else { return };
    let peer = peer("127.0.0.1:0");
    const COUNT: usize = 200;
    for round in 0..10_u32 {
        for index in 0..COUNT as u32 {
            peer.send_to(&(round << 16 | index).to_be_bytes(), ("127.0.0.1", this.port)).unwrap();
        }
        assert_eq!(echo(&mut this.backend, COUNT).len(), COUNT);
        for index in 0..COUNT as u32 {
            assert_eq!(receive(&peer).0, (round << 16 | index).to_be_bytes());
        }
    }
    let counters = this.backend.take_counters();
    assert!(counters.receive_starved > 0);
    assert_eq!(counters.datagrams_received, 10 * COUNT as u64);
    assert_eq!(counters.drops, [0; DropReason::COUNT]);
}

fn a_run_of_any_lengths_arrives_in_order<B: Start>() {
    for segmentation in [true, false] {
        let Some(mut this) = start::<B>(Options { segmentation, ..Options::default() }) else { return };
        let peer = peer("127.0.0.1:0");
        let path = path_to(peer.local_addr().unwrap());
        // Equal ones, a shorter last one, a longer one, more than a send takes, and the largest.
        let mut lens = vec![160; 5];
        lens.extend([90, 200, 1]);
        lens.extend([100; 40]);
        lens.extend([DATAGRAM_LEN_MAX, 7]);
        let mut run = run(this.backend.egress(), path);
        for (index, len) in lens.iter().enumerate() {
            // Lent longer than needed, and now and then for nothing.
            if index % 3 == 0 {
                run.segment(DATAGRAM_LEN_MAX).fill(0xEE);
            }
            run.segment(DATAGRAM_LEN_MAX)[..*len].fill(index as u8);
            run.commit(*len);
        }
        drop(run);
        this.backend.wait(Some(Duration::ZERO)).unwrap();
        for (index, len) in lens.iter().enumerate() {
            assert_eq!(receive(&peer).0, vec![index as u8; *len], "{index}");
        }
        let counters = this.backend.take_counters();
        assert_eq!(counters.datagrams_sent, lens.len() as u64);
        assert_eq!(counters.bytes_sent, lens.iter().sum::<usize>() as u64);
        // 5 + 1 | 200, 1 | 16 | 16 | 8 | 1500, 7
        let sends = if segmentation { 6 } else { lens.len() as u64 };
        assert_eq!(counters.sends(), sends);
        assert_eq!(counters.drops, [0; DropReason::COUNT]);
    }
}

fn a_flush_larger_than_the_queue_submits_on_its_way<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let peers: Vec<_> = (0..4).map(|_| peer("127.0.0.1:0")).collect();
    const ROUNDS: usize = 700;
    let bytes = [0x5A; 1200];
    for _ in 0..ROUNDS {
        for peer in &peers {
            send(this.backend.egress(), path_to(peer.local_addr().unwrap()), &bytes);
        }
        // The peers' socket buffers hold a few hundred.
        if this.backend.take_counters().enters > 0 {
            for peer in &peers {
                peer.set_nonblocking(true).unwrap();
                let mut bytes = [0; 2048];
                while peer.recv(&mut bytes).is_ok() {}
            }
        }
    }
    let marker = peer("127.0.0.1:0");
    send(this.backend.egress(), path_to(marker.local_addr().unwrap()), b"last");
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    assert_eq!(receive(&marker).0, b"last");
    assert_eq!(this.backend.take_counters().drops, [0; DropReason::COUNT]);
}

fn a_datagram_that_is_too_long_or_empty_is_counted_and_the_next_one_comes<B: Start>() {
    let Some(mut this) = start::<B>(Options { buffer_count: 4, ..Options::default() }) else { return };
    let peer = peer("127.0.0.1:0");
    let server = ("127.0.0.1", this.port);
    for len in [DATAGRAM_LEN_MAX + 1, 9000, 0, 60_000, DATAGRAM_LEN_MAX] {
        peer.send_to(&vec![7; len], server).unwrap();
    }
    echo(&mut this.backend, 1);
    assert_eq!(receive(&peer).0.len(), DATAGRAM_LEN_MAX);
    let counters = this.backend.take_counters();
    assert_eq!(counters.dropped(DropReason::TooLong), 3);
    assert_eq!(counters.dropped(DropReason::TooShort), 1);
    assert_eq!(counters.datagrams_received, 1);
}

fn empty_datagrams_keep_nothing_waiting<B: Start>() {
    let batch_wait = Duration::from_millis(100);
    let Some(mut this) = start::<B>(Options { batch_wait, ..Options::default() }) else { return };
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    let peer = peer("127.0.0.1:0");
    let server = ("127.0.0.1", this.port);
    let before = Now::read().instant;
    for len in std::iter::repeat_n(0, 500).chain([1]) {
        peer.send_to(&vec![7; len], server).unwrap();
    }
    let mut waits = 0;
    while this.backend.next().is_none() {
        this.backend.wait(Some(Duration::ZERO)).unwrap();
        waits += 1;
        assert!(waits <= 25, "one of these ends a receive, not a turn of the loop");
    }
    assert!(before.elapsed() < 10 * batch_wait, "{:?}", before.elapsed());
    assert_eq!(this.backend.take_counters().dropped(DropReason::TooShort), 500);
}

fn what_is_submitted_is_with_the_kernel_before_the_next_wait<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let peer = peer("127.0.0.1:0");
    send(this.backend.egress(), path_to(peer.local_addr().unwrap()), b"at once");
    this.backend.submit();
    assert_eq!(receive(&peer).0, b"at once");
    this.backend.submit();
    assert_eq!(this.backend.take_counters().sends(), 1);
}

/// Such paths are without checksum offload. UDP-Lite (RFC 3828) is one everywhere, so it takes the socket's place.
fn a_path_that_cuts_nothing_up_is_asked_once<B: Start>() {
    let lite = || {
        // SAFETY: takes no memory.
        let fd = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::IPPROTO_UDPLITE)
        };
        // SAFETY: the descriptor is new, and nobody else's.
        (fd >= 0).then(|| UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    };
    let Some((ours, peer)) = lite().zip(lite()) else { return eprintln!("skipped: no UDP-Lite") };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let sockets = socket::bind(0..=0, 1, &[address.ip()]).unwrap().remove(0);
    // SAFETY: both are open; what the second one was is closed, and it stays the sockets' own.
    assert!(unsafe { libc::dup2(ours.as_raw_fd(), sockets.sockets()[0].as_raw_fd()) } >= 0);
    let (_waker, reader) = waker().unwrap();
    let Some(mut backend) = B::start(sockets, reader, Options::default()) else { return };
    bind(&peer, address);
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let path = path_to(peer.local_addr().unwrap());
    assert!(backend.egress().cuts_segments(path));
    for (round, refused) in [(0, 1), (1, 0)] {
        let mut run = run(backend.egress(), path);
        for index in 0..3 {
            run.segment(100).fill(round << 6 | index);
            run.commit(100);
        }
        drop(run);
        backend.submit();
        for index in 0..3 {
            assert_eq!(receive(&peer).0, [round << 6 | index; 100]);
        }
        assert_eq!(backend.take_counters().segmentation_refused, refused);
        assert!(!backend.egress().cuts_segments(path));
    }
}

fn bind(socket: &UdpSocket, address: SocketAddr) {
    let SocketAddr::V4(address) = address else { panic!("of IPv4") };
    // SAFETY: all zeroes is a valid address.
    let mut name: libc::sockaddr_in = unsafe { mem::zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = address.port().to_be();
    name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
    let len = size_of_val(&name) as libc::socklen_t;
    // SAFETY: `name` is a live address of `len` bytes.
    assert_eq!(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast(), len) }, 0);
}

/// What is for a neighbour that does not say where it is stays in our buffer until it is given up.
fn a_full_send_buffer_costs_datagrams_that_are_counted_and_no_time<B: Start + 'static>() {
    in_a_network_of_its_own(|| {
        ip("link add near type veth peer name far");
        for end in ["near", "far"] {
            ip(&format!("link set {end} up"));
        }
        ip("addr add 192.0.2.1/24 dev near");
        let Some(mut this) = start_on::<B>(&[[192, 0, 2, 1].into()], Options::default()) else { return };
        let fd = this.backend.sockets().sockets()[0].as_raw_fd();
        let least: libc::c_int = 1;
        let len = size_of_val(&least) as libc::socklen_t;
        // SAFETY: `least` is a live integer of `len` bytes.
        let result = unsafe {
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const least).cast(), len)
        };
        assert_eq!(result, 0);
        let path = |last: u8| Path {
            socket: SocketId(0),
            local: [192, 0, 2, 1].into(),
            remote: SocketAddr::from(([192, 0, 2, last], 9)),
        };
        const COUNT: u64 = 300;
        let before = Now::read().instant;
        for round in 0..COUNT {
            send(this.backend.egress(), path(2 + (round % 3) as u8), &[7; 1_200]);
        }
        this.backend.submit();
        let unsent: Vec<u64> = this.backend.take_unsent().map(|unsent| unsent.count).collect();
        let counters = this.backend.take_counters();
        // A wait for room would end when the neighbour is given up, after three seconds.
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
        let shed = counters.dropped(DropReason::SendWouldBlock);
        assert!((COUNT - 20..COUNT).contains(&shed), "{shed}");
        assert_eq!(unsent.iter().sum::<u64>(), shed);
        assert!(unsent.len() == 3 && unsent.iter().all(|count| *count >= COUNT / 3 - 10), "{unsent:?}");
    });
}

fn a_socket_of_one_address_sends_from_it<B: Start>() {
    let own = IpAddr::from([127, 0, 0, 2]);
    let Some(mut this) = start_on::<B>(&[own], Options::default()) else { return };
    let peer = peer("127.0.0.1:0");
    peer.send_to(b"to another", ("127.0.0.1", this.port)).unwrap();
    peer.send_to(b"hello", (own, this.port)).unwrap();
    let paths = echo(&mut this.backend, 1);
    assert_eq!((paths[0].local, paths[0].remote), (own, peer.local_addr().unwrap()));
    // What was sent to another address before is nobody's.
    assert_eq!(receive(&peer), (b"hello".to_vec(), (own, this.port).into()));
    // One of another path is still refused, and both are told apart.
    let to = |local: IpAddr| Path { local, ..path_to("192.0.2.1:9".parse().unwrap()) };
    let foreign = to([192, 0, 2, 7].into());
    send(this.backend.egress(), to(own), b"x");
    send(this.backend.egress(), foreign, b"x");
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    let unsent: Vec<_> = this.backend.take_unsent().map(|unsent| (unsent.path, unsent.count)).collect();
    assert_eq!(unsent, [(to(own), 1), (foreign, 1)]);
}

fn refused_destinations_are_counted_by_datagram_and_the_loop_goes_on<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let peer = peer("127.0.0.1:0");
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = |remote: &str| path_to(remote.parse().unwrap());
    // Nobody listens: an ICMP error comes back, and is nobody's business.
    send(this.backend.egress(), path_to(closed), b"x");
    // From loopback there is no way out, a source that is not ours is refused, and so is port 0.
    send(this.backend.egress(), to("192.0.2.1:9"), b"x");
    let foreign = Path { local: IpAddr::from([192, 0, 2, 1]), ..path_to(peer.local_addr().unwrap()) };
    send(this.backend.egress(), foreign, b"x");
    let mut run = run(this.backend.egress(), to("127.0.0.1:0"));
    for _ in 0..3 {
        run.segment(100).fill(1);
        run.commit(100);
    }
    drop(run);
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    let counters = this.backend.take_counters();
    let refused =
        [DropReason::SendUnreachable, DropReason::SendFailed].map(|reason| counters.dropped(reason));
    assert_eq!(refused.iter().sum::<u64>(), 5, "{counters:?}");
    assert_eq!(counters.drops.iter().sum::<u64>(), 5);
    let mut unsent: Vec<_> = this.backend.take_unsent().map(|unsent| (unsent.path, unsent.count)).collect();
    unsent.sort_by_key(|(_, count)| *count);
    assert_eq!(unsent.len(), 3, "{unsent:?}");
    assert!(unsent[..2].contains(&(to("192.0.2.1:9"), 1)) && unsent[..2].contains(&(foreign, 1)));
    assert_eq!(unsent[2], (to("127.0.0.1:0"), 3));
    // The three segments were tried as one, then each by itself.
    assert_eq!(counters.segmentation_refused, 1);

    peer.send_to(b"still there", ("127.0.0.1", this.port)).unwrap();
    echo(&mut this.backend, 1);
    assert_eq!(receive(&peer).0, b"still there");
}

fn segments_that_are_refused_as_one_arrive_one_by_one<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    // The kernel sends no segments without checksums.
    set_option(&this, libc::SOL_SOCKET, libc::SO_NO_CHECK);
    let peers = [peer("127.0.0.1:0"), peer("127.0.0.1:0")];
    for round in 0..3_u8 {
        for peer in &peers {
            let mut run = run(this.backend.egress(), path_to(peer.local_addr().unwrap()));
            for index in 0..40 {
                run.segment(100).fill(round << 6 | index);
                run.commit(100);
            }
        }
        this.backend.wait(Some(Duration::ZERO)).unwrap();
        for peer in &peers {
            for index in 0..40 {
                assert_eq!(receive(peer).0, [round << 6 | index; 100]);
            }
        }
    }
    let counters = this.backend.take_counters();
    assert_eq!(counters.segmentation_refused, 3 * 2 * 3);
    assert_eq!(counters.drops, [0; DropReason::COUNT]);
}

fn what_is_sent_again_one_by_one_is_overtaken_by_nothing<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    set_option(&this, libc::SOL_SOCKET, libc::SO_NO_CHECK);
    let peers = [peer("127.0.0.1:0"), peer("127.0.0.1:0")];
    let [path, other] = peers.each_ref().map(|peer| path_to(peer.local_addr().unwrap()));
    let mut run = run(this.backend.egress(), path);
    for index in 0..2 {
        run.segment(100).fill(index);
        run.commit(100);
    }
    drop(run);
    // So many that the first leave before the last are written.
    for _ in 0..200 {
        send(this.backend.egress(), other, b"other");
    }
    send(this.backend.egress(), path, &[2; 100]);
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    for index in 0..3 {
        assert_eq!(receive(&peers[0]).0, [index; 100]);
    }
    assert_eq!(this.backend.take_counters().segmentation_refused, 1);
}

fn what_is_longer_than_the_mtu_arrives_all_the_same<B: Start + 'static>() {
    in_a_network_of_its_own(long_datagrams_arrive::<B>);
}

fn long_datagrams_arrive<B: Start>() {
    ip("link set lo mtu 600");
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let peer = peer("127.0.0.1:0");
    let path = path_to(peer.local_addr().unwrap());
    for round in 0..3 {
        let mut run = run(this.backend.egress(), path);
        // Two trains, each with one at its end that fits, and one that is alone.
        for (index, len) in [1000, 1000, 100, 800, 800, 300].into_iter().enumerate() {
            run.segment(len).fill(round << 4 | index as u8);
            run.commit(len);
        }
        drop(run);
        send(this.backend.egress(), path, &[0xFF; 700]);
        this.backend.wait(Some(Duration::ZERO)).unwrap();
        let mut received: Vec<Vec<u8>> = (0..7).map(|_| receive(&peer).0).collect();
        received.sort();
        let expected: Vec<Vec<u8>> = [1000, 1000, 100, 800, 800, 300]
            .into_iter()
            .enumerate()
            .map(|(index, len)| vec![round << 4 | index as u8; len])
            .chain([vec![0xFF; 700]])
            .collect();
        assert_eq!(received, expected);
        // Only for these: others are not to be cut.
        let socket = &this.backend.sockets().sockets()[0];
        assert_eq!(option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DO);
    }
    assert_eq!(this.backend.take_counters().drops, [0; DropReason::COUNT]);
}

fn a_refused_flush_larger_than_the_queue_arrives_as_well<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    set_option(&this, libc::SOL_SOCKET, libc::SO_NO_CHECK);
    let peers: Vec<_> = (0..60).map(|_| peer("127.0.0.1:0")).collect();
    for peer in &peers {
        let mut run = run(this.backend.egress(), path_to(peer.local_addr().unwrap()));
        for index in 0..100 {
            run.segment(100).fill(index);
            run.commit(100);
        }
    }
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    for peer in &peers {
        for index in 0..100 {
            assert_eq!(receive(peer).0, [index; 100]);
        }
    }
    assert_eq!(this.backend.take_counters().drops, [0; DropReason::COUNT]);
}

fn an_error_on_the_socket_begins_the_receive_again<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    // ICMP errors become errors of the next receive.
    set_option(&this, libc::IPPROTO_IP, libc::IP_RECVERR);
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for _ in 0..20 {
        send(this.backend.egress(), path_to(closed), b"x");
        this.backend.wait(Some(Duration::from_millis(1))).unwrap();
        assert!(this.backend.next().is_none());
    }
    assert!(this.backend.take_counters().receive_errors > 8);
    let peer = peer("127.0.0.1:0");
    peer.send_to(b"still there", ("127.0.0.1", this.port)).unwrap();
    echo(&mut this.backend, 1);
    assert_eq!(receive(&peer).0, b"still there");
}

fn what_the_kernel_drops_is_counted<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    assert_eq!(this.backend.take_counters().receive_overflows, 0);
    let peer = peer("127.0.0.1:0");
    // Nobody receives yet; each takes at least 2 KiB of the buffer.
    let count = this.backend.sockets().buffer_lens().receive / 1024;
    for _ in 0..count {
        peer.send_to(&[0; DATAGRAM_LEN_MAX], ("127.0.0.1", this.port)).unwrap();
    }
    let overflows = this.backend.take_counters().receive_overflows;
    assert!(overflows > 0 && overflows < count as u64, "{overflows} of {count}");
    assert_eq!(this.backend.take_counters().receive_overflows, 0);
}

fn what_is_queued_at_the_end_still_leaves<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    let peer = peer("127.0.0.1:0");
    send(this.backend.egress(), path_to(peer.local_addr().unwrap()), b"bye");
    drop(this);
    assert_eq!(receive(&peer).0, b"bye");
}

fn a_worker_that_ended_gives_its_port_back<B: Start>() {
    let Some(mut this) = start::<B>(Options::default()) else { return };
    this.backend.wait(Some(Duration::ZERO)).unwrap();
    let port = this.port;
    drop(this);
    let start = Now::read().instant;
    // Registered files are let go in the background.
    let sockets: Vec<WorkerSockets> = loop {
        match socket::bind(port..=port, 1, &socket::WILDCARDS) {
            Ok(sockets) => break sockets,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(sockets[0].port(), port);
}

fn option(socket: &UdpSocket, level: i32, name: i32) -> libc::c_int {
    let mut value: libc::c_int = -1;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: `value` is a live integer of `len` bytes.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    assert_eq!(result, 0);
    value
}
