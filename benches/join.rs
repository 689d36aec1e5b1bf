//! What does one join cost, part by part, and how many a second are that of one core?
//!
//! The production parts without sockets: signalling told a client's texts, the DTLS endpoint against a client in
//! memory, a worker given orders and datagrams. Each is charged its thread's CPU time, the client's own excluded, so
//! that neighbours on the machine move the figures little; what the kernel and the WebSocket cost is not in it. The parts
//! take turns. Prints median and minimum per part, and joins a second of one core.
//!
//! The handshake comes twice: browsers ask for X25519, and P-256 is what a client without it gets. Below it stand
//! those of its parts that can be called by themselves.
//!
//! `cargo bench --bench join`; without `--bench` one short round, to see that it works.

#[allow(dead_code, reason = "descriptions of other tests")]
#[path = "../tests/sdp/fixtures.rs"]
mod fixtures;
#[path = "../tests/sim/mod.rs"]
mod sim;

use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dimpl::{Dtls, DtlsCertificate, NamedGroup, Output as ClientOutput};
use gryt_sfu::control::workers::{WorkerQueue, Workers};
use gryt_sfu::dtls::endpoint::{Acceptor, Endpoint, Output};
use gryt_sfu::dtls::identity::{Identity, fingerprint_of};
use gryt_sfu::dtls::keying::{KeyingMaterial, MasterKey, SrtpProfile};
use gryt_sfu::ice::credentials::{RemoteCredentials, Secret};
use gryt_sfu::ids::{Fingerprint, TransportId, WorkerId};
use gryt_sfu::signalling::negotiation::Action;
use gryt_sfu::signalling::{Handshakes, IceServers, Settings, Signalling};
use gryt_sfu::time::Now;
use gryt_sfu::worker::command::Command;
use sim::Sim;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use webrtc_dtls::crypto::Certificate;
use webrtc_dtls::curve::named_curve::NamedCurve;
use zeroize::Zeroizing;

const ROUND_COUNT: usize = 41;
/// Joins of a round.
const JOIN_COUNT: usize = 40;
/// Members of a room, the last to come included.
const ROOM_LEN: usize = 8;
const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;

fn main() {
    // Cargo passes `--bench` for a measurement.
    let is_trial = !std::env::args().any(|argument| argument == "--bench");
    let (round_count, join_count) = if is_trial { (1, ROOM_LEN) } else { (ROUND_COUNT, JOIN_COUNT) };
    let groups = [NamedGroup::X25519, NamedGroup::Secp256r1];
    let mut clients = groups.map(Handshaker::new);
    let mut parts = Parts(Vec::new());
    for _ in 0..=round_count {
        let [join, offer] = signalling(join_count);
        parts.add("`join`, `joined` and the others' `user-joined`", join, join_count);
        parts.add("offer parsed, answer made, orders given", offer, join_count);
        parts.add("our offer of the others' voices, the answer taken", renegotiation(join_count), join_count);
        for (client, name) in clients.iter_mut().zip(["DTLS handshake, X25519", "DTLS handshake, P-256"]) {
            parts.add(name, client.run(join_count), join_count);
        }
        let [transport, keys] = worker(join_count);
        parts.add("worker: transport, first ICE check", transport, join_count);
        parts.add("worker: SRTP and SRTCP keys", keys, join_count);
        let certificate = Certificate::generate_self_signed(vec![]).expect("randomness");
        for (name, work) in [
            ("  a throw-away certificate (the crate makes 2)", throw_away as fn(&Certificate)),
            ("  a copy of our certificate's key (3)", copy),
            ("  an X25519 key pair (1, and a multiplication)", |_| key_pair(NamedCurve::X25519)),
            ("  a P-256 key pair (1, and a multiplication)", |_| key_pair(NamedCurve::P256)),
        ] {
            let before = thread_cpu_time();
            (0..join_count).for_each(|_| work(&certificate));
            parts.add(name, thread_cpu_time() - before, join_count);
        }
    }
    parts.print();
}

