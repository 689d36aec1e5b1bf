//! Every parser that meets bytes of others: each file of `tools/fuzz/corpus` is read as it is, then mutated for a
//! second or so. Nothing may panic; what it means is tested elsewhere.
//!
//! The run is the same each time up to where the time ends. A failure prints what to set to have it again:
//! `FUZZ_SEED`, and `FUZZ_SECONDS` for more time. `FUZZ_WRITE_CORPUS=1` writes the corpus anew.

mod sim;

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use gryt_sfu::demux::Protocol;
use gryt_sfu::dtls::endpoint::{Acceptor, Endpoint, Error, Output};
use gryt_sfu::dtls::identity::Identity;
use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ice::credentials::Secret;
use gryt_sfu::ice::integrity::IntegrityKey;
use gryt_sfu::ice::stun::Message;
use gryt_sfu::ids::{Fingerprint, TrackId, WorkerId};
use gryt_sfu::rtcp::packet::{Compound, Packet};
use gryt_sfu::rtp::extension::ExtensionIds;
use gryt_sfu::rtp::header::Header;
use gryt_sfu::sdp::remote::Description;
use gryt_sfu::signalling::message::{ClientMessage, ServerMessage};
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::time::Now;
use sim::{Caller, Sim, binding_request};

/// Mutation of each target; ten seconds in all.
const SECONDS: f64 = 1.2;

/// Numbers that are the same at every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Says at a panic how to come there again.
struct Witness<'a> {
    target: &'a str,
    seed: u64,
    run: u64,
    input: Vec<u8>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut hex = String::new();
            self.input.iter().for_each(|byte| {
                let _ = write!(hex, "{byte:02x}");
            });
            eprintln!("{}: FUZZ_SEED={} run {} input {hex}", self.target, self.seed, self.run);
        }
    }
}

fn corpus_folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tools/fuzz/corpus").join(target)
}

fn corpus(target: &str, seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let folder = corpus_folder(target);
    if std::env::var_os("FUZZ_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (n, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("{n:02}.bin")), seed).unwrap();
        }
    }
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{} has too few files", folder.display());
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// One to four changes, of the sort that parsers trip over.
fn mutate(random: &mut Random, corpus: &[Vec<u8>], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&corpus[random.below(corpus.len())]);
    for _ in 0..=random.below(4) {
        let at = random.below(out.len());
        match random.below(9) {
            0 if !out.is_empty() => out[at] ^= 1 << random.below(8),
            1 if !out.is_empty() => out[at] = random.next() as u8,
            2 if !out.is_empty() => out[at] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.below(6)],
            3 => out.truncate(at),
            4 => out.insert(at, random.next() as u8),
            5 if out.len() > at + 1 => {
                let number = [0, 1, 0x7FFF, 0x8000, 0xFFFF, random.next() as u16][random.below(6)];
                out[at..at + 2].copy_from_slice(&number.to_be_bytes());
            }
            6 => {
                let len = random.below(40).min(out.len() - at);
                let piece = out[at..at + len].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, piece);
            }
            7 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = at + random.below(20).min(out.len() - at);
                out.drain(at..end);
            }
        }
    }
    out.truncate(2_000);
}

/// Reads the corpus, then mutants of it until the time is over.
fn fuzz(target: &str, seeds: &[Vec<u8>], mut take: impl FnMut(&[u8])) {
    let corpus = corpus(target, seeds);
    let seed = setting("FUZZ_SEED").unwrap_or(0x5155_4945_5452_4F4F) | 1;
    let time = setting("FUZZ_SECONDS").map_or(Duration::from_secs_f64(SECONDS), Duration::from_secs);
    let mut witness = Witness { target, seed, run: 0, input: Vec::new() };
    for file in &corpus {
        witness.input.clone_from(file);
        take(file);
    }
    let (mut random, end) = (Random(seed), Now::read().instant + time);
    // At least this many, however busy the machine is.
    while witness.run < 1_000 || Now::read().instant < end {
        for _ in 0..100 {
            witness.run += 1;
            mutate(&mut random, &corpus, &mut witness.input);
            take(&witness.input);
        }
    }
}

#[test]
fn stun() {
    let secret = Secret::from_bytes(&[7; 32]);
    let local = secret.credentials(WorkerId(0));
    let key = IntegrityKey::new(local.password.as_str());
    let request = binding_request(&local, true);
    let seeds = [
        request.clone(),
        binding_request(&local, false),
        [&[1, 1], &request[2..]].concat(),
        [&request[..20], &[0x80, 0x22, 0xFF, 0xFF]].concat(),
    ];
    fuzz("stun", &seeds, |bytes| match Message::parse(bytes) {
        Ok(Message::Request(request)) => {
            let _ = (request.local_ufrag(), request.role(), request.has_use_candidate());
            let _ = (request.verify(&local.password), request.verify_with(&key), request.username());
        }
        Ok(Message::Response(response)) => {
            let _ = response.verify_with(&key);
        }
        Err(_) => {}
    });
}

