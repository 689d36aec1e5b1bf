//! Whatever a peer, a thief of its requests and the clock do: what an ICE agent must never do.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gryt_sfu::ice::agent::{
    Agent, BUDGET_PERIOD, CHECK_COUNT_MAX, Consent, EXPIRED_AFTER, MISSED_AFTER, MOVE_COUNT_MAX,
    PAIR_COUNT_MAX, STALE_AFTER, UNVERIFIED_COUNT_MAX,
};
use gryt_sfu::ice::credentials::{LocalCredentials, LocalUfrag, RemoteCredentials, Secret};
use gryt_sfu::ice::stun::{CHECK_LEN_MAX, Message};
use gryt_sfu::ids::WorkerId;
use gryt_sfu::packet::{Path, SocketId};
use gryt_sfu::time::Now;
use proptest::collection::vec;
use proptest::prelude::*;
use stun::agent::TransactionId;
use stun::attributes::{ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, MessageType, Setter};

const REMOTE_PASSWORD: &str = "0123456789abcdefghijkl";

#[derive(Clone, Debug)]
enum Step {
    /// A Binding request from host and port; of the generation before, or nominating with one of few priorities.
    Request {
        host: u8,
        port: u8,
        is_old: bool,
        nomination: Option<u8>,
        id: u8,
    },
    /// Hosts below this one answer all checks that they got and have not answered.
    Answer {
        hosts: u8,
    },
    DtlsFinished {
        host: u8,
        port: u8,
    },
    Restart,
    /// Milliseconds pass; the agent is woken in time, or late.
    Pass {
        ms: u64,
        is_late: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let host = 0_u8..8;
    let port = 0_u8..4;
    prop_oneof![
        20 => (host.clone(), port.clone(), prop::bool::weighted(0.1), prop::option::of(0_u8..3), 0_u8..3).prop_map(
            |(host, port, is_old, nomination, id)| Step::Request { host, port, is_old, nomination, id }
        ),
        4 => (0_u8..4).prop_map(|hosts| Step::Answer { hosts }),
        2 => (0_u8..2, port).prop_map(|(host, port)| Step::DtlsFinished { host, port }),
        1 => Just(Step::Restart),
        10 => (0_u64..10_000, prop::bool::weighted(0.1))
            .prop_map(|(ms, is_late)| Step::Pass { ms, is_late }),
    ]
}

fn path(host: u8, port: u8) -> Path {
    let remote = SocketAddr::from(([192, 0, 2, host], 4000 + u16::from(port)));
    Path { socket: SocketId(0), local: "10.0.0.1".parse().unwrap(), remote }
}

fn local(generation: u8) -> LocalCredentials {
    let ufrag = LocalUfrag::new(WorkerId(0), [generation; 11]);
    LocalCredentials { ufrag, password: Secret::from_bytes(&[1; 32]).password(&ufrag) }
}

fn message(kind: MessageType, id: [u8; 12], attributes: &[(u16, &[u8])], password: &str) -> Vec<u8> {
    let mut message = stun::message::Message::new();
    message.set_type(kind);
    message.transaction_id = TransactionId(id);
    message.write_header();
    for (kind, value) in attributes {
        message.add(stun::attributes::AttrType(*kind), value);
    }
    MessageIntegrity::new_short_term_integrity(password.into()).add_to(&mut message).unwrap();
    FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}

struct World {
    agent: Agent,
    now: Instant,
    generation: u8,
    /// The latest that the peer has used, and that it had used when consent expired.
    used: u8,
    expired: Option<u8>,
    authenticated: HashSet<Path>,
    /// Where DTLS finished or a check was answered; and over which pairs, since the peer was last silent for long.
    proven: HashSet<IpAddr>,
    proofs: HashMap<Path, Instant>,
    /// Last request on each pair.
    heard: HashMap<Path, Instant>,
    /// How much of the silence on it the agent has slept through, at most.
    slept: HashMap<Path, Duration>,
    /// Pairs that a request with USE-CANDIDATE came over.
    nominated: HashSet<Path>,
    /// Where media went before, and since when the agent has been awake to find out whether that is right.
    selected: Option<Path>,
    selected_at: Instant,
    sent: Vec<(Instant, Path, Vec<u8>)>,
    answered: usize,
}

impl World {
    fn new() -> World {
        let now = Now::read().instant;
        let remote = RemoteCredentials::parse("abcd", REMOTE_PASSWORD).unwrap();
        World {
            agent: Agent::new(now, local(0), remote, [7; 32]),
            now,
            generation: 0,
            used: 0,
            expired: None,
            authenticated: HashSet::new(),
            proven: HashSet::new(),
            proofs: HashMap::new(),
            heard: HashMap::new(),
            slept: HashMap::new(),
            nominated: HashSet::new(),
            selected: None,
            selected_at: now,
            sent: Vec::new(),
            answered: 0,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Request { host, port, is_old, nomination, id } => {
                let generation = self.generation.saturating_sub(u8::from(is_old));
                self.request(path(host, port), generation, nomination, id);
            }
            Step::Answer { hosts } => self.answer(hosts),
            Step::DtlsFinished { host, port } => {
                let path = path(host, port);
                if self.heard.contains_key(&path) && self.silence(&path) >= EXPIRED_AFTER {
                    return; // Who does not check has given up.
                }
                if self.authenticated.contains(&path) {
                    self.proven.insert(path.remote.ip());
                    self.proofs.insert(path, self.now);
                }
                self.agent.handle_dtls_finished(self.now, Some(path));
                self.judge_move();
            }
            Step::Restart if self.generation < 250 => {
                self.generation += 1;
                let remote = RemoteCredentials::parse("abcd", REMOTE_PASSWORD).unwrap();
                self.agent.restart(self.now, local(self.generation), remote);
            }
            Step::Restart => {}
            Step::Pass { ms, is_late } => {
                let end = self.now + Duration::from_millis(ms);
                while let Some(at) = self.agent.next_timeout().filter(|at| !is_late && *at <= end) {
                    self.now = self.now.max(at);
                    self.drain();
                    assert!(self.agent.next_timeout().is_none_or(|next| next > at), "a time-out that stays");
                }
                if let Some(selected) = self.selected.filter(|_| is_late) {
                    self.selected_at += end - self.now;
                    *self.slept.entry(selected).or_default() += end - self.now;
                }
                self.now = end;
            }
        }
        self.drain();
    }

