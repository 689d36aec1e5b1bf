//! What moves an ICE-lite agent's selection, and what must not.

#[path = "ice_agent/nominations.rs"]
mod nominations;
#[path = "ice_agent/proofs.rs"]
mod proofs;
#[path = "ice_agent/rebindings.rs"]
mod rebindings;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gryt_sfu::ice::agent::{
    Agent, Answered, CHECK_COUNT_MAX, Consent, EXPIRED_AFTER, MISSED_AFTER, MOVE_COUNT_MAX, PAIR_COUNT_MAX,
    STALE_AFTER, UNVERIFIED_COUNT_MAX,
};
use gryt_sfu::ice::credentials::{LocalCredentials, LocalUfrag, RemoteCredentials, Secret};
use gryt_sfu::ice::stun::{ANSWER_LEN_MAX, CHECK_LEN_MAX, Message};
use gryt_sfu::ids::WorkerId;
use gryt_sfu::packet::{DropReason, Path, SocketId};
use gryt_sfu::time::Now;
use stun::agent::TransactionId;
use stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, MessageType, Setter};

const HOME: &str = "192.0.2.1:4000";
const HOME_OTHER_PORT: &str = "192.0.2.1:4001";
const AWAY: &str = "198.51.100.7:5000";
const VICTIM: &str = "203.0.113.9:53";

/// Of a host's first address, its second, and a relay, as browsers rank them.
const HIGH: u32 = 0x6EFF_FFFF;
const LOW: u32 = 0x6E7F_FFFF;
const RELAYED: u32 = 0x05FF_FFFF;

const SECOND: Duration = Duration::from_secs(1);

fn path(remote: &str) -> Path {
    let remote: SocketAddr = remote.parse().unwrap();
    let local = if remote.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
    Path { socket: SocketId(0), local: local.parse().unwrap(), remote }
}

/// One side's credentials, as SDP has them.
#[derive(Clone)]
struct Credentials {
    ufrag: String,
    password: String,
}

fn local(generation: u8) -> LocalCredentials {
    let ufrag = LocalUfrag::new(WorkerId(0), [generation; 11]);
    LocalCredentials { ufrag, password: Secret::from_bytes(&[1; 32]).password(&ufrag) }
}

fn remote(generation: u8) -> Credentials {
    let digit = char::from(b'a' + generation);
    Credentials { ufrag: digit.to_string().repeat(4), password: digit.to_string().repeat(22) }
}

fn parsed(credentials: &Credentials) -> RemoteCredentials {
    RemoteCredentials::parse(&credentials.ufrag, &credentials.password).unwrap()
}

/// An agent, its peer (the `stun` crate) and their clock.
struct Scene {
    agent: Agent,
    now: Instant,
    generation: u8,
    sent_count: u32,
}

impl Scene {
    fn new() -> Scene {
        let now = Now::read().instant;
        Scene {
            agent: Agent::new(now, local(0), parsed(&remote(0)), [3; 32]),
            now,
            generation: 0,
            sent_count: 0,
        }
    }

    /// DTLS finished over HOME.
    fn connected() -> Scene {
        let mut scene = Scene::new();
        scene.check(HOME, true).unwrap();
        scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
        scene
    }

