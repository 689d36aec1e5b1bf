//! Joining: the client's first offer, then ours for new voices.

use std::time::Duration;

use gryt_sfu::ids::{PayloadType, SlotIndex, Ssrc, TrackId};
use gryt_sfu::rtp::extension::ExtensionIds;
use gryt_sfu::signalling::negotiation::{Action, FIRST_OFFER_WAIT};
use str0m::media::Direction;

use crate::fixtures::{
    SSRC_BASE, answer_to, chromium, chromium_audio, chromium_data, chromium_offer, chromium_video, edit,
    fingerprint, firefox_offer, negotiation, now, reject, section, voices,
};
use crate::script::{Script, sent_answer, sent_offer, summary};
use crate::str0m_client::{Client, Manner};

#[test]
fn str0m_joins_and_hears_who_comes() {
    let now = now();
    let mut server = negotiation(now, 32);
    let mut client = Client::new(now, Manner::Polite);
    server.set_voices(now, &voices(&[1]));
    let mids = client.offer(&[Direction::SendOnly]);
    client.run(&mut server, now);
    assert_eq!(client.direction(&mids[0]), Direction::SendOnly);
    assert_eq!(client.direction("s0"), Direction::RecvOnly);
    let [Action::StartTransport { .. }, Action::Publish(stream), Action::AddSlot(slot)] = &client.worker[..]
    else {
        panic!("not what a worker needs")
    };
    assert_eq!(stream.mid.as_str(), &*mids[0]);
    assert_eq!(stream.ssrcs.len(), 1);
    assert_eq!((slot.slot, slot.source), (SlotIndex(0), Some(TrackId(1))));
    assert_eq!(PayloadType::new(111), Some(slot.payload_type));
    assert!(client.last_offer.contains("a=msid:user-1 t1\r\n"), "{}", client.last_offer);
}

#[test]
fn an_answer_word_for_word() {
    let mut script = Script::new(32);
    let actions = script.offer(&chromium_offer());
    let [
        Action::StartTransport { local, remote, .. },
        Action::SendAnswer(answer),
        Action::SendCandidate { candidate, mid, index: 0, ufrag },
        Action::SendCandidate { .. },
        Action::Publish(stream),
    ] = &actions[..]
    else {
        panic!("{:?}", summary(&actions))
    };
    assert_eq!(remote.ufrag(), "wqHh");
    assert_eq!((mid.as_str(), ufrag.as_str()), ("0", local.ufrag.as_str()));
    assert_eq!(candidate, "candidate:1 1 udp 2130706431 192.0.2.7 3478 typ host");
    let expected = format!(
        "v=0\r\no=- 42 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE 0\r\n\
         a=msid-semantic:WMS *\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\n\
         a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:passive\r\na=rtcp-mux\r\n\
         a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
         a={candidate}\r\na=candidate:2 1 udp 2130706175 2001:db8::7 3478 typ host\r\na=end-of-candidates\r\n",
        local.ufrag.as_str(),
        local.password.as_str(),
        fingerprint(0x5F),
    );
    assert_eq!(*answer, expected);
    assert!(stream.is_only);
    assert_eq!((stream.mid.as_str(), &stream.ssrcs[..]), ("0", &[Ssrc(3_735_928_559)][..]));
    assert_eq!(
        stream.extensions,
        ExtensionIds { audio_level: Some(1), mid: Some(4), abs_capture_time: None }
    );
}

#[test]
fn listening_lines_are_filled_with_who_is_there() {
    let mut script = Script::new(32);
    script.voices(&[1, 2, 3]);
    let lines = ["sendrecv", "recvonly", "recvonly"].iter().enumerate();
    let lines: Vec<_> = lines.map(|(mid, direction)| chromium_audio(&mid.to_string(), direction)).collect();
    let actions = script.offer(&chromium(&["0", "1", "2"], &lines));
    let answer = sent_answer(&actions).unwrap();
    // Those that only listen first; the slots count in the order of their filling.
    for (mid, direction, voice) in [("0", "sendrecv", 3), ("1", "sendonly", 1), ("2", "sendonly", 2)] {
        let (_, line, _) = section(answer, mid);
        assert!(line.contains(&format!("a={direction}\r\n")), "{line}");
        assert!(line.contains(&format!("a=msid:user-{voice} t{voice}\r\n")), "{line}");
        let ssrc = SSRC_BASE.wrapping_add(voice - 1);
        assert!(line.contains(&format!("a=ssrc:{ssrc} cname:gryt-sfu\r\n")), "{line}");
    }
    let after: Vec<_> = summary(&actions).into_iter().skip_while(|name| name != "publish 0").collect();
    assert_eq!(after, ["publish 0", "add 2 0 3", "add 0 1 1", "add 1 2 2"], "and no offer");
}