    fn request(&mut self, path: Path, generation: u8, nomination: Option<u8>, id: u8) {
        let local = local(generation);
        let name = format!("{}:abcd", local.ufrag.as_str());
        let priority = [0, 0, 0, nomination.unwrap_or(0)];
        let attributes: &[(u16, &[u8])] =
            &[(ATTR_USERNAME.0, name.as_bytes()), (ATTR_PRIORITY.0, &priority), (ATTR_USE_CANDIDATE.0, &[])];
        let count = if nomination.is_some() { 3 } else { 2 };
        let bytes = message(BINDING_REQUEST, [id; 12], &attributes[..count], local.password.as_str());
        let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!("no request") };
        let before = self.agent.selected();
        let mut out = [0; 128];
        match self.agent.handle_request(self.now, path, &request, &mut out) {
            Ok(answered) => {
                assert!(answered.len <= bytes.len());
                assert_eq!(answered.is_new, self.authenticated.insert(path));
                if let Some(forgotten) = answered.forgotten {
                    assert!(answered.is_new && forgotten != path && Some(forgotten) != before);
                    assert!(self.authenticated.remove(&forgotten));
                    self.proofs.remove(&forgotten);
                }
                if before != Some(path) && self.is_long_silent(&path) {
                    self.proofs.remove(&path);
                }
                self.used = self.used.max(generation);
                if nomination.is_some() {
                    self.nominated.insert(path);
                }
                self.judge_move();
                self.heard.insert(path, self.now);
                self.slept.remove(&path);
            }
            Err(_) => assert_eq!(self.agent.selected(), before, "refused, and yet it moved"),
        }
    }

