//! Both sides offer at once; sockets are lost; ICE restarts; the two sides disagree.

use std::time::Duration;

use gryt_sfu::signalling::negotiation::{Action, ErrorCode, GLARE_WAIT, LATE_ANSWER_WAIT, REOFFER_WAIT};
use str0m::media::Direction;

use crate::fixtures::{
    answer_to, chromium, chromium_audio, chromium_offer, edit, fingerprint, negotiation, now, voices,
};
use crate::script::{Script, sent_answer, sent_offer, summary};
use crate::str0m_client::{Client, Manner, Sent};

/// A member with our offer for voice 1 outstanding, and that offer.
fn offered() -> (Script, String) {
    let mut script = Script::new(32);
    script.offer(&chromium(&["0"], &[chromium_audio("0", "sendonly")]));
    let actions = script.voices(&[1]);
    let offer = sent_offer(&actions).unwrap().to_owned();
    (script, offer)
}

/// The client's own next offer, made without knowing ours.
fn crossing() -> String {
    chromium(&["0", "1"], &[chromium_audio("0", "sendonly"), chromium_audio("1", "recvonly")])
}

#[test]
fn who_rolls_back_answers_and_offers_again() {
    let (mut script, ours) = offered();
    assert_eq!(summary(&script.offer(&crossing())), [""; 0], "held");
    assert_eq!(summary(&script.answer(&answer_to(&ours))), ["add 0 s0 1"]);
    // Nothing of ours crosses the offer that is to come.
    assert_eq!(summary(&script.voices(&[1, 2])), [""; 0]);
    assert_eq!(summary(&script.wait(REOFFER_WAIT - Duration::from_millis(1))), [""; 0]);
    let again = crossing().replace("a=group:BUNDLE 0 1", "a=group:BUNDLE 0 s0 1");
    let ours = edit(&answer_to(&ours), "s0", |line| line.replace("a=setup:active", "a=setup:actpass"));
    let (_, slot, _) = crate::fixtures::section(&ours, "s0");
    let (before, line, after) = crate::fixtures::section(&again, "1");
    let actions = script.offer(&format!("{before}{slot}{line}{after}"));
    assert_eq!(summary(&actions), ["answer", "add 1 1 2"]);
    assert_eq!(script.server.next_timeout(), None);
}

#[test]
fn who_rolls_back_and_forgets_is_reminded_once() {
    let (mut script, ours) = offered();
    script.offer(&crossing());
    script.answer(&answer_to(&ours));
    script.voices(&[1, 2]);
    let actions = script.wait(REOFFER_WAIT);
    assert_eq!(summary(&actions), ["error Glare"]);
    // A little longer, then life goes on.
    assert_eq!(summary(&script.wait(REOFFER_WAIT)), ["offer"]);
    assert_eq!(script.server.next_timeout(), None);
}

#[test]
fn who_keeps_his_own_is_answered_after_the_wait() {
    let (mut script, ours) = offered();
    script.offer(&chromium_offer());
    script.wait(Duration::from_millis(400));
    assert_eq!(summary(&script.offer(&crossing())), [""; 0], "the latest wins");
    assert_eq!(summary(&script.wait(Duration::from_millis(599))), [""; 0]);
    let actions = script.wait(Duration::from_millis(1));
    assert_eq!(summary(&actions), ["answer", "add 0 1 1"], "the new m-line carries what ours would have");
    assert!(!sent_answer(&actions).unwrap().contains("s0"));
    // An answer to ours after all: he took it, and knows nothing of what we answered.
    let actions = script.answer(&answer_to(&ours));
    let [Action::Fail(ErrorCode::BadSdp, text)] = &actions[..] else { panic!("{:?}", summary(&actions)) };
    assert!(text.contains("rolled back"));
}

#[test]
fn after_a_roll_back_ours_comes_again() {
    let (mut script, ours) = offered();
    script.offer(&chromium(&["0"], &[chromium_audio("0", "sendonly")]));
    let actions = script.wait(GLARE_WAIT);
    assert_eq!(summary(&actions), ["answer", "offer"]);
    let again = sent_offer(&actions).unwrap().to_owned();
    assert_eq!(again.replace(" 4 IN IP4", " 2 IN IP4"), ours, "but the version");
    // The late answer passes for one to it; the true one then is one too many.
    assert_eq!(summary(&script.answer(&answer_to(&ours))), ["add 0 s0 1"]);
    assert_eq!(summary(&script.answer(&answer_to(&again))), ["fail"]);
}

