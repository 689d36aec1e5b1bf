//! Several workers on one port: the kernel brings a Binding request to the worker that its user name
//! names, and spreads everything else.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};

use gryt_sfu::net::socket::{self, WorkerSockets};

const WORKER_COUNT: usize = 3;

/// Which worker a datagram to `port` arrives at.
fn arrival(workers: &[WorkerSockets], from: IpAddr, datagram: &[u8]) -> usize {
    let peer = UdpSocket::bind((from, 0)).unwrap();
    peer.send_to(datagram, (from, workers[0].port())).unwrap();
    let index = usize::from(from.is_ipv6());
    let mut bytes = [0; 2048];
    for _ in 0..1000 {
        for (worker, sockets) in workers.iter().enumerate() {
            match sockets.sockets()[index].recv(&mut bytes) {
                Ok(len) => {
                    assert_eq!(&bytes[..len], datagram);
                    return worker;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        std::thread::yield_now();
    }
    panic!("it did not arrive");
}

fn start() -> Vec<WorkerSockets> {
    let workers = socket::bind(0..=0, WORKER_COUNT, &socket::WILDCARDS).unwrap();
    for socket in workers.iter().flat_map(WorkerSockets::sockets) {
        socket.set_nonblocking(true).unwrap();
    }
    workers
}

fn loopbacks(workers: &[WorkerSockets]) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    if workers[0].ips().any(|ip| ip.is_ipv6()) {
        addresses.push(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    }
    addresses
}

/// A Binding request whose first attribute is of type `attribute` (RFC 8489 §5, §14).
fn binding_request(attribute: u16, value: &[u8; 8]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42];
    bytes.extend([7; 12]);
    bytes.extend(attribute.to_be_bytes());
    bytes.extend([0, 8]);
    bytes.extend(value);
    bytes
}

#[test]
fn a_binding_request_reaches_the_worker_that_it_names() {
    let workers = start();
    assert!(workers[0].is_steered());
    for from in loopbacks(&workers) {
        for (worker, ufrag) in [b"Axyz:abc", b"Bxyz:abc", b"Cxyz:abc"].into_iter().enumerate() {
            for _ in 0..20 {
                assert_eq!(arrival(&workers, from, &binding_request(0x0006, ufrag)), worker);
            }
        }
    }
}

#[test]
fn everything_else_is_spread() {
    let workers = start();
    let spread = [
        // USERNAME in second place, a worker that does not exist, no STUN, and less than can be looked at.
        binding_request(0x8022, b"Axyz:abc"),
        binding_request(0x0006, b"_xyz:abc"),
        binding_request(0x0006, b"+xyz:abc"),
        [&[0x80, 0x6F][..], &[0; 170][..]].concat(),
        vec![0x80],
    ];
    for from in loopbacks(&workers) {
        for datagram in &spread {
            let mut counts = [0; WORKER_COUNT];
            for _ in 0..60 {
                counts[arrival(&workers, from, datagram)] += 1;
            }
            // One in 10^10 would leave a worker out by chance.
            assert!(counts.iter().all(|count| *count > 0), "{counts:?} {datagram:?}");
        }
    }
}
