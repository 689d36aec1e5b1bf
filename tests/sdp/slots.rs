//! Voices come and go; m-lines stay.

use std::collections::HashSet;
use std::time::Duration;

use gryt_sfu::signalling::negotiation::{Action, OFFER_BURST, OFFER_INTERVAL};

use crate::fixtures::{answer_to, chromium, chromium_audio, edit, reject, section};
use crate::script::{Script, sent_answer, sent_offer, summary};

/// A client that sends on a `sendonly` m-line and hears these voices on `s0`, `s1`, …
fn listening(audio_slots: u16, tracks: &[u64]) -> Script {
    let mut script = Script::new(audio_slots);
    script.offer(&chromium(&["0"], &[chromium_audio("0", "sendonly")]));
    let actions = script.voices(tracks);
    if let Some(offer) = sent_offer(&actions) {
        script.answer(&answer_to(offer));
    }
    script
}

/// The answer of a willing client to our outstanding offer.
fn accept(script: &mut Script) -> Vec<String> {
    let offer = script.resume();
    summary(&script.answer(&answer_to(sent_offer(&offer).expect("an offer"))))
}

fn directions(sdp: &str) -> Vec<&str> {
    let known = ["a=sendonly", "a=inactive", "a=recvonly", "a=sendrecv"];
    sdp.lines().filter(|line| known.contains(line)).map(|line| &line[2..]).collect()
}

#[test]
fn changes_coalesce_while_an_offer_is_outstanding() {
    let mut script = listening(32, &[]);
    assert_eq!(summary(&script.voices(&[1])), ["offer"]);
    for tracks in [&[1, 2][..], &[1, 2, 3], &[1, 3], &[1, 3, 4]] {
        assert_eq!(summary(&script.voices(tracks)), [""; 0]);
    }
    assert_eq!(accept(&mut script), ["add 0 s0 1", "offer"]);
    assert_eq!(accept(&mut script), ["add 1 s1 3", "add 2 s2 4"], "one offer for all of it");
}

#[test]
fn a_freed_line_goes_inactive_and_is_used_again() {
    let mut script = listening(32, &[1, 2, 3]);
    // The worker hears of it at once, the client by an offer.
    let actions = script.voices(&[1, 3]);
    assert_eq!(summary(&actions), ["assign 1 -", "offer"]);
    let offer = sent_offer(&actions).unwrap();
    assert_eq!(directions(offer), ["recvonly", "sendonly", "inactive", "sendonly"]);
    let (_, line, _) = section(offer, "s1");
    assert!(line.starts_with("m=audio 9 ") && !line.contains("a=msid") && !line.contains("a=ssrc"), "{line}");
    assert_eq!(accept(&mut script), [""; 0]);
    let actions = script.voices(&[1, 3, 4]);
    let offer = sent_offer(&actions).unwrap();
    assert_eq!(directions(offer), ["recvonly", "sendonly", "sendonly", "sendonly"], "not a fifth");
    let (_, line, _) = section(offer, "s1");
    // SSRCs so far: 4294967294, 4294967295 and 0.
    assert!(line.contains("a=msid:user-4 t4\r\n") && line.contains("a=ssrc:1 "), "a new SSRC: {line}");
    assert_eq!(accept(&mut script), ["add 1 s1 4"]);
}

/// Browsers fire `track` only for an m-line that was not active before.
#[test]
fn a_line_never_goes_from_one_voice_to_another() {
    let mut script = listening(32, &[1, 2]);
    let actions = script.voices(&[1, 3]);
    let offer = sent_offer(&actions).unwrap();
    assert_eq!(directions(offer), ["recvonly", "sendonly", "inactive"], "m-lines never outnumber voices");
    assert_eq!(accept(&mut script), ["offer"]);
    assert_eq!(accept(&mut script), ["add 1 s1 3"]);
    // In an answer neither.
    let mut script = listening(32, &[1]);
    script.voices(&[]);
    script.voices(&[2]);
    let offer = script.resume();
    script.answer(&answer_to(sent_offer(&offer).unwrap()));
    let actions = script.voices(&[1]);
    assert_eq!(summary(&actions), [""; 0], "its offer for the second voice is out");
    assert_eq!(accept(&mut script), ["add 0 s0 -", "offer"], "accepted, though the voice is gone");
}

#[test]
fn a_voice_that_leaves_while_it_is_offered_is_not_forwarded() {
    let mut script = listening(32, &[]);
    script.voices(&[1]);
    script.voices(&[]);
    assert_eq!(accept(&mut script), ["add 0 s0 -", "offer"]);
    assert_eq!(accept(&mut script), [""; 0]);
    assert_eq!(summary(&script.voices(&[2])), ["offer"]);
    assert_eq!(accept(&mut script), ["add 0 s0 2"]);
}