/// Microseconds a join, by part and round.
struct Parts(Vec<(&'static str, Vec<f64>)>);

impl Parts {
    fn add(&mut self, name: &'static str, spent: Duration, count: usize) {
        let sample = spent.as_nanos() as f64 / 1000.0 / count as f64;
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, samples)) => samples.push(sample),
            // The first round warms caches.
            None => self.0.push((name, Vec::new())),
        }
    }

    fn print(mut self) {
        println!("µs of CPU a join, the room's members {ROOM_LEN}\n{:<52} median  minimum  a second", "");
        let line = |name: &str, median: f64, minimum: f64| {
            println!("{name:<52} {median:>6.1} {minimum:>8.1} {:>9.0}", 1e6 / median);
        };
        let mut sum = [(0.0, 0.0); 2];
        for (name, samples) in &mut self.0 {
            samples.sort_by(f64::total_cmp);
            let (median, minimum) = (samples[samples.len() / 2], samples[0]);
            line(name, median, minimum);
            for (total, other) in sum.iter_mut().zip(["P-256", "X25519"]) {
                if !name.starts_with(' ') && !name.contains(other) {
                    *total = (total.0 + median, total.1 + minimum);
                }
            }
        }
        line("all of it, X25519", sum[0].0, sum[0].1);
        line("all of it, P-256", sum[1].0, sum[1].1);
    }
}

/// Endpoints are another part's.
struct NoHandshakes;

impl Handshakes for NoHandshakes {
    fn expect(&self, _: WorkerId, _: TransportId, _: Fingerprint) {}
    fn forget(&self, _: TransportId) {}
}

/// Fills rooms with listeners as Chromium offers them: what `join` costs, and what the offer does.
fn signalling(count: usize) -> [Duration; 2] {
    let (commands, orders) = crossbeam_channel::bounded(1000);
    let mut now = Now::read().instant;
    let settings = Settings {
        audio_slots: 32,
        max_connections: count,
        room_span_at: usize::MAX,
        resume_window: Duration::from_secs(15),
        secret: Secret::random(),
        fingerprint: Fingerprint([7; 32]),
        candidates: vec![Rc::new(["192.0.2.1:3478".parse().expect("an address")])],
        ice_servers: IceServers::default(),
        verifier: None,
    };
    let workers = Workers::new(vec![WorkerQueue { commands, wake: Box::new(|| ()) }]);
    let signalling = Signalling::new(now, settings, workers, NoHandshakes);
    let remote: SocketAddr = "192.0.2.9:1234".parse().expect("an address");
    let sdp = fixtures::chromium(&["0"], &[fixtures::chromium_audio("0", "recvonly")]);
    let offer = serde_json::json!({"event": "offer", "data": {"type": "offer", "sdp": sdp}}).to_string();
    let mut spent = [Duration::ZERO; 2];
    let mut clients = Vec::new();
    for number in 0..count {
        let (room, user) = (number / ROOM_LEN, number % ROOM_LEN);
        let info = serde_json::json!({"nickname": "Ada Lovelace", "isMuted": false, "isDeafened": false});
        let data =
            serde_json::json!({"roomId": format!("r{room}"), "userId": format!("u{user}"), "userInfo": info});
        let join = serde_json::json!({"event": "join", "data": data}).to_string();
        now += Duration::from_millis(2);
        let before = thread_cpu_time();
        let (inbound, outbound) = signalling.connect(now, remote);
        inbound.handle_text(now, &join);
        let joined = thread_cpu_time();
        inbound.handle_text(now, &offer);
        spent[1] += thread_cpu_time() - joined;
        spent[0] += joined - before;
        clients.push((inbound, outbound));
        for (_, outbound) in &mut clients {
            while outbound.try_recv().is_ok() {}
        }
        let orders: Vec<_> = orders.try_iter().collect();
        assert!(orders.iter().any(|order| matches!(order, Command::AddTransport { .. })), "it was answered");
    }
    spent
}

/// What it takes to let listeners hear those who were there before: an offer with all their voices, and the answer.
/// A speaker's join makes such an exchange due for each of the others.
fn renegotiation(count: usize) -> Duration {
    let now = Now::read().instant;
    let offer = fixtures::chromium(&["0"], &[fixtures::chromium_audio("0", "recvonly")]);
    let voices = fixtures::voices(&(1..ROOM_LEN as u64).collect::<Vec<_>>());
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let mut negotiation = fixtures::negotiation(now, 32);
        negotiation.handle_offer(now, &offer);
        while negotiation.next_action().is_some() {}
        let mut next = || {
            negotiation.set_voices(now, &voices);
            std::iter::from_fn(|| negotiation.next_action()).find_map(|action| match action {
                Action::SendOffer(sdp) => Some(sdp),
                _ => None,
            })
        };
        let offer = spend(&mut spent, &mut next).expect("an offer");
        let answer = fixtures::answer_to(&offer);
        spend(&mut spent, || {
            negotiation.handle_answer(now, &answer);
            while negotiation.next_action().is_some() {}
        });
    }
    spent
}

/// The production endpoint, and a client that asks for one group.
struct Handshaker {
    acceptor: Rc<Acceptor>,
    config: Arc<dimpl::Config>,
    certificate: DtlsCertificate,
    fingerprint: Fingerprint,
}

