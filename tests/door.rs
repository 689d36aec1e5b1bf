//! Who is let in at the front door: other sites' pages, TLS, proxies, rates. With curl and openssl as peers.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use support::certificate::Folder;
use support::{PATIENCE, Server, now};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::HandshakeError;
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tokio_tungstenite::tungstenite::{Error, Message, client};

const APP: &str = "https://app.example";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn curl(args: &[&str]) -> Output {
    let limit = PATIENCE.as_secs().to_string();
    let command = ["--silent", "--show-error", "--noproxy", "*", "--max-time", &limit];
    Command::new("curl").args(command).args(args).output().expect("curl is there")
}

/// An answer to curl: status, header, body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

fn ask(server: &Server, path: &str, args: &[&str]) -> Answer {
    let url = format!("http://{}{path}", server.http);
    let output = curl(&[&["--include", &url], args].concat());
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a header");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The status of a WebSocket handshake with these headers, and what was said where it failed.
fn upgrade(server: &Server, headers: &[(&'static str, &str)]) -> (u16, String) {
    let mut request = format!("ws://{}/", server.http).into_client_request().expect("a valid address");
    for &(name, value) in headers {
        request.headers_mut().insert(name, value.parse().expect("a header"));
    }
    match client(request, connect(server.http)) {
        Ok((_, response)) => (response.status().as_u16(), String::new()),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            (response.status().as_u16(), String::from_utf8_lossy(&body).into_owned())
        }
        Err(error) => panic!("{error}"),
    }
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a valid time-out");
    stream
}

#[test]
fn pages_of_listed_sites_come_in_and_no_others() {
    let server = Server::spawn(&[("CORS_ORIGINS", "https://app.example, http://localhost:3000")]);
    let own = format!("http://{}", server.http);
    for origin in [APP, "http://localhost:3000", "https://APP.example:443", &own] {
        assert_eq!(upgrade(&server, &[("origin", origin)]).0, 101, "{origin}");
    }
    assert_eq!(upgrade(&server, &[]).0, 101, "no browser");
    for origin in [
        "https://evil.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil.example",
        "https://evil.example/https://app.example",
        "http://localhost",
        "null",
        "",
    ] {
        let (status, body) = upgrade(&server, &[("origin", origin)]);
        assert_eq!(status, 403, "{origin}");
        assert!(body.contains("origin") && body.contains("CORS_ORIGINS"), "{body}");
    }
    let neighbour = [("origin", "http://sfu.example"), ("host", "sfu.example:5005")];
    assert_eq!(upgrade(&server, &neighbour).0, 403, "another port is another server");
    assert_eq!(server.metric("gryt_sfu_websocket_origins_refused_total", &[]), 9.0);

    let answer = ask(&server, "/health", &["-H", "Origin: https://app.example"]);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(APP)));
    assert_eq!(answer.header("vary"), Some("Origin"));
    for args in [&["-H", "Origin: https://evil.example"][..], &[]] {
        let answer = ask(&server, "/health", args);
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, None));
        assert_eq!(answer.header("vary"), Some("Origin"), "another page gets another answer");
    }
}

#[test]
fn a_flood_of_foreign_pages_is_one_line_of_the_log() {
    let begun = now();
    let mut server = Server::spawn(&[("CORS_ORIGINS", APP)]);
    let long = format!("https://evil.example/{}", "x".repeat(8000));
    for _ in 0..200 {
        assert_eq!(upgrade(&server, &[("origin", &long)]).0, 403);
    }
    assert_eq!(server.metric("gryt_sfu_websocket_origins_refused_total", &[]), 200.0);
    server.wait_for_log("the first", |log| log.contains("CORS_ORIGINS wants").then_some(()));
    let lines = server.throttled_lines("CORS_ORIGINS wants", begun);
    assert!(lines[0].contains("https://evil.example/xxx") && lines[0].len() < 300, "{lines:?}");
    assert!(!lines[0].contains("127.0.0.1"), "addresses are for debug: {lines:?}");
}