#[test]
fn a_voice_that_comes_back_takes_its_slot_without_an_offer() {
    let mut script = listening(32, &[1, 2]);
    assert_eq!(summary(&script.voices(&[2])), ["assign 0 -", "offer"]);
    assert_eq!(
        summary(&script.voices(&[1, 2])),
        ["assign 0 1"],
        "active until the offer that is out is answered"
    );
    assert_eq!(accept(&mut script), ["assign 0 -", "offer"]);
    assert_eq!(accept(&mut script), ["add 0 s0 1"]);
    // The same track again is no change at all: who joins again takes the slots that carried him.
    assert_eq!(summary(&script.voices(&[2, 1])), [""; 0]);
}

/// Whatever was lost with the socket: afterwards the client knows of every slot.
#[test]
fn a_slot_that_went_back_to_its_own_voice_is_told_on_return() {
    let mut script = listening(2, &[1, 2]);
    assert_eq!(summary(&script.resume()), [""; 0], "the msid says it all");
    script.voices(&[1, 2, 3]);
    assert_eq!(summary(&script.slots_changed(&[(0, Some(3))])), ["slots s0=3"]);
    // The socket is lost here; the next message goes nowhere.
    assert_eq!(summary(&script.slots_changed(&[(0, Some(1))])), ["slots s0=1"]);
    assert_eq!(summary(&script.resume()), ["slots s0=1 s1=2"]);
}

#[test]
fn beyond_the_slots_the_worker_chooses() {
    let mut script = listening(2, &[1, 2]);
    assert_eq!(summary(&script.voices(&[1, 2, 3])), [""; 0], "no slot for the third");
    assert_eq!(summary(&script.slots_changed(&[(0, Some(3))])), ["slots s0=3"]);
    assert_eq!(summary(&script.slots_changed(&[(0, Some(1)), (1, Some(3))])), ["slots s0=1 s1=3"]);
    assert_eq!(summary(&script.slots_changed(&[(0, Some(1)), (7, Some(2))])), [""; 0], "no news, no slot 7");
    // The client is told again when it comes back.
    assert_eq!(summary(&script.resume()), ["slots s0=1 s1=3"]);
    // With a fourth, one that leaves makes room for who has none, and the m-line stays active.
    script.voices(&[1, 2, 3, 4]);
    assert_eq!(summary(&script.voices(&[2, 3, 4])), ["assign 0 2", "slots s0=2"]);
    // As many as slots again: each has its own m-line, by whatever offers it takes.
    assert_eq!(summary(&script.voices(&[2, 4])), ["assign 0 -", "assign 1 2", "slots s1=2", "offer"]);
    assert_eq!(accept(&mut script), ["offer"]);
    assert_eq!(accept(&mut script), ["add 0 s0 4"]);
}

/// They are on m-lines of voices that left meanwhile, and heard there until they have m-lines of their own.
#[test]
fn whom_the_worker_lent_a_line_is_heard_when_voices_become_as_many_as_slots() {
    let mut script = listening(2, &[1, 2]);
    script.voices(&[1, 2, 3, 4]);
    assert_eq!(summary(&script.slots_changed(&[(0, Some(3)), (1, Some(4))])), ["slots s0=3 s1=4"]);
    assert_eq!(summary(&script.voices(&[2, 3, 4])), [""; 0]);
    let actions = script.voices(&[3, 4]);
    assert_eq!(summary(&actions), ["offer"], "nobody falls silent");
    assert_eq!(directions(sent_offer(&actions).unwrap()), ["recvonly", "inactive", "inactive"]);
    assert_eq!(accept(&mut script), ["assign 0 -", "assign 1 -", "offer"]);
    assert_eq!(accept(&mut script), ["add 0 s0 3", "add 1 s1 4"]);
}

/// A phone that has lines for one voice only, say.
#[test]
fn where_voices_are_more_than_the_lines_that_are_left_the_worker_chooses() {
    let mut script = listening(4, &[]);
    let actions = script.voices(&[1, 2, 3]);
    let answer = answer_to(sent_offer(&actions).unwrap());
    let answer = ["s1", "s2"]
        .iter()
        .fold(answer, |answer, mid| edit(&answer, mid, |line| line.replace("a=recvonly", "a=inactive")));
    assert_eq!(summary(&script.answer(&answer)), ["refuse of 2: 2 3", "add 0 s0 1"]);
    script.voices(&[1, 2, 3, 4]);
    assert_eq!(accept(&mut script), ["add 1 s3 4"]);
    // No line is left for the next, so the two carry who is loudest of the three.
    assert_eq!(summary(&script.voices(&[1, 2, 3, 4, 5])), [""; 0]);
    assert_eq!(summary(&script.slots_changed(&[(0, Some(5))])), ["slots s0=5"]);
    // What was refused is not heard, not even where the worker did not know yet,
    assert_eq!(summary(&script.slots_changed(&[(0, Some(2))])), ["assign 0 1", "slots s0=1"]);
    // and who refused somebody that has left has no more lines than before.
    assert_eq!(summary(&script.voices(&[1, 4, 5])), ["refuse of 2:"]);
    assert_eq!(summary(&script.slots_changed(&[(1, Some(5))])), ["slots s3=5"]);
    assert_eq!(summary(&script.voices(&[1, 4])), ["assign 1 4", "slots s3=4"]);
}

