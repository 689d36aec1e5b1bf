//! Our ICE-lite agent against the full agent of str0m, through a NAT, on a virtual clock.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gryt_sfu::ice::agent::{Agent, Consent, EXPIRED_AFTER};
use gryt_sfu::ice::credentials::{LocalCredentials, RemoteCredentials, Secret};
use gryt_sfu::ice::stun::{CHECK_LEN_MAX, Message};
use gryt_sfu::ids::WorkerId;
use gryt_sfu::packet::{Path, SocketId};
use gryt_sfu::time::Now;
use str0m::ice::{IceAgent, IceCreds, StunMessage, StunPacket};
use str0m::net::Protocol;
use str0m::{Candidate, IceConnectionState};

/// From one side to the other.
const LATENCY: Duration = Duration::from_millis(15);
const TICK: Duration = Duration::from_millis(5);

/// A client behind a NAT, a server in front of it, and what is on its way between them.
struct Net {
    now: Instant,
    secret: Secret,
    server: SocketAddr,
    agent: Agent,
    /// The client's own address, and how the server sees it.
    client: SocketAddr,
    public: SocketAddr,
    peer: IceAgent,
    to_server: Vec<(Instant, SocketAddr, Vec<u8>)>,
    to_client: Vec<(Instant, SocketAddr, Vec<u8>)>,
    is_cut: bool,
    checks_sent: usize,
}

fn credentials(local: &LocalCredentials) -> IceCreds {
    IceCreds { ufrag: local.ufrag.as_str().into(), pass: local.password.as_str().into() }
}

fn remote(peer: &IceAgent) -> RemoteCredentials {
    let own = peer.local_credentials();
    RemoteCredentials::parse(&own.ufrag, &own.pass).expect("credentials")
}

impl Net {
    fn new(is_controlling: bool) -> Net {
        let now = Now::read().instant;
        let secret = Secret::random();
        let local = secret.credentials(WorkerId(0));
        let client = "10.1.1.1:40000".parse().unwrap();
        let server = "203.0.113.1:3478".parse().unwrap();

        let hmac = str0m::crypto::from_feature_flags().sha1_hmac_provider;
        let mut peer = IceAgent::with_hmac(IceCreds::new(), hmac);
        peer.set_controlling(is_controlling);
        peer.set_remote_credentials(credentials(&local));
        peer.add_local_candidate(Candidate::host(client, "udp").unwrap());
        peer.add_remote_candidate(Candidate::host(server, "udp").unwrap());

        Net {
            now,
            secret,
            server,
            agent: Agent::new(now, local, remote(&peer), [5; 32]),
            client,
            public: "198.51.100.1:50000".parse().unwrap(),
            peer,
            to_server: Vec::new(),
            to_client: Vec::new(),
            is_cut: false,
            checks_sent: 0,
        }
    }

    /// Connected, DTLS finished where the first request came from.
    fn connected() -> Net {
        let mut net = Net::new(true);
        net.run(Duration::from_millis(100));
        let path = net.agent.paths().next().expect("an authenticated pair");
        net.agent.handle_dtls_finished(net.now, Some(path));
        net.run(Duration::from_secs(2));
        assert_eq!(net.selected(), Some(net.public));
        assert!(matches!(net.peer.state(), IceConnectionState::Connected | IceConnectionState::Completed));
        net
    }

    fn selected(&self) -> Option<SocketAddr> {
        self.agent.selected().map(|path| path.remote)
    }

