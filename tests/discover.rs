//! The server finds out its public address from a STUN server, asked from the media sockets.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter};
use stun::xoraddr::XorMappedAddress;
use support::{Client, Options, Server, now};

/// A STUN server on loopback that sees everybody behind a NAT: at 203.0.113.77, one port further. With
/// `is_lossy` the first question is lost. Reports who asked.
fn stun_server(is_lossy: bool) -> (SocketAddr, Receiver<SocketAddr>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("bound");
    let (asked, who) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lost = is_lossy;
        let mut bytes = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut bytes) {
            let mut question = Message::new();
            question.unmarshal_binary(&bytes[..len]).expect("STUN");
            assert_eq!(question.typ, BINDING_REQUEST);
            if std::mem::take(&mut lost) {
                continue;
            }
            let mut answer = Message::new();
            answer.set_type(BINDING_SUCCESS);
            answer.transaction_id = question.transaction_id;
            answer.write_header();
            let seen = XorMappedAddress { ip: [203, 0, 113, 77].into(), port: from.port() + 1 };
            seen.add_to(&mut answer).expect("an address");
            socket.send_to(&answer.raw, from).expect("loopback");
            if asked.send(from).is_err() {
                return; // The test is over.
            }
        }
    });
    (address, who)
}

/// What the server says it offers to clients.
fn addresses(server: &mut Server) -> Vec<SocketAddr> {
    let line = server.wait_for_log("its addresses", |log| {
        log.lines().find_map(|line| Some(line.trim().strip_prefix("addresses:")?.to_owned()))
    });
    line.split_whitespace().map(|text| text.parse().expect(text)).collect()
}

fn seen_from(who: &Receiver<SocketAddr>) -> SocketAddr {
    let from = who.recv_timeout(Duration::from_secs(1)).expect("it was asked");
    SocketAddr::from(([203, 0, 113, 77], from.port() + 1))
}

fn is_private(address: &&SocketAddr) -> bool {
    matches!(address, SocketAddr::V4(address) if address.ip().is_private())
}

/// Also when the answer lands on any of the sockets that share the port, which the kernel's hash decides; and
/// the sockets serve a call afterwards.
#[tokio::test]
async fn it_offers_the_address_at_which_it_is_seen() {
    for (workers, is_lossy) in [("1", true), ("4", false), ("4", false)] {
        let (stun, who) = stun_server(is_lossy);
        let url = format!("stun:{stun}");
        let variables = [("STUN_SERVERS", &*url), ("ICE_DISCOVER", "true"), ("WORKERS", workers)];
        let mut server = Server::spawn(&variables);
        let offered = addresses(&mut server);
        let seen = seen_from(&who);
        assert_eq!(offered[0], seen);
        let media = offered.iter().find(|address| address.ip().is_loopback()).expect("as ICE_LOOPBACK says");
        assert_eq!(seen.port(), media.port() + 1, "asked from the media socket");
        assert_eq!(offered.iter().filter(is_private).count(), 0, "{offered:?}");
        let ann = Client::join(&server, "hall", "ann", Options::default()).await;
        let ben = Client::join(&server, "hall", "ben", Options::default()).await;
        ann.speak(20);
        ben.hears(&ann, 10).await;
    }
}

#[test]
fn each_port_of_a_range_is_seen_for_itself() {
    let (stun, who) = stun_server(false);
    let (url, ports) = (format!("stun:{stun}"), support::server::free_udp_ports(2));
    let mut server = Server::spawn(&[
        ("STUN_SERVERS", &url),
        ("ICE_DISCOVER", "true"),
        ("ICE_UDP_MUX_PORT", &ports),
        ("WORKERS", "2"),
    ]);
    let offered = addresses(&mut server);
    let (one, other) = (seen_from(&who), seen_from(&who));
    assert!(one != other && offered.contains(&one) && offered.contains(&other), "{offered:?}");
}

#[test]
fn private_addresses_are_offered_where_they_are_wanted() {
    let own = addresses(&mut Server::spawn(&[]));
    let (stun, who) = stun_server(false);
    let url = format!("stun:{stun}");
    let mut server = Server::spawn(&[
        ("STUN_SERVERS", &url),
        ("ICE_DISCOVER", "true"),
        ("ICE_ADVERTISE_PRIVATE", "true"),
        ("WORKERS", "1"),
    ]);
    let offered: Vec<_> = addresses(&mut server).iter().map(SocketAddr::ip).collect();
    assert_eq!(offered[0], seen_from(&who).ip());
    assert!(own.iter().all(|own| offered.contains(&own.ip())), "{own:?} {offered:?}");
}

#[test]
fn only_where_media_comes_in_is_offered() {
    let offered_by = |bound: &str| -> Vec<_> {
        let mut server = Server::spawn(&[("ICE_BIND_IP", bound), ("WORKERS", "1")]);
        addresses(&mut server).iter().map(SocketAddr::ip).collect()
    };
    let one = std::net::IpAddr::from([127, 0, 0, 2]);
    assert_eq!(offered_by("127.0.0.2"), [one]);
    let of_ipv4 = offered_by("0.0.0.0");
    assert!(!of_ipv4.is_empty() && of_ipv4.iter().all(|ip| ip.is_ipv4() && *ip != one), "{of_ipv4:?}");
}

#[test]
fn silence_is_a_warning_and_no_hang() {
    // Bound and never read; and a name that no resolver knows (RFC 6761 §6.4).
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let urls = format!("stun:{},stun:stun.invalid", silent.local_addr().expect("bound"));
    let own: Vec<_> = addresses(&mut Server::spawn(&[])).iter().map(SocketAddr::ip).collect();
    let begun = now();
    let mut server = Server::spawn(&[("STUN_SERVERS", &urls), ("ICE_DISCOVER", "true")]);
    let took = now() - begun;
    assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&took), "{took:?}");
    let offered: Vec<_> = addresses(&mut server).iter().map(SocketAddr::ip).collect();
    assert_eq!(offered, own);
    server.wait_for_log("a warning", |log| log.contains("WARN ICE_DISCOVER: no STUN server").then_some(()));
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn an_address_that_is_given_is_not_asked_for() {
    let (stun, who) = stun_server(false);
    let url = format!("stun:{stun}");
    let mut server = Server::spawn(&[
        ("STUN_SERVERS", &url),
        ("ICE_DISCOVER", "true"),
        ("ICE_ADVERTISE_IP", "203.0.113.5"),
        ("WORKERS", "1"),
    ]);
    let offered: Vec<_> = addresses(&mut server).iter().map(SocketAddr::ip).collect();
    assert_eq!(offered, [std::net::IpAddr::from([203, 0, 113, 5])]);
    assert!(who.try_recv().is_err());
}
