//! `sfu-replay`: what it reads, what it refuses, and that a replay is the same each time.
//!
//! The captures in `tests/captures` are made here, byte for byte; `CAPTURES_WRITE=1` writes them anew. With the
//! feature `tools` the replay itself and its command line are tested too.

#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/capture.rs"]
mod capture;
#[cfg(feature = "tools")]
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/explain.rs"]
mod explain;
#[cfg(feature = "tools")]
#[allow(dead_code, reason = "tests/explain.rs asks it")]
#[path = "../tools/replay/judge.rs"]
mod judge;
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/link.rs"]
mod link;
#[cfg(feature = "tools")]
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/offline.rs"]
mod offline;
#[cfg(feature = "tools")]
mod sim;
#[cfg(feature = "tools")]
mod support;
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/streams.rs"]
mod streams;

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use capture::{Capture, CaptureError, LinkType};
#[cfg(feature = "tools")]
use explain::{Content, Explainer};
use gryt_sfu::ice::credentials::{LocalUfrag, Secret};
use gryt_sfu::ids::{Ssrc, WorkerId};
use gryt_sfu::time::Now;
use link::{Skipped, Skips};
use streams::{Filter, Inspection};
use stun::agent::TransactionId;
use stun::attributes::ATTR_USERNAME;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, Message, Setter};
use stun::textattrs::TextAttribute;

const ETHERNET: u16 = 1;
const RAW_IP: u16 = 101;
const COOKED: u16 = 113;
const COOKED_2: u16 = 276;

const MS20: u64 = 20_000;
/// Any second of the year 2024.
const BEGAN: u64 = 1_720_000_000_000_000;

fn rtp(ssrc: u32, seq: u16, payload_type: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, payload_type];
    packet.extend(seq.to_be_bytes());
    packet.extend((i32::from(seq as i16) * 960).to_be_bytes()); // Goes on across the wrap.
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xBE, 0xDE, 0, 1, 0x10, 0x1E, 0, 0]);
    packet.extend(payload);
    packet
}

fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() + 8) as u16;
    let mut datagram = Vec::new();
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    datagram.extend(len.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            let mut packet = vec![0x45, 0];
            packet.extend((len + 20).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            packet.extend(source.ip().octets());
            packet.extend(destination.ip().octets());
            packet.extend(datagram);
            packet
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend(len.to_be_bytes());
            packet.extend([17, 64]);
            packet.extend(source.ip().octets());
            packet.extend(destination.ip().octets());
            packet.extend(datagram);
            packet
        }
        _ => panic!("addresses of two families"),
    }
}

fn ethertype(packet: &[u8]) -> [u8; 2] {
    if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xDD] }
}

fn ethernet(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &ethertype(packet), packet].concat()
}

fn vlan(packet: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &[0x88, 0xA8, 0, 7, 0x81, 0, 0, 9], &ethertype(packet), packet].concat()
}

fn cooked(packet: &[u8]) -> Vec<u8> {
    [&[0; 14][..], &ethertype(packet), packet].concat()
}

fn cooked_2(packet: &[u8]) -> Vec<u8> {
    [&ethertype(packet)[..], &[0; 18], packet].concat()
}

/// A pcap file; times in microseconds.
fn pcap(link: u16, packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = 0xA1B2_C3D4_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0]);
    file.extend(u32::from(link).to_le_bytes());
    for (time, packet) in packets {
        file.extend(((time / 1_000_000) as u32).to_le_bytes());
        file.extend(((time % 1_000_000) as u32).to_le_bytes());
        file.extend((packet.len() as u32).to_le_bytes());
        file.extend((packet.len() as u32).to_le_bytes());
        file.extend(packet);
    }
    file
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padding = vec![0; body.len().next_multiple_of(4) - body.len()];
    let len = ((body.len() + padding.len() + 12) as u32).to_be_bytes();
    [&kind.to_be_bytes()[..], &len, body, &padding, &len].concat()
}

fn section() -> Vec<u8> {
    block(0x0A0D_0D0A, &[0x1A, 0x2B, 0x3C, 0x4D, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255])
}