    fn path(&self, remote: SocketAddr) -> Path {
        Path { socket: SocketId(0), local: self.server.ip(), remote }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += TICK;
            self.peer_works();
            self.agent_works();
        }
    }

    fn peer_works(&mut self) {
        for (_, to, bytes) in arrived(&mut self.to_client, self.now) {
            if self.is_cut || to != self.public {
                continue; // The NAT knows of no such mapping any more.
            }
            let message = StunMessage::parse(&bytes).expect("STUN");
            if self.peer.accepts_message(&message) {
                let packet = StunPacket {
                    proto: Protocol::Udp,
                    source: self.server,
                    destination: self.client,
                    message,
                };
                self.peer.handle_packet(self.now, packet);
            }
        }
        self.peer.handle_timeout(self.now);
        while self.peer.poll_event().is_some() {}
        while let Some(transmit) = self.peer.poll_transmit() {
            assert_eq!(transmit.destination, self.server);
            if !self.is_cut {
                self.to_server.push((self.now + LATENCY, self.public, transmit.contents.to_vec()));
            }
        }
    }

    fn agent_works(&mut self) {
        for (_, from, bytes) in arrived(&mut self.to_server, self.now) {
            let path = self.path(from);
            match Message::parse(&bytes) {
                Ok(Message::Request(request)) => {
                    let mut out = [0; 128];
                    if let Ok(answered) = self.agent.handle_request(self.now, path, &request, &mut out) {
                        self.to_client.push((self.now + LATENCY, from, out[..answered.len].to_vec()));
                    }
                }
                Ok(Message::Response(response)) => {
                    self.agent.handle_response(self.now, path, &response).expect("an answer to our check");
                }
                Err(reason) => panic!("{reason:?}"),
            }
        }
        let mut out = [0; CHECK_LEN_MAX];
        while let Some((path, len)) = self.agent.next_check(self.now, &mut out) {
            self.checks_sent += 1;
            self.to_client.push((self.now + LATENCY, path.remote, out[..len].to_vec()));
        }
    }
}

fn arrived(
    queue: &mut Vec<(Instant, SocketAddr, Vec<u8>)>,
    now: Instant,
) -> Vec<(Instant, SocketAddr, Vec<u8>)> {
    queue.extract_if(.., |(at, ..)| *at <= now).collect()
}

#[test]
fn it_connects_and_consent_stays_fresh() {
    let mut net = Net::connected();
    for _ in 0..120 {
        net.run(Duration::from_secs(1));
        assert_eq!(net.agent.consent(net.now), Consent::Fresh);
        assert_eq!(net.selected(), Some(net.public));
    }
    assert_eq!(net.checks_sent, 0, "nothing to prove");
    assert_eq!(net.agent.paths().count(), 1);
}

#[test]
fn a_rebound_port_is_followed() {
    let mut net = Net::connected();
    net.public.set_port(50_001);
    net.run(Duration::from_secs(6));
    assert_eq!(net.selected(), Some(net.public));
    assert_eq!(net.agent.consent(net.now), Consent::Fresh);
}

#[test]
fn another_address_is_followed_once_the_peer_answered_there() {
    let mut net = Net::connected();
    net.public.set_ip(IpAddr::from([198, 51, 100, 99]));
    net.run(Duration::from_secs(6));
    assert!(net.checks_sent >= 1);
    assert_eq!(net.selected(), Some(net.public));
    assert_eq!(net.agent.consent(net.now), Consent::Fresh);
}

#[test]
fn a_restart_changes_credentials_and_not_the_path() {
    let mut net = Net::connected();
    net.peer.ice_restart(IceCreds::new(), true);
    let local = net.secret.credentials(WorkerId(0));
    net.agent.restart(net.now, local, remote(&net.peer));
    assert_eq!(net.selected(), Some(net.public));
    net.peer.set_remote_credentials(credentials(&local));
    net.peer.add_remote_candidate(Candidate::host(net.server, "udp").unwrap());
    net.run(Duration::from_secs(5));
    assert_eq!(net.agent.ufrags().collect::<Vec<_>>(), [local.ufrag]);
    assert_eq!(net.selected(), Some(net.public));
    assert_eq!(net.agent.consent(net.now), Consent::Fresh);
}

#[test]
fn a_peer_that_is_gone_is_sent_nothing_after_30_seconds() {
    let mut net = Net::connected();
    net.is_cut = true;
    net.run(EXPIRED_AFTER + LATENCY);
    assert_eq!((net.selected(), net.agent.consent(net.now)), (None, Consent::Expired));
}

#[test]
fn a_peer_that_takes_itself_for_controlled_learns_better() {
    let mut net = Net::new(false);
    net.run(Duration::from_secs(2));
    assert!(net.peer.controlling(), "after our 487");
    let path = net.agent.paths().next().expect("an authenticated pair");
    net.agent.handle_dtls_finished(net.now, Some(path));
    net.run(Duration::from_secs(2));
    assert_eq!(net.selected(), Some(net.public));
}
