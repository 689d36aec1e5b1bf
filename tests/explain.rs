//! `sfu-replay --explain --keys`: a real call, recorded as `tcpdump` would on the server's port, is opened with the keys
//! that the server wrote, and what is said of each packet is what the server did.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::folder::Folder;
use support::{Client, Options, PATIENCE, Server, now};

const TOKEN: &str = "a-token-of-more-than-16-bytes";
/// That the recorded clients have; nobody asks where they really were.
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 3478);

/// A datagram of a call.
#[derive(Clone)]
struct Datagram {
    time: Duration,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Datagram {
    fn is_rtp_of(&self, client: SocketAddr) -> bool {
        let is_rtp = matches!(self.bytes[..], [128..=191, second, ..] if !(192..=223).contains(&second));
        is_rtp && self.from == client
    }
}

#[derive(Clone, Default)]
struct Recording(Arc<Mutex<Vec<Datagram>>>);

impl Recording {
    /// Records what this client sends and gets.
    fn of(&self, client: SocketAddr, options: Options) -> Options {
        let (recording, other) = (self.clone(), self.clone());
        Options {
            incoming: Box::new(move |bytes| {
                recording.push(SERVER, client, bytes);
                true
            }),
            outgoing: Box::new(move |bytes| other.push(client, SERVER, bytes)),
            ..options
        }
    }

    fn push(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let time = Duration::from_nanos(support::frame::nanos());
        self.0.lock().expect("no panic holds it").push(Datagram { time, from, to, bytes: bytes.to_vec() });
    }

    fn take(&self) -> Vec<Datagram> {
        let mut datagrams = self.0.lock().expect("no panic holds it").clone();
        datagrams.sort_by_key(|datagram| datagram.time);
        datagrams
    }
}

fn client(number: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 50_000 + number))
}

/// Up to three voice packets of one length to the same client as one datagram, where the last one was.
fn in_trains(call: &[Datagram]) -> Vec<Datagram> {
    let mut recorded: Vec<Datagram> = Vec::new();
    let mut waiting: Vec<(Datagram, usize)> = Vec::new();
    for datagram in call {
        let Datagram { from, to, ref bytes, .. } = *datagram;
        let is_voice =
            from == SERVER && (128..192).contains(&bytes[0]) && !(64..96).contains(&(bytes[1] & 0x7F));
        let before = waiting.iter().position(|(train, _)| train.to == to);
        let leave = |waiting: &mut Vec<(Datagram, usize)>| before.map(|at| waiting.swap_remove(at));
        if !is_voice {
            recorded.push(datagram.clone());
            continue;
        }
        let (mut train, len) =
            leave(&mut waiting).unwrap_or((Datagram { bytes: Vec::new(), ..datagram.clone() }, bytes.len()));
        if len == bytes.len() {
            train.bytes.extend(bytes);
            train.time = datagram.time;
            if train.bytes.len() < 3 * len {
                waiting.push((train, len));
            } else {
                recorded.push(train);
            }
        } else {
            recorded.extend([train, datagram.clone()]);
        }
    }
    recorded.extend(waiting.into_iter().map(|(train, _)| train));
    assert!(recorded.len() + 50 < call.len(), "{} of {}", recorded.len(), call.len());
    recorded
}

/// LINKTYPE_RAW, nanoseconds.
fn pcap(datagrams: &[Datagram]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xA1B2_3C4D_u32, 0x0002_0004, 0, 0, 65_535, 101] {
        file.extend(word.to_be_bytes());
    }
    for Datagram { time, from, to, bytes } in datagrams {
        let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("of our own making") };
        let len = 28 + bytes.len() as u32;
        for word in [time.as_secs() as u32, time.subsec_nanos(), len, len] {
            file.extend(word.to_be_bytes());
        }
        file.extend([0x45, 0]);
        file.extend((len as u16).to_be_bytes());
        file.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        file.extend(from.ip().octets());
        file.extend(to.ip().octets());
        file.extend(from.port().to_be_bytes());
        file.extend(to.port().to_be_bytes());
        file.extend((len as u16 - 20).to_be_bytes());
        file.extend([0, 0]);
        file.extend(bytes);
    }
    file
}