    fn request(&mut self, generation: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let local = local(generation);
        let name = format!("{}:{}", local.ufrag.as_str(), remote(generation).ufrag);
        self.sent_count += 1;
        let mut all = vec![(ATTR_USERNAME.0, name.as_bytes())];
        all.extend_from_slice(attributes);
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.sent_count.to_be_bytes());
        message(BINDING_REQUEST, id, &all, local.password.as_str())
    }

    fn handle(&mut self, from: &str, bytes: &[u8]) -> Result<Answered, DropReason> {
        let Ok(Message::Request(request)) = Message::parse(bytes) else { panic!("no request") };
        let mut out = [0; ANSWER_LEN_MAX];
        let answered = self.agent.handle_request(self.now, path(from), &request, &mut out)?;
        assert!(answered.len <= bytes.len(), "an answer longer than its request");
        Ok(answered)
    }

    /// A check of the peer's, from `from`.
    fn check(&mut self, from: &str, is_nomination: bool) -> Result<Answered, DropReason> {
        let use_candidate: &[(u16, &[u8])] =
            &[(ATTR_ICE_CONTROLLING.0, &[9; 8]), (ATTR_USE_CANDIDATE.0, &[])];
        let attributes = if is_nomination { use_candidate } else { &use_candidate[..1] };
        let bytes = self.request(self.generation, attributes);
        self.handle(from, &bytes)
    }

    /// A nomination by a peer that ranks its candidates.
    fn nominate(&mut self, from: &str, priority: u32) {
        let bytes = self.nomination(priority);
        self.handle(from, &bytes).unwrap();
    }

    /// A check without USE-CANDIDATE by a peer that ranks its candidates.
    fn renew(&mut self, from: &str, priority: u32) {
        let bytes = self.renewal(priority);
        self.handle(from, &bytes).unwrap();
    }

    /// To be sent, and sent again.
    fn renewal(&mut self, priority: u32) -> Vec<u8> {
        let priority = priority.to_be_bytes();
        let attributes: &[(u16, &[u8])] = &[(ATTR_PRIORITY.0, &priority), (ATTR_ICE_CONTROLLING.0, &[9; 8])];
        self.request(self.generation, attributes)
    }

    /// As [`Scene::renewal`].
    fn nomination(&mut self, priority: u32) -> Vec<u8> {
        let priority = priority.to_be_bytes();
        let attributes: &[(u16, &[u8])] =
            &[(ATTR_PRIORITY.0, &priority), (ATTR_ICE_CONTROLLING.0, &[9; 8]), (ATTR_USE_CANDIDATE.0, &[])];
        self.request(self.generation, attributes)
    }

    /// Firefox: each pair is nominated once, in the order of their rank; afterwards it checks the first alone.
    fn nominate_all(&mut self) {
        self.nominate(HOME, HIGH);
        self.now += Duration::from_millis(20);
        self.nominate(HOME_OTHER_PORT, LOW);
        self.now += Duration::from_millis(20);
        self.nominate(AWAY, RELAYED);
    }

    /// Checks of ours that are due: where to, and their bytes.
    fn due(&mut self) -> Vec<(Path, Vec<u8>)> {
        let mut out = [0; CHECK_LEN_MAX];
        let agent = &mut self.agent;
        let now = self.now;
        std::iter::from_fn(|| agent.next_check(now, &mut out).map(|(path, len)| (path, out[..len].to_vec())))
            .collect()
    }

    /// Lets time pass as the agent wants it: woken at each of its time-outs. All checks sent meanwhile.
    fn pass(&mut self, duration: Duration) -> Vec<(Path, Vec<u8>)> {
        let end = self.now + duration;
        let mut sent = self.due();
        while let Some(at) = self.agent.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let due = self.due();
            assert!(!due.is_empty() || self.agent.next_timeout() != Some(at), "a time-out that stays");
            sent.extend(due);
        }
        self.now = end;
        sent
    }

    /// The peer answers a check of ours.
    fn respond(&mut self, from: &str, check: &[u8]) -> Result<(), DropReason> {
        let bytes = answer(check, BINDING_SUCCESS, &remote(self.generation).password);
        self.handle_response(from, &bytes)
    }

    fn handle_response(&mut self, from: &str, bytes: &[u8]) -> Result<(), DropReason> {
        match Message::parse(bytes)? {
            Message::Response(response) => self.agent.handle_response(self.now, path(from), &response),
            Message::Request(_) => panic!("no response"),
        }
    }

    fn restart(&mut self, generation: u8) {
        self.agent.restart(self.now, local(generation), parsed(&remote(generation)));
    }

    fn consent(&self) -> Consent {
        self.agent.consent(self.now)
    }
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

fn answer(check: &[u8], kind: MessageType, password: &str) -> Vec<u8> {
    message(kind, check[8..20].try_into().unwrap(), &[], password)
}

