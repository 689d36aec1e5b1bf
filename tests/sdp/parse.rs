//! What is read out of a client's description, and what is refused.

use std::time::Duration;

use gryt_sfu::ids::{Fingerprint, Mid, PayloadType, Ssrc};
use gryt_sfu::sdp::remote::{DESCRIPTION_LEN_MAX, Description, Error, LINE_COUNT_MAX, MEDIA_COUNT_MAX};
use gryt_sfu::sdp::{Direction, Extensions, Kind};
use proptest::prelude::*;

use gryt_sfu::signalling::negotiation::Action;

use crate::fixtures::{
    chromium, chromium_audio, chromium_data, chromium_offer, chromium_video, fingerprint, firefox_offer, now,
};
use crate::script::Script;

fn refusal(text: &str) -> Error {
    Description::parse(text).unwrap_err()
}

#[test]
fn reads_chromium() {
    let all = [chromium_audio("0", "sendrecv"), chromium_video("1"), chromium_data("2")];
    let offer = Description::parse(&chromium(&["0", "1", "2"], &all)).unwrap();
    let transport = offer.transport.unwrap();
    assert_eq!((&*transport.ufrag, &*transport.password), ("wqHh", "V7uVDhwTqRcAhVJ0sBsfHgEN"));
    assert_eq!(transport.fingerprint, Fingerprint([0xC4; 32]));
    let [audio, video, data] = &offer.media[..] else { panic!("three m-lines") };
    assert!(audio.is_usable() && !video.is_usable() && !data.is_usable());
    assert_eq!((audio.mid, audio.direction), (Mid::parse("0"), Direction::SendRecv));
    assert_eq!(audio.extensions, Extensions { audio_level: Some(1), mid: Some(4), abs_capture_time: None });
    assert_eq!(audio.ssrcs, [Ssrc(3_735_928_559)]);
    let [opus] = audio.opus[..] else { panic!("one Opus, RED is none") };
    assert_eq!(opus.payload_type, PayloadType::new(111).unwrap());
    assert_eq!(opus.to_string(), "minptime=10;useinbandfec=1");
    assert_eq!(data.format.kind, Kind::Application);
}

#[test]
fn reads_firefox() {
    let offer = Description::parse(&firefox_offer()).unwrap();
    let transport = offer.transport.unwrap();
    assert_eq!(&*transport.ufrag, "1a2b3c4d");
    assert_eq!(transport.fingerprint, Fingerprint([0xF1; 32]), "from the session");
    let [upload, listening] = &offer.media[..] else { panic!("two m-lines") };
    assert!(listening.is_usable(), "bundle-only with port 0 is no rejection");
    assert_eq!(listening.direction, Direction::RecvOnly);
    assert_eq!(upload.opus[0].to_string(), "minptime=10;useinbandfec=1;stereo=1");
    assert_eq!(upload.extensions.mid, Some(3));
}

#[test]
fn transport_comes_from_the_line_then_the_tagged_line_then_the_session() {
    let strip = |text: String| -> String {
        let is_transport = |line: &&str| {
            ["a=ice-", "a=fingerprint", "a=setup"].iter().any(|prefix| line.starts_with(prefix))
        };
        text.split_inclusive("\r\n").filter(|line| !is_transport(line)).collect()
    };
    let bare = strip(chromium_audio("1", "sendrecv"));
    let tagged = chromium(&["0", "1"], &[chromium_video("0"), bare.clone()]);
    assert_eq!(&*Description::parse(&tagged).unwrap().transport.unwrap().ufrag, "wqHh");
    let own =
        bare.replace("a=mid:1\r\n", "a=mid:1\r\na=ice-ufrag:mine\r\na=ice-pwd:0123456789012345678901\r\n");
    let own = chromium(&["0", "1"], &[chromium_video("0"), own]);
    assert_eq!(&*Description::parse(&own).unwrap().transport.unwrap().ufrag, "mine");
    assert_eq!(refusal(&chromium(&["1"], &[bare])), Error::NoIceCredentials);
}

/// It is of the transport, which is described once of what shares it.
#[test]
fn rtcp_mux_is_asked_for_where_the_transport_is_described() {
    let bare = |mid: &str| chromium_audio(mid, "sendrecv").replace("a=rtcp-mux\r\n", "");
    let offer = chromium(&["0", "1"], &[chromium_audio("0", "sendrecv"), bare("1")]);
    assert_eq!(Description::parse(&offer).unwrap().media.len(), 2);
    assert_eq!(
        refusal(&chromium(&["0", "1"], &[bare("0"), chromium_audio("1", "sendrecv")])),
        Error::NoRtcpMux
    );
}

