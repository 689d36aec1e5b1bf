//! Descriptions in the shape of those that real clients write.

use std::time::Instant;

use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ids::{Fingerprint, TrackId, WorkerId};
use gryt_sfu::signalling::negotiation::{Negotiation, Parameters, Voice};
use gryt_sfu::time::Now;

/// A certificate's fingerprint, 32 times this byte.
pub(crate) fn fingerprint(byte: u8) -> String {
    Fingerprint([byte; 32]).to_string()
}

/// What Chromium writes into every m-line.
pub(crate) fn chromium_transport() -> String {
    format!(
        "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:wqHh\r\na=ice-pwd:V7uVDhwTqRcAhVJ0sBsfHgEN\r\n\
         a=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\n",
        fingerprint(0xC4)
    )
}

const CHROMIUM_AUDIO: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
    a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
    a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

const CHROMIUM_CODECS: &str = "a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:111 opus/48000/2\r\n\
    a=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n\
    a=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
    a=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 telephone-event/8000\r\n";

/// An audio m-line as Chromium 156 offers it.
pub(crate) fn chromium_audio(mid: &str, direction: &str) -> String {
    let source = if direction.starts_with("send") {
        "a=msid:7Yq2 8c1f5a0e-1f7f-4d5c-9a63-0f9f7d4b3a11\r\na=ssrc:3735928559 cname:mQz0sPnTWb1ZsR3x\r\n\
         a=ssrc:3735928559 msid:7Yq2 8c1f5a0e-1f7f-4d5c-9a63-0f9f7d4b3a11\r\n"
    } else {
        ""
    };
    let transport = chromium_transport();
    let (head, codecs) = CHROMIUM_CODECS.split_at("a=rtcp-mux\r\na=rtcp-rsize\r\n".len());
    let message = source.lines().next().map(|line| format!("{line}\r\n")).unwrap_or_default();
    let ssrcs = source.split_once("\r\n").map(|(_, rest)| rest).unwrap_or_default();
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n{transport}a=mid:{mid}\r\n{CHROMIUM_AUDIO}\
         a={direction}\r\n{message}{head}{codecs}{ssrcs}"
    )
}

/// A video m-line as Chromium offers it, shortened to one codec.
pub(crate) fn chromium_video(mid: &str) -> String {
    let transport = chromium_transport();
    format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n{transport}a=mid:{mid}\r\na=extmap:14 urn:ietf:params:rtp-hdrext:toffset\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=sendrecv\r\na=msid:7Yq2 video\r\na=rtcp-mux\r\n\
         a=rtcp-rsize\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
         a=ssrc-group:FID 11 12\r\na=ssrc:11 cname:x\r\na=ssrc:12 cname:x\r\n"
    )
}

/// A data channel as Chromium offers it.
pub(crate) fn chromium_data(mid: &str) -> String {
    let transport = chromium_transport().replace("a=rtcp:9 IN IP4 0.0.0.0\r\n", "");
    format!(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=mid:{mid}\r\na=sctp-port:5000\r\n\
         a=max-message-size:262144\r\n"
    )
}

/// A description as Chromium writes it. `mids` are those in the BUNDLE group.
pub(crate) fn chromium(mids: &[&str], media: &[String]) -> String {
    format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS 7Yq2\r\n{}",
        mids.join(" "),
        media.concat()
    )
}

/// One microphone, as the demo page offers it first.
pub(crate) fn chromium_offer() -> String {
    chromium(&["0"], &[chromium_audio("0", "sendrecv")])
}

/// A microphone and a listening m-line, as Firefox ESR offers them: fingerprint in the session, `bundle-only`
/// with port 0, direction suffixes in extmaps.
pub(crate) fn firefox_offer() -> String {
    let codecs = "a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=fmtp:101 0-15\r\n\
        a=ice-pwd:6f7b2b5d0b6f4c1b8f2f6f0f0e3a9c11\r\na=ice-ufrag:1a2b3c4d\r\na=rtcp-mux\r\n\
        a=rtpmap:109 opus/48000/2\r\na=rtpmap:9 G722/8000/1\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
        a=rtpmap:101 telephone-event/8000/1\r\na=setup:actpass\r\n";
    format!(
        "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 1203416475563293337 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
         a=fingerprint:sha-256 {}\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level\r\n\
         a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n{codecs}a=mid:0\r\na=msid:{{stream}} {{track}}\r\n\
         a=ssrc:2655508255 cname:{{735484ea-4f6c-f74a-bd66-7425f8476c2e}}\r\n\
         m=audio 0 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r\nc=IN IP4 0.0.0.0\r\na=bundle-only\r\na=recvonly\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n{codecs}a=mid:1\r\n",
        fingerprint(0xF1)
    )
}