#[test]
fn a_pair_is_known_from_its_first_authenticated_request_on() {
    let mut scene = Scene::new();
    assert!(!scene.agent.is_authenticated(&path(HOME)));
    let first = scene.check(HOME, false).unwrap();
    assert!(first.is_new && first.forgotten.is_none());
    assert!(!scene.check(HOME, false).unwrap().is_new);
    assert!(scene.agent.is_authenticated(&path(HOME)));
    assert_eq!(scene.agent.paths().collect::<Vec<_>>(), [path(HOME)]);
    assert!(scene.due().is_empty() && scene.agent.next_timeout().is_none());
}

#[test]
fn nobody_else_is_answered() {
    let mut scene = Scene::connected();
    let forged = {
        let name = format!("{}:{}", local(0).ufrag.as_str(), remote(0).ufrag);
        message(BINDING_REQUEST, [1; 12], &[(ATTR_USERNAME.0, name.as_bytes())], "wrong")
    };
    assert_eq!(scene.handle(VICTIM, &forged), Err(DropReason::StunUnauthenticated));
    let other = scene.request(1, &[]);
    assert_eq!(scene.handle(VICTIM, &other), Err(DropReason::StunUnknownUser));
    assert!(!scene.agent.is_authenticated(&path(VICTIM)));
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}

#[test]
fn nothing_is_selected_before_dtls_finishes_whatever_is_nominated() {
    let mut scene = Scene::new();
    scene.check(HOME, true).unwrap();
    scene.check(AWAY, true).unwrap();
    assert_eq!(scene.agent.selected(), None);
    assert_eq!(scene.consent(), Consent::None);
    assert!(scene.due().is_empty());
}

#[test]
fn dtls_selects_first_and_an_earlier_nomination_follows() {
    let mut scene = Scene::new();
    scene.check(HOME, false).unwrap();
    scene.check(HOME_OTHER_PORT, true).unwrap();
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));

    let mut scene = Scene::new();
    scene.check(HOME, false).unwrap();
    scene.check(AWAY, true).unwrap();
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
    assert_eq!(scene.agent.selected(), Some(path(HOME)), "not verified yet");
    let checks = scene.due();
    assert_eq!(checks[0].0, path(AWAY));
    scene.respond(AWAY, &checks[0].1).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
}

#[test]
fn dtls_that_finishes_again_elsewhere_moves_nothing() {
    let mut scene = Scene::connected();
    scene.check(AWAY, false).unwrap();
    scene.agent.handle_dtls_finished(scene.now, Some(path(AWAY)));
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    scene.check(AWAY, true).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)), "verified by DTLS");
}

#[test]
fn dtls_over_a_pair_that_is_gone_leaves_the_choice_to_the_next_verified_one() {
    let mut scene = Scene::new();
    scene.check(HOME, true).unwrap();
    scene.agent.handle_dtls_finished(scene.now, Some(path(AWAY)));
    assert_eq!(scene.agent.selected(), None);
    scene.check(HOME, true).unwrap();
    let checks = scene.due();
    scene.respond(HOME, &checks[0].1).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}

#[test]
fn dtls_over_several_pairs_proves_none_and_the_next_that_answers_is_selected() {
    for is_nominated in [false, true] {
        let mut scene = Scene::new();
        scene.check(VICTIM, false).unwrap();
        scene.now += SECOND;
        scene.check(HOME, is_nominated).unwrap();
        scene.agent.handle_dtls_finished(scene.now, None);
        assert_eq!(scene.agent.selected(), None);
        let checks = scene.due();
        let [(to, check)] = &checks[..] else { panic!("one check, not {}", checks.len()) };
        assert_eq!(*to, path(HOME), "asked at once");
        scene.respond(HOME, check).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
    }
}

#[test]
fn another_port_of_the_same_address_is_followed_at_once() {
    let mut scene = Scene::connected();
    scene.check(HOME_OTHER_PORT, false).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)), "not nominated");
    scene.check(HOME_OTHER_PORT, true).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));
}