#[test]
fn refuses_with_the_reason() {
    let offer = chromium_offer();
    let replace = |from: &str, to: &str| {
        assert!(offer.contains(from), "{from}");
        refusal(&offer.replace(from, to))
    };
    assert_eq!(refusal(""), Error::Syntax);
    assert_eq!(refusal("v=0\r\n"), Error::Syntax);
    assert_eq!(refusal("{\"type\":\"offer\"}"), Error::Syntax);
    assert_eq!(replace("a=group:BUNDLE 0\r\n", ""), Error::NoBundle);
    assert_eq!(replace("a=group:BUNDLE 0", "a=group:BUNDLE 1"), Error::NoBundle);
    assert_eq!(replace("a=group:BUNDLE 0", "a=group:LS 0"), Error::NoBundle);
    assert_eq!(replace("a=rtcp-mux\r\n", ""), Error::NoRtcpMux);
    assert_eq!(replace("a=mid:0\r\n", ""), Error::NoMid);
    assert_eq!(replace("a=mid:0\r\n", "a=mid:0123456789abcdefg\r\n"), Error::BadMid);
    assert_eq!(replace("a=mid:0\r\n", "a=mid:é\r\n"), Error::BadMid);
    assert_eq!(replace("a=setup:actpass", "a=setup:passive"), Error::SetupPassive);
    assert_eq!(replace("a=setup:actpass", "a=setup:holdconn"), Error::BadSetup);
    assert_eq!(replace("a=fingerprint:sha-256", "a=fingerprint:sha-1"), Error::BadFingerprint);
    assert_eq!(replace("a=fingerprint:", "a=fingerprints:"), Error::NoFingerprint);
    assert_eq!(replace("a=ice-pwd:", "a=ice-password:"), Error::NoIceCredentials);
    assert_eq!(replace("t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n"), Error::PeerIsLite);
    assert_eq!(replace("SAVPF 111", "SAVPF 128"), Error::PayloadType);
    assert_eq!(replace("SAVPF 111", "SAVPF opus"), Error::PayloadType);
    assert_eq!(replace("a=rtpmap:126 ", "a=rtpmap:128 "), Error::PayloadType);
    assert_eq!(replace("a=fmtp:63 ", "a=fmtp:256 "), Error::PayloadType);
    assert_eq!(replace("a=ssrc:3735928559", "a=ssrc:4294967296"), Error::BadSsrc);
    assert_eq!(replace("UDP/TLS/RTP/SAVPF", "UDP/UDP/UDP"), Error::UnknownProtocol);
    assert_eq!(replace("a=extmap:4 ", "a=extmap:1 "), Error::DuplicateExtension);
    let twice = [chromium_audio("0", "sendrecv"), chromium_audio("0", "recvonly")];
    assert_eq!(refusal(&chromium(&["0"], &twice)), Error::DuplicateMid);
}

#[test]
fn takes_what_is_only_unusual() {
    let offer = chromium_offer();
    let parse = |from: &str, to: &str| {
        assert!(offer.contains(from), "{from}");
        Description::parse(&offer.replace(from, to)).unwrap()
    };
    // No direction: both (RFC 8866 §6.7). The session's, where the m-line has none.
    assert_eq!(parse("a=sendrecv\r\n", "").media[0].direction, Direction::SendRecv);
    let listening = offer.replace("a=sendrecv\r\n", "").replace("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n");
    assert_eq!(Description::parse(&listening).unwrap().media[0].direction, Direction::RecvOnly);
    // Ids beyond the one-byte form and unknown extensions are passed over; so are directions of extmaps.
    assert_eq!(parse("a=extmap:4 ", "a=extmap:15 ").media[0].extensions.mid, None);
    assert_eq!(parse("a=extmap:4 ", "a=extmap:14/sendrecv ").media[0].extensions.mid, Some(14));
    // Two fingerprints, the first with another hash; either case.
    let sha_1 = "a=fingerprint:sha-1 00:11\r\na=fingerprint:SHA-256";
    assert!(parse("a=fingerprint:sha-256", sha_1).transport.is_some());
    assert_eq!(parse("opus/48000/2", "OPUS/48000/2").media[0].opus.len(), 1);
    // No Opus is a rejected m-line, not a bad description; one listed twice counts once.
    assert!(!parse("opus/48000/2", "opus/48000/1").media[0].is_usable());
    assert_eq!(parse("SAVPF 111", "SAVPF 111 111").media[0].opus.len(), 1);
    assert!(Description::parse(&offer.replace("\r\n", "\n")).is_ok());
    assert_eq!(
        Description::parse("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n").unwrap().media.len(),
        0
    );
}