fn rtp_seeds() -> Vec<Vec<u8>> {
    let fixed = [0x80, 111, 0, 1, 0, 0, 0, 9, 0x10, 0, 0, 1];
    let with = |first: u8, rest: &[u8]| [&[first], &fixed[1..], rest].concat();
    vec![
        with(0x80, b"a voice"),
        with(0x90, &[0xBE, 0xDE, 0, 2, 0x10, 0x85, 0x42, b's', b'1', b'2', 0, 0, 1, 2, 3]),
        with(0x90, &[0x10, 0, 0, 2, 1, 1, 0x85, 4, 2, b's', b'1', 0, 9, 9]),
        with(0xA2, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 0, 0, 3]),
        with(
            0x90,
            &[0xBE, 0xDE, 0, 5, 0x10, 9, 0x3F, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 7],
        ),
    ]
}

#[test]
fn rtp() {
    let one_byte = ExtensionIds { audio_level: Some(1), mid: Some(4), abs_capture_time: Some(3) };
    let two_byte = ExtensionIds { audio_level: Some(15), mid: Some(200), abs_capture_time: Some(255) };
    fuzz("rtp", &rtp_seeds(), |bytes| {
        let _ = Protocol::of(bytes);
        let Ok(header) = Header::parse(bytes) else { return };
        assert!(header.len <= bytes.len());
        if let Ok(payload) = header.payload(bytes) {
            assert!(payload.len() <= bytes.len() - header.len);
        }
        for ids in [&one_byte, &two_byte] {
            let _ = header.extensions(bytes, ids);
        }
    });
}

fn rtcp_seeds() -> Vec<Vec<u8>> {
    let ssrc = [0x10, 0, 0, 1];
    let report = [&[0x81, 200, 0, 12][..], &ssrc, &[9; 20], &ssrc, &[0; 20]].concat();
    let sdes = [&[0x81, 202, 0, 3][..], &ssrc, &[1, 4, b'n', b'a', b'm', b'e', 0, 0]].concat();
    vec![
        [&report[..], &sdes].concat(),
        [&[0x80, 201, 0, 1][..], &ssrc, &[0x81, 203, 0, 1], &ssrc].concat(),
        [&[0x81, 205, 0, 4][..], &ssrc, &ssrc, &[0, 9, 0xFF, 0xFF, 1, 9, 0, 1]].concat(),
        [&[0x84, 206, 0, 4][..], &ssrc, &ssrc, &ssrc, &[7, 0, 0, 0]].concat(),
        [&[0x8F, 206, 0, 5][..], &ssrc, &[0; 4], b"REMB", &[1, 0x12, 0x34, 0x56], &ssrc].concat(),
        [&[0x8F, 205, 0, 5][..], &ssrc, &ssrc, &[0, 1, 0, 2, 0, 0, 0, 1, 0x20, 2, 4, 4]].concat(),
        [&[0x81, 206, 0, 2][..], &ssrc, &ssrc].concat(),
    ]
}

#[test]
fn rtcp() {
    fuzz("rtcp", &rtcp_seeds(), |bytes| {
        let Ok(compound) = Compound::parse(bytes) else { return };
        for packet in compound.packets() {
            match packet {
                Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                    assert!(reports.iter().count() <= 31);
                }
                Packet::Sdes(sdes) => assert!(sdes.chunks().count() <= 31),
                Packet::Bye { ssrcs } | Packet::Remb { ssrcs, .. } => assert!(ssrcs.iter().count() <= 255),
                Packet::Nack { lost, .. } => assert!(lost.seqs().count() <= bytes.len() * 17),
                Packet::Fir { requests, .. } => assert!(requests.iter().count() <= bytes.len()),
                Packet::Pli { .. } | Packet::Other { .. } => {}
            }
        }
    });
}

const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n\
a=ice-ufrag:abcd\r\na=ice-pwd:aPasswordOf22Characters\r\na=ice-options:trickle\r\n\
a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
a=setup:actpass\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n\
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n\
a=ssrc:268435457 cname:x\r\na=msid:- t\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=inactive\r\n";

#[test]
fn sdp() {
    let seeds = [
        OFFER.as_bytes().to_vec(),
        OFFER.replace("actpass", "active").replace("\r\n", "\n").into_bytes(),
        OFFER.replace("sendrecv", "recvonly").replace("111", "127").into_bytes(),
        b"v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_vec(),
    ];
    assert!(Description::parse(OFFER).is_ok(), "the seed is an offer");
    fuzz("sdp", &seeds, |bytes| {
        if let Ok(description) = Description::parse(&String::from_utf8_lossy(bytes)) {
            let _ = format!("{description:?}");
        }
    });
}

#[test]
fn signalling() {
    let offer = serde_json::json!({ "event": "offer", "data": { "type": "offer", "sdp": OFFER } });
    let seeds = [
        br#"{"event":"join","data":{"roomId":"hall","userId":"ann","userInfo":{"name":"Ann","muted":false}}}"#.to_vec(),
        offer.to_string().into_bytes(),
        br#"{"event":"ice-candidate","data":{"candidate":"candidate:1 1 UDP 1 10.0.0.1 9 typ host","sdpMid":"0"}}"#.to_vec(),
        br#"{"event":"user-info","data":{"isMuted":true,"isDeafened":false}}"#.to_vec(),
        br#"{"event":"leave"}"#.to_vec(),
        br#"{"event":"joined","data":{"roomId":"r","userId":"u","participants":[]}}"#.to_vec(),
    ];
    fuzz("signalling", &seeds, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = ClientMessage::parse(&text);
        if let Ok(message) = ServerMessage::parse(&text) {
            let _ = message.write();
        }
    });
}