#[test]
fn the_worker_is_put_right_where_everyone_has_a_slot() {
    let mut script = listening(3, &[1, 2]);
    assert_eq!(summary(&script.slots_changed(&[(0, Some(2)), (1, None)])), ["assign 0 1", "assign 1 2"]);
}

/// Whoever else comes and goes, and however often: what changed meanwhile is one offer's.
#[test]
fn offers_are_paced_and_the_last_word_is_offered() {
    let mut script = listening(4, &[]);
    let began = script.now;
    let (mut offer_count, mut changes) = (0, 0);
    let mut take = |script: &mut Script, actions: Vec<Action>| {
        let mut actions = actions;
        while let Some(offer) = sent_offer(&actions) {
            offer_count += 1;
            actions = script.answer(&answer_to(offer));
        }
    };
    while script.now < began + Duration::from_secs(10) {
        changes += 1;
        let actions = script.voices(if changes % 2 == 0 { &[] } else { &[1] });
        take(&mut script, actions);
        let actions = script.wait(Duration::from_millis(20));
        take(&mut script, actions);
    }
    let actions = script.voices(&[2]);
    take(&mut script, actions);
    let actions = script.wait(OFFER_INTERVAL);
    take(&mut script, actions);
    let paced = OFFER_BURST + 10 * 4 + 1;
    assert_eq!(
        (changes, offer_count),
        (500, paced),
        "all at once at first, then four a second, and the last"
    );
    assert_eq!(summary(&script.resume()), [""; 0], "nothing is outstanding");
    assert_eq!(script.server.next_timeout(), None);
}

#[test]
fn the_upload_is_the_first_line_that_sends() {
    let mut script = Script::new(32);
    let lines =
        [chromium_audio("a", "recvonly"), chromium_audio("b", "sendrecv"), chromium_audio("c", "sendonly")];
    let offer = chromium(&["a", "b", "c"], &lines);
    let actions = script.offer(&offer);
    assert_eq!(directions(sent_answer(&actions).unwrap()), ["inactive", "recvonly", "inactive"]);
    assert!(summary(&actions).contains(&"publish b".to_owned()));
    // It stays that one while it sends,
    let actions = script.offer(&edit(&offer, "a", |line| line.replace("a=recvonly", "a=sendrecv")));
    assert_eq!(summary(&actions), ["answer"]);
    // and is the next one when it stops, or none.
    let stopped = edit(&offer, "b", |line| line.replace("a=sendrecv", "a=recvonly"));
    assert_eq!(summary(&script.offer(&stopped)), ["answer", "publish c"]);
    let silent = edit(&stopped, "c", |line| line.replace("a=sendonly", "a=inactive"));
    assert_eq!(summary(&script.offer(&silent)), ["answer", "unpublish"]);
    assert_eq!(summary(&script.offer(&offer)), ["answer", "publish b"]);
}

#[test]
fn an_answer_may_stop_the_upload() {
    let mut script = listening(32, &[]);
    let actions = script.voices(&[1]);
    let answer = answer_to(sent_offer(&actions).unwrap());
    let answer = edit(&answer, "0", |line| line.replace("a=sendonly", "a=inactive"));
    assert_eq!(summary(&script.answer(&answer)), ["unpublish", "add 0 s0 1"]);
    let actions = script.voices(&[1, 2]);
    assert_eq!(directions(sent_offer(&actions).unwrap()), ["inactive", "sendonly", "sendonly"]);
    // A stopped one is gone for good; what comes in its place has another tag.
    let answer = reject(&answer_to(sent_offer(&actions).unwrap()), "0");
    assert_eq!(summary(&script.answer(&answer)), ["add 1 s1 2"]);
    let again = answer.replacen("m=audio 0", "m=audio 9", 1).replace("a=mid:0\r\n", "a=mid:9\r\n");
    let again = again.replace("BUNDLE s0", "BUNDLE 9 s0").replace("a=inactive", "a=sendonly");
    let actions = script.offer(&again);
    assert_eq!(summary(&actions), ["answer", "publish 9"]);
}