#[test]
fn a_server_without_room_says_so_once_in_a_while() {
    let begun = now();
    let mut server = Server::spawn(&[("MAX_CONNECTIONS", "1")]);
    let open: Vec<_> = (0..32).map(|_| plain(&server)).collect();
    let what = "WebSockets that have not joined give way";
    server.wait_for_log(what, |log| log.contains(what).then_some(()));
    let lines = server.throttled_lines(what, begun);
    assert!(lines[0].contains("WARN") && lines[0].contains("MAX_CONNECTIONS"), "{lines:?}");
    assert_eq!(server.metric("gryt_sfu_websocket_evicted_total", &[]), 30.0);
    drop(open);
}

#[test]
fn wrong_tokens_are_counted_and_said() {
    let begun = now();
    let token = "shown-by-whoever-watches";
    let mut server = Server::spawn(&[("METRICS_TOKEN", token), ("DEBUG_TOKEN", token)]);
    for path in ["/metrics", "/debug/rooms"] {
        for _ in 0..20 {
            assert_eq!(ask(&server, path, &["-H", "Authorization: Bearer guessed"]).status, 401, "{path}");
        }
        assert_eq!(ask(&server, path, &[]).status, 401, "{path}");
    }
    let metrics = ask(&server, "/metrics", &["-H", &format!("Authorization: Bearer {token}")]).body;
    assert!(metrics.contains("\ngryt_sfu_http_tokens_refused_total 42\n"), "{metrics}");
    for what in ["is not METRICS_TOKEN", "is not DEBUG_TOKEN"] {
        server.wait_for_log(what, |log| log.contains(what).then_some(()));
        server.throttled_lines(what, begun);
    }
    assert!(!server.log().contains("guessed"), "what is shown may be another server's");
}

#[test]
fn without_a_list_every_page_may_connect_and_read_health() {
    let server = Server::spawn(&[]);
    assert_eq!(upgrade(&server, &[("origin", "https://anybody.example")]).0, 101);
    let answer = ask(&server, "/health", &["-H", "Origin: https://anybody.example"]);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("vary"), None);
    for path in ["/", "/ready", "/metrics", "/debug", "/debug/rooms"] {
        let answer = ask(&server, path, &["-H", "Origin: https://anybody.example"]);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    }
}

#[test]
fn what_is_for_nobody_else_never_has_cors_headers() {
    let server = Server::spawn(&[("CORS_ORIGINS", APP)]);
    let origin = "Origin: https://app.example";
    let preflight = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET", "-H", origin];
    for path in ["/debug", "/debug/rooms", "/debug/rooms?x=y"] {
        for args in [&["-H", origin][..], &preflight] {
            let answer = ask(&server, path, args);
            assert!(!answer.head.to_lowercase().contains("access-control"), "{path}: {}", answer.head);
        }
    }
    for path in ["/ready", "/metrics", "/nothing"] {
        assert_eq!(
            ask(&server, path, &["-H", origin]).header("access-control-allow-origin"),
            Some(APP),
            "{path}"
        );
    }
    let answer = ask(&server, "/ready", &preflight);
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some("GET, HEAD")));
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    let foreign =
        ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET", "-H", "Origin: https://evil.example"];
    assert_eq!(ask(&server, "/ready", &foreign).header("access-control-allow-origin"), None);
}

#[test]
fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_REQUESTS", "5"), ("RATE_LIMIT_WINDOW", "1h")];
    let server = Server::spawn(&limits);
    for _ in 0..3 {
        assert_eq!(ask(&server, "/", &[]).status, 200);
    }
    for _ in 0..2 {
        assert_eq!(upgrade(&server, &[]).0, 101, "requests and upgrades share one bucket");
    }
    let answer = ask(&server, "/", &[]);
    assert_eq!((answer.status, answer.body.as_str()), (429, "Too many requests.\n"));
    let wait: u64 = answer.header("retry-after").expect("when").parse().expect("seconds");
    assert!((600..=720).contains(&wait), "one in 12 minutes comes back: {wait}");
    assert_eq!(upgrade(&server, &[]).0, 429);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "198.51.100.1")]).0, 429, "spoofed, from no proxy");
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(ask(&server, path, &[]).status, 200, "{path}");
    }
    assert_eq!(server.metric("gryt_sfu_http_requests_limited_total", &[]), 3.0);
}