/// A ClientHello as DTLS 1.2 has it (RFC 6347 §4.2), in one record.
fn client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 6, 0, 4, 0, 29, 0, 23, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4, 0, 23, 0, 0, 0, 14, 0, 7, 0, 4, 0, 7,
        0, 1, 0, 0, 11, 0, 2, 1, 0,
    ];
    let mut body = vec![254, 253];
    body.extend([9; 32]);
    body.extend([0, 0, 0, 4, 0xC0, 0x2B, 0xC0, 0x2F, 1, 0]);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let len = (body.len() as u32).to_be_bytes();
    let message = [&[1], &len[1..], &[0, 0, 0, 0, 0], &len[1..], &body].concat();
    let record_len = (message.len() as u16).to_be_bytes();
    [&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0][..], &record_len, &message].concat()
}

#[test]
fn dtls() {
    let hello = client_hello();
    let mut fragment = hello.clone();
    fragment[22..25].copy_from_slice(&[0, 0, 8]); // Says 8 bytes, brings more.
    let alert = [&[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2][..], &[2, 40]].concat();
    let seeds = [hello.clone(), fragment, [&hello[..], &alert].concat(), alert];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    let acceptor = tasks.block_on(&runtime, async { Acceptor::new(Identity::generate().unwrap()) });
    let (answered, faults) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(0_u64)));
    let endpoint = |tasks: &tokio::task::LocalSet| {
        let (answered, faults) = (Rc::clone(&answered), Rc::clone(&faults));
        let output = move |output| match output {
            Output::Failed(Error::Panicked) => faults.set(faults.get() + 1),
            _ => answered.set(answered.get() + 1),
        };
        tasks.block_on(&runtime, async { Endpoint::new(&acceptor, Fingerprint([0; 32]), output) })
    };
    let mut current = endpoint(&tasks);
    let mut count = 0_u32;
    fuzz("dtls", &seeds, |bytes| {
        current.handle_datagram(Bytes::copy_from_slice(bytes));
        count += 1;
        // An endpoint that has had enough makes room for another.
        if count.is_multiple_of(8) {
            tasks.block_on(&runtime, async {
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(faults.get(), 0, "a panic over one of the last eight");
        }
        if count.is_multiple_of(64) {
            current = endpoint(&tasks);
        }
    });
    assert!(answered.get() > 0, "some hello was answered");
}

/// Two callers who hear each other; each input comes from the first.
fn call() -> (Sim, Caller, Caller) {
    let mut sim = Sim::new(4);
    let (ann, ben) = (sim.join(1, SrtpProfile::AeadAes128Gcm), sim.join(2, SrtpProfile::AesCm128HmacSha1_80));
    sim.publish(&ann);
    sim.publish(&ben);
    sim.add_slot(&ann, 2, Some(TrackId(2)));
    sim.add_slot(&ben, 1, Some(TrackId(1)));
    (sim, ann, ben)
}

#[test]
fn worker() {
    let mut seeds = rtp_seeds();
    seeds.extend(rtcp_seeds());
    seeds.push(client_hello());
    let (mut sim, mut ann, mut ben) = call();
    seeds.push(binding_request(&ann.local, true));
    let mut index = PacketIndex(1_000);
    let mut count = 0_u32;
    fuzz("worker", &seeds, |bytes| {
        // As it is, from an authenticated pair; longer is dropped before it comes here.
        let bytes = &bytes[..bytes.len().min(1_400)];
        sim.deliver(ann.path, &mut bytes.to_vec());
        // Sealed: as RTP where there is a header, as RTCP where there are eight bytes.
        index = PacketIndex(index.0 + 1);
        if let Ok(header) = Header::parse(bytes) {
            let (header, payload) = bytes.split_at(header.len);
            let sealed = ann.protect_packet(index, header, payload);
            sim.deliver(ann.path, &mut sealed.clone());
        }
        if bytes.len() >= 8 {
            let sealed = ann.protect_rtcp(bytes);
            sim.deliver(ann.path, &mut sealed.clone());
        }
        sim.flush();
        // Whatever was forwarded opens.
        sim.heard(&mut ben);
        sim.sent.clear();
        sim.pass(Duration::from_millis(10));
        sim.events();
        count += 1;
        if count.is_multiple_of(100) {
            sim.consent(&ann);
            sim.consent(&ben);
        }
        if count.is_multiple_of(1_000) {
            (sim, ann, ben) = call();
            index = PacketIndex(1_000);
        }
    });
    assert!(sim.worker.counters.datagrams_in > 0);
    sim.speak(&mut ben, 20, b"still there");
    sim.flush();
    assert_eq!(sim.heard(&mut ann).len(), 1, "the call went on");
}
