//! Where media and handshakes go, whoever says what of addresses.

use gryt_sfu::packet::Coalescing;

use super::*;

#[test]
fn media_goes_to_no_address_that_a_member_forged() {
    let (mut sim, mut callers) = room_of(2);
    let member = sim.add(3, GCM);
    let victim = path(9, 40_000);
    sim.consent(&member);
    sim.check(victim, &member.local);
    // All of the handshake but what comes last, or but what seems to be of it.
    sim.deliver(member.path, &mut DTLS.clone());
    sim.deliver(victim, &mut DTLS.clone());
    sim.finish_dtls(&member, 1);
    sim.add_slot(&member, 1, Some(TrackId(1)));
    sim.sent.clear();
    for _ in 0..50 {
        sim.check(victim, &member.local);
        sim.speak(&mut callers[0], 20, b"voice");
        sim.flush();
        sim.pass(MS20);
    }
    let is_media = |bytes: &[u8]| (128..192).contains(&bytes[0]);
    assert!(sim.sent.datagrams().any(|(path, bytes)| path == callers[1].path && is_media(bytes)));
    assert!(!sim.sent.datagrams().any(|(path, bytes)| path == victim && is_media(bytes)));
}

#[test]
fn little_of_dtls_goes_where_a_member_moves_it() {
    let mut sim = Sim::new(8);
    let member = sim.add(1, GCM);
    let victim = path(9, 40_000);
    sim.consent(&member);
    sim.check(victim, &member.local);
    sim.sent.clear();
    let flight = || Command::SendDtls { transport: member.transport, datagram: vec![22; 300].into() };
    sim.deliver(member.path, &mut DTLS.clone());
    (0..9).for_each(|_| sim.command(flight()));
    assert_eq!(sim.sent.len(), 9, "the pair that it began over");
    let mut hello = [22; 250];
    sim.deliver(victim, &mut hello);
    sim.sent.clear();
    (0..9).for_each(|_| sim.command(flight()));
    assert_eq!(sim.sent.datagrams().filter(|(path, _)| *path == victim).count(), 2);
    assert_eq!((sim.sent.len(), sim.drops(DropReason::DtlsLimit)), (2, 7));
}

#[test]
fn a_path_that_a_peer_is_heard_on_is_taken_by_nobody() {
    let (mut sim, mut callers) = room_of(3);
    let other = callers[1].local;
    for _ in 0..3 {
        sim.sent.clear();
        sim.check(callers[0].path, &other);
        assert_eq!(sim.sent.len(), 1, "whoever it is has proven to be a member, and is answered");
        sim.speak(&mut callers[0], 20, b"voice");
        assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b"voice"]);
        sim.pass(Duration::from_secs(1));
    }
}

/// Firefox checks every 4 to 6 s, each time once.
#[test]
fn a_peer_of_whom_a_check_is_lost_is_connected_and_keeps_its_path() {
    let (mut sim, mut callers) = room_of(3);
    let other = callers[1].local;
    let interval = Duration::from_secs(6);
    for _ in 0..5 {
        for is_lost in [true, false] {
            sim.pass(interval - MS20);
            sim.check(callers[0].path, &other);
            sim.pass(MS20);
            callers[usize::from(is_lost)..].iter().for_each(|caller| sim.consent(caller));
        }
        assert_eq!(states(&mut sim), []);
        sim.speak(&mut callers[0], 20, b"voice");
        assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b"voice"]);
    }
}

/// Firefox does not notice it, and its checks have no USE-CANDIDATE.
#[test]
fn a_peer_whose_nat_gives_it_another_address_hears_on() {
    let (mut sim, mut callers) = room_of(2);
    let check = |sim: &mut Sim, path| sim.deliver(path, &mut binding_request(&callers[1].local, false));
    for host in [2, 77, 78] {
        let path = path(host, 40_000);
        for _ in 0..6 {
            sim.pass(Duration::from_secs(5));
            sim.sent.clear();
            sim.consent(&callers[0]);
            check(&mut sim, path);
            sim.pass(Duration::from_millis(60));
            sim.answer(path);
        }
        assert_eq!(states(&mut sim), []);
    }
    callers[1].path = path(78, 40_000);
    sim.speak(&mut callers[0], 20, b"voice");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[1])), [b"voice"]);
}