#[test]
fn an_answer_too_many_long_after_a_roll_back_is_only_counted() {
    let (mut script, _) = offered();
    script.offer(&chromium(&["0"], &[chromium_audio("0", "sendonly")]));
    let actions = script.wait(GLARE_WAIT);
    let answer = answer_to(sent_offer(&actions).unwrap());
    assert_eq!(summary(&script.answer(&answer)), ["add 0 s0 1"]);
    script.wait(LATE_ANSWER_WAIT);
    assert_eq!(summary(&script.answer(&answer)), [""; 0]);
    assert_eq!(script.server.ignored_answer_count(), 1);
}

#[test]
fn an_answer_stays_within_its_offer() {
    let mut script = Script::joined(32, &[]);
    assert_eq!(summary(&script.voices(&[1])), ["offer"], "on the client's own m-line, which would listen");
    script.offer(&chromium(&["0"], &[chromium_audio("0", "sendonly")]));
    let actions = script.wait(GLARE_WAIT);
    let answer = sent_answer(&actions).unwrap();
    assert!(answer.contains("a=recvonly\r\n") && !answer.contains("a=msid:"), "{answer}");
    assert_eq!(summary(&actions), ["answer", "offer"]);
}

#[test]
fn our_first_offer_may_be_crossed_too() {
    let mut script = Script::new(32);
    script.voices(&[1]);
    assert_eq!(summary(&script.wait(Duration::from_secs(3))), ["offer", "candidate s0 0", "candidate s0 0"]);
    assert_eq!(summary(&script.offer(&chromium_offer())), [""; 0]);
    let actions = script.wait(GLARE_WAIT);
    assert_eq!(
        summary(&actions),
        ["transport", "answer", "candidate 0 0", "candidate 0 0", "publish 0", "add 0 0 1"]
    );
}

#[test]
fn an_answer_nobody_asked_for_is_counted() {
    let mut script = Script::joined(32, &[1]);
    assert_eq!(summary(&script.answer(&chromium_offer())), [""; 0]);
    assert_eq!(summary(&script.answer("nonsense")), [""; 0]);
    assert_eq!(script.server.ignored_answer_count(), 2);
}

#[test]
fn a_resumed_session_gets_its_offer_again() {
    let (mut script, ours) = offered();
    let actions = script.resume();
    assert_eq!(summary(&actions), ["offer", "candidate 0 0", "candidate 0 0"]);
    assert_eq!(sent_offer(&actions), Some(&*ours));
    assert_eq!(summary(&script.answer(&answer_to(&ours))), ["add 0 s0 1"]);
    assert_eq!(summary(&script.resume()), [""; 0]);
}

#[test]
fn ice_restarts_at_the_clients_word() {
    let mut script = Script::joined(32, &[1]);
    let first = script.offer(&chromium_offer());
    assert_eq!(summary(&first), ["answer"], "the same credentials are no restart");
    let restart = chromium_offer().replace("wqHh", "Zt4x").replace("V7uVDhwTqRcAhVJ0", "aaaaaaaaaaaaaaaa");
    let actions = script.offer(&restart);
    assert_eq!(summary(&actions), ["restart", "answer", "candidate 0 0", "candidate 0 0"]);
    let Action::RestartIce { local, remote } = &actions[0] else { panic!("no restart") };
    assert_eq!(remote.ufrag(), "Zt4x");
    let answer = sent_answer(&actions).unwrap();
    assert!(answer.contains(&format!("a=ice-ufrag:{}\r\n", local.ufrag.as_str())));
    let before = sent_answer(&first).unwrap();
    assert!(!before.contains(local.ufrag.as_str()), "new ones on our side too");
    // Sent again, after a lost answer, it restarts nothing.
    assert_eq!(summary(&script.offer(&restart)), ["answer"]);
}