#[test]
fn another_address_is_followed_only_once_it_answers_a_check_of_ours() {
    let mut scene = Scene::connected();
    scene.check(AWAY, true).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    let checks = scene.due();
    let [(to, check)] = &checks[..] else { panic!("one check, not {}", checks.len()) };
    assert_eq!(*to, path(AWAY));

    // It is a check that the peer can verify: its ufrag first, keyed with its password.
    let Ok(Message::Request(request)) = Message::parse(check) else { panic!("no request") };
    assert_eq!(request.username(), format!("{}:{}", remote(0).ufrag, local(0).ufrag.as_str()).as_bytes());
    let key = gryt_sfu::ice::integrity::IntegrityKey::new(&remote(0).password);
    assert_eq!(request.verify_with(&key), Ok(()));

    scene.respond(AWAY, check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
    assert!(scene.pass(5 * SECOND).is_empty(), "no more checks");
}

#[test]
fn a_response_counts_only_from_there_with_the_id_and_the_password() {
    let mut scene = Scene::connected();
    scene.check(AWAY, true).unwrap();
    let open = answer(&[0; 20], BINDING_SUCCESS, &remote(0).password);
    assert_eq!(scene.handle_response(AWAY, &open), Err(DropReason::StunUnexpected), "before it was sent");
    let check = scene.due().remove(0).1;

    assert_eq!(scene.respond(HOME, &check), Err(DropReason::StunUnexpected));
    assert_eq!(scene.respond(VICTIM, &check), Err(DropReason::StunUnexpected));
    assert_eq!(scene.handle_response(AWAY, &open), Err(DropReason::StunUnexpected));
    let forged = answer(&check, BINDING_SUCCESS, "wrong");
    assert_eq!(scene.handle_response(AWAY, &forged), Err(DropReason::StunUnauthenticated));
    let error = answer(&check, BINDING_ERROR, &remote(0).password);
    assert_eq!(scene.handle_response(AWAY, &error), Err(DropReason::StunUnexpected));
    assert_eq!(scene.agent.selected(), Some(path(HOME)));

    assert_eq!(scene.respond(AWAY, &check), Ok(()));
    assert_eq!(scene.respond(AWAY, &check), Err(DropReason::StunUnexpected), "answered already");
}

#[test]
fn a_victim_gets_the_budget_of_a_minute_times_seven_checks_and_no_media() {
    let mut scene = Scene::connected();
    scene.check(VICTIM, true).unwrap();
    let mut sent = Vec::new();
    for _ in 0..59 {
        sent.extend(scene.pass(SECOND));
        scene.check(HOME, false).unwrap();
        scene.check(VICTIM, true).unwrap(); // The member insists.
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
    }
    assert_eq!(sent.len(), MOVE_COUNT_MAX * usize::from(CHECK_COUNT_MAX));
    assert!(sent.iter().all(|(to, bytes)| *to == path(VICTIM) && bytes.len() <= 128));
    let transactions = sent.chunk_by(|a, b| a.1 == b.1);
    assert!(transactions.clone().all(|checks| checks.len() == usize::from(CHECK_COUNT_MAX)));
    assert_eq!(transactions.count(), MOVE_COUNT_MAX);
}

#[test]
fn a_pair_that_did_not_answer_once_is_asked_again_when_it_is_wanted_again() {
    let mut scene = Scene::connected();
    scene.check(AWAY, true).unwrap();
    assert_eq!(scene.pass(7 * SECOND).len(), usize::from(CHECK_COUNT_MAX));
    scene.check(HOME, false).unwrap();
    scene.check(AWAY, false).unwrap();
    assert!(scene.due().is_empty(), "not wanted");
    scene.check(AWAY, true).unwrap();
    let check = scene.due().remove(0).1;
    scene.respond(AWAY, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
}

#[test]
fn checks_are_sent_again_at_doubling_intervals() {
    let mut scene = Scene::connected();
    scene.check(AWAY, true).unwrap();
    let start = scene.now;
    let mut at = Vec::new();
    while at.len() < usize::from(CHECK_COUNT_MAX) {
        if !scene.due().is_empty() {
            at.push(scene.now.duration_since(start).as_millis());
        }
        scene.now = scene.agent.next_timeout().unwrap();
    }
    assert_eq!(at, [0, 50, 150, 350, 750, 1550, 3150]);
    assert_eq!(scene.now.duration_since(start).as_millis(), 6350);
    assert!(scene.due().is_empty());
    assert_eq!(scene.agent.next_timeout(), Some(start + MISSED_AFTER), "consent alone");
}

#[test]
fn many_victims_get_no_more_than_the_budget_of_a_minute() {
    let mut scene = Scene::connected();
    let mut sent = Vec::new();
    for second in 0..59 {
        let victim = format!("203.0.113.{second}:53");
        let _ = scene.check(&victim, true);
        sent.extend(scene.pass(SECOND));
        scene.check(HOME, false).unwrap();
        let _ = scene.check(&victim, true);
    }
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    assert!(sent.len() <= MOVE_COUNT_MAX * usize::from(CHECK_COUNT_MAX), "{} checks", sent.len());
    let mut victims: Vec<_> = sent.iter().map(|(to, _)| to.remote).collect();
    victims.sort();
    victims.dedup();
    assert_eq!(victims.len(), MOVE_COUNT_MAX);
}

#[test]
fn pairs_at_unverified_addresses_are_few_and_the_silent_ones_make_room() {
    let mut scene = Scene::connected();
    for host in 0..UNVERIFIED_COUNT_MAX {
        assert!(scene.check(&format!("203.0.113.{host}:1"), false).unwrap().is_new);
        scene.now += Duration::from_millis(10);
    }
    assert_eq!(scene.check(AWAY, true), Err(DropReason::StunLimit));
    assert!(!scene.agent.is_authenticated(&path(AWAY)));
    // A pair at a verified address does not count among them.
    assert!(scene.check(HOME_OTHER_PORT, false).unwrap().is_new);

    scene.pass(3 * SECOND);
    let answered = scene.check(AWAY, true).unwrap();
    assert_eq!(answered.forgotten, Some(path("203.0.113.0:1")), "the one silent longest");
    assert!(answered.is_new && !scene.agent.is_authenticated(&path("203.0.113.0:1")));
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}

#[test]
fn the_table_is_bounded_and_never_gives_up_the_selected_pair() {
    let mut scene = Scene::new();
    for port in 0..PAIR_COUNT_MAX {
        scene.check(&format!("192.0.2.1:{}", 4000 + port), false).unwrap();
    }
    assert_eq!(scene.check("192.0.2.1:9999", false), Err(DropReason::StunLimit));
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));

    for port in 0..100 {
        scene.pass(4 * SECOND);
        let answered = scene.check(&format!("192.0.2.1:{}", 5000 + port), false).unwrap();
        assert_ne!(answered.forgotten, None);
        assert_ne!(answered.forgotten, Some(path(HOME)));
        assert_eq!(scene.agent.paths().count(), PAIR_COUNT_MAX);
        if scene.agent.selected() == Some(path(HOME)) {
            scene.check(HOME, false).unwrap();
        }
    }
    assert!(scene.agent.is_authenticated(&path(HOME)));
}

