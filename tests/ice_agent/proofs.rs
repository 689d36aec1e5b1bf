//! How long the proof that a peer receives somewhere counts, and what becomes of a pair that fails to give it.

use super::*;

const AWAY_OTHER_PORT: &str = "198.51.100.7:5001";

/// All the checks of a transaction, until the last one's time is over.
const REFUSED_AFTER: Duration = Duration::from_millis(6_350);

/// A peer that was at AWAY and has proven it, and then came home.
fn moved() -> Scene {
    let mut scene = Scene::connected();
    scene.nominate(AWAY, HIGH);
    let check = scene.due().remove(0).1;
    scene.respond(AWAY, &check).unwrap();
    scene.nominate(HOME, HIGH);
    scene.nominate(HOME, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    scene
}

/// Chromium: each check of the pair in use has USE-CANDIDATE. All that was sent meanwhile.
fn stay(scene: &mut Scene, at: &str, duration: Duration) -> Vec<(Path, Vec<u8>)> {
    let end = scene.now + duration;
    let mut sent = Vec::new();
    while scene.now < end {
        sent.extend(scene.pass((end - scene.now).min(Duration::from_millis(2_500))));
        scene.nominate(at, HIGH);
    }
    sent
}

#[test]
fn an_address_left_for_30_s_has_to_be_proven_anew() {
    for (away, is_proven) in [(EXPIRED_AFTER - Duration::from_millis(1), true), (EXPIRED_AFTER, false)] {
        let mut scene = moved();
        stay(&mut scene, HOME, away);
        scene.nominate(AWAY, HIGH);
        let expected = if is_proven { AWAY } else { HOME };
        assert_eq!(scene.agent.selected(), Some(path(expected)), "after {away:?}");
        let checks = scene.due();
        assert_eq!(checks.is_empty(), is_proven);
        for (to, check) in checks {
            assert_eq!(to, path(AWAY));
            scene.respond(AWAY, &check).unwrap();
            assert_eq!(scene.agent.selected(), Some(path(AWAY)));
        }
    }
}

#[test]
fn nor_does_it_vouch_for_its_other_ports() {
    for (away, is_proven) in [(EXPIRED_AFTER - Duration::from_millis(1), true), (EXPIRED_AFTER, false)] {
        let mut scene = moved();
        stay(&mut scene, HOME, away);
        scene.nominate(AWAY_OTHER_PORT, HIGH);
        let expected = if is_proven { AWAY_OTHER_PORT } else { HOME };
        assert_eq!(scene.agent.selected(), Some(path(expected)), "after {away:?}");
    }
}

#[test]
fn an_address_where_the_peer_is_heard_stays_proven() {
    let mut scene = moved();
    for _ in 0..60 {
        assert!(stay(&mut scene, HOME, 20 * SECOND).is_empty());
        scene.check(AWAY, false).unwrap();
    }
    scene.nominate(AWAY, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
}

#[test]
fn a_repeated_nomination_from_an_old_address_moves_nothing() {
    let mut scene = moved();
    let captured = scene.nomination(HIGH);
    scene.handle(HOME, &captured).unwrap();
    for _ in 0..2 {
        stay(&mut scene, HOME, 3600 * SECOND);
        scene.handle(AWAY, &captured).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
        assert_eq!(stay(&mut scene, HOME, 60 * SECOND).len(), usize::from(CHECK_COUNT_MAX));
    }
}

#[test]
fn a_port_that_does_not_answer_is_left_for_where_the_peer_was_heard_last() {
    let mut scene = Scene::connected();
    scene.nominate(HOME, HIGH);
    scene.nominate(HOME_OTHER_PORT, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)), "at once");
    scene.pass(REFUSED_AFTER - Duration::from_millis(1));
    scene.nominate(HOME_OTHER_PORT, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));
    scene.pass(Duration::from_millis(1));
    assert_eq!((scene.agent.selected(), scene.consent()), (Some(path(HOME)), Consent::Fresh));

    // It insists: now the port has to answer first.
    scene.nominate(HOME, HIGH);
    scene.nominate(HOME_OTHER_PORT, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
    let check = scene.due().remove(0).1;
    scene.respond(HOME_OTHER_PORT, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));
}

#[test]
fn where_there_is_nowhere_to_go_back_to_media_waits_for_an_answer_but_not_for_ever() {
    for does_answer in [true, false] {
        let mut scene = Scene::connected();
        scene.nominate(HOME, HIGH);
        scene.pass(EXPIRED_AFTER - SECOND);
        scene.nominate(HOME_OTHER_PORT, HIGH);
        assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)), "at once");
        scene.pass(REFUSED_AFTER);
        assert_eq!((scene.agent.selected(), scene.consent()), (None, Consent::Stale));
        scene.check(HOME_OTHER_PORT, false).unwrap();
        let check = scene.pass(REFUSED_AFTER - Duration::from_millis(1)).pop().unwrap().1;
        assert_eq!((scene.agent.selected(), scene.consent()), (None, Consent::Stale));
        if does_answer {
            scene.respond(HOME_OTHER_PORT, &check).unwrap();
            assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));
            scene.check(HOME_OTHER_PORT, false).unwrap();
            assert_eq!(scene.consent(), Consent::Fresh);
        } else {
            let mut sent = 0;
            for _ in 0..23 {
                scene.check(HOME_OTHER_PORT, true).unwrap();
                assert_eq!((scene.agent.selected(), scene.consent()), (None, Consent::Stale));
                sent += scene.pass(SECOND).len();
            }
            scene.pass(SECOND);
            assert_eq!((scene.agent.selected(), scene.consent()), (None, Consent::Expired));
            assert!(sent <= MOVE_COUNT_MAX * usize::from(CHECK_COUNT_MAX), "{sent} checks");
        }
    }
}