#[test]
fn other_kinds_are_rejected_in_their_place() {
    let mut script = Script::new(32);
    let lines = [chromium_video("v"), chromium_audio("a", "sendonly"), chromium_data("d")];
    let actions = script.offer(&chromium(&["v", "a", "d"], &lines));
    let answer = sent_answer(&actions).unwrap();
    assert!(answer.contains("a=group:BUNDLE a\r\n"), "{answer}");
    assert!(
        answer.contains("m=video 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=inactive\r\n")
    );
    assert!(answer.contains("m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{answer}");
    assert!(section(answer, "a").1.contains("a=candidate:1 "), "on the first m-line in use");
    assert!(summary(&actions).contains(&"candidate a 1".to_owned()));
    // They stay rejected in our own offers.
    let actions = script.voices(&[1]);
    let offer = sent_offer(&actions).unwrap();
    let kinds: Vec<_> = offer.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        kinds,
        [
            "m=video 0 UDP/TLS/RTP/SAVPF 0",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        ]
    );
    assert_eq!(summary(&script.answer(&answer_to(offer))), ["add 0 s0 1"]);
}

#[test]
fn our_offers_are_numbered_as_the_client_is() {
    let mut script = Script::new(32);
    let actions = script.offer(&firefox_offer());
    assert!(sent_answer(&actions).unwrap().contains("a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"));
    let actions = script.voices(&[1, 2, 3]);
    let (_, line, _) = section(sent_offer(&actions).unwrap(), "s2");
    assert!(line.starts_with("m=audio 9 UDP/TLS/RTP/SAVPF 109\r\n"), "{line}");
    assert!(line.contains("a=fmtp:109 minptime=10;useinbandfec=1;stereo=1\r\n"), "{line}");
    assert!(line.contains("a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n"), "{line}");
    assert!(line.contains("a=setup:actpass\r\n") && line.contains("a=sendonly\r\n"), "{line}");
    assert!(!line.contains("a=candidate"), "only on the first m-line: {line}");
    for absent in ["transport-cc", "nack", "red/", "a=rtcp-rsize", "extmap-allow-mixed"] {
        assert!(!sent_offer(&actions).unwrap().contains(absent), "{absent} is not done");
    }
}

#[test]
fn one_number_has_one_meaning_in_a_description() {
    let mut script = Script::new(32);
    let stereo = chromium_offer().replace("useinbandfec=1", "useinbandfec=1;stereo=1");
    script.offer(&stereo);
    script.voices(&[1, 2]);
    // A browser answers with parameters of its own; ours stay the same on every m-line.
    let actions = script.voices(&[1, 2]);
    assert_eq!(actions.len(), 0, "the same voices change nothing");
    let actions = script.resume();
    let answer = answer_to(sent_offer(&actions).unwrap()).replace(";stereo=1", "");
    script.answer(&answer);
    let actions = script.voices(&[1, 2, 3]);
    let offer = sent_offer(&actions).unwrap();
    assert_eq!(offer.matches("a=fmtp:111 minptime=10;useinbandfec=1;stereo=1\r\n").count(), 3, "{offer}");
    assert_eq!(offer.matches("a=fmtp").count(), 3);
    // The client changes its mind: so do we.
    script.answer(&answer_to(offer));
    let mono = edit(&answer_to(offer), "0", |line| line.replace(";stereo=1", ";stereo=0"));
    let actions = script.offer(&mono);
    assert_eq!(sent_answer(&actions).unwrap().matches("stereo=0").count(), 3);
}

#[test]
fn an_offer_without_media_is_answered_and_ours_makes_the_transport() {
    let mut script = Script::new(32);
    let actions = script.offer("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n");
    assert_eq!(summary(&actions), ["answer"]);
    assert!(!sent_answer(&actions).unwrap().contains("m="));
    let actions = script.voices(&[7]);
    assert_eq!(summary(&actions), ["offer", "candidate s0 0", "candidate s0 0"]);
    let offer = sent_offer(&actions).unwrap();
    assert!(
        offer.contains("a=setup:actpass\r\n") && offer.contains("a=rtpmap:111 opus/48000/2\r\n"),
        "{offer}"
    );
    assert_eq!(summary(&script.answer(&answer_to(offer))), ["transport", "add 0 s0 7"]);
}

#[test]
fn who_only_rejected_kinds_offers_is_answered_too() {
    let mut script = Script::new(32);
    script.voices(&[7]);
    let actions = script.offer(&chromium(&["0"], &[chromium_data("0")]));
    assert_eq!(summary(&actions), ["answer", "offer", "candidate s0 1", "candidate s0 1"]);
    let actions = script.answer(&answer_to(sent_offer(&actions).unwrap()));
    assert_eq!(summary(&actions), ["transport", "add 0 s0 7"]);
}