#[test]
fn a_path_that_another_peer_took_comes_back_with_the_next_check() {
    let (mut sim, mut callers) = room_of(3);
    let other = callers[1].local;
    // Its owner has not been heard for long: behind a NAT it may be the other's by now.
    for _ in 0..14 {
        sim.pass(Duration::from_secs(1));
        callers[1..].iter().for_each(|caller| sim.consent(caller));
    }
    sim.check(callers[0].path, &other);
    sim.speak(&mut callers[0], 20, b"lost");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b""; 0]);
    sim.consent(&callers[0]);
    sim.speak(&mut callers[0], 20, b"voice");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b"voice"]);
}

#[test]
fn two_who_claim_a_path_get_it_by_turns_of_a_second() {
    let mut sim = Sim::new(8);
    let (one, two) = (sim.add(1, GCM), sim.add(2, GCM));
    let has_it = |sim: &mut Sim, caller: &Caller| {
        sim.events();
        sim.deliver(one.path, &mut DTLS.clone());
        let event = sim.events().into_iter().find_map(|event| match event {
            Event::Dtls { transport, .. } => Some(transport),
            _ => None,
        });
        event == Some(caller.transport)
    };
    let claim = |sim: &mut Sim, caller: &Caller| sim.check(one.path, &caller.local);
    claim(&mut sim, &one);
    assert!(has_it(&mut sim, &one));
    claim(&mut sim, &two);
    assert!(has_it(&mut sim, &two), "neither has proven that it is there");
    claim(&mut sim, &one);
    claim(&mut sim, &two);
    assert!(has_it(&mut sim, &two));
    for _ in 0..5 {
        claim(&mut sim, &one);
        claim(&mut sim, &two);
        assert!(has_it(&mut sim, &two), "each once in a second");
    }
    sim.pass(Duration::from_secs(1));
    claim(&mut sim, &one);
    assert!(has_it(&mut sim, &one));
}

#[test]
fn workers_that_share_a_port_hand_over_what_is_anothers_and_only_once() {
    let secret = Secret::random();
    let mut workers: Vec<_> =
        (0..3).map(|id| Sim::with_sharers(8, secret.clone(), WorkerId(id), 3)).collect();
    let mut caller = workers[0].add(1, GCM);
    let request = binding_request(&caller.local, true);

    // Only what proves the password goes on.
    let forged = binding_request_with(caller.local.ufrag.as_str(), "no-password-of-ours-is-this", true);
    workers[1].deliver(caller.path, &mut forged.clone());
    assert_eq!(workers[1].drops(DropReason::StunUnauthenticated), 1);
    let nobodys = secret.credentials(WorkerId(9));
    workers[1].deliver(caller.path, &mut binding_request(&nobodys, true));
    let own = secret.credentials(WorkerId(1));
    workers[1].deliver(caller.path, &mut binding_request(&own, true));
    assert_eq!(workers[1].drops(DropReason::StunUnknownUser), 2);
    assert!(workers[1].relays().is_empty());

    workers[1].deliver(caller.path, &mut request.clone());
    let mut relays = workers[1].relays();
    assert_eq!(relays.len(), 1);
    assert!(matches!(relays[0], (WorkerId(0), Relay::Datagram { is_stun: true, .. })));
    assert_eq!(workers[1].sent.len(), 0, "the owner answers");
    workers[0].hand_over(WorkerId(1), relays.remove(0).1);
    assert_eq!(workers[0].sent.len(), 1);

    // The owner tells all others whose the 5-tuple is, once.
    let learnt = workers[0].relays();
    let told: Vec<_> = learnt.iter().map(|(to, _)| to.0).collect();
    assert_eq!(told, [1, 2]);
    for (to, relay) in learnt {
        assert!(matches!(relay, Relay::Learn(path) if path == caller.path));
        workers[usize::from(to.0)].hand_over(WorkerId(0), relay);
    }
    workers[0].connect(&caller);
    assert!(workers[0].relays().is_empty());

    // Its media goes to the owner, and no further.
    let track = workers[0].publish(&caller);
    let mut listener = workers[0].join(2, GCM);
    workers[0].add_slot(&listener, 0, Some(track));
    workers[0].sent.clear();
    workers[0].relays();
    let mut voice = [0; 200];
    let len = caller.protect(20, b"voice", &mut voice);
    (workers[2].now, workers[2].age) = (workers[0].now, Some(Duration::from_millis(3)));
    assert_eq!(workers[1].worker.voice_count() + workers[2].worker.voice_count(), 0, "STUN is none");
    // Of three milliseconds one and a half as it was meant to.
    let micros = |count| workers[2].now.instant - Duration::from_micros(count);
    let coalescing = Coalescing { from: micros(2_500), until: micros(1_000) };
    workers[2].worker.set_coalescing(Some(coalescing));
    workers[2].deliver(caller.path, &mut voice[..len]);
    assert_eq!(workers[2].worker.voice_count(), 1, "it waits for nobody else");
    let queue_of = |sim: &Sim| {
        let queue = &sim.worker.counters.receive_queue;
        (queue.count(), queue.sum().div_ceil(100_000))
    };
    assert_eq!(queue_of(&workers[2]), (1, 15));
    let (to, relay) = workers[2].relays().remove(0);
    assert!(matches!((to, &relay), (WorkerId(0), Relay::Datagram { is_stun: false, .. })));
    workers[0].hand_over(WorkerId(2), relay);
    assert_eq!(payloads(&hear(&mut workers[0], &mut listener)), [b"voice"]);
    // How long it takes is told from the kernel's time of arrival on.
    let now = workers[0].now.after(Duration::from_millis(4));
    workers[0].worker.record_latencies(now);
    let latencies = &workers[0].worker.counters.forwarding_latency;
    assert_eq!((latencies.count(), latencies.sum().div_ceil(1_000_000)), (1, 7));
    assert_eq!(queue_of(&workers[0]), (0, 0), "that of another worker");
    workers[0].age = workers[2].age;
    let mut again = voice;
    workers[0].deliver(caller.path, &mut again[..len]);
    assert_eq!(queue_of(&workers[0]), (1, 30));
    workers[2].deliver(caller.path, &mut voice[..len]);
    let (_, relay) = workers[2].relays().remove(0);
    workers[1].hand_over(WorkerId(2), relay);
    assert!(workers[1].relays().is_empty(), "what came from a worker goes to no worker");
    assert_eq!(workers[1].drops(DropReason::UnknownPath), 1);

    // Only who taught may take back.
    workers[2].hand_over(WorkerId(1), Relay::Forget(caller.path));
    workers[2].deliver(caller.path, &mut voice[..len]);
    assert_eq!(workers[2].relays().len(), 1);
    workers[0].command(Command::RemoveTransport(caller.transport));
    for (to, relay) in workers[0].relays() {
        assert!(matches!(relay, Relay::Forget(path) if path == caller.path));
        workers[usize::from(to.0)].hand_over(WorkerId(0), relay);
    }
    workers[2].deliver(caller.path, &mut voice[..len]);
    assert!(workers[2].relays().is_empty());
    assert_eq!(workers[2].drops(DropReason::UnknownPath), 1);
}

