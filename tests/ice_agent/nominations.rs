//! Which of several nominations the selection follows.

use super::*;

#[test]
fn of_a_peer_that_nominates_every_pair_the_highest_is_selected() {
    let mut scene = Scene::new();
    scene.nominate_all();
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
    for _ in 0..6 {
        assert!(scene.due().is_empty(), "nothing to prove");
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
        scene.pass(5 * SECOND);
        scene.check(HOME, false).unwrap();
    }
}

#[test]
fn a_nomination_of_a_lower_pair_is_followed_the_second_time() {
    let mut scene = Scene::new();
    scene.nominate(HOME, HIGH);
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
    let first = scene.nomination(LOW);
    for _ in 0..7 {
        scene.handle(HOME_OTHER_PORT, &first).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(HOME)), "a retransmission");
    }
    scene.nominate(HOME_OTHER_PORT, LOW);
    assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)));

    // To another address too, and back at once.
    scene.nominate(AWAY, RELAYED);
    assert!(scene.due().iter().all(|(to, _)| *to != path(AWAY)));
    scene.nominate(AWAY, RELAYED);
    let check = scene.due().remove(0).1;
    scene.respond(AWAY, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
    scene.nominate(HOME, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}

#[test]
fn a_nomination_of_a_higher_pair_is_followed_at_once_before_dtls_and_after() {
    let mut scene = Scene::new();
    scene.nominate(HOME_OTHER_PORT, LOW);
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME_OTHER_PORT)));
    scene.nominate(HOME, HIGH);
    assert_eq!(scene.agent.selected(), Some(path(HOME)));

    let mut scene = Scene::new();
    scene.nominate(HOME_OTHER_PORT, LOW);
    scene.nominate(HOME, HIGH);
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME_OTHER_PORT)));
    assert_eq!(scene.agent.selected(), Some(path(HOME)), "on its way there");
}

#[test]
fn dtls_over_a_nominated_pair_withdraws_the_nomination_of_one_no_higher() {
    for other in [HIGH, LOW] {
        let mut scene = Scene::new();
        scene.nominate(HOME, HIGH);
        scene.nominate(HOME_OTHER_PORT, other);
        scene.nominate(HOME_OTHER_PORT, other);
        scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
        scene.nominate(HOME_OTHER_PORT, other);
        assert_eq!(scene.agent.selected(), Some(path(HOME_OTHER_PORT)), "it means it");
    }
}

#[test]
fn of_equal_nominations_to_two_addresses_of_ours_the_first_counts() {
    let mut scene = Scene::connected();
    let bytes = scene.nomination(0);
    let Ok(Message::Request(request)) = Message::parse(&bytes) else { panic!("no request") };
    let other = Path { local: "10.0.0.2".parse().unwrap(), ..path(HOME) };
    scene.agent.handle_request(scene.now, other, &request, &mut [0; ANSWER_LEN_MAX]).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}

#[test]
fn after_a_restart_the_highest_of_the_new_nominations_is_selected() {
    let mut scene = Scene::new();
    scene.nominate(VICTIM, HIGH);
    scene.agent.handle_dtls_finished(scene.now, Some(path(VICTIM)));
    for generation in 1..3 {
        scene.restart(generation);
        scene.generation = generation;
        scene.nominate_all();
        for (to, check) in scene.due() {
            assert_eq!(to, path(HOME), "a new address, of which proof is wanting, and no other");
            scene.respond(HOME, &check).unwrap();
        }
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
        scene.pass(5 * SECOND);
        scene.check(HOME, false).unwrap();
        assert_eq!(scene.agent.selected(), Some(path(HOME)));
    }
}

#[test]
fn a_lower_pair_is_followed_once_the_peer_is_silent_on_the_higher() {
    let mut scene = Scene::new();
    scene.nominate(HOME, HIGH);
    scene.agent.handle_dtls_finished(scene.now, Some(path(HOME)));
    scene.nominate(AWAY, RELAYED);
    scene.pass(MISSED_AFTER - Duration::from_millis(1));
    scene.check(AWAY, false).unwrap();
    assert!(scene.due().is_empty());
    scene.pass(Duration::from_millis(1));
    scene.check(AWAY, false).unwrap();
    let check = scene.due().remove(0).1;
    scene.respond(AWAY, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(AWAY)));
}

#[test]
fn a_pair_that_does_not_answer_stands_in_no_other_ones_way() {
    let mut scene = Scene::new();
    scene.nominate(AWAY, HIGH);
    scene.nominate(HOME, LOW);
    scene.agent.handle_dtls_finished(scene.now, None);
    assert!(scene.pass(7 * SECOND).iter().all(|(to, _)| *to == path(AWAY)));
    scene.check(HOME, false).unwrap();
    let check = scene.due().remove(0).1;
    scene.respond(HOME, &check).unwrap();
    assert_eq!(scene.agent.selected(), Some(path(HOME)));
}