pub(crate) const SSRC_BASE: u32 = 0xFFFF_FFFE;

pub(crate) fn negotiation(now: Instant, audio_slots: u16) -> Negotiation {
    let candidates = ["192.0.2.7:3478", "[2001:db8::7]:3478"].map(|text| text.parse().unwrap());
    Negotiation::new(
        now,
        Parameters {
            secret: Secret::random(),
            worker: WorkerId(3),
            fingerprint: Fingerprint([0x5F; 32]),
            candidates: candidates.into(),
            may_publish: true,
            audio_slots,
            ssrc_base: SSRC_BASE,
            session_id: 42,
        },
    )
}

pub(crate) fn voices(tracks: &[u64]) -> Vec<Voice> {
    let voice = |track: &u64| Voice { track: TrackId(*track), stream_id: format!("user-{track}").into() };
    tracks.iter().map(voice).collect()
}

pub(crate) fn now() -> Instant {
    Now::read().instant
}

/// An answer to an offer of ours as a browser gives it: everything accepted, every direction turned round,
/// transport and credentials its own.
pub(crate) fn answer_to(offer: &str) -> String {
    let mut answer = String::new();
    for line in offer.split_inclusive("\r\n") {
        let own = match line.trim_end() {
            "a=ice-lite" | "a=end-of-candidates" => continue,
            "a=sendonly" => "a=recvonly\r\n".into(),
            "a=recvonly" => "a=sendonly\r\na=ssrc:3735928559 cname:x\r\n".into(),
            "a=sendrecv" => "a=sendrecv\r\na=ssrc:3735928559 cname:x\r\n".into(),
            "a=setup:actpass" => "a=setup:active\r\n".into(),
            text if text.starts_with("a=candidate") || text.starts_with("a=msid:") => continue,
            text if text.starts_with("a=ssrc:") => continue,
            text if text.starts_with("a=ice-ufrag") => "a=ice-ufrag:wqHh\r\n".into(),
            text if text.starts_with("a=ice-pwd") => "a=ice-pwd:V7uVDhwTqRcAhVJ0sBsfHgEN\r\n".into(),
            text if text.starts_with("a=fingerprint") => {
                format!("a=fingerprint:sha-256 {}\r\n", fingerprint(0xC4))
            }
            _ => line.to_owned(),
        };
        answer.push_str(&own);
    }
    answer
}

/// The part of a description that belongs to one m-line, with what is before and after it.
pub(crate) fn section<'a>(sdp: &'a str, mid: &str) -> (&'a str, &'a str, &'a str) {
    let tag = sdp.find(&format!("a=mid:{mid}\r\n")).unwrap_or_else(|| panic!("no {mid} in\n{sdp}"));
    let start = sdp[..tag].rfind("m=").unwrap();
    let end = sdp[tag..].find("\r\nm=").map_or(sdp.len(), |end| tag + end + 2);
    (&sdp[..start], &sdp[start..end], &sdp[end..])
}

/// The same description with one m-line changed.
pub(crate) fn edit(sdp: &str, mid: &str, change: impl Fn(&str) -> String) -> String {
    let (before, line, after) = section(sdp, mid);
    format!("{before}{}{after}", change(line))
}

/// The same description with one m-line rejected.
pub(crate) fn reject(sdp: &str, mid: &str) -> String {
    let rejected = edit(sdp, mid, |line| line.replace("m=audio 9", "m=audio 0"));
    let ungrouped = |line: &str| -> String {
        let mids = line.split_ascii_whitespace().filter(|word| *word != mid);
        mids.collect::<Vec<_>>().join(" ") + "\r\n"
    };
    let lines = rejected.split_inclusive("\r\n");
    lines.map(|line| if line.starts_with("a=group:") { ungrouped(line) } else { line.into() }).collect()
}