/// Nanoseconds.
fn interface(link: u16) -> Vec<u8> {
    let [high, low] = link.to_be_bytes();
    block(1, &[high, low, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0])
}

fn enhanced(interface: u32, time: u64, packet: &[u8]) -> Vec<u8> {
    let mut body = interface.to_be_bytes().to_vec();
    body.extend((time * 1_000).to_be_bytes());
    body.extend((packet.len() as u32).to_be_bytes());
    body.extend((packet.len() as u32).to_be_bytes());
    body.extend(packet);
    block(6, &body)
}

fn addresses() -> (SocketAddr, SocketAddr, SocketAddr) {
    let parse = |text: &str| text.parse().unwrap();
    (parse("192.0.2.7:50000"), parse("192.0.2.8:50001"), parse("203.0.113.1:3478"))
}

/// Two voices of 30 packets. Of the second, two are lost, one is late and one comes twice.
fn voice() -> Vec<u8> {
    let (ann, ben, server) = addresses();
    let mut packets = Vec::new();
    for n in 0..30_u16 {
        let time = BEGAN + u64::from(n) * MS20;
        let payload = [n as u8; 16];
        packets.push((time, ethernet(&udp(ann, server, &rtp(0xA11, n, 111, &payload)))));
        let seqs: &[u16] = match n {
            5 | 6 => &[],
            10 => &[11],
            11 => &[10],
            20 => &[20, 20],
            _ => &[n],
        };
        for &seq in seqs {
            let packet = rtp(0xBE2, seq.wrapping_sub(10), 109, &payload);
            packets.push((time + 500, ethernet(&udp(ben, server, &packet))));
        }
    }
    pcap(ETHERNET, &packets)
}

/// IPv6 in VLANs and from a cooked device, in one pcapng file, big-endian; blocks between that mean nothing to us.
fn voice_ng() -> Vec<u8> {
    let source = "[2001:db8::7]:50000".parse().unwrap();
    let server = "[2001:db8::1]:3478".parse().unwrap();
    let mut file = [section(), interface(ETHERNET), interface(COOKED_2), block(4, b"names.")].concat();
    for n in 0..20_u16 {
        let packet = udp(source, server, &rtp(0xC0FFEE, 0xFFF8_u16.wrapping_add(n), 111, &[n as u8; 20]));
        let (id, frame) = if n % 2 == 0 { (0, vlan(&packet)) } else { (1, cooked_2(&packet)) };
        file.extend(enhanced(id, BEGAN + u64::from(n) * MS20, &frame));
    }
    file.extend(block(5, &[0; 12]));
    file
}

