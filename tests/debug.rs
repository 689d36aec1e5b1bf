//! `/debug` of the running server: who may look, whether what is shown is true, and that looking costs no packet. Who
//! looks from elsewhere does so in a network namespace of its own; that needs root, and Debian's `iproute2`.

#[path = "support/network.rs"]
#[allow(unreachable_pub, reason = "shared with tests that are crates of several files")]
mod network;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use gryt_sfu::srtp::path::CryptoPath;
use network::{in_a_network_of_its_own, ip};
use serde_json::Value;
use support::debug::{peer, peer_until};
use support::{Client, Halted, Options, PATIENCE, Server, assert_clean, now};

const TOKEN: &str = "a-token-of-more-than-16-bytes";

/// One request with these header lines; status, header and body.
fn request(server: &Server, line: &str, headers: &str) -> (u16, String, String) {
    request_at(server.http, line, headers)
}

/// As [`request`], of a server at this address.
fn request_at(address: SocketAddr, line: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
    write!(stream, "{line} HTTP/1.1\r\n{headers}connection: close\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_lowercase(), body.to_owned())
}

fn json(server: &Server, path: &str) -> Value {
    let (status, body) = server.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

#[tokio::test]
async fn figures_are_true_and_move() {
    let server = Server::spawn(&[("RESUME_WINDOW", "2m"), ("WORKERS", "2")]);
    let ann = Client::join(&server, "tea <b>", "ann", Options::default()).await;
    let ben = Client::join(&server, "tea <b>", "ben", Options::listener()).await;
    let other = Client::join(&server, "elsewhere", "cleo", Options::default()).await;
    ann.speak(25);
    ben.hears(&ann, 60).await;

    let seen = peer_until(&server, "ann", "connected with a rate", |peer| {
        let rate = peer["in"]["packetsPerSecond"].as_u64().unwrap_or_default();
        peer["state"] == "connected" && (35..=65).contains(&rate)
    })
    .await;
    assert_eq!((&seen["dtls"], &seen["room"]), (&"connected".into(), &"tea <b>".into()), "{seen:#}");
    assert!(seen["srtpProfile"].as_str().is_some_and(|name| name.starts_with("SRTP_A")), "{seen:#}");
    let ends = ["local", "remote"].map(|end| seen["pair"][end].as_str().and_then(|it| it.parse().ok()));
    let [local, remote]: [SocketAddr; 2] = ends.map(|end| end.expect("an address"));
    let media = json(&server, "/debug/workers")["workers"][0]["udpPort"].clone();
    assert_eq!(media, local.port(), "{seen:#}");
    assert!(remote.ip().is_loopback() && remote.port() != local.port(), "{seen:#}");
    assert!(seen["in"]["level"].as_u64().is_some_and(|level| (20..=30).contains(&level)), "{seen:#}");
    assert_eq!((&seen["in"]["speaking"], &seen["in"]["lost"]), (&true.into(), &0.into()), "{seen:#}");
    assert!(seen["lastPacketMs"].as_u64().is_some_and(|age| age < 2_000), "{seen:#}");
    assert!(seen["in"]["bitsPerSecond"].as_u64().is_some_and(|rate| rate > 5_000), "{seen:#}");
    assert!(
        seen["since"].as_str().is_some_and(|since| since.ends_with('Z') && since.len() == 20),
        "{seen:#}"
    );
    let packets = seen["in"]["packets"].as_u64().expect("a number");
    peer_until(&server, "ann", "sending more", |peer| peer["in"]["packets"].as_u64() > Some(packets)).await;

    // The listener's own reports say how it is sent to.
    let heard = peer_until(&server, "ben", "reporting", |peer| {
        peer["roundTripMs"].is_number() && peer["out"]["lost"].is_number()
    })
    .await;
    assert!(heard["roundTripMs"].as_f64().is_some_and(|ms| ms < 5_000.0), "{heard:#}");
    assert!(heard["out"]["packets"].as_u64() >= Some(60) && heard["out"]["carrying"] == 1, "{heard:#}");
    assert_eq!(heard["in"]["level"], Value::Null, "publishes nothing");
    let whole = json(&server, &format!("/debug/peers/{}", heard["id"]));
    let slot = &whole["slots"][0];
    assert_eq!(slot["from"], "ann", "{whole:#}");
    assert!(slot["packets"].as_u64() >= Some(60) && slot["jitterMs"].is_number(), "{whole:#}");

    let rooms = json(&server, "/debug/rooms")["rooms"].clone();
    assert_eq!(rooms.as_array().map(Vec::len), Some(2));
    let tea = &rooms[0];
    assert_eq!((&tea["name"], &tea["voices"]), (&"tea <b>".into(), &serde_json::json!(["ann"])));
    assert_eq!(tea["members"].as_array().map(Vec::len), Some(2));
    assert_eq!(tea["activeSpeakers"][0]["user"], "ann", "{tea:#}");
    assert_ne!(rooms[0]["worker"], rooms[1]["worker"]);

    let track = json(&server, &format!("/debug/tracks?room={}", tea["id"]))["tracks"][0].clone();
    assert_eq!(
        (&track["user"], &track["receivers"], &track["payloadType"]),
        (&"ann".into(), &1.into(), &111.into()),
        "{track:#}"
    );
    assert!(track["ssrc"].as_u64() > Some(0) && track["packets"].as_u64() >= Some(60), "{track:#}");
    server.metric_reaches("gryt_sfu_worker_info", &[], 2.0).await;
    let body = json(&server, "/debug/workers");
    let workers = &body["workers"];
    assert_eq!(workers.as_array().map(Vec::len), Some(2));
    let backends = [&workers[0]["backend"], &workers[1]["backend"]];
    assert!(backends[0].is_string() && backends[0] == backends[1], "{workers:#}");
    assert!(body["startedAt"].as_str() < body["time"].as_str(), "{body:#}");
    assert_eq!(body["crypto"], CryptoPath::best().to_string(), "this process runs on the same machine");

    // Parts of lists.
    let first = json(&server, "/debug/peers?limit=2");
    assert_eq!(first["peers"].as_array().map(Vec::len), Some(2));
    let rest = json(&server, &format!("/debug/peers?after={}", first["next"]));
    assert_eq!((&rest["peers"][0]["user"], &rest["next"]), (&"cleo".into(), &Value::Null));

    // Muted: dropped by name. Deafened: said.
    ann.set_muted(true);
    let muted = peer_until(&server, "ann", "muted with drops", |peer| {
        peer["muted"] == true && peer["drops"]["muted"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(muted["in"]["speaking"], false, "{muted:#}");
    ben.set_deafened(true);
    peer_until(&server, "ben", "deafened", |peer| peer["deafened"] == true).await;

    // A client that dies is seen to go.
    drop(ann);
    let gone = peer_until(&server, "ann", "disconnected", |peer| peer["state"] == "disconnected").await;
    assert_eq!(gone["connection"], Value::Null, "{gone:#}");
    let gone = peer_until(&server, "ben", "still connected", |peer| peer["state"] == "connected").await;
    assert_eq!(gone["state"], "connected");
    drop(other);
}

#[tokio::test]
async fn a_garbled_packet_is_counted_for_its_peer() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 5).await;
    let mut forged = vec![0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9];
    forged.extend([7; 60]);
    for _ in 0..5 {
        ann.inject(forged.clone());
    }
    let seen = peer_until(&server, "ann", "with drops", |peer| peer["drops"]["bad_auth_tag"] == 5).await;
    assert_eq!(seen["state"], "connected");
    assert_eq!(peer(&server, "ben")["drops"], serde_json::json!({}));
}

#[test]
fn a_worker_that_does_not_answer_is_said_and_the_rest_goes_on() {
    let server = Server::spawn(&[("WORKERS", "1")]);
    let worker = Halted::thread(server.pid(), "worker-0");
    let begun = now();
    for path in ["/debug/peers", "/debug/rooms", "/debug/tracks", "/debug/workers", "/debug/peers/1"] {
        let asked_at = now();
        let (status, head, body) = request(&server, &format!("GET {path}"), "host: localhost\r\n");
        assert_eq!(status, 503, "{path}: {body}");
        assert!(head.contains("\r\nretry-after: 5"), "{head}");
        let error: Value = serde_json::from_str(&body).expect("JSON");
        assert!(
            error["error"].as_str().is_some_and(|it| it.starts_with("worker 0 does not answer")),
            "{body}"
        );
        assert!(now() - asked_at >= Duration::from_millis(1900), "it was given its time");
    }
    assert_eq!((server.get("/health").0, server.get("/").0), (200, 200));
    let until = |path: &str, status: u16| {
        let deadline = now() + PATIENCE;
        while server.get(path).0 != status {
            assert!(now() < deadline, "{path} never answers {status}");
            std::thread::sleep(Duration::from_millis(100)); // Nobody tells when it changes.
        }
    };
    until("/ready", 503);
    assert_eq!(server.get("/health").0, 200, "it may come to itself");
    let given_up = begun + Duration::from_secs(30);
    std::thread::sleep(given_up.saturating_duration_since(now()));
    until("/health", 503);
    drop(worker);
    until("/debug/peers", 200);
    until("/ready", 200);
    until("/health", 200);
}

#[test]
fn a_proxy_that_says_nothing_of_itself_is_known_by_whom_it_brings() {
    let upgrade = |server: &Server, headers: &str| {
        let handshake = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut stream = TcpStream::connect(server.http).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
        write!(stream, "GET / HTTP/1.1\r\n{handshake}{headers}\r\n").expect("it reads");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("it answers");
        String::from_utf8_lossy(&status[9..]).parse::<u16>().expect("a status")
    };
    for foreign in
        ["host: {}\r\norigin: https://voice.example\r\n", "host: voice.example\r\n", "host: {}\r\nvia: x\r\n"]
    {
        let mut server = Server::spawn(&[]);
        let host = format!("127.0.0.1:{}", server.http.port());
        let look = |server: &Server| request(server, "GET /debug/peers", &format!("host: {host}\r\n")).0;
        for local in ["http://localhost:3000", "http://127.0.0.1:8080"] {
            assert_eq!(upgrade(&server, &format!("host: {host}\r\norigin: {local}\r\n")), 101);
            assert_eq!(look(&server), 200);
        }
        assert_eq!(upgrade(&server, &foreign.replace("{}", &host)), 101);
        assert_eq!(look(&server), 403, "{foreign}");
        server.wait_for_log("why", |log| log.contains("until DEBUG_TOKEN is set").then_some(()));
    }
}

#[test]
fn without_a_token_only_this_machine_may_look() {
    let server = Server::spawn(&[]);
    let port = server.http.port();
    let local = format!("host: localhost:{port}\r\n");
    for headers in [
        local.clone(),
        format!("host: 127.0.0.1:{port}\r\n"),
        format!("host: [::1]:{port}\r\n"),
        format!("{local}origin: http://localhost:{port}\r\n"),
    ] {
        for path in ["/debug", "/debug/rooms", "/debug/peers", "/debug/tracks", "/debug/workers"] {
            let (status, head, body) = request(&server, &format!("GET {path}"), &headers);
            assert_eq!(status, 200, "{headers}: {body}");
            assert!(!head.contains("access-control-"), "{head}");
            assert!(head.contains("cache-control: no-store") && head.contains("nosniff"), "{head}");
        }
    }
    for headers in [
        format!("{local}x-forwarded-for: 127.0.0.1\r\n"),
        format!("{local}X-Forwarded-Proto: https\r\n"),
        format!("{local}x-forwarded-anything: \r\n"),
        format!("{local}forwarded: for=127.0.0.1\r\n"),
        format!("{local}via: 1.1 proxy\r\n"),
        format!("{local}x-real-ip: 127.0.0.1\r\n"),
        "host: sfu.example\r\n".into(),
        format!("host: localhost.evil.example:{port}\r\n"),
        format!("host: 127.0.0.1.evil.example:{port}\r\n"),
        "host: \r\n".into(),
        "host: \u{e9}\r\n".into(),
        format!("{local}host: evil.example\r\n"),
        format!("{local}origin: http://evil.example\r\n"),
        format!("{local}origin: null\r\n"),
        format!("{local}origin: http://localhost:1\r\n"),
        format!("{local}origin: http://localhost:{port}\r\norigin: http://evil.example\r\n"),
    ] {
        let (status, head, body) = request(&server, "GET /debug/peers", &headers);
        assert_eq!(status, 403, "{headers}");
        assert!(body.len() > 10 && body.ends_with(".\n"), "in words: {body:?}");
        assert!(!head.contains("access-control-"), "{head}");
        assert_eq!(request(&server, "GET /debug", &headers).0, 403, "{headers}");
    }
    // Named by the request line, as to a proxy.
    let absolute = "GET http://evil.example/debug/peers";
    assert_eq!(request(&server, absolute, &local).0, 403);
}

/// Not even by the name that this machine has for itself.
#[test]
fn without_a_token_nobody_may_look_from_another_address() {
    in_a_network_of_its_own(|| {
        ip("addr add 192.0.2.1/32 dev lo");
        let server = Server::spawn(&[("ICE_ADVERTISE_IP", "127.0.0.1")]);
        let port = server.http.port();
        let local = format!("host: localhost:{port}\r\n");
        assert_eq!(request(&server, "GET /debug/peers", &local).0, 200);
        // Who connects to an address of the machine itself comes from there.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], port));
        assert_eq!(request_at(elsewhere, "GET /debug/peers", &local).0, 403);
    });
}

#[test]
fn with_a_token_it_is_needed_from_everywhere() {
    let mut server = Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("LOG_LEVEL", "debug")]);
    for headers in [
        "".to_owned(),
        "authorization: \r\n".into(),
        "authorization: Bearer\r\n".into(),
        "authorization: Bearer \r\n".into(),
        format!("authorization: Basic {TOKEN}\r\n"),
        format!("authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("authorization: Bearer {}\r\n", &TOKEN[..TOKEN.len() - 1]),
        format!("authorization: Bearer {TOKEN}x\r\n"),
        format!("authorization: Bearer {}\r\n", TOKEN.to_uppercase()),
        format!("authorization: Bearer {}\r\n", "x".repeat(10_000)),
        format!("authorization: Bearer {TOKEN}\r\nauthorization: Bearer {TOKEN}\r\n"),
        "authorization: Bearer \u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\r\n".into(),
    ] {
        let headers = format!("host: localhost\r\n{headers}");
        let (status, head, body) = request(&server, "GET /debug/peers", &headers);
        assert_eq!(status, 401, "{headers}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(body.contains("token"), "{body}");
    }
    assert_eq!(request(&server, &format!("GET /debug/peers?token={TOKEN}"), "host: localhost\r\n").0, 401);
    let shown =
        format!("host: sfu.example\r\nx-forwarded-for: 203.0.113.9\r\nauthorization: bearer {TOKEN}\r\n");
    let (status, head, body) = request(&server, "GET /debug/peers", &shown);
    assert_eq!((status, body.contains("\"peers\":[]")), (200, true), "{body}");
    assert!(!head.contains("access-control-"), "{head}");
    // The page says nothing by itself: it asks for the token.
    assert_eq!(request(&server, "GET /debug", "host: sfu.example\r\n").0, 200);
    assert!(!server.whole_log().contains(TOKEN), "the token in the log");
}

#[test]
fn hostile_paths_and_queries_are_refused_in_words() {
    let server = Server::spawn(&[]);
    let local = "host: localhost\r\n";
    for path in [
        "/debug/",
        "/debug/peers/",
        "/debug/peers/x",
        "/debug/peers/-1",
        "/debug/peers/99999999999999999999",
        "/debug/peers/1/",
        "/debug/peers/1/capture/x",
        "/debug/../etc/passwd",
        "/debug/peers/%2e%2e",
        "/debug/nothing",
    ] {
        assert_eq!(request(&server, &format!("GET {path}"), local).0, 404, "{path}");
    }
    assert_eq!(request(&server, "GET /debugger", local).0, 404);
    assert_eq!(request(&server, "GET /debug/peers/1", local).0, 404, "nobody");
    for query in ["limit=0", "limit=1001", "limit=", "limit", "after=-1", "room=tea", "x=1", "limit=1%00"] {
        let (status, _, body) = request(&server, &format!("GET /debug/peers?{query}"), local);
        assert_eq!((status, body.starts_with("Accepted: ")), (400, true), "{query}: {body}");
    }
    assert_eq!(request(&server, &format!("GET /debug/peers?{}", "x".repeat(2_000)), local).0, 414);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let (status, head, _) = request(&server, &format!("{method} /debug/rooms"), local);
        assert_eq!(status, 405, "{method}");
        assert!(head.contains("allow: get, head") && !head.contains("access-control-"), "{head}");
    }
    let (status, _, body) = request(&server, "HEAD /debug/rooms", local);
    assert_eq!((status, body.as_str()), (200, ""));
}

/// Ten askers without a pause, and a room in which every packet arrives all the same.
#[tokio::test]
async fn a_storm_of_questions_costs_no_packet() {
    let server = Server::spawn(&[]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.speak(20);
    tokio::join!(ann.hears(&ben, 20), ben.hears(&ann, 20));
    let address = server.http;
    let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let askers: Vec<_> = (0..10)
        .map(|asker| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                let mut answered = 0;
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let path = [
                        "/debug/peers",
                        "/debug/rooms",
                        "/debug/tracks",
                        "/debug/workers",
                        "/debug/peers?limit=1",
                    ][(asker + answered) % 5];
                    let mut stream = TcpStream::connect(address).expect("the server listens");
                    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
                    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                        .expect("it reads");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("it answers");
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    tokio::join!(ann.hears(&ben, 250), ben.hears(&ann, 250));
    is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    let answered: usize = askers.into_iter().map(|asker| asker.join().expect("all were answered")).sum();
    assert!(answered > 100, "that was no storm: {answered}");
    assert_clean(&ann, &ben);
    assert_clean(&ben, &ann);
    assert_eq!(peer(&server, "ann")["in"]["lost"], 0);
}