#[test]
fn who_does_not_offer_gets_an_offer_once_there_is_a_voice() {
    let mut script = Script::new(32);
    assert_eq!(script.server.next_timeout(), None);
    assert_eq!(summary(&script.voices(&[1])), [""; 0]);
    assert_eq!(script.server.next_timeout(), Some(script.now + FIRST_OFFER_WAIT));
    assert_eq!(summary(&script.wait(FIRST_OFFER_WAIT - Duration::from_millis(1))), [""; 0]);
    let actions = script.wait(Duration::from_millis(1));
    assert_eq!(summary(&actions)[0], "offer");
    let actions = script.answer(&answer_to(sent_offer(&actions).unwrap()));
    assert_eq!(summary(&actions), ["transport", "add 0 s0 1"]);
    // Later than that, the first voice is offered at once.
    let mut late = Script::new(32);
    late.wait(Duration::from_secs(60));
    assert_eq!(summary(&late.voices(&[1]))[0], "offer");
    // Nothing can be offered without slots, and nothing stays due.
    let mut mute = Script::new(0);
    mute.voices(&[1]);
    assert_eq!(mute.server.next_timeout(), None);
}

/// The worker counts with what was refused, and knows nobody before there is a transport.
#[test]
fn what_is_refused_before_there_is_a_transport_is_told_with_it() {
    let mut script = Script::new(1);
    script.voices(&[1, 2, 3]);
    let actions = script.wait(FIRST_OFFER_WAIT);
    let answer = reject(&answer_to(sent_offer(&actions).unwrap()), "s0");
    let actions = script.answer(&answer);
    assert_eq!(summary(&actions), ["offer"]);
    let actions = script.answer(&answer_to(sent_offer(&actions).unwrap()));
    assert_eq!(summary(&actions), ["transport", "refuse of 1: 1", "add 0 s1 2"]);
}

#[test]
fn nothing_is_offered_before_the_clients_first_offer_is_answered() {
    let mut script = Script::new(32);
    assert_eq!(summary(&script.voices(&[1, 2])), [""; 0]);
    let actions = script.offer(&chromium(&["0"], &[chromium_audio("0", "sendonly")]));
    let names = summary(&actions);
    let answer = names.iter().position(|name| name == "answer");
    assert!(answer < names.iter().position(|name| name == "offer"), "{names:?}");
}

#[test]
fn the_client_may_use_our_names_for_m_lines() {
    let mut script = Script::new(32);
    script.offer(&chromium(
        &["s0", "s1"],
        &[chromium_audio("s0", "sendonly"), chromium_audio("s1", "inactive")],
    ));
    let actions = script.voices(&[1, 2]);
    let offer = sent_offer(&actions).unwrap();
    assert!(offer.contains("a=group:BUNDLE s0 s1 s2 s3\r\n"), "{offer}");
}

#[test]
fn a_refused_slot_is_never_forwarded_to() {
    let mut script = Script::joined(32, &[]);
    let actions = script.voices(&[1, 2, 3]);
    let offer = sent_offer(&actions).unwrap();
    // The first voice is on the client's own m-line; the second is not wanted, the third's m-line is stopped.
    let answer = edit(&answer_to(offer), "s1", |line| line.replace("a=recvonly", "a=inactive"));
    let answer = reject(&answer, "s2");
    assert_eq!(
        summary(&script.answer(&answer)),
        ["refuse of 32: 2 3", "add 0 0 1"],
        "m-line s1 is kept for nothing"
    );
    // They are not offered again and again,
    assert_eq!(summary(&script.voices(&[1, 2, 3, 4])), ["offer"]);
    let actions = script.resume();
    let offer = sent_offer(&actions).unwrap();
    assert!(section(offer, "s1").1.contains("a=inactive\r\n"), "{offer}");
    // and what was rejected makes room for another, under a tag of its own.
    let (before, line, _) = section(offer, "s3");
    assert!(line.contains("a=msid:user-4 t4\r\n"), "{offer}");
    assert_eq!(before.matches("m=audio").count(), 2, "{offer}");
    assert!(!offer.contains("a=mid:s2\r\n"), "{offer}");
    let answer = answer_to(offer);
    assert_eq!(summary(&script.answer(&answer)), ["add 1 s3 4"]);
    // but the client may change its mind.
    let again = edit(&answer, "s1", |line| line.replace("a=inactive", "a=recvonly"));
    let actions = script.offer(&again);
    assert_eq!(summary(&actions), ["answer", "refuse of 32: 3", "add 2 s1 2"]);
}