/// How a call begins, and what else passes by.
fn setup() -> Vec<u8> {
    let (ann, _, server) = addresses();
    let secret = Secret::from_bytes(&[7; 32]);
    let ufrag = LocalUfrag::new(WorkerId(3), [9; 11]);
    let mut message = Message::new();
    let setters: [Box<dyn Setter>; 5] = [
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId(*b"transaction.")), // The same each time.
        Box::new(TextAttribute::new(ATTR_USERNAME, format!("{}:peer", ufrag.as_str()))),
        Box::new(MessageIntegrity::new_short_term_integrity(secret.password(&ufrag).as_str().to_owned())),
        Box::new(FINGERPRINT),
    ];
    message.build(&setters).unwrap();
    let request = message.raw;
    let hello = [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13][..], &[1], &[0; 12]].concat();
    let mut fragment = udp(ann, server, b"fragment");
    fragment[6] = 0x20;
    let mut tcp = udp(ann, server, b"tcp");
    tcp[9] = 6;
    let packets: Vec<_> = [
        udp(ann, server, &request),
        udp(ann, server, &hello),
        udp(ann, server, &rtp(0xA11, 1, 111, b"voice")),
        udp(ann, server, &[0x80, 201, 0, 1, 0, 0, 0x0A, 0x11, 0x81, 203, 0, 1, 0, 0, 0x0A, 0x11]),
        udp(ann, server, &[100; 30]),
        udp(ann, server, &[0x8F, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        fragment,
        tcp,
    ]
    .into_iter()
    .enumerate()
    .map(|(n, packet)| (BEGAN + n as u64 * 1_000, packet))
    .collect();
    pcap(RAW_IP, &packets)
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

#[test]
fn the_captures_are_what_is_made_here() {
    for (name, bytes) in [("voice.pcap", voice()), ("voice.pcapng", voice_ng()), ("setup.pcap", setup())] {
        if std::env::var_os("CAPTURES_WRITE").is_some() {
            std::fs::write(file(name), &bytes).unwrap();
        }
        assert!(std::fs::read(file(name)).unwrap() == bytes, "{name}");
        assert!(bytes.len() < 8_192);
    }
}

type Frame = (Duration, LinkType, Vec<u8>);

/// Every frame of a capture, and how it ended.
fn read(bytes: impl Read) -> (Vec<Frame>, Result<(), CaptureError>) {
    let mut frames = Vec::new();
    let mut capture = match Capture::open(bytes) {
        Ok(capture) => capture,
        Err(error) => return (frames, Err(error)),
    };
    loop {
        match capture.next() {
            Ok(Some(captured)) => frames.push((captured.time, captured.link, captured.bytes.to_vec())),
            Ok(None) => break,
            Err(error) => return (frames, Err(error)),
        }
        assert!(capture.memory() <= 1 << 20);
    }
    (frames, Ok(()))
}

fn inspect(bytes: &[u8], filter: &Filter) -> Inspection {
    inspect_with(bytes, filter, &mut Skips::default())
}

fn inspect_with(bytes: &[u8], filter: &Filter, skips: &mut Skips) -> Inspection {
    let mut inspection = Inspection::new(48_000, Now::read().instant);
    for (time, link, frame) in read(bytes).0 {
        match link::datagram(link, &frame) {
            Ok(datagram) => {
                skips.datagrams += 1;
                inspection.take(time, (datagram.source, datagram.destination), datagram.payload, filter);
            }
            Err(reason) => skips.skip(reason),
        }
    }
    inspection
}

#[test]
fn streams_are_counted_with_what_happened_to_them() {
    let inspection = inspect(&voice(), &Filter::default());
    let streams = inspection.streams();
    assert_eq!(streams.len(), 2);
    let [(ann, first), (ben, second)] = streams[..] else { panic!() };
    assert_eq!((ann.ssrc, ben.ssrc), (Ssrc(0xA11), Ssrc(0xBE2)));
    assert_eq!((ann.source, ben.source, ann.destination), addresses());
    assert_eq!((first.reception.received_count(), first.reception.cumulative_lost()), (30, 0));
    assert_eq!((first.reordered, first.duplicates, first.payload_types), (0, 0, 1 << 111));
    // Thirty less two, and one twice; the one that came twice hides a loss (RFC 3550 §6.4.1).
    assert_eq!((second.reception.received_count(), second.reception.cumulative_lost()), (29, 1));
    assert_eq!((second.reordered, second.duplicates, second.payload_types), (1, 1, 1 << 109));

    let one = Filter { ssrcs: vec![0xBE2], ..Filter::default() };
    assert_eq!(inspect(&voice(), &one).streams().len(), 1);
    for none in [
        Filter { ports: vec![9], ..Filter::default() },
        Filter { hosts: vec!["192.0.2.9".parse().unwrap()], ..Filter::default() },
        Filter { payload_types: vec![0], ..Filter::default() },
    ] {
        assert!(inspect(&voice(), &none).streams().is_empty(), "{none:?}");
    }
    let mut table = Vec::new();
    let mut skips = Skips::default();
    inspect_with(&voice(), &Filter::default(), &mut skips).print(&skips, &mut table).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("0x00000a11     111        30        0   0.00%   0.00 ms"), "{table}");
    assert!(table.contains("59 frames: 59 RTP, 0 RTCP, 0 STUN, 0 DTLS"), "{table}");
}

#[test]
fn pcapng_in_the_other_byte_order_with_ipv6_and_vlans_reads_the_same() {
    let (frames, ended) = read(&voice_ng()[..]);
    ended.unwrap();
    assert_eq!(frames.len(), 20);
    assert_eq!(frames[1].0, Duration::from_micros(BEGAN + MS20));
    let inspection = inspect(&voice_ng(), &Filter::default());
    let [(key, stream)] = inspection.streams()[..] else { panic!() };
    assert_eq!(key.source.to_string(), "[2001:db8::7]:50000");
    let reception = &stream.reception;
    assert_eq!((reception.received_count(), reception.cumulative_lost(), stream.reordered), (20, 0, 0));
}

#[test]
fn every_link_layer_leads_to_the_same_datagram() {
    let (ann, _, server) = addresses();
    let packet = udp(ann, server, b"voice");
    let loopback = [&2_u32.to_le_bytes()[..], &packet].concat();
    for (link, frame) in [
        (ETHERNET, ethernet(&packet)),
        (ETHERNET, vlan(&packet)),
        (COOKED, cooked(&packet)),
        (COOKED_2, cooked_2(&packet)),
        (RAW_IP, packet.clone()),
        (0, loopback),
        (ETHERNET, [ethernet(&packet), vec![0; 9]].concat()),
    ] {
        let Ok(datagram) = link::datagram(LinkType(link), &frame) else { panic!("link type {link}") };
        assert_eq!((datagram.source, datagram.destination), (ann, server));
        assert_eq!(datagram.payload, b"voice", "no padding of the frame is in it");
        for len in 0..frame.len() {
            let _ = link::datagram(LinkType(link), &frame[..len]);
        }
    }
    let skipped = |link, frame: &[u8]| link::datagram(LinkType(link), frame).err().unwrap();
    assert_eq!(skipped(999, &packet), Skipped::UnknownLink);
    assert_eq!(skipped(ETHERNET, &[0; 60]), Skipped::NotIp);
    assert_eq!(skipped(RAW_IP, &packet[..30]), Skipped::CutOff);
    let mut short = packet.clone();
    short[25] = 7; // A UDP length of less than its header.
    assert_eq!(skipped(RAW_IP, &short), Skipped::Malformed);
}

#[test]
fn a_capture_that_ends_too_soon_is_read_up_to_there() {
    for (bytes, header_len) in [(voice(), 24), (voice_ng(), 28)] {
        let whole = read(&bytes[..]).0.len();
        let mut counts = Vec::new();
        for len in 0..bytes.len() {
            let (frames, ended) = read(&bytes[..len]);
            counts.push(frames.len());
            match ended {
                Ok(()) => assert!(len >= header_len),
                Err(CaptureError::Empty) => assert!(len < header_len),
                Err(CaptureError::Truncated(at)) => assert!((at as usize) < len),
                Err(error) => panic!("{len}: {error}"),
            }
        }
        assert!(counts.is_sorted() && counts.last().is_some_and(|last| *last <= whole));
    }
}

#[test]
fn lies_are_named_and_cost_no_memory() {
    let lie = |bytes: &[u8]| read(bytes).1.expect_err("a lie").to_string();
    assert_eq!(lie(b""), "the file is empty or shorter than a header");
    assert!(lie(b"GIF89a............").contains("neither pcap nor pcapng"));
    let mut long = pcap(ETHERNET, &[]);
    long.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]);
    assert_eq!(
        lie(&long),
        "the packet at byte 24 says it is 4294967295 bytes long; 262144 are the most that is taken"
    );

    let head = [section(), interface(ETHERNET)].concat();
    let with = |block: &[u8]| [&head[..], block].concat();
    let mut other_end = block(6, &[0; 20]);
    *other_end.last_mut().unwrap() = 9;
    assert!(lie(&with(&other_end)).contains("two lengths differ"));
    assert!(lie(&with(&[0, 0, 0, 6, 0, 0, 0, 7])).contains("length is a lie"));
    assert!(lie(&with(&enhanced(7, 0, b"x"))).contains("unknown interface"));
    assert!(lie(&with(&block(6, &[0; 8]))).contains("shorter than its header"));
    let mut longer = enhanced(0, 0, b"1234");
    longer[27] = 200;
    longer[23] = 200;
    assert!(lie(&with(&longer)).contains("longer than its block"), "{}", lie(&with(&longer)));
    assert!(lie(&with(&[0, 0, 0, 6, 0xFF, 0xFF, 0xFF, 0xF0])).contains("are the most that is taken"));
    let interfaces: Vec<u8> = (0..2_000).flat_map(|_| interface(ETHERNET)).collect();
    assert!(lie(&with(&interfaces)).contains("more interfaces"));
    // A block of 64 MB that means nothing to us is passed over in small steps.
    let len = (64_u32 << 20) + 12;
    let start = [&head[..], &[0, 0, 0x0B, 0xAD], &len.to_be_bytes()].concat();
    let end = [&len.to_be_bytes()[..], &enhanced(0, 5, b"after")].concat();
    let (frames, ended) = read(start.chain(std::io::repeat(0).take(64 << 20)).chain(&end[..]));
    ended.unwrap();
    assert_eq!(frames.len(), 1);
}