#[test]
fn a_client_stops_and_starts_to_listen() {
    let mut script = listening(32, &[1, 2]);
    script.voices(&[1, 2, 3]);
    let actions = script.resume();
    let answer = answer_to(sent_offer(&actions).unwrap());
    script.answer(&answer);
    // Its own offer: one m-line inactive, one stopped.
    let offer = edit(&answer, "s0", |line| line.replace("a=recvonly", "a=inactive"));
    let offer = reject(&offer, "s2");
    let actions = script.offer(&offer);
    let sent = sent_answer(&actions).unwrap();
    assert!(section(sent, "s0").1.contains("a=inactive\r\n"), "{sent}");
    assert!(section(sent, "s2").1.starts_with("m=audio 0 "), "{sent}");
    assert_eq!(summary(&actions), ["assign 0 -", "assign 2 -", "answer", "refuse of 31: 1 3"]);
    // What it does not want is not pressed upon it,
    assert_eq!(summary(&script.voices(&[1, 2, 3])), [""; 0]);
    // until it asks.
    let offer = edit(&offer, "s0", |line| line.replace("a=inactive", "a=recvonly"));
    assert_eq!(summary(&script.offer(&offer)), ["answer", "refuse of 32: 3", "add 0 s0 1"]);
}

#[test]
fn a_voice_moves_when_the_clients_own_line_stops_listening() {
    // Line 0 is `sendrecv` and carries the first voice.
    let mut script = Script::joined(32, &[1]);
    let only_sends = chromium(&["0"], &[chromium_audio("0", "sendonly")]);
    let actions = script.offer(&only_sends);
    assert_eq!(summary(&actions), ["assign 0 -", "answer", "offer"]);
    assert_eq!(accept(&mut script), ["add 0 s0 1"]);
}

/// Whatever it stops, as often as it likes, it hears who comes next, as many as there are slots.
#[test]
fn a_line_that_the_client_stops_makes_room() {
    let mut script = listening(2, &[1, 2]);
    for track in (3..40).step_by(2) {
        script.wait(OFFER_INTERVAL * OFFER_BURST);
        script.voices(&[track, track + 1]);
        let (mut carried, mut answer) = (Vec::new(), String::new());
        while let Some(offer) = sent_offer(&script.resume()) {
            answer = answer_to(offer);
            carried.extend(script.answer(&answer).iter().filter_map(|action| match action {
                Action::AddSlot(slot) => slot.source.map(|source| source.0),
                _ => None,
            }));
        }
        assert_eq!(carried, [track, track + 1]);
        // Both listening m-lines stopped, as by `RTCRtpTransceiver.stop()` or by declining them.
        let mids: Vec<&str> = answer.lines().filter_map(|line| line.strip_prefix("a=mid:s")).collect();
        assert_eq!(mids.len(), 2, "no more m-lines than ever were in use: {answer}");
        let offer = mids.iter().fold(answer.clone(), |offer, mid| reject(&offer, &format!("s{mid}")));
        let actions = summary(&script.offer(&offer));
        assert_eq!(actions[..3], ["assign 0 -", "assign 1 -", "answer"]);
        assert_eq!(actions[3..], [format!("refuse of 2: {track} {}", track + 1)]);
    }
}

/// An m-line that is `inactive` is not given up: there are no more of them than slots.
#[test]
fn who_listens_to_nobody_new_has_no_more_lines_than_slots() {
    let mut script = listening(4, &[]);
    for track in 1..400 {
        script.wait(OFFER_INTERVAL * OFFER_BURST);
        let actions = script.voices(&[track]);
        let Some(offer) = sent_offer(&actions) else { continue };
        assert!(offer.matches("m=audio").count() <= 1 + 4, "{offer}");
        let declined = answer_to(offer).replace("a=recvonly", "a=inactive");
        let actions = script.answer(&declined);
        assert!(!actions.iter().any(|action| matches!(action, Action::Fail(..))), "{:?}", summary(&actions));
    }
}

/// A number is never used again under the same keys, and a line that comes back has a new one.
#[test]
fn a_line_that_is_taken_up_again_has_an_ssrc_of_its_own() {
    let mut script = listening(4, &[1, 2, 3, 4]);
    let mut added = HashSet::from([4_294_967_294_u32, u32::MAX, 0, 1]);
    for round in 0..20_u64 {
        script.wait(OFFER_INTERVAL * OFFER_BURST);
        script.voices(&[round, round + 1, round * 7 % 5 + 50]);
        loop {
            let actions = script.resume();
            let Some(offer) = sent_offer(&actions) else { break };
            for action in script.answer(&answer_to(offer)) {
                if let Action::AddSlot(slot) = action {
                    assert!(slot.slot.0 < 4, "no more lines than voices at the peak");
                    assert!(added.insert(slot.ssrc.0), "{:?} again", slot.ssrc);
                    let (_, line, _) = section(offer, slot.mid.as_str());
                    assert!(line.contains(&format!("a=ssrc:{} ", slot.ssrc.0)), "{line}");
                }
            }
        }
    }
    assert!(added.len() > 20);
}