/// Status, lines and complaints of `sfu-replay --explain`.
fn explain(arguments: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sfu-replay"))
        .arg("--explain")
        .args(arguments)
        .output()
        .expect("sfu-replay starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let lines = text(&output.stdout).lines().map(str::to_owned).collect();
    (output.status.code(), lines, text(&output.stderr))
}

fn explained(arguments: &[&str]) -> Vec<String> {
    let (status, lines, error) = explain(arguments);
    assert_eq!(status, Some(0), "{error}");
    lines
}

/// Lines on RTP that ann sent.
fn of_ann(lines: &[String]) -> Vec<&str> {
    let way = format!("{} -> {SERVER}", client(1));
    lines
        .iter()
        .map(String::as_str)
        .filter(|line| line.contains(&way) && line.contains(" RTP ssrc"))
        .collect()
}

fn count(lines: &[&str], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

/// Waits until the keys of this many handshakes are written; returns ann's transport.
async fn keys_of(folder: &Folder, count: usize) -> String {
    let deadline = now() + PATIENCE;
    loop {
        let files = std::fs::read_dir(folder.dir()).expect("a folder");
        let text: String =
            files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("text")).collect();
        let lines: Vec<_> = text.split_inclusive('\n').filter(|line| line.starts_with("SRTP ")).collect();
        if lines.len() == count && text.ends_with('\n') {
            return lines[0].split(' ').nth(2).expect("a transport").to_owned();
        }
        assert!(now() < deadline, "{} of {count} lines", lines.len());
        tokio::time::sleep(Duration::from_millis(50)).await; // Nobody tells when a file grows.
    }
}

#[tokio::test]
async fn a_recorded_call_is_opened_with_the_servers_keys() {
    let (keys, files) = (Folder::new(), Folder::new());
    let server = Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("KEYLOG_DIR", keys.dir())]);
    let recording = Recording::default();
    // The sequence number rolls over in the call.
    let speaker = Options { first_seq: 65_500, ..Options::default() };
    let ann = Client::join(&server, "hall", "ann", recording.of(client(1), speaker)).await;
    ann.until("a connection", |state| state.connected.then_some(())).await;
    let transport = keys_of(&keys, 1).await;
    let ben = Client::join(&server, "hall", "ben", recording.of(client(2), Options::listener())).await;
    let eve = Client::join(&server, "hall", "eve", recording.of(client(3), Options::listener())).await;
    ann.speak(20);
    tokio::join!(ben.hears(&ann, 80), eve.hears(&ann, 80));
    keys_of(&keys, 3).await;
    let call = recording.take();
    drop((ann, ben, eve));

    // As it was.
    let capture = files.write("call.pcap", &pcap(&call));
    let lines = explained(&["--keys", keys.dir(), &capture]);
    let said = of_ann(&lines);
    let from_ann = format!("from transport {transport} (SRTP_AEAD_AES_128_GCM), index ");
    assert!(said.len() >= 80, "{}", said.len());
    assert_eq!(count(&said, &from_ann), said.len(), "{said:#?}");
    assert_eq!(count(&said, "dropped"), 0, "{said:#?}");
    assert!(said.iter().rev().take(40).all(|line| line.ends_with(": to 2 receivers")), "{said:#?}");
    assert!(said.last().is_some_and(|line| line.contains("index 655")), "{said:#?}");
    let sent: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.contains("to transport")).collect();
    let origin = format!(", as transport {transport} with 0x");
    assert!(count(&sent, &origin) >= 140, "{sent:#?}");
    assert!(count(&sent, "SR of") >= 1 && count(&sent, "does not open") == 0, "{sent:#?}");
    assert!(lines.iter().any(|line| line.contains("STUN request for")));
    assert!(lines.iter().any(|line| line.contains("DTLS ClientHello")));
    assert!(!lines.iter().any(|line| line.contains("no key opens")), "{lines:#?}");

    // Recorded before the device cut up what left as one send.
    let capture = files.write("trains.pcap", &pcap(&in_trains(&call)));
    let cut = explained(&["--keys", keys.dir(), &capture]);
    let of_voices = |lines: &[String]| -> Vec<String> {
        let voices = lines.iter().filter(|line| line.contains(" RTP ssrc") && line.contains("to transport"));
        let mut voices: Vec<String> =
            voices.map(|line| line.split_once("->").expect("a way").1.to_owned()).collect();
        voices.sort_unstable();
        voices
    };
    assert_eq!(of_voices(&cut), of_voices(&lines));

    // One comes twice, one is damaged on its way; the others are what they were.
    let mut harmed = call.clone();
    let voice: Vec<_> = (0..call.len()).filter(|at| call[*at].is_rtp_of(client(1))).collect();
    *harmed[voice[50]].bytes.last_mut().expect("not empty") ^= 1;
    harmed.insert(voice[60], call[voice[60]].clone());
    let harmed = files.write("harmed.pcap", &pcap(&harmed));
    let lines = explained(&["--keys", keys.dir(), &harmed]);
    let said = of_ann(&lines);
    assert_eq!((count(&said, ": dropped: bad_auth_tag"), count(&said, ": dropped: replayed")), (1, 1));
    assert!(said[50].ends_with(": dropped: bad_auth_tag") && said[61].ends_with(": dropped: replayed"));
    assert_eq!(count(&said, " receivers"), said.len() - 2, "{said:#?}");

    // A recording that began in the middle, after the roll-over, and somebody who was muted.
    let late = files.write("late.pcap", &pcap(&call[voice[45]..]));
    let lines = explained(&["--keys", keys.dir(), &late]);
    let said = of_ann(&lines);
    assert!(said[0].contains("index 655") && count(&said, &from_ann) == said.len(), "{said:#?}");
    let lines = explained(&["--keys", keys.dir(), "--muted", &transport, &late]);
    let said = of_ann(&lines);
    assert_eq!(count(&said, ": dropped: muted"), said.len(), "{said:#?}");

    // Keys of another house.
    let strangers =
        format!("SRTP 1 1 SRTP_AEAD_AES_128_GCM {0} {1} {0} {1}\n", "5a".repeat(16), "a5".repeat(12));
    let strangers = files.write("strangers.keys", strangers.as_bytes());
    let lines = explained(&["--keys", &strangers, &capture]);
    let said = of_ann(&lines);
    assert_eq!(count(&said, ": no key opens this stream"), said.len(), "{said:#?}");
}