#[cfg(feature = "tools")]
#[test]
fn no_mutant_of_a_capture_panics() {
    let mut random = 0x5EED_u64;
    let mut next = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    let corpus = [voice(), voice_ng(), setup()];
    let mut read_count = 0;
    for _ in 0..3_000 {
        let mut bytes = corpus[next(3)].clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, next(256) as u8][next(6)];
        }
        bytes.truncate(next(bytes.len() * 2).max(30));
        let mut out = Vec::new();
        let filter = Filter::default();
        let mut explainer = Explainer::new(Content::Plaintext, &filter);
        for (time, link, frame) in read(&bytes[..]).0 {
            read_count += 1;
            if let Ok(datagram) = link::datagram(link, &frame) {
                let path = (datagram.source, datagram.destination);
                explainer.take(time, path, datagram.payload, &mut out).unwrap();
            }
        }
        let mut skips = Skips::default();
        inspect_with(&bytes, &filter, &mut skips).print(&skips, &mut out).unwrap();
    }
    assert!(read_count > 10_000);
}

#[cfg(feature = "tools")]
fn explained(bytes: &[u8], content: Content) -> Vec<String> {
    let filter = Filter::default();
    let mut explainer = Explainer::new(content, &filter);
    let mut out = Vec::new();
    for (time, link, frame) in read(bytes).0 {
        if let Ok(datagram) = link::datagram(link, &frame) {
            let path = (datagram.source, datagram.destination);
            explainer.take(time, path, datagram.payload, &mut out).unwrap();
        }
    }
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

#[cfg(feature = "tools")]
#[test]
fn each_packet_is_explained() {
    let lines = explained(&setup(), Content::Plaintext);
    let expected = [
        "worker 3 checks its MESSAGE-INTEGRITY, then answers",
        "DTLS ClientHello: handed to the handshake",
        "RTP ssrc 0x00000a11 pt 111 seq 1 time 960 header 20 B: 5 B of payload to every slot",
        "RTCP RR of 0x00000a11 with 0 blocks, BYE of 1: ends at the server",
        "dropped: unknown_protocol",
        "RTP, dropped: rtp_malformed",
    ];
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.contains(expected), "{line}");
    }
    assert!(
        lines[1].trim_start().starts_with("0.001000 192.0.2.7:50000 -> 203.0.113.1:3478"),
        "{}",
        lines[1]
    );
    assert!(explained(&setup(), Content::Sealed)[2].contains("opened with the key of this 5-tuple"));
}