#[test]
fn six_moves_a_minute_are_one_too_many_but_the_way_back_is_free() {
    let mut scene = Scene::connected();
    for port in 1..=MOVE_COUNT_MAX {
        let rebound = format!("192.0.2.1:{}", 4000 + port);
        scene.check(&rebound, true).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(&rebound)));
        scene.check(HOME, true).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(HOME)), "verified");
    }
    scene.check("192.0.2.1:4444", true).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    for _ in 0..12 {
        scene.pass(5 * SECOND);
        scene.check(HOME, false).unwrap();
    }
    scene.check("192.0.2.1:4444", true).unwrap();
    assert_eq!(scene.agent.selected(), Some(path("192.0.2.1:4444")));
}

#[test]
fn a_nomination_of_the_selected_pair_withdraws_an_open_one() {
    let mut scene = Scene::connected();
    scene.check(AWAY, true).unwrap();
    let check = scene.due().remove(0).1;
    scene.check(HOME, true).unwrap();
    scene.respond(AWAY, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    scene.check(AWAY, true).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)), "verified meanwhile");
}

#[test]
fn consent_goes_stale_at_13_and_expires_at_30_seconds() {
    let mut scene = Scene::connected();
    assert_eq!(scene.consent(), Consent::Fresh);
    scene.pass(STALE_AFTER - Duration::from_millis(1));
    assert_eq!(scene.consent(), Consent::Fresh);
    scene.pass(Duration::from_millis(1));
    assert_eq!(scene.consent(), Consent::Stale);
    scene.pass(EXPIRED_AFTER - STALE_AFTER - Duration::from_millis(1));
    assert_eq!((scene.consent(), scene.agent.selected()), (Consent::Stale, Some(path(HOME))));
    scene.pass(Duration::from_millis(1));
    assert_eq!((scene.consent(), scene.agent.selected()), (Consent::Expired, None));
    assert_eq!(scene.agent.next_timeout(), None);
}