#[test]
fn a_page_that_asks_too_often_may_read_when_to_come_back() {
    let server = Server::spawn(&[
        ("CORS_ORIGINS", APP),
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "1"),
        ("RATE_LIMIT_WINDOW", "1h"),
    ]);
    let asked = |origin: &str| ask(&server, "/", &["-H", &format!("Origin: {origin}")]);
    let exposed = |answer: &Answer| answer.header("access-control-expose-headers").map(str::to_owned);
    let first = asked(APP);
    assert_eq!((first.status, exposed(&first)), (200, None));
    let limited = asked(APP);
    assert_eq!((limited.status, exposed(&limited)), (429, Some("Retry-After".to_owned())));
    assert_eq!(limited.header("access-control-allow-origin"), Some(APP));
    let foreign = asked("https://evil.example");
    assert_eq!((foreign.status, exposed(&foreign)), (429, None));
}

/// Where it says that metrics are.
fn metrics_url(server: &mut Server) -> String {
    let url = |line: &str| line.strip_prefix("  metrics:   ").map(str::to_owned);
    server.wait_for_log("the metrics' address", |log| log.lines().find_map(url))
}

#[test]
fn metrics_may_have_a_port_of_their_own() {
    let token = "shown-by-whoever-scrapes";
    let mut server = Server::spawn(&[
        ("METRICS_ADDR", "127.0.0.1:0"),
        ("METRICS_TOKEN", token),
        ("CORS_ORIGINS", APP),
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "1"),
    ]);
    let url = metrics_url(&mut server);
    let answer = |url: &str, args: &[&str]| {
        said(&curl(&[&["--include", "-H", &format!("Origin: {APP}"), url], args].concat()))
    };
    let bearer = format!("Authorization: Bearer {token}");
    let shown = ["-H", bearer.as_str()];
    for _ in 0..3 {
        let scraped = answer(&url, &shown);
        assert!(scraped.starts_with("HTTP/1.1 200") && scraped.contains("gryt_sfu_build_info"), "{scraped}");
        assert!(!scraped.to_lowercase().contains("access-control"), "for no page: {scraped}");
    }
    assert!(answer(&url, &[]).starts_with("HTTP/1.1 401"), "without the token");
    assert!(answer(&url, &["-H", "Authorization: Bearer another"]).starts_with("HTTP/1.1 401"));
    assert!(answer(&url, &[&shown[..], &["--request", "POST"]].concat()).starts_with("HTTP/1.1 405"));
    // Nothing else is there, and here it is no more.
    let root = url.strip_suffix("/metrics").expect("the path");
    for path in ["/", "/health", "/ready", "/debug", "/debug/rooms", "/metrics/", "/server"] {
        let answer = answer(&format!("{root}{path}"), &shown);
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let upgrade =
        ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13"];
    let key = ["-H", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="];
    let answered = answer(&format!("{root}/"), &[&upgrade[..], &key].concat());
    assert!(answered.starts_with("HTTP/1.1 404"), "{answered}");
    let moved = ask(&server, "/metrics", &shown);
    assert_eq!((moved.status, moved.body.as_str()), (404, "Not found.\n"));
    assert_eq!(ask(&server, "/health", &[]).status, 200);
}

#[test]
fn a_metrics_port_in_use_ends_the_start_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let start = |args: &[&str], address: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
        command.args(args).current_dir(std::env::temp_dir());
        command.envs([("PORT", "0"), ("ICE_UDP_MUX_PORT", "0"), ("METRICS_ADDR", address)]);
        command.output().expect("it starts")
    };
    let output = start(&[], &address);
    let words = said(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains(&format!("cannot listen on TCP {address} (METRICS_ADDR)")), "{words}");
    assert!(words.contains("in use"), "{words}");

    let output = start(&["--check"], &address);
    assert!(output.status.success() && said(&output).contains(&format!("METRICS_ADDR={address}\n")));
    for args in [&[][..], &["--check"]] {
        let output = start(args, "localhost");
        let words = said(&output);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(
            words.contains("METRICS_ADDR=\"localhost\" is not accepted; accepted: an address"),
            "{words}"
        );
    }
}