#[cfg(feature = "tools")]
mod offline_replay {
    use super::*;
    use offline::{Outcome, Replay, Settings};

    fn replay(bytes: &[u8], receivers: u16, is_sealed: bool, filter: &Filter) -> Outcome {
        let mut replay = Replay::new(Settings { receivers, is_sealed, audio_level_id: 1 });
        for (time, link, frame) in read(bytes).0 {
            if let Ok(datagram) = link::datagram(link, &frame) {
                replay.take(time, (datagram.source, datagram.destination), datagram.payload, filter);
            }
        }
        replay.finish()
    }

    #[test]
    fn it_is_the_same_each_time_and_everybody_gets_everything() {
        for is_sealed in [false, true] {
            let outcome = replay(&voice(), 7, is_sealed, &Filter::default());
            assert_eq!(outcome, replay(&voice(), 7, is_sealed, &Filter::default()));
            assert_eq!((outcome.publishers, outcome.packets), (2, 59));
            // The one that came twice; a late one is late for everybody, and no loss.
            assert_eq!(outcome.drops, [("replayed", 1)], "{outcome:?}");
            assert_eq!(outcome.forwarded, 58 * 7);
            let header_len = 20 + 8; // As written for each receiver: MID and level.
            let tag_len = if is_sealed { 16 } else { 0 };
            assert_eq!(outcome.bytes_out, 58 * 7 * (header_len - 4 + 16 + tag_len));
        }
        let two = replay(&voice(), 2, false, &Filter::default());
        assert_ne!(two.digest, replay(&voice(), 3, false, &Filter::default()).digest);
        let one = Filter { ssrcs: vec![0xA11], ..Filter::default() };
        assert_eq!(replay(&voice(), 2, false, &one).forwarded, 60);
    }