#[test]
fn what_ends_a_session() {
    let two = chromium(&["0", "1"], &[chromium_audio("0", "sendonly"), chromium_audio("1", "sendonly")]);
    let joined = || {
        let mut script = Script::new(32);
        script.offer(&two);
        script
    };
    let other = fingerprint(0xAA);
    let offers = [
        two.replace(&fingerprint(0xC4), &other),
        chromium_offer(),
        two.replace("a=mid:1\r\n", "a=mid:2\r\n").replace("BUNDLE 0 1", "BUNDLE 0 2"),
        two.replacen("m=audio", "m=video", 1),
        two.replace("wqHh", "abc"),
        two.replace("V7uVDhwTqRcAhVJ0sBsfHgEN", "short"),
        two.replace("wqHh", "a b c d"),
        "v=0".into(),
    ];
    for offer in offers {
        let mut script = joined();
        assert_eq!(summary(&script.offer(&offer)), ["fail"], "{offer}");
        // It is over: nothing more comes out.
        script.voices(&[5]);
        script.slots_changed(&[(0, Some(5))]);
        assert_eq!(summary(&script.offer(&two)), [""; 0]);
        assert_eq!(script.server.next_timeout(), None);
        assert_eq!(summary(&script.answer(&two)), [""; 0]);
    }
    let answers: [fn(&str) -> String; 7] = [
        |answer| answer.replace(&fingerprint(0xC4), &fingerprint(0xAA)),
        |answer| answer.replace("a=mid:s0", "a=mid:s1").replace(" s0", " s1"),
        |answer| edit(answer, "s0", |_| String::new()).replace(" s0", ""),
        |answer| edit(answer, "s0", |line| line.replace("opus/48000/2", "opus/16000/1")),
        |answer| edit(answer, "0", |line| line.replace("a=rtcp-mux\r\n", "")),
        |answer| answer.replace(" s0\r\n", "\r\n"),
        |_| "{}".into(),
    ];
    for change in answers {
        let mut script = joined();
        let actions = script.voices(&[1]);
        let answer = change(&answer_to(sent_offer(&actions).unwrap()));
        assert_eq!(summary(&script.answer(&answer)), ["fail"], "{answer}");
    }
}

/// Its browser has ended its transport with the last m-line, and begins another: with a DTLS session that nobody would
/// answer here, it would be connected and silent.
#[test]
fn who_gave_up_all_lines_cannot_go_on_with_another_transport() {
    let offer = chromium_offer();
    let none = offer.replace("m=audio 9", "m=audio 0").replace("a=group:BUNDLE 0", "a=group:BUNDLE");
    let other = offer.replace("wqHh", "Zt4x").replace("V7uVDhwTqRcAhVJ0", "aaaaaaaaaaaaaaaa");
    let gave_up = || {
        let mut script = Script::new(32);
        assert_eq!(summary(&script.offer(&offer))[0], "transport");
        assert_eq!(summary(&script.offer(&none)), ["answer", "unpublish"]);
        script
    };
    let mut script = gave_up();
    assert_eq!(summary(&script.offer(&none)), ["answer"], "still none");
    let actions = script.offer(&other);
    let [Action::Fail(ErrorCode::BadSdp, text)] = &actions[..] else { panic!("{:?}", summary(&actions)) };
    assert!(text.contains("join again"), "{text}");
    // With the transport of before it may, and may restart that afterwards.
    let mut script = gave_up();
    assert_eq!(summary(&script.offer(&offer)), ["answer", "publish 0"]);
    assert_eq!(summary(&script.offer(&other))[0], "restart");
}

#[test]
fn an_answer_cannot_accept_what_was_rejected() {
    let mut script = Script::new(32);
    let lines = [chromium_audio("0", "sendonly"), crate::fixtures::chromium_video("1")];
    script.offer(&chromium(&["0", "1"], &lines));
    let actions = script.voices(&[1]);
    let answer = answer_to(sent_offer(&actions).unwrap());
    let accepted = answer.replace("m=video 0", "m=video 9");
    assert_eq!(summary(&script.answer(&accepted)), ["fail"]);
}