#[test]
fn every_authenticated_check_on_the_selected_pair_renews_consent_and_no_other_does() {
    let mut scene = Scene::connected();
    for _ in 0..20 {
        scene.pass(5 * SECOND);
        scene.check(HOME, false).unwrap();
        assert_eq!(scene.consent(), Consent::Fresh);
    }
    for _ in 0..13 {
        assert_eq!(scene.consent(), Consent::Fresh);
        scene.pass(SECOND);
        scene.check(AWAY, false).unwrap();
    }
    assert_eq!(scene.consent(), Consent::Stale);
    scene.check(HOME, false).unwrap();
    assert_eq!(scene.consent(), Consent::Fresh);
}

#[test]
fn a_peer_that_falls_silent_is_followed_to_where_it_is_alive_without_a_nomination() {
    let mut scene = Scene::connected();
    scene.renew(HOME_OTHER_PORT, LOW);
    scene.pass(MISSED_AFTER);
    scene.check(AWAY, false).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)), "an unverified address");
    scene.check(HOME_OTHER_PORT, false).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));
    assert_eq!(scene.consent(), Consent::Fresh);
}

#[test]
fn expired_consent_is_not_renewed_by_the_same_credentials() {
    let mut scene = Scene::connected();
    scene.pass(EXPIRED_AFTER);
    assert_eq!(scene.consent(), Consent::Expired);
    assert!(scene.check(HOME, true).is_ok(), "still answered");
    assert_eq!((scene.consent(), scene.agent.selected()), (Consent::Expired, None));

    scene.restart(1);
    scene.check(HOME, true).unwrap();
    assert_eq!(scene.agent.selected(), None, "the old credentials once more");
    scene.generation = 1;
    scene.check(HOME, false).unwrap();
    let check = scene.due().remove(0).1;
    assert_eq!(
        (scene.consent(), scene.agent.selected()),
        (Consent::Stale, None),
        "may be somebody else's by now"
    );
    scene.respond(HOME, &check).unwrap();
    assert_eq!((scene.consent(), scene.agent.selected()), (Consent::Fresh, Some(path(HOME))));
}

#[test]
fn a_restart_after_expiry_still_wants_proof_of_a_new_address() {
    let mut scene = Scene::connected();
    scene.pass(EXPIRED_AFTER);
    scene.restart(1);
    scene.generation = 1;
    scene.check(AWAY, true).unwrap();
    assert_eq!(scene.agent.selected(), None);
    let check = scene.due().remove(0).1;
    scene.respond(AWAY, &check).unwrap();
    assert_eq!((scene.consent(), scene.agent.selected()), (Consent::Fresh, Some(path(AWAY))));
}

#[test]
fn a_machine_that_stood_still_does_not_expire_its_peers() {
    let mut scene = Scene::connected();
    scene.pass(SECOND);
    scene.now += Duration::from_secs(3600); // Nobody was woken meanwhile.
    assert_eq!(scene.consent(), Consent::Fresh);
    assert!(scene.due().is_empty());
    assert_eq!((scene.consent(), scene.agent.selected()), (Consent::Fresh, Some(path(HOME))));
    scene.pass(EXPIRED_AFTER - MISSED_AFTER - Duration::from_millis(1));
    assert_eq!(scene.consent(), Consent::Stale, "all of the time that was left");
    scene.pass(Duration::from_millis(1));
    assert_eq!(scene.consent(), Consent::Expired);
}