    #[test]
    fn time_is_the_captures_so_a_flood_is_cut_and_a_long_call_goes_on() {
        let (ann, _, server) = addresses();
        let voice_every = |step: u64, count: u16| {
            let packet = |n: u16| ethernet(&udp(ann, server, &rtp(0xA11, n, 111, b"voice")));
            pcap(ETHERNET, &(0..count).map(|n| (BEGAN + u64::from(n) * step, packet(n))).collect::<Vec<_>>())
        };
        let flood = replay(&voice_every(100, 2_000), 1, false, &Filter::default());
        assert_eq!(flood.forwarded + flood.drops[0].1, 2_000);
        assert_eq!(flood.drops[0].0, "rate_limited");
        assert!(flood.drops[0].1 > 1_500);
        // Two minutes, four times as long as consent lasts.
        let long = replay(&voice_every(120_000, 1_000), 2, true, &Filter::default());
        assert_eq!((long.forwarded, long.drops.len()), (2_000, 0), "{long:?}");
    }

    fn command(arguments: &[&str]) -> (i32, String, String) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sfu-replay"))
            .args(arguments)
            .current_dir(file(""))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    #[test]
    fn the_command_line_says_what_it_did() {
        let (code, help, _) = command(&["--help"]);
        assert_eq!(code, 0);
        for option in
            ["--inspect", "--explain", "--receivers", "--egress", "--ssrc", "Examples:", "Exit status"]
        {
            assert!(help.contains(option), "{option}");
        }
        let (code, out, _) = command(&["voice.pcap", "--receivers", "3", "--repeat", "2"]);
        assert_eq!(code, 0);
        assert!(out.contains("118 packets of 2 streams to 3 receivers each, plaintext egress"), "{out}");
        assert!(out.contains("packets/s") && out.contains("dropped: replayed 1"), "{out}");
        assert!(command(&["--inspect", "voice.pcapng"]).1.contains("0x00c0ffee"));
        assert!(command(&["--explain", "setup.pcap"]).1.contains("ClientHello"));
        let (code, _, error) = command(&["--inspect", "nowhere.pcap"]);
        assert_eq!(code, 1);
        assert!(error.contains("cannot open nowhere.pcap"), "{error}");
        let (code, _, error) = command(&["--ssrc", "1", "setup.pcap"]);
        assert_eq!(code, 1);
        assert!(error.contains("no RTP that the filters let pass"), "{error}");
        assert_eq!(command(&["--receivers", "0", "voice.pcap"]).0, 2);
        for ignored in ["--receivers=3", "--repeat=2", "--egress=sealed"] {
            for mode in ["--explain", "--inspect", "--live=ws://127.0.0.1:1/"] {
                assert_eq!(command(&[mode, ignored, "voice.pcap"]).0, 2, "{mode} {ignored}");
            }
        }
        assert_eq!(command(&["--clock-rate", "8000", "voice.pcap"]).0, 2);
        assert_eq!(command(&["--inspect", "--audio-level-id", "5", "voice.pcap"]).0, 2);
    }