#[test]
fn the_number_of_opus_cannot_change_under_a_slot() {
    let mut script = Script::joined(32, &[1]);
    let renumbered = chromium_offer().replace("111", "112");
    assert_eq!(summary(&script.offer(&renumbered)), ["fail"]);
    // Another one beside it is no matter.
    let mut script = Script::joined(32, &[1]);
    let beside =
        chromium_offer().replace("SAVPF 111 63", "SAVPF 63 111").replace("red/48000/2", "opus/48000/2");
    assert_eq!(summary(&script.offer(&beside)), ["answer"]);
}

#[test]
fn candidates_are_looked_at_and_forgotten() {
    let mut server = negotiation(now(), 1);
    for fine in [
        "",
        "candidate:1 1 udp 2113937151 b1c0fc0e-1d1c-4f0a-9d3c-0f7d6b3a2e11.local 54321 typ host",
        "a=candidate:2 1 tcp 1518280447 10.0.0.1 9 typ host tcptype active",
    ] {
        server.handle_candidate(fine);
    }
    assert_eq!(server.ignored_candidate_count(), 0);
    server.handle_candidate("hello");
    server.handle_candidate(&format!("candidate:{}", "x".repeat(2000)));
    assert_eq!(server.ignored_candidate_count(), 2);
    assert!(server.next_action().is_none());
}

/// A str0m client in a collision, from the moment that both offers are out.
fn collide(
    manner: Manner,
    change: impl Fn(&mut Client),
) -> (Client, gryt_sfu::signalling::negotiation::Negotiation, std::time::Instant) {
    let now = now();
    let mut server = negotiation(now, 32);
    let mut client = Client::new(now, manner);
    client.offer(&[Direction::SendOnly]);
    client.run(&mut server, now);
    client.worker.clear();
    change(&mut client);
    server.set_voices(now, &voices(&[1]));
    (client, server, now)
}

#[test]
fn str0m_answers_every_offer() {
    let (mut client, mut server, now) =
        collide(Manner::Polite, |client| drop(client.offer(&[Direction::RecvOnly])));
    client.run(&mut server, now);
    assert_eq!((client.rolled_back_count, client.errors.len()), (1, 0));
    assert_eq!(client.direction("s0"), Direction::RecvOnly);
    let mids = client.offer(&[Direction::RecvOnly]);
    server.set_voices(now, &voices(&[1, 2]));
    client.run(&mut server, now);
    assert_eq!(client.direction(&mids[0]), Direction::RecvOnly);
    assert_eq!(client.worker.len(), 2);
}

#[test]
fn str0m_ignores_ours_while_its_own_is_out() {
    let (mut client, mut server, now) =
        collide(Manner::Stubborn, |client| drop(client.offer(&[Direction::RecvOnly])));
    client.run(&mut server, now);
    assert_eq!((client.offer_count, client.worker.len()), (1, 0));
    let later = server.next_timeout().unwrap();
    assert_eq!(later, now + GLARE_WAIT);
    server.handle_timeout(later);
    client.run(&mut server, later);
    assert_eq!((client.errors.len(), client.worker.len()), (0, 1));
    server.set_voices(later, &voices(&[1, 2]));
    client.run(&mut server, later);
    assert_eq!(client.direction("s1"), Direction::RecvOnly);
}

#[test]
fn str0m_restarts_ice_in_the_collision() {
    for manner in [Manner::Polite, Manner::Stubborn] {
        let (mut client, mut server, now) = collide(manner, Client::restart_ice);
        client.run(&mut server, now);
        if manner == Manner::Polite {
            // The restart was rolled back; the client restarts anew.
            assert!(client.worker.iter().all(|action| matches!(action, Action::AddSlot(_))));
            client.restart_ice();
        } else {
            server.handle_timeout(now + GLARE_WAIT);
        }
        client.run(&mut server, now + GLARE_WAIT);
        assert_eq!(client.errors, [""; 0]);
        let restarts = client.worker.iter().filter(|action| matches!(action, Action::RestartIce { .. }));
        assert_eq!(restarts.count(), 1);
        assert_eq!(client.direction("s0"), Direction::RecvOnly);
        assert!(client.outbox.iter().all(|sent| !matches!(sent, Sent::Offer(_))));
    }
}