/// RFC 5761 §4: with the marker bit, packets of such a type would be taken for RTCP.
#[test]
fn opus_has_no_payload_type_that_looks_like_rtcp() {
    let with = |number: u8| {
        let offer = chromium_offer().replace("SAVPF 111 63", &format!("SAVPF {number} 111"));
        let rtpmaps = format!("a=rtpmap:{number} opus/48000/2\r\na=rtpmap:111 ");
        let offer = offer.replace("a=rtpmap:63 ", "a=rtpmap:35 ").replace("a=rtpmap:111 ", &rtpmaps);
        Description::parse(&offer).unwrap().media.remove(0).opus
    };
    for number in [63, 64, 72, 95, 96] {
        let types: Vec<u8> = with(number).iter().map(|opus| opus.payload_type.get()).collect();
        let expected: &[u8] = if (64..=95).contains(&number) { &[111] } else { &[number, 111] };
        assert_eq!(types, expected);
    }
    let alone = chromium_offer().replace("SAVPF 111", "SAVPF 77").replace("a=rtpmap:111 ", "a=rtpmap:77 ");
    assert!(!Description::parse(&alone).unwrap().media[0].is_usable());
}

#[test]
fn parameters_of_opus_are_bounded_numbers() {
    let parameters = |text: &str| {
        let offer = chromium_offer().replace("minptime=10;useinbandfec=1", text);
        Description::parse(&offer).unwrap().media[0].opus[0].to_string()
    };
    assert_eq!(parameters("minptime=3;useinbandfec=0;usedtx=1"), "minptime=3;useinbandfec=0;usedtx=1");
    assert_eq!(
        parameters(" stereo=1 ; sprop-stereo=0"),
        "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=0"
    );
    for hostile in
        ["minptime=999999", "minptime=-1", "stereo=2", "x\u{b}=1", ";;;=;=", "stereo", "usedtx=a=b"]
    {
        assert_eq!(parameters(hostile), "minptime=10;useinbandfec=1", "{hostile:?}");
    }
}