    /// Whoever reads a capture that was taken in the wrong way is not to believe that nobody said anything.
    #[test]
    fn what_no_datagram_was_found_in_is_told_whatever_is_done_with_the_rest() {
        let file = std::env::temp_dir().join(format!("skipped-{}.pcap", std::process::id()));
        let path = file.to_str().unwrap();
        let frames = read(&voice()[..]).0;
        let mut packets: Vec<(u64, Vec<u8>)> =
            frames.into_iter().map(|(time, _, frame)| (time.as_micros() as u64, frame)).collect();
        for (_, frame) in &mut packets[..7] {
            frame[12..14].copy_from_slice(&[0x88, 0xCC]); // LLDP
        }
        std::fs::write(&file, pcap(ETHERNET, &packets)).unwrap();
        for arguments in [&["--explain", path][..], &[path], &["--repeat", "2", path]] {
            let (code, out, error) = command(arguments);
            assert_eq!((code, error.as_str()), (0, "7 frames not IP\n"), "{out}");
        }
        assert!(command(&["--inspect", path]).1.contains("\n7 frames not IP\n"));
        const USER0: u16 = 147;
        std::fs::write(&file, pcap(USER0, &packets)).unwrap();
        for arguments in [&["--explain", path][..], &[path]] {
            let (code, out, error) = command(arguments);
            assert!(code == 1 && !out.contains("frames") && !out.contains("ns a packet"), "{out}");
            assert!(error.starts_with("59 frames of an unknown link layer\n"), "{error}");
            assert!(error.ends_with("sfu-replay: the capture holds no UDP datagram\n"), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn two_runs_say_the_same_but_for_the_time() {
        let said = |arguments: &[&str]| {
            let (code, out, error) = command(arguments);
            assert_eq!(code, 0, "{error}");
            let timeless = |line: &str| !line.contains(" packets/s, ") && !line.contains("debug build");
            let lines = out.lines().filter(|line| timeless(line));
            lines.map(|line| line.split(" egress, in ").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for egress in ["plaintext", "sealed"] {
            let arguments = ["voice.pcap", "--receivers", "10", "--egress", egress];
            let (first, second) = (said(&arguments), said(&arguments));
            assert_eq!(first, second);
            assert_eq!(first.len(), 3, "{first:?}");
            assert_eq!(first[0], format!("59 packets of 2 streams to 10 receivers each, {egress}"));
            assert!(first[1].starts_with("580 forwarded, ") && first[1].contains("digest "), "{first:?}");
        }
        // A digest that is always the same would not tell anything.
        let all = said(&["voice.pcap", "--receivers", "10"]);
        assert_ne!(all, said(&["voice.pcap", "--receivers", "10", "--ssrc", "0xa11"]));
    }

    #[test]
    fn a_live_room_hears_the_capture() {
        let server = support::Server::spawn(&[]);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(support::Client::join(
            &server,
            "hall",
            "listener",
            support::Options::listener(),
        ));
        let url = format!("ws://{}/", server.http);
        let (code, out, error) =
            command(&["--live", &url, "--room", "hall", "--speed", "4", "--ssrc", "0xa11", "voice.pcap"]);
        assert_eq!(code, 0, "{error}");
        assert!(out.starts_with("30 packets of 1 streams sent to room \"hall\""), "{out}");
        // What is played is no frame of the tests' own making, which is how it shows here.
        runtime.block_on(listener.until("thirty packets", |state| (state.broken >= 30).then_some(())));
        assert_eq!(listener.state().broken, 30);
        drop(listener);

        let (code, _, error) = command(&["--live", "ws://127.0.0.1:1/", "voice.pcap"]);
        assert_eq!(code, 1);
        assert!(error.contains("no server at 127.0.0.1:1"), "{error}");
        assert!(command(&["--live", "wss://localhost/", "voice.pcap"]).2.contains("no ws:// URL"));
    }

    #[test]
    fn a_capture_cut_short_is_reported_up_to_there() {
        let cut = std::env::temp_dir().join(format!("cut-{}.pcap", std::process::id()));
        std::fs::write(&cut, &voice()[..1_000]).unwrap();
        let (code, out, error) = command(&["--inspect", cut.to_str().unwrap()]);
        std::fs::remove_file(&cut).unwrap();
        assert_eq!(code, 1);
        assert!(out.contains("0x00000a11"), "{out}");
        assert!(error.contains("ends in the middle of a packet at byte"), "{error}");
    }
}