impl Handshaker {
    fn new(group: NamedGroup) -> Handshaker {
        let certificate = dimpl::certificate::generate_self_signed_certificate().expect("randomness");
        let config = dimpl::Config::builder().kx_groups(&[group]).build().expect("a group it knows");
        Handshaker {
            acceptor: Acceptor::new(Identity::generate().expect("randomness")),
            config: Arc::new(config),
            fingerprint: fingerprint_of(&certificate.certificate),
            certificate,
        }
    }

    /// One handshake after the other; what the server's side cost, all tasks included.
    fn run(&mut self, count: usize) -> Duration {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let before = thread_cpu_time();
            let mut client_time = Duration::ZERO;
            for _ in 0..count {
                client_time += self.handshake().await;
            }
            thread_cpu_time() - before - client_time
        })
    }

    /// Returns what the client's side cost.
    async fn handshake(&self) -> Duration {
        let mut time = Duration::ZERO;
        let (sender, mut outputs) = mpsc::unbounded_channel();
        let mut endpoint = Endpoint::new(&self.acceptor, self.fingerprint, move |output| {
            let _ = sender.send(output);
        });
        let mut client = spend(&mut time, || Client::new(self));
        let mut has_keys = false;
        while !has_keys || !client.is_connected {
            spend(&mut time, || client.speak());
            client.outbox.drain(..).for_each(|datagram| endpoint.handle_datagram(datagram));
            if has_keys && client.is_connected {
                break;
            }
            match outputs.recv().await.expect("an endpoint") {
                Output::Datagram(datagram) => spend(&mut time, || client.hear(&datagram)),
                Output::Established(_) => has_keys = true,
                Output::Failed(error) => panic!("{error}"),
            }
        }
        spend(&mut time, || drop(client));
        time
    }
}

struct Client {
    dtls: Dtls,
    outbox: Vec<Bytes>,
    is_connected: bool,
}

impl Client {
    fn new(shaker: &Handshaker) -> Client {
        let now = Instant::from(tokio::time::Instant::now());
        let mut dtls = Dtls::new_12(Arc::clone(&shaker.config), shaker.certificate.clone(), now);
        dtls.set_active(true);
        dtls.handle_timeout(now).expect("a client that begins");
        Client { dtls, outbox: Vec::new(), is_connected: false }
    }

    fn speak(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                ClientOutput::Packet(datagram) => self.outbox.push(Bytes::copy_from_slice(datagram)),
                ClientOutput::Connected => self.is_connected = true,
                ClientOutput::Timeout(_) => return,
                _ => {}
            }
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        self.dtls.handle_packet(datagram).expect("a server that it understands");
    }
}

/// Adds what `work` takes.
fn spend<R>(time: &mut Duration, work: impl FnOnce() -> R) -> R {
    let before = thread_cpu_time();
    let result = work();
    *time += thread_cpu_time() - before;
    result
}

/// What a worker does for a join: up to a selected pair, and the keys.
fn worker(count: usize) -> [Duration; 2] {
    let mut sim = Sim::new(32);
    let secret = Secret::random();
    let mut spent = [Duration::ZERO; 2];
    for number in 1..=count as u16 {
        let transport = TransportId(number.into());
        // Only the secret's own worker checks that a name is its own.
        let local = secret.credentials(WorkerId(0));
        let remote = RemoteCredentials::parse("peer", "aPasswordOf22Characters").expect("credentials");
        let path = sim::path(number, 40_000);
        let mut check = sim::binding_request(&local, true);
        let room = sim.room;
        spend(&mut spent[0], || {
            sim.command(Command::AddTransport { transport, room, local, remote });
            sim.deliver(path, &mut check);
        });
        let master = |byte| MasterKey {
            key: Zeroizing::new(vec![byte; PROFILE.key_len()]),
            salt: Zeroizing::new(vec![byte; PROFILE.salt_len()]),
        };
        let keys = Box::new(KeyingMaterial { profile: PROFILE, client: master(1), server: master(2) });
        spend(&mut spent[1], || sim.command(Command::SetKeys { transport, keys }));
    }
    assert!(sim.sent.len() >= count, "each check was answered");
    spent
}

fn throw_away(_: &Certificate) {
    black_box(Certificate::generate_self_signed(vec![]).expect("randomness"));
}

fn copy(certificate: &Certificate) {
    black_box(certificate.clone());
}

fn key_pair(curve: NamedCurve) {
    black_box(curve.generate_keypair().expect("a curve that it knows"));
}

#[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