/// Workers on one port.
fn crew() -> Vec<Sim> {
    let secret = Secret::random();
    (0..3).map(|id| Sim::with_sharers(8, secret.clone(), WorkerId(id), 3)).collect()
}

/// Delivers what the workers tell each other until all is told.
fn tell_all(workers: &mut [Sim]) {
    for _ in 0..10 {
        for from in 0..workers.len() {
            for (to, relay) in workers[from].relays() {
                workers[usize::from(to.0)].hand_over(WorkerId(from as u8), relay);
            }
        }
    }
    assert!(workers.iter_mut().all(|worker| worker.relays().is_empty()), "they tell each other without end");
}

/// Whom a worker hands what comes from there.
fn owner_at(worker: &mut Sim, path: Path) -> Vec<u8> {
    worker.deliver(path, &mut DTLS.clone());
    worker.relays().iter().map(|(to, _)| to.0).collect()
}

#[test]
fn what_two_workers_learnt_at_once_is_forgotten_by_all() {
    let mut workers = crew();
    let (one, two) = (workers[0].add(1, GCM), workers[1].add(2, GCM));
    for _ in 0..2 {
        workers[0].check(one.path, &one.local);
        workers[1].check(one.path, &two.local);
        // Each hears of the other's after its own.
        tell_all(&mut workers);
        workers[0].pass(Duration::from_secs(1));
    }
    workers[0].command(Command::RemoveTransport(one.transport));
    workers[1].command(Command::RemoveTransport(two.transport));
    tell_all(&mut workers);
    for worker in &mut workers {
        let before = worker.drops(DropReason::UnknownPath);
        worker.deliver(one.path, &mut DTLS.clone());
        assert!(worker.relays().is_empty(), "handed to one that no longer has it");
        assert_eq!(worker.drops(DropReason::UnknownPath), before + 1);
    }
}