#[test]
fn the_bucket_fills_again() {
    let limits = [("RATE_LIMIT_ENABLED", "on"), ("RATE_LIMIT_REQUESTS", "1"), ("RATE_LIMIT_WINDOW", "5s")];
    let server = Server::spawn(&limits);
    let deadline = now() + PATIENCE;
    while ask(&server, "/", &[]).status != 429 {
        assert!(now() < deadline, "no limit");
    }
    while ask(&server, "/", &[]).status != 200 {
        assert!(now() < deadline, "no end of it");
        std::thread::sleep(Duration::from_millis(50)); // What is awaited is that time passes.
    }
}

#[test]
fn without_a_limit_there_is_none() {
    let server = Server::spawn(&[("RATE_LIMIT_REQUESTS", "1")]);
    for _ in 0..5 {
        assert_eq!(server.get("/").0, 200);
    }
}

#[test]
fn the_client_of_a_trusted_proxy_is_who_the_proxy_says() {
    let server = Server::spawn(&[
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "1"),
        ("RATE_LIMIT_WINDOW", "1h"),
        ("TRUSTED_PROXIES", "127.0.0.0/8, 10.0.0.0/8"),
        ("LOG_LEVEL", "debug"),
    ]);
    let status = |forwarded: &str| upgrade(&server, &[("x-forwarded-for", forwarded)]).0;
    assert_eq!((status("198.51.100.1"), status("198.51.100.1")), (101, 429));
    assert_eq!(status("198.51.100.2"), 101, "another client");
    // What the client wrote himself stands left of what the proxy saw.
    assert_eq!(status("203.0.113.9, 198.51.100.1"), 429);
    assert_eq!(status("203.0.113.9, 198.51.100.3, 10.0.0.7"), 101, "two proxies");
    assert_eq!(status("203.0.113.8, 198.51.100.3"), 429);
    // One /64 is one client.
    assert_eq!((status("2001:db8:0:1::1"), status("2001:db8:0:1:2::2")), (101, 429));
    assert_eq!(status("2001:db8:0:2::1"), 101);
    // What nobody can read is the proxy's own.
    assert_eq!((status("unknown"), status("198.51.100.4, ;drop"), status("")), (101, 429, 429));
    let log = server.log();
    assert!(log.contains("198.51.100.1") && log.contains("198.51.100.3"), "the log names the client: {log}");
    assert!(!log.contains("203.0.113"), "and nobody whom he invented: {log}");
}

#[test]
fn a_stranger_that_calls_itself_a_proxy_is_not_believed() {
    let server = Server::spawn(&[
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "1"),
        ("RATE_LIMIT_WINDOW", "1h"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("LOG_LEVEL", "debug"),
    ]);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "198.51.100.1")]).0, 101);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "198.51.100.2")]).0, 429);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "10.0.0.1")]).0, 429);
    assert!(!server.log().contains("198.51.100."), "{}", server.log());
}