#[test]
fn both_generations_are_answered_until_the_new_one_is_used() {
    let mut scene = Scene::connected();
    let old = scene.request(0, &[]);
    scene.restart(1);
    let both = [local(1).ufrag, local(0).ufrag];
    assert_eq!(scene.agent.ufrags().collect::<Vec<_>>(), both);
    assert!(scene.handle(HOME, &old).is_ok());
    assert_eq!(scene.agent.ufrags().count(), 2);
    assert_eq!(scene.agent.selected(), Some(path(HOME)), "media goes on");

    let new = scene.request(1, &[]);
    assert!(scene.handle(HOME, &new).is_ok());
    assert_eq!(scene.agent.ufrags().collect::<Vec<_>>(), [local(1).ufrag]);
    assert_eq!(scene.handle(HOME, &old), Err(DropReason::StunUnknownUser));
}

#[test]
fn a_second_restart_replaces_one_that_the_peer_never_used() {
    let mut scene = Scene::connected();
    scene.restart(1);
    scene.restart(2);
    assert_eq!(scene.agent.ufrags().collect::<Vec<_>>(), [local(2).ufrag, local(0).ufrag]);
    let never = scene.request(1, &[]);
    assert_eq!(scene.handle(HOME, &never), Err(DropReason::StunUnknownUser));
}

#[test]
fn an_open_check_goes_on_under_the_new_credentials() {
    let mut scene = Scene::connected();
    scene.check(AWAY, true).unwrap();
    let before = scene.due().remove(0).1;
    scene.restart(1);
    scene.generation = 1;
    scene.check(AWAY, true).unwrap();
    let old = answer(&before, BINDING_SUCCESS, &remote(0).password);
    assert_eq!(scene.handle_response(AWAY, &old), Err(DropReason::StunUnexpected));
    let after = scene.due().remove(0).1;
    assert_ne!(before[8..20], after[8..20]);
    scene.respond(AWAY, &after).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
}

/// No restart keeps media longer where nobody has answered.
#[test]
fn a_check_that_is_over_does_not_begin_anew_with_a_restart() {
    let mut scene = Scene::connected();
    scene.nominate(HOME, LOW);
    scene.nominate(HOME_OTHER_PORT, LOW);
    let asked = scene.pass(Duration::from_millis(3_200));
    assert_eq!(asked.iter().filter(|(to, _)| *to == path(HOME_OTHER_PORT)).count(), 7, "all that there are");
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));
    scene.restart(1);
    scene.generation = 1;
    scene.check(HOME_OTHER_PORT, false).unwrap();
    assert!(scene.due().is_empty());
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}

#[test]
fn a_peer_that_claims_our_role_gets_487_and_nothing_else_happens() {
    let mut scene = Scene::new();
    let bytes = scene.request(0, &[(ATTR_ICE_CONTROLLED.0, &[0xFF; 8]), (ATTR_USE_CANDIDATE.0, &[])]);
    let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!("no request") };
    let mut out = [0; ANSWER_LEN_MAX];
    let answered = scene.agent.handle_request(scene.now, path(HOME), &request, &mut out).unwrap();
    assert!(!answered.is_new && answered.len <= bytes.len());
    assert_eq!(Message::parse(&out[..answered.len]).err(), Some(DropReason::StunUnexpected), "an error");
    assert!(!scene.agent.is_authenticated(&path(HOME)));
}

#[test]
fn pairs_that_differ_in_our_address_or_socket_are_different() {
    let scene = Scene::connected();
    let other = Path { local: "10.0.0.2".parse().unwrap(), ..path(HOME) };
    assert!(!scene.agent.is_authenticated(&other));
    assert!(!scene.agent.is_authenticated(&Path { socket: SocketId(1), ..path(HOME) }));
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_other_ids() {
    let run = |seed: u8| {
        let mut scene = Scene::new();
        scene.agent = Agent::new(scene.now, local(0), parsed(&remote(0)), [seed; 32]);
        scene.check(HOME, true).unwrap();
        scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
        scene.check(AWAY, true).unwrap();
        scene.check(VICTIM, true).unwrap();
        scene.pass(SECOND).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    let ids = |run: Vec<Vec<u8>>| run.iter().map(|bytes| bytes[8..20].to_vec()).collect::<Vec<_>>();
    let (one, two) = (ids(run(1)), ids(run(2)));
    assert!(one.iter().all(|id| !two.contains(id)));
    assert_ne!(one[0], one[1], "one transaction a pair");
}