#[test]
fn rejected_lines_need_nothing() {
    let offer = chromium(
        &["0"],
        &[
            chromium_audio("0", "sendrecv"),
            "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=inactive\r\n".into(),
            "m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:2\r\n".into(),
        ],
    );
    let media = Description::parse(&offer).unwrap().media;
    assert_eq!(media.iter().map(|media| media.is_rejected).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(media[1].mid, None);
}

#[test]
fn lines_are_counted_before_they_are_parsed() {
    let head = chromium_offer();
    let lines = |count: usize| format!("{head}{}", "a=x\n".repeat(count - head.lines().count()));
    assert!(Description::parse(&lines(LINE_COUNT_MAX)).is_ok());
    assert_eq!(refusal(&lines(LINE_COUNT_MAX + 1)), Error::TooManyLines);
    // Nothing of it is parsed: it would not be SDP anyway.
    assert_eq!(refusal(&"\n".repeat(LINE_COUNT_MAX + 1)), Error::TooManyLines);
    assert_eq!(refusal(&"\n".repeat(LINE_COUNT_MAX)), Error::Syntax);
    assert_eq!(
        Error::TooManyLines.to_string(),
        format!("the description has more than {LINE_COUNT_MAX} lines")
    );
}

/// Every bound is met in time that grows with the input and not with its square: 16 times the input of a
/// first measurement takes less than 64 times as long, and all together stays short.
#[test]
fn bombs_are_refused_in_linear_time() {
    let head = chromium_offer();
    let media = |count: usize| format!("{head}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(count));
    assert_eq!(refusal(&media(MEDIA_COUNT_MAX)), Error::TooManyMedia);
    assert_eq!(refusal(&"x".repeat(DESCRIPTION_LEN_MAX + 1)), Error::TooLong);
    let bombs: [&dyn Fn(usize) -> String; 8] = [
        &|count| media(count / 40),
        // Lines as short as so many may be.
        &|count| format!("{head}{}", "a=ssrc:1 cname:0123456789\r\n".repeat(count / 27)),
        &|count| {
            (0..count / 27).fold(head.clone(), |text, i| text + &format!("a=ssrc:{i:05} x:0123456789\r\n"))
        },
        &|count| head.replace("BUNDLE 0", &format!("BUNDLE 0{}", " x".repeat(count / 2))),
        &|count| head.replace("SAVPF 111", &format!("SAVPF 111{}", " 9".repeat(count / 2))),
        &|count| head.replace("SAVPF", &format!("SAVPF{}", "/UDP".repeat(count / 4))),
        &|count| head.replace("minptime=10", &format!("minptime=10{}", ";a=b".repeat(count / 4))),
        &|count| format!("{head}a={}\r\n", "y".repeat(count)),
    ];
    let start = now();
    let limit = DESCRIPTION_LEN_MAX - 2 * head.len();
    for (index, bomb) in bombs.iter().enumerate() {
        let time = |count| {
            let text = bomb(count);
            assert!(text.len() <= DESCRIPTION_LEN_MAX, "bomb {index} is {}", text.len());
            let start = now();
            drop(Description::parse(&text));
            start.elapsed()
        };
        let (small, large) = (time(limit / 16), time(limit));
        let bound = (small * 64).max(Duration::from_millis(250));
        assert!(large < bound, "bomb {index}: {small:?}, then {large:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// Two lines of a text exchanged, bytes replaced, a piece cut out or doubled.
#[derive(Clone, Debug)]
enum Mutation {
    Replace(usize, char),
    Cut(usize, usize),
    Double(usize, usize),
    Swap(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || 0..4096_usize;
    let character =
        prop_oneof![any::<char>(), prop::sample::select(&b"\r\n =:/;0129-amv"[..]).prop_map(char::from)];
    prop_oneof![
        (at(), character).prop_map(|(at, with)| Mutation::Replace(at, with)),
        (at(), 1..64_usize).prop_map(|(at, len)| Mutation::Cut(at, len)),
        (at(), 1..64_usize).prop_map(|(at, len)| Mutation::Double(at, len)),
        (at(), at()).prop_map(|(a, b)| Mutation::Swap(a, b)),
    ]
}

pub(crate) fn mutated() -> impl Strategy<Value = String> {
    let everything = [chromium_audio("0", "sendrecv"), chromium_video("1"), chromium_data("2")];
    let texts = vec![chromium(&["0", "1", "2"], &everything), chromium_offer(), firefox_offer()];
    (prop::sample::select(texts), prop::collection::vec(mutation(), 0..8)).prop_map(|(text, mutations)| {
        let mut text: Vec<char> = text.chars().collect();
        for mutation in mutations {
            let len = text.len().max(1);
            match mutation {
                Mutation::Replace(at, with) if !text.is_empty() => text[at % len] = with,
                Mutation::Cut(at, count) => drop(text.drain(at % len..(at % len + count).min(text.len()))),
                Mutation::Double(at, count) => {
                    let piece = text[(at % len).min(text.len())..(at % len + count).min(text.len())].to_vec();
                    text.splice(at % len..at % len, piece);
                }
                Mutation::Swap(a, b) => {
                    let mut lines: Vec<String> =
                        text.iter().collect::<String>().split_inclusive('\n').map(Into::into).collect();
                    let count = lines.len().max(1);
                    if lines.len() > 1 {
                        lines.swap(a % count, b % count);
                    }
                    text = lines.concat().chars().collect();
                }
                Mutation::Replace(..) => {}
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics(text in mutated()) {
        drop(Description::parse(&text));
    }

    #[test]
    fn never_panics_on_noise(text in any::<String>()) {
        drop(Description::parse(&text));
    }

    /// Nothing that a client writes reaches a description of ours but numbers, tags and words that we know.
    #[test]
    fn injects_nothing(text in mutated()) {
        let mut script = Script::new(4);
        script.voices(&[1, 2]);
        for action in script.offer(&text) {
            if let Action::SendAnswer(sdp) | Action::SendOffer(sdp) = action {
                assert_ours(&sdp);
            }
        }
    }
}

/// Every line is one that we write, to the last character.
fn assert_ours(sdp: &str) {
    for line in sdp.strip_suffix("\r\n").unwrap().split("\r\n") {
        let is_plain = line.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        assert!(is_plain && is_ours(line), "{line:?} in\n{sdp}");
    }
}

fn is_ours(line: &str) -> bool {
    let (name, value) = line.split_once([':', ' ']).unwrap_or((line, ""));
    let words: Vec<&str> = value.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let is_mid = |word: &&str| Mid::parse(word).is_some();
    match name {
        "v=0"
        | "s=-"
        | "a=ice-lite"
        | "a=rtcp-mux"
        | "a=end-of-candidates"
        | "a=sendrecv"
        | "a=sendonly"
        | "a=recvonly"
        | "a=inactive" => value.is_empty(),
        "o=-" => words.len() == 5 && is_number(words[1]) && value.ends_with(" IN IP4 127.0.0.1"),
        "t=0" => value == "0",
        "c=IN" => value == "IP4 0.0.0.0",
        "a=group" => words[0] == "BUNDLE" && words[1..].iter().all(is_mid),
        "a=msid-semantic" => value == "WMS *",
        "a=mid" => is_mid(&value),
        "a=ice-ufrag" => value.len() == 12 && value.starts_with('D'),
        "a=ice-pwd" => value.len() == 24 && words.len() == 1,
        "a=fingerprint" => value == format!("sha-256 {}", fingerprint(0x5F)),
        "a=setup" => ["passive", "actpass"].contains(&value),
        "a=rtpmap" => words.len() == 2 && is_number(words[0]) && words[1] == "opus/48000/2",
        "a=fmtp" => {
            let known = ["minptime", "useinbandfec", "stereo", "sprop-stereo", "usedtx"];
            let is_known = |pair: &str| {
                pair.split_once('=').is_some_and(|(name, value)| known.contains(&name) && is_number(value))
            };
            words.len() == 2 && is_number(words[0]) && words[1].split(';').all(is_known)
        }
        "a=extmap" => words.len() == 2 && is_number(words[0]) && Extensions::default().with(value).is_some(),
        "a=msid" => ["user-1 t1", "user-2 t2"].contains(&value),
        "a=ssrc" => words.len() == 2 && is_number(words[0]) && words[1] == "cname:gryt-sfu",
        "a=candidate" => {
            words.len() == 8 && (value.contains(" 192.0.2.7 ") || value.contains(" 2001:db8::7 "))
        }
        "m=audio" | "m=video" | "m=application" | "m=text" | "m=message" | "m=image" => {
            let formats = [
                "UDP/TLS/RTP/SAVPF",
                "UDP/TLS/RTP/SAVP",
                "UDP/DTLS/SCTP",
                "DTLS/SCTP",
                "RTP/SAVPF",
                "RTP/SAVP",
                "RTP/AVPF",
                "RTP/AVP",
            ];
            words.len() == 3
                && ["0", "9"].contains(&words[0])
                && formats.contains(&words[1])
                && (is_number(words[2]) || words[2] == "webrtc-datachannel")
        }
        _ => false,
    }
}

/// The same with what an attacker would try, in each place that looks as if it were repeated.
#[test]
fn line_breaks_and_quotes_go_nowhere() {
    let offer = chromium_offer();
    for evil in [
        "\r\na=evil:1",
        "\ra=evil:1",
        "\na=evil:1",
        " evil",
        "\u{0}evil",
        "\u{2028}evil",
        "\"><evil>",
        "%0d%0aevil",
    ] {
        for place in [
            "BUNDLE 0",
            "a=mid:0",
            "ssrc-audio-level",
            "minptime=10",
            "opus/48000/2",
            "wqHh",
            "SAVPF 111",
            "cname:mQz0sPnTWb1ZsR3x",
            "a=msid:7Yq2",
            "m=audio",
            "a=sendrecv",
            "a=extmap:4",
            "IN IP4 127.0.0.1",
        ] {
            assert!(offer.contains(place), "{place}");
            let mut script = Script::new(4);
            script.voices(&[1, 2]);
            for action in script.offer(&offer.replace(place, &format!("{place}{evil}"))) {
                if let Action::SendAnswer(sdp) | Action::SendOffer(sdp) = &action {
                    assert_ours(sdp);
                    assert!(!sdp.contains("evil"), "{place} {evil:?}");
                }
            }
        }
    }
}
