//! A peer's address changes, and it does not know: its checks go on, without USE-CANDIDATE where it is Firefox.

use super::*;

/// PRIORITY of Firefox's consent checks: the local candidate's own, not the one that its nomination had.
const CONSENT: u32 = 0x7EFF_FFFF;

/// As Firefox sends them: one datagram each.
const INTERVAL: Duration = Duration::from_secs(5);

/// A call of Firefox's that has lasted for a while.
fn call() -> Scene {
    let mut scene = Scene::new();
    scene.nominate(HOME, HIGH);
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
    for _ in 0..3 {
        scene.pass(INTERVAL);
        scene.renew(HOME, CONSENT);
    }
    scene
}

/// The only check of ours that is due.
fn only(scene: &mut Scene, to: &str) -> Vec<u8> {
    let due = scene.due();
    let [(path_to, check)] = &due[..] else { panic!("one check, not {}", due.len()) };
    assert_eq!(*path_to, path(to));
    check.clone()
}

#[test]
fn another_mapping_takes_over_once_it_is_proven_and_the_old_one_has_missed_a_check() {
    for to in [AWAY, HOME_OTHER_PORT] {
        let mut scene = call();
        scene.pass(INTERVAL);
        scene.renew(to, CONSENT);
        let check = only(&mut scene, to);
        scene.respond(to, &check).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(HOME)), "there may be two paths");
        scene.pass(MISSED_AFTER - INTERVAL - Duration::from_millis(1));
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
        scene.pass(Duration::from_millis(1));
        assert_eq!((scene.agent.selected(), scene.consent()), (Some(path(to)), Consent::Fresh));
        for _ in 0..12 {
            scene.pass(INTERVAL);
            scene.renew(to, CONSENT);
            assert_eq!((scene.agent.selected(), scene.consent()), (Some(path(to)), Consent::Fresh));
        }
    }
}

#[test]
fn one_that_answers_late_takes_over_as_soon_as_it_does() {
    let mut scene = call();
    scene.pass(INTERVAL);
    scene.renew(AWAY, CONSENT);
    let check = scene.pass(MISSED_AFTER - INTERVAL).pop().unwrap().1;
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    scene.respond(AWAY, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
}

#[test]
fn two_paths_of_a_peer_that_are_both_alive_do_not_take_turns() {
    let mut scene = call();
    let mut sent = Vec::new();
    for _ in 0..24 {
        scene.now += INTERVAL / 2;
        scene.renew(AWAY, CONSENT);
        for (to, check) in scene.due() {
            assert_eq!(to, path(AWAY));
            scene.respond(AWAY, &check).unwrap();
            sent.push(check);
        }
        sent.extend(scene.pass(INTERVAL / 2).into_iter().map(|(_, check)| check));
        scene.renew(HOME, CONSENT);
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
    }
    assert_eq!(sent.len(), 1, "asked once");
}

#[test]
fn a_path_that_only_repeats_a_check_never_takes_over() {
    let mut scene = call();
    scene.pass(INTERVAL);
    let captured = scene.renewal(CONSENT);
    scene.handle(HOME, &captured).unwrap();
    let mut sent = 0;
    while scene.consent() != Consent::Expired {
        scene.handle(VICTIM, &captured).unwrap();
        sent += scene.pass(SECOND).len();
        assert_ne!(scene.agent.selected(), Some(path(VICTIM)));
    }
    assert!(sent <= MOVE_COUNT_MAX * usize::from(CHECK_COUNT_MAX), "{sent} checks");
}

#[test]
fn nor_does_it_stand_in_the_way_of_one_that_answers() {
    let mut scene = call();
    let captured = scene.renewal(CONSENT);
    scene.handle(HOME, &captured).unwrap();
    for _ in 0..7 {
        scene.handle(VICTIM, &captured).unwrap();
        scene.pass(SECOND);
    }
    scene.renew(AWAY, LOW);
    let (_, check) = scene.due().into_iter().find(|(to, _)| *to == path(AWAY)).expect("asked too");
    scene.handle(VICTIM, &captured).unwrap();
    scene.respond(AWAY, &check).unwrap();
    assert_eq!((scene.agent.selected(), scene.consent()), (Some(path(AWAY)), Consent::Fresh));
}

#[test]
fn any_other_pair_is_asked_once_the_selected_one_has_missed_a_check() {
    let other_local = Path { local: "10.0.0.2".parse().unwrap(), ..path(AWAY) };
    let mut scene = call();
    scene.renew(AWAY, LOW);
    let bytes = scene.renewal(CONSENT);
    let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!("no request") };
    scene.agent.handle_request(scene.now, other_local, &request, &mut [0; ANSWER_LEN_MAX]).unwrap();
    assert!(
        scene.pass(MISSED_AFTER - Duration::from_millis(1)).is_empty(),
        "of another candidate, or to another"
    );
    scene.renew(AWAY, LOW);
    assert!(scene.due().is_empty());
    scene.pass(Duration::from_millis(1));
    scene.renew(AWAY, LOW);
    let check = only(&mut scene, AWAY);
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    scene.respond(AWAY, &check).unwrap();
    assert_eq!((scene.agent.selected(), scene.consent()), (Some(path(AWAY)), Consent::Fresh));
}

#[test]
fn what_the_peer_has_nominated_comes_before_what_it_has_not() {
    let mut scene = call();
    scene.nominate(HOME_OTHER_PORT, LOW);
    scene.nominate(AWAY, RELAYED);
    scene.pass(MISSED_AFTER);
    scene.renew(AWAY, RELAYED);
    only(&mut scene, AWAY);
    scene.renew(VICTIM, LOW);
    assert!(scene.due().is_empty(), "not while the other may still answer");
}

#[test]
fn a_restart_that_the_peer_follows_elsewhere_outlives_consent_on_the_pair_of_before() {
    for does_answer in [true, false] {
        let mut scene = call();
        scene.pass(EXPIRED_AFTER - SECOND);
        scene.restart(1);
        scene.generation = 1;
        scene.nominate(AWAY, HIGH);
        let check = scene.pass(SECOND).pop().unwrap().1;
        assert_eq!((scene.agent.selected(), scene.consent()), (None, Consent::Stale));
        if does_answer {
            scene.respond(AWAY, &check).unwrap();
            assert_eq!((scene.agent.selected(), scene.consent()), (Some(path(AWAY)), Consent::Fresh));
        } else {
            scene.pass(EXPIRED_AFTER);
            assert_eq!((scene.agent.selected(), scene.consent()), (None, Consent::Expired));
        }
    }
}