#[test]
fn what_holds_no_keys_is_named() {
    let folder = Folder::new();
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/setup.pcap");
    let refused = |keys: &str| {
        let (status, lines, error) = explain(&["--keys", keys, capture]);
        assert_eq!((status, lines.len()), (Some(1), 0), "{error}");
        error
    };
    assert!(refused(folder.dir()).contains("there are no keys in"));
    assert!(refused("/nowhere/at/all").contains("cannot read /nowhere/at/all"));
    let key = "5a".repeat(16);
    let salt = "a5".repeat(12);
    let good = format!("# a comment\nSRTP 1 1 SRTP_AEAD_AES_128_GCM {key} {salt} {key} {salt}\n");
    let bad = folder.write(
        "bad.keys",
        format!("{good}SRTP 1 1 SRTP_AEAD_AES_256_GCM {key} {salt} {key} {salt}\n").as_bytes(),
    );
    let error = refused(&bad);
    assert!(error.contains("bad.keys: line 3: a key or salt is not of the profile's length"), "{error}");
    assert!(!error.contains(&key), "a key in a message");
    let long = folder.write("long.keys", &[b'x'; 1 << 20]);
    assert!(refused(&long).contains("line 1 is too long"));
    // What the server is writing just now has no end yet, and is none.
    let unfinished = folder.write("unfinished.keys", format!("{good}SRTP 2 2 SRTP_A").as_bytes());
    assert!(!explained(&["--keys", &unfinished, capture]).is_empty());
    let one = folder.write("one.keys", good.trim_end().as_bytes());
    assert!(refused(&one).contains("there are no keys in"), "a line without an end");
    let many = folder.write("many.keys", format!("{}\n", &good[12..].trim()).repeat(16_385).as_bytes());
    assert!(refused(&many).contains("line 16385 is one handshake more than the 16384"));
    // Decrypted and encrypted at a time is neither.
    assert_eq!(explain(&["--keys", &unfinished, "--decrypted", capture]).0, Some(2));
}