    fn answer(&mut self, hosts: u8) {
        let open: Vec<_> = self.sent.drain(self.answered..).collect();
        for (at, path, check) in open {
            let is_answering = matches!(path.remote.ip(), IpAddr::V4(ip) if ip.octets()[3] < hosts);
            if is_answering {
                let id = check[8..20].try_into().unwrap();
                let bytes = message(BINDING_SUCCESS, id, &[], REMOTE_PASSWORD);
                let Ok(Message::Response(response)) = Message::parse(&bytes) else { panic!("no response") };
                if self.agent.handle_response(self.now, path, &response).is_ok() {
                    assert!(self.authenticated.contains(&path));
                    self.proven.insert(path.remote.ip());
                    self.proofs.insert(path, self.now);
                    self.judge_move();
                }
            }
            self.sent.push((at, path, check));
        }
        self.answered = self.sent.len();
    }

    fn drain(&mut self) {
        let mut out = [0; CHECK_LEN_MAX];
        while let Some((path, len)) = self.agent.next_check(self.now, &mut out) {
            assert!(self.authenticated.contains(&path), "a check to a stranger");
            self.sent.push((self.now, path, out[..len].to_vec()));
        }
        self.judge_move();
        self.judge();
    }

    fn silence(&self, path: &Path) -> Duration {
        self.now.duration_since(self.heard[path])
    }

    fn is_long_silent(&self, path: &Path) -> bool {
        let slept = self.slept.get(path).copied().unwrap_or_default();
        self.heard.get(path).is_some_and(|heard| self.now.duration_since(*heard) >= EXPIRED_AFTER + slept)
    }

    fn judge_move(&mut self) {
        let before = std::mem::replace(&mut self.selected, self.agent.selected());
        match self.agent.consent(self.now) {
            Consent::Expired => self.expired = Some(self.used),
            _ => assert!(
                self.expired.is_none_or(|expired| expired < self.used),
                "renewed by the same credentials"
            ),
        }
        let Some(after) = self.selected.filter(|after| before != Some(*after)) else {
            return;
        };
        self.selected_at = self.now;
        // The peer was there not long ago, or on another port of the same address.
        let is_ip = |path: &&Path| path.remote.ip() == after.remote.ip();
        let is_recent = |path: &Path| {
            let is_new = self.now.duration_since(self.proofs[path]) < EXPIRED_AFTER;
            before == Some(*path) || *path == after || is_new || !self.is_long_silent(path)
        };
        assert!(self.proofs.keys().filter(is_ip).any(is_recent), "aimed at whoever has the address now");
        // Whoever only checks, or repeats checks of others, moves nothing while the peer is heard where media goes.
        if let Some(before) = before.filter(|before| self.agent.is_verified(before)) {
            let has_missed = self.silence(&before) >= MISSED_AFTER;
            assert!(has_missed || self.nominated.contains(&after), "moved for nothing");
        }
    }

    fn judge(&self) {
        let paths: HashSet<Path> = self.agent.paths().collect();
        assert_eq!(paths, self.authenticated);
        assert!(paths.len() <= PAIR_COUNT_MAX);
        assert!((1..=2).contains(&self.agent.ufrags().count()));
        assert_eq!(self.agent.ufrags().next(), Some(local(self.generation).ufrag));

        let consent = self.agent.consent(self.now);
        match self.agent.selected() {
            None => assert_ne!(consent, Consent::Fresh),
            Some(selected) => {
                assert!(paths.contains(&selected));
                assert!(self.proven.contains(&selected.remote.ip()), "aimed at a victim");
                // All the checks of a transaction, until the last one's time is over.
                let is_asked = self.now.duration_since(self.selected_at) < Duration::from_millis(6_350);
                assert!(self.proofs.contains_key(&selected) || is_asked, "it never answered");
                assert!(matches!(consent, Consent::Fresh | Consent::Stale), "{consent:?}");
                let silence = self.silence(&selected);
                assert!(consent != Consent::Stale || silence >= STALE_AFTER);
            }
        }
        // No victim gets more checks than the budget of a minute, restarts or not.
        let recent = |at: &Instant| *at + BUDGET_PERIOD > self.now;
        let unproven = |path: &Path| !self.proven.contains(&path.remote.ip());
        let count = self.sent.iter().filter(|(at, path, _)| recent(at) && unproven(path)).count();
        // One more transaction per place: those begun just before the minute did.
        let most = (MOVE_COUNT_MAX + UNVERIFIED_COUNT_MAX) * usize::from(CHECK_COUNT_MAX);
        assert!(count <= most, "{count} checks a minute");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_aimed_at_and_nothing_grows(steps in vec(step(), 1..200)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}