#[test]
fn who_says_too_much_is_told_and_sent_away() {
    let mut server = Server::spawn(&[
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "20"),
        ("RATE_LIMIT_WINDOW", "1h"),
    ]);
    let mut talker = plain(&server);
    let mut quiet = plain(&server);
    join(&mut talker, "talker");
    join(&mut quiet, "quiet");
    for _ in 0..20 {
        talker.send(Message::text(r#"{"event":"keep_alive"}"#)).expect("it reads");
    }
    let error = until(&mut talker, "error");
    assert_eq!(error["code"], "rate-limited", "{error}");
    assert_eq!(closed(&mut talker), 1008);
    // Each has a bucket of its own.
    quiet.send(Message::text(r#"{"event":"leave"}"#)).expect("it reads");
    assert_eq!(closed(&mut quiet), 1000);
    assert_eq!(server.metric("gryt_sfu_websocket_rate_limited_total", &[]), 1.0);
    server.terminate();
    assert!(server.wait(PATIENCE).expect("it ends").success());
}

fn plain(server: &Server) -> WebSocket<TcpStream> {
    let url = format!("ws://{}/", server.http);
    client(url, connect(server.http)).unwrap_or_else(|error| panic!("{error}")).0
}

fn join<S: Read + Write>(socket: &mut WebSocket<S>, user: &str) -> Value {
    let join = json!({ "event": "join", "data": { "roomId": "hall", "userId": user } });
    socket.send(Message::text(join.to_string())).expect("it reads");
    let joined = until(socket, "joined");
    assert_eq!(joined["success"], true, "{joined}");
    joined
}

/// The data of the next message of this kind.
fn until<S: Read + Write>(socket: &mut WebSocket<S>, event: &str) -> Value {
    loop {
        if let Message::Text(text) = socket.read().expect("a message") {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["event"] == event {
                return message["data"].clone();
            }
        }
    }
}

/// The code of the Close frame that comes next but for messages.
fn closed<S: Read + Write>(socket: &mut WebSocket<S>) -> u16 {
    loop {
        if let Message::Close(frame) = socket.read().expect("a Close frame") {
            return frame.expect("a code").code.into();
        }
    }
}

type Wss = WebSocket<StreamOwned<ClientConnection, TcpStream>>;

/// A WebSocket over TLS that trusts this certificate alone.
fn secure(server: &Server, certified: &CertificateDer<'static>) -> Wss {
    let mut roots = RootCertStore::empty();
    roots.add(certified.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they fit")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let stream = StreamOwned::new(session, connect(server.http));
    let (socket, _) = client("wss://localhost/", stream).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(socket.get_ref().conn.peer_certificates(), Some(&[certified.clone()][..]));
    socket
}

fn https(server: &Server, certificate: &str, path: &str) -> Output {
    let url = format!("https://localhost:{}{path}", server.http.port());
    let resolve = format!("localhost:{}:127.0.0.1", server.http.port());
    curl(&["--cacert", certificate, "--resolve", &resolve, "--include", &url])
}

fn hang_up(server: &Server) {
    let status =
        Command::new("kill").args(["-HUP", &server.pid().to_string()]).status().expect("kill exists");
    assert!(status.success());
}

#[test]
fn with_a_certificate_the_port_speaks_tls() {
    let folder = Folder::new();
    let certified = folder.certify();
    let mut server = Server::spawn(&certified.env());
    let port = server.http.port();
    server.wait_for_log("https", |log| {
        (log.contains("listening: https ") && log.contains(&format!("https://localhost:{port}/")))
            .then_some(())
    });
    let output = https(&server, &certified.certificate, "/");
    assert!(output.status.success() && said(&output).contains("<html"), "{}", said(&output));
    assert!(said(&output).starts_with("HTTP/1.1 200"), "h2 was not agreed on: {}", said(&output));
    // Who trusts another certificate is not served, nor is plain http.
    let other = Folder::new();
    assert_eq!(https(&server, &other.certify().certificate, "/").status.code(), Some(60));
    assert!(!curl(&[&format!("http://{}/", server.http)]).status.success());
    // Failures are counted once their connections have ended.
    let deadline = now() + PATIENCE;
    loop {
        let metrics = said(&https(&server, &certified.certificate, "/metrics"));
        if metrics.contains("\ngryt_sfu_tls_handshakes_failed_total 2\n") {
            break;
        }
        assert!(now() < deadline, "{metrics}");
    }

    let mut ann = secure(&server, &certified.der());
    let mut ben = secure(&server, &certified.der());
    join(&mut ann, "ann");
    join(&mut ben, "ben");
    assert_eq!(until(&mut ann, "user-joined")["userId"], "ben");
    server.terminate();
    assert_eq!((closed(&mut ann), closed(&mut ben)), (1001, 1001));
    drop((ann, ben));
    assert!(server.wait(PATIENCE).expect("it ends").success());
}

#[test]
fn who_does_not_finish_its_handshake_is_sent_away() {
    let folder = Folder::new();
    let certified = folder.certify();
    let server = Server::spawn(&certified.env());
    let mut idle = connect(server.http);
    let mut slow = connect(server.http);
    slow.write_all(b"\x16\x03\x01\x02\x00\x01\x00").expect("it reads"); // The beginning of a ClientHello.
    assert!(
        https(&server, &certified.certificate, "/health").status.success(),
        "others are served meanwhile"
    );
    for stream in [&mut idle, &mut slow] {
        let mut alert = Vec::new();
        stream.read_to_end(&mut alert).expect("the server ends it in time");
    }
    let metrics = said(&https(&server, &certified.certificate, "/metrics"));
    assert!(metrics.contains("\ngryt_sfu_tls_handshakes_failed_total 2\n"), "{metrics}");
    assert!(metrics.contains("\ngryt_sfu_http_connections_active 1\n"), "{metrics}");
}

#[test]
fn a_health_check_works_over_tls() {
    let folder = Folder::new();
    let certified = folder.certify();
    let server = Server::spawn(&certified.env());
    let health = |env: &[(&str, &str)]| {
        let port = server.http.port().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
        command.arg("--health").current_dir(std::env::temp_dir()).env("PORT", port).envs(env.iter().copied());
        command.output().expect("it runs")
    };
    let output = health(&certified.env());
    assert_eq!(said(&output), "healthy\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(health(&[]).status.code(), Some(1), "plain http is not answered");
    let plain = Server::spawn(&[]);
    let port = plain.http.port().to_string();
    assert_eq!(health(&[certified.env()[0], certified.env()[1], ("PORT", &port)]).status.code(), Some(1));
}

#[test]
fn a_new_certificate_is_taken_up_and_calls_go_on() {
    let folder = Folder::new();
    let certified = folder.certify();
    let old = certified.der();
    let mut server = Server::spawn(&certified.env());
    let mut ann = secure(&server, &old);
    join(&mut ann, "ann");

    // What is no certificate changes nothing.
    std::fs::write(&certified.certificate, "nothing\n").expect("our own file");
    hang_up(&server);
    let fault = format!("TLS_CERT={:?} is not accepted", certified.certificate);
    server.wait_for_log("the fault", |log| {
        log.lines().any(|line| line.contains("ERROR") && line.contains(&fault)).then_some(())
    });
    let mut ben = secure(&server, &old);
    join(&mut ben, "ben");
    assert_eq!(until(&mut ann, "user-joined")["userId"], "ben");

    // A proper one is for new connections.
    let certified = folder.certify();
    assert_ne!(certified.der(), old);
    hang_up(&server);
    server
        .wait_for_log("the change", |log| log.contains("new connections get the certificate").then_some(()));
    let mut eve = secure(&server, &certified.der());
    join(&mut eve, "eve");
    assert_eq!(until(&mut ann, "user-joined")["userId"], "eve");
    assert_eq!(until(&mut ben, "user-joined")["userId"], "eve");
    for socket in [&mut ann, &mut ben, &mut eve] {
        socket.send(Message::text(r#"{"event":"leave"}"#)).expect("it reads");
        assert_eq!(closed(socket), 1000);
    }
    let output = https(&server, &certified.certificate, "/health");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_certificate_that_is_not_good_for_long_is_said() {
    const WARNINGS: [&str; 3] =
        ["TLS_CERT expires at", "TLS_CERT expired at", "TLS_CERT is not valid before"];
    let folder = Folder::new();
    let certified = folder.certify(); // For two days.
    let mut server = Server::spawn(&[&certified.env()[..], &[("METRICS_ADDR", "127.0.0.1:0")]].concat());
    let metrics = metrics_url(&mut server);
    let expiry = || {
        let text = said(&curl(&[&metrics]));
        let name = "gryt_sfu_tls_certificate_expiry_timestamp_seconds ";
        let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
        value.parse::<u64>().unwrap_or_else(|error| panic!("{error}: {value}"))
    };
    let openssl = ["x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in", &certified.certificate];
    let output = Command::new("openssl").args(openssl).output().expect("openssl is there");
    // notAfter=2026-11-26 00:10:00Z
    let until = said(&output).trim().trim_start_matches("notAfter=").replace(' ', "T");
    let warned = |log: &str, what: &str| log.contains(what).then_some(());
    server.wait_for_log("a warning at the start", |log| {
        warned(log, &format!("warning:   TLS_CERT expires at {until}, in "))
    });
    let date = Command::new("date").args(["-u", "-d", &until, "+%s"]).output().expect("date exists");
    assert_eq!(said(&date).trim().parse::<u64>(), Ok(expiry()));
    let plain = Server::spawn(&[]);
    assert!(!plain.get("/metrics").1.contains("tls_certificate"), "without TLS there is none");

    for (from, until, warning) in [
        ("20200101000000Z", "20200201000000Z", "TLS_CERT expired at 2020-02-01T00:00:00Z"),
        ("21200101000000Z", "21210101000000Z", "TLS_CERT is not valid before 2120-01-01T00:00:00Z"),
    ] {
        let certified = folder.certify_between(from, until);
        hang_up(&server);
        server.wait_for_log("a warning at a reload", |log| {
            log.lines().find(|line| line.contains("WARN") && line.contains(warning)).map(drop)
        });
        let check = Command::new(env!("CARGO_BIN_EXE_sfu"))
            .arg("--check")
            .current_dir(std::env::temp_dir())
            .envs(certified.env())
            .output()
            .expect("it starts");
        assert!(check.status.success() && said(&check).contains(warning), "{}", said(&check));
    }
    let before = server.log().len();
    folder.certify_between("20200101000000Z", "21210101000000Z");
    hang_up(&server);
    server.wait_for_log("the change", |log| warned(&log[before..], "new connections get the certificate"));
    assert_eq!(expiry(), 4_765_132_800);
    // Its log is in order: a warning would be there by now.
    let later = server.log()[before..].to_owned();
    assert!(WARNINGS.iter().all(|warning| !later.contains(warning)), "{later}");
}

#[test]
fn sighup_without_tls_ends_nothing() {
    let mut server = Server::spawn(&[]);
    let mut ann = plain(&server);
    hang_up(&server);
    server.wait_for_log("the signal", |log| log.contains("SIGHUP").then_some(()));
    join(&mut ann, "ann");
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn bad_files_end_the_start_and_the_check() {
    let folder = Folder::new();
    let good = folder.certify();
    let other = Folder::new();
    let stranger = other.certify();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path(name), text).expect("our own folder");
        folder.path(name)
    };
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).expect("our own file");
    let (certificate, key) = (read(&good.certificate), read(&good.key));
    let cut = write("cut.pem", &certificate[..certificate.len() / 2]);
    let der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases = [
        ("TLS_CERT", folder.path("none.pem"), good.key.clone(), "No such file"),
        ("TLS_CERT", folder.path(""), good.key.clone(), "it is no file"),
        ("TLS_CERT", write("empty.pem", ""), good.key.clone(), "it holds no certificate"),
        ("TLS_CERT", good.key.clone(), good.key.clone(), "it holds no certificate"),
        ("TLS_CERT", cut, good.key.clone(), "has no end"),
        ("TLS_CERT", write("der.pem", der), good.key.clone(), "invalid peer certificate"),
        ("TLS_CERT", write("big.pem", &"x".repeat(1 << 20 | 1)), good.key.clone(), "larger than 1024 KiB"),
        ("TLS_KEY", good.certificate.clone(), folder.path("none.pem"), "No such file"),
        ("TLS_KEY", good.certificate.clone(), good.certificate.clone(), "it holds no private key"),
        ("TLS_KEY", good.certificate.clone(), write("half.pem", &key[..key.len() / 2]), "has no end"),
        ("TLS_KEY", good.certificate.clone(), stranger.key.clone(), "another certificate's"),
    ];
    for (variable, certificate, key, fault) in &cases {
        for args in [&[][..], &["--check"]] {
            let output = Command::new(env!("CARGO_BIN_EXE_sfu"))
                .args(args)
                .current_dir(std::env::temp_dir())
                .envs([("PORT", "0"), ("ICE_UDP_MUX_PORT", "0"), ("TLS_CERT", certificate), ("TLS_KEY", key)])
                .output()
                .expect("it starts");
            let words = said(&output);
            let path = if *variable == "TLS_CERT" { certificate } else { key };
            assert_eq!(output.status.code(), Some(2), "{words}");
            assert!(
                words.contains(&format!("{variable}={path:?}")) && words.contains(fault),
                "{fault}: {words}"
            );
            assert!(words.lines().count() == 1 && !words.contains("PRIVATE"), "{words}");
        }
    }
    let check = Command::new(env!("CARGO_BIN_EXE_sfu"))
        .arg("--check")
        .current_dir(std::env::temp_dir())
        .envs(good.env())
        .output()
        .expect("it starts");
    assert!(check.status.success() && said(&check).contains("TLS_CERT="), "{}", said(&check));
}
