//! Captures of a peer's packets by the running server: who may have one, and that `tshark` and `sfu-replay` read
//! what was said.
//!
//! Needs Debian's `tshark`.

#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/capture.rs"]
mod capture;
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/link.rs"]
mod link;
#[allow(dead_code, reason = "the command line uses the rest")]
#[path = "../tools/replay/streams.rs"]
mod streams;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gryt_sfu::time::Now;
use serde_json::Value;
use streams::{Filter, Inspection};
use support::folder::Folder;
use support::{Client, Options, PATIENCE, Server, now};

const TOKEN: &str = "a-token-of-more-than-16-bytes";

fn request(server: &Server, line: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.http).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{headers}connection: close\r\n\r\n"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

fn shown(server: &Server, line: &str) -> (u16, Value) {
    let (status, body) = request(server, line, &format!("authorization: Bearer {TOKEN}\r\n"));
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// What `tshark` finds, a line a packet, with its fields between tabs.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-Y", filter, "-T", "fields"]);
    command.args(["--enable-heuristic", "rtp_udp", "--enable-heuristic", "rtcp_udp"]);
    command.args(["-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark (Debian's `tshark`) starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn a_capture_is_read_by_tshark_and_by_sfu_replay() {
    let folder = Folder::new();
    let mut server = Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("CAPTURE_DIR", folder.dir())]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(30);
    tokio::join!(ben.hears(&ann, 20), ann.hears(&ben, 20));
    let track = shown(&server, "GET /debug/tracks").1["tracks"][0].clone();
    assert_eq!(track["user"], "ann");
    let id = track["publisher"].clone();

    let (status, begun) = shown(&server, &format!("POST /debug/peers/{id}/capture?seconds=8"));
    assert_eq!(status, 201, "{begun}");
    let file = Path::new(folder.dir()).join(begun["file"].as_str().expect("a name"));
    // Waiting for the log holds up the clients: they have said what they have to say before.
    tokio::join!(ben.hears(&ann, 430), ann.hears(&ben, 430));
    let warned = |log: &str| {
        log.lines()
            .any(|line| line.contains("WARN") && line.contains("user=ann") && line.contains("room=hall"))
    };
    server.wait_for_log("a warning", |log| warned(log).then_some(()));
    server.wait_for_log("the end", |log| log.contains("capture written").then_some(()));
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let media = shown(&server, "GET /debug/workers").1["workers"][0]["udpPort"].to_string();
    let rtp =
        tshark(&file, "rtp", &["rtp.ssrc", "rtp.p_type", "udp.dstport", "rtp.seq", "udp.checksum.status"]);
    let ssrc = format!("0x{:08x}", track["ssrc"].as_u64().expect("a number"));
    let said: Vec<_> = rtp.iter().filter(|packet| packet[0] == ssrc).collect();
    assert!(said.len() >= 300, "{} of some 400 packets in 8 s: {rtp:?}", said.len());
    assert!(said.iter().all(|packet| packet[1] == "111" && packet[2] == media), "{said:?}");
    assert!(rtp.iter().all(|packet| packet[4] == "1"), "a wrong checksum");
    let seqs: Vec<u16> = said.iter().filter_map(|packet| packet[3].parse().ok()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{seqs:?}");
    let heard = rtp.iter().filter(|packet| packet[0] != ssrc).count();
    assert!(heard >= 300 && rtp.iter().any(|packet| packet[2] != media), "what it is sent: {heard}");
    let rtcp = tshark(&file, "rtcp", &["rtcp.pt", "udp.dstport"]);
    assert!(rtcp.iter().any(|it| it[1] == media) && rtcp.iter().any(|it| it[1] != media), "{rtcp:?}");

    // As `sfu-replay --inspect` does it.
    let bytes = std::fs::read(&file).expect("a file");
    let mut capture = capture::Capture::open(bytes.as_slice()).expect("a capture");
    let mut inspection = Inspection::new(48_000, Now::read().instant);
    while let Some(packet) = capture.next().expect("whole") {
        let datagram = link::datagram(packet.link, packet.bytes).expect("a datagram");
        let path = (datagram.source, datagram.destination);
        inspection.take(packet.time, path, datagram.payload, &Filter::default());
    }
    let streams = inspection.streams();
    let ann_ssrc = track["ssrc"].as_u64();
    let (_, stream) =
        streams.iter().find(|(key, _)| Some(u64::from(key.ssrc.0)) == ann_ssrc).expect("the same stream");
    assert_eq!(stream.reception.received_count() as usize, said.len());
    assert_eq!(stream.reception.cumulative_lost(), 0);
}

#[tokio::test]
async fn who_may_not_capture_is_told_why() {
    let open = Server::spawn(&[]);
    let (status, body) = request(&open, "POST /debug/peers/1/capture", "");
    assert_eq!((status, body.contains("DEBUG_TOKEN")), (403, true), "{body}");
    drop(open);

    let no_folder = Server::spawn(&[("DEBUG_TOKEN", TOKEN)]);
    let _ann = Client::join(&no_folder, "hall", "ann", Options::default()).await;
    let id = shown(&no_folder, "GET /debug/peers").1["peers"][0]["id"].clone();
    let (status, body) = shown(&no_folder, &format!("POST /debug/peers/{id}/capture"));
    assert_eq!(
        (status, body["error"].as_str().unwrap_or_default().contains("CAPTURE_DIR")),
        (404, true),
        "{body}"
    );
    assert_eq!(request(&no_folder, &format!("POST /debug/peers/{id}/capture"), "").0, 401);
    drop(no_folder);

    let folder = Folder::new();
    let server = Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("CAPTURE_DIR", folder.dir())]);
    let _ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let id = shown(&server, "GET /debug/peers").1["peers"][0]["id"].clone();
    for query in
        ["seconds=0", "seconds=301", "seconds=", "seconds=x", "seconds=-1", "file=/etc/passwd", "seconds=1&x"]
    {
        assert_eq!(shown(&server, &format!("POST /debug/peers/{id}/capture?{query}")).0, 400, "{query}");
    }
    assert_eq!(shown(&server, "POST /debug/peers/999999/capture").0, 404);
    assert_eq!(shown(&server, "POST /debug/peers/../capture").0, 405);
    assert_eq!(shown(&server, &format!("GET /debug/peers/{id}/capture")).0, 405);
    // Who has yet to offer has no packets.
    let _ben = Client::join(&server, "hall", "ben", Options { offers: false, ..Options::default() }).await;
    let deadline = now() + PATIENCE;
    let ben = loop {
        let ben = shown(&server, "GET /debug/peers").1["peers"][1].clone();
        if ben.is_object() {
            break ben;
        }
        assert!(now() < deadline, "ben is not shown");
        tokio::time::sleep(Duration::from_millis(100)).await; // What is shown may be a moment old.
    };
    assert_eq!((&ben["user"], &ben["state"]), (&"ben".into(), &"new".into()), "{ben:#}");
    let (status, body) = shown(&server, &format!("POST /debug/peers/{}/capture", ben["id"]));
    assert_eq!((status, &body["error"]), (409, &"this peer has no transport".into()), "{body}");
    assert_eq!(std::fs::read_dir(folder.dir()).expect("a folder").count(), 0, "nothing was made");
    // As many files as may be are there.
    for number in 0..32 {
        folder.write(&format!("sfu-{number}-transport-1.pcap"), b"");
    }
    let (status, body) = shown(&server, &format!("POST /debug/peers/{id}/capture"));
    assert_eq!(
        (status, body["error"].as_str().unwrap_or_default().contains("take some away")),
        (409, true),
        "{body}"
    );
}
