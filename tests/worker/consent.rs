//! How connections end that bring no consent, and what an ICE restart gives them.

use super::*;

#[test]
fn without_consent_for_30_s_nothing_more_is_sent() {
    let (mut sim, mut callers) = room_of(3);
    let gone = callers.remove(2);
    callers.iter().chain([&gone]).for_each(|caller| sim.consent(caller));
    let lost_at = sim.now.instant;
    let mut seen = Vec::new();
    while sim.now.instant.duration_since(lost_at) < Duration::from_secs(29) {
        pass_consenting(&mut sim, Duration::from_millis(500), &callers);
        let elapsed = sim.now.instant.duration_since(lost_at);
        seen.extend(states(&mut sim).into_iter().map(|(transport, state)| (transport.0, state, elapsed)));
    }
    let [(3, ConnectionState::Disconnected, at)] = seen[..] else { panic!("{seen:?}") };
    assert!((13_000..14_000).contains(&at.as_millis()), "{at:?}");
    sim.speak(&mut callers[0], 20, b"voice");
    sim.sent.clear();
    sim.flush();
    assert!(sim.sent.datagrams().any(|(path, _)| path == gone.path), "until then it is sent what is said");

    pass_consenting(&mut sim, Duration::from_millis(1_500), &callers);
    assert_eq!(states(&mut sim), [(TransportId(3), ConnectionState::Failed)]);
    sim.sent.clear();
    for _ in 0..20 {
        sim.speak(&mut callers[0], 20, b"voice");
        sim.flush();
        pass_consenting(&mut sim, Duration::from_millis(500), &callers);
    }
    sim.command(Command::RemoveTransport(TransportId(3)));
    assert!(sim.sent.len() > 20, "the others are served");
    assert!(sim.sent.datagrams().all(|(path, _)| path != gone.path), "not even a goodbye");
    assert_eq!(states(&mut sim), []);
}

#[test]
fn who_does_not_connect_within_30_s_has_failed() {
    let mut sim = Sim::new(8);
    let silent = sim.add(1, GCM);
    let halfway = sim.add(2, GCM);
    sim.deliver(halfway.path, &mut binding_request(&halfway.local, true));
    sim.pass(Duration::from_secs(29));
    assert_eq!(states(&mut sim), [(halfway.transport, ConnectionState::Connecting)]);
    for _ in 0..4 {
        sim.consent(&halfway);
        sim.pass(Duration::from_millis(500));
    }
    let mut failed = states(&mut sim);
    failed.sort_by_key(|(transport, _)| *transport);
    assert_eq!(
        failed,
        [(silent.transport, ConnectionState::Failed), (halfway.transport, ConnectionState::Failed)]
    );
}

#[test]
fn an_ice_restart_gives_who_has_not_connected_its_30_s_again_but_twice_only() {
    let mut sim = Sim::new(8);
    let mut caller = sim.add(1, GCM);
    for _ in 0..3 {
        sim.pass(Duration::from_secs(29));
        sim.restart_ice(&mut caller);
    }
    assert_eq!(states(&mut sim), [(caller.transport, ConnectionState::Connecting)]);
    sim.pass(Duration::from_millis(1_500));
    assert_eq!(states(&mut sim), [(caller.transport, ConnectionState::Failed)]);
    // It ends there: control is told once, and has it removed.
    sim.restart_ice(&mut caller);
    sim.pass(Duration::from_secs(1));
    assert_eq!(states(&mut sim), []);
}

#[test]
fn an_ice_restart_under_way_outlives_consent() {
    // The first check on the new path comes before consent expires, and the answer to ours after; or both come after.
    for checked_at in [29_900, 31_000] {
        let (mut sim, mut others) = room_of(2);
        let mut moved = others.remove(1);
        pass_consenting(&mut sim, Duration::from_secs(29), &others);
        sim.begin_restart(&mut moved);
        moved.path = path(77, 40_000);
        pass_consenting(&mut sim, Duration::from_millis(checked_at - 29_000), &others);
        sim.sent.clear();
        sim.consent(&moved);
        sim.pass(Duration::from_millis(200));
        assert_eq!(states(&mut sim), [(moved.transport, ConnectionState::Disconnected)], "{checked_at}");
        sim.answer(moved.path);
        sim.pass(Duration::from_millis(100));
        assert_eq!(states(&mut sim), [(moved.transport, ConnectionState::Connected)], "{checked_at}");
        sim.speak(&mut others[0], 20, b"voice");
        assert_eq!(payloads(&hear(&mut sim, &mut moved)), [b"voice"]);
    }
}

#[test]
fn an_ice_restart_that_brings_no_path_ends_in_10_s_and_nothing_is_sent_meanwhile() {
    let (mut sim, mut others) = room_of(2);
    let mut gone = others.remove(1);
    pass_consenting(&mut sim, Duration::from_secs(29), &others);
    sim.begin_restart(&mut gone);
    pass_consenting(&mut sim, Duration::from_secs(2), &others);
    sim.sent.clear();
    for _ in 0..6 {
        sim.speak(&mut others[0], 20, b"voice");
        sim.flush();
        pass_consenting(&mut sim, Duration::from_secs(1), &others);
    }
    assert!(sim.sent.datagrams().all(|(path, _)| path != gone.path), "consent has expired");
    assert_eq!(states(&mut sim), [(gone.transport, ConnectionState::Disconnected)]);
    sim.begin_restart(&mut gone); // It does not begin anew.
    pass_consenting(&mut sim, Duration::from_millis(3_500), &others);
    assert_eq!(states(&mut sim), [(gone.transport, ConnectionState::Failed)]);
}