#[test]
fn a_path_is_not_taken_on_another_worker_either() {
    let mut workers = crew();
    let one = workers[0].join(1, GCM);
    let two = workers[1].join(2, GCM);
    tell_all(&mut workers);
    for _ in 0..3 {
        workers[1].check(one.path, &two.local);
        tell_all(&mut workers);
        for worker in [1, 2] {
            workers[worker].deliver(one.path, &mut DTLS.clone());
            let owners: Vec<u8> = workers[worker].relays().iter().map(|(to, _)| to.0).collect();
            assert_eq!(owners, [0], "as worker {worker} has it");
        }
        workers[0].events();
        workers[0].deliver(one.path, &mut DTLS.clone());
        assert!(workers[0].events().iter().any(|event| matches!(event, Event::Dtls { .. })));
        workers[1].pass(Duration::from_secs(1));
    }
}

#[test]
fn a_claim_that_comes_after_its_refusal_changes_nothing() {
    let mut workers = crew();
    let one = workers[0].join(1, GCM);
    let two = workers[1].join(2, GCM);
    tell_all(&mut workers);
    // All that the second says to the third is late; it stays in order, as all that one says to one does.
    let mut late = Vec::new();
    let mut hold_back = |workers: &mut [Sim]| {
        for (to, relay) in workers[1].relays() {
            match to.0 {
                0 => workers[0].hand_over(WorkerId(1), relay),
                _ => late.push(relay),
            }
        }
    };
    workers[1].check(one.path, &two.local);
    hold_back(&mut workers);
    for (to, refusal) in workers[0].relays() {
        workers[usize::from(to.0)].hand_over(WorkerId(0), refusal);
    }
    workers[0].consent(&one);
    for (to, again) in workers[0].relays() {
        workers[usize::from(to.0)].hand_over(WorkerId(0), again);
    }
    hold_back(&mut workers);
    let claims = late.len();
    late.into_iter().for_each(|claim| workers[2].hand_over(WorkerId(1), claim));
    assert!(claims >= 2, "the claim, and that it was refused");
    tell_all(&mut workers);
    assert_eq!([2, 1].map(|worker: usize| owner_at(&mut workers[worker], one.path)), [[0], [0]]);
    workers[0].consent(&one);
    assert!(workers[0].relays().is_empty(), "once");
}

/// Whoever claimed and went before he heard of his refusal cannot say so: the next check does.
#[test]
fn a_claim_of_one_who_left_meanwhile_lasts_until_the_next_check() {
    let mut workers = crew();
    let one = workers[0].join(1, GCM);
    let two = workers[1].join(2, GCM);
    tell_all(&mut workers);
    workers[1].check(one.path, &two.local);
    workers[1].command(Command::RemoveTransport(two.transport));
    let (at_once, late): (Vec<_>, Vec<_>) = workers[1].relays().into_iter().partition(|(to, _)| to.0 == 0);
    at_once.into_iter().for_each(|(_, relay)| workers[0].hand_over(WorkerId(1), relay));
    tell_all(&mut workers); // The refusal.
    late.into_iter().for_each(|(_, relay)| workers[2].hand_over(WorkerId(1), relay));
    assert_eq!(owner_at(&mut workers[2], one.path), [0; 0], "it cannot know better");
    workers[0].consent(&one);
    tell_all(&mut workers);
    assert_eq!(owner_at(&mut workers[2], one.path), [0]);
}

#[test]
fn who_moved_to_a_port_that_it_has_not_answered_from_holds_nothing() {
    let (mut sim, callers) = room_of(2);
    let (member, late) = (&callers[0], sim.add(9, GCM));
    let port = Path { remote: (member.path.remote.ip(), 61_000).into(), ..member.path };
    // Nominated twice, so that media goes there: the address is one that the member has proven, with another port.
    sim.check(port, &member.local);
    sim.check(port, &member.local);
    sim.check(port, &late.local);
    sim.events();
    sim.deliver(port, &mut DTLS.clone());
    let whose = sim.events().into_iter().find_map(|event| match event {
        Event::Dtls { transport, .. } => Some(transport),
        _ => None,
    });
    assert_eq!(whose, Some(late.transport));
}

#[test]
fn of_coalescing_counts_what_is_between_two_moments() {
    let began = Sim::new(1).now.instant;
    let at = |millis| began + Duration::from_millis(millis);
    let coalescing = Coalescing { from: at(10), until: at(20) };
    let within = |since, until| coalescing.within(at(since), at(until)).as_millis();
    assert_eq!(coalescing.duration().as_millis(), 10);
    assert_eq!(within(5, 25), 10);
    assert_eq!(within(12, 25), 8, "it came meanwhile");
    assert_eq!(within(5, 15), 5, "it was ended before its time");
    assert_eq!((within(21, 25), within(2, 9)), (0, 0), "after it, before it");
}
