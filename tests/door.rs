//! Who is let in at the front door: other sites' pages, TLS, proxies, rates. With curl and openssl as peers.

mod support;
#[path = "door/tls.rs"]
mod tls;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use support::folder::Folder;
use support::server::{ended_start, sfu};
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
    let own = [("origin", "https://sfu.example"), ("host", "sfu.example")];
    assert_eq!(upgrade(&server, &own).0, 101, "a proxy ended TLS");
    let own = [("origin", "http://localhost:5005"), ("host", "localhost:5005")];
    assert_eq!(upgrade(&server, &own).0, 101, "nobody else's name");
    let rebound = [("origin", "http://evil.example:5005"), ("host", "evil.example:5005")];
    assert_eq!(upgrade(&server, &rebound).0, 403, "any name can be pointed here");
    assert_eq!(server.metric("gryt_sfu_websocket_origins_refused_total", &[]), 10.0);

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
    let what = "WebSockets of no member give way";
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
    assert!(!server.whole_log().contains("guessed"), "what is shown may be another server's");
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
    for _ in 0..5 {
        assert_eq!(ask(&server, "/", &[]).status, 200);
        assert_eq!(upgrade(&server, &[]).0, 101);
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

/// A browser behind the same NAT may be shown any site's page.
#[test]
fn a_hostile_page_leaves_its_neighbours_the_right_to_connect() {
    let server = Server::spawn(&[
        ("CORS_ORIGINS", APP),
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "2"),
        ("RATE_LIMIT_WINDOW", "1h"),
    ]);
    let status = |origin: &str| upgrade(&server, &[("origin", origin)]).0;
    // As `fetch` does it without CORS, and `new WebSocket`.
    assert_eq!([(); 4].map(|()| ask(&server, "/", &[]).status), [200, 200, 429, 429]);
    assert_eq!([(); 4].map(|()| status("https://evil.example")), [403; 4]);
    assert_eq!([(); 3].map(|()| status(APP)), [101, 101, 429]);
    assert_eq!(status("https://evil.example"), 403);
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
    let start = |args: &[&str], address: &str| ended_start(sfu(args), &[("METRICS_ADDR", address)]);
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
fn a_folder_that_is_not_there_is_said_by_the_check_as_by_the_start() {
    let folder = Folder::new();
    let none = folder.path("none");
    let token = ("DEBUG_TOKEN", "a-token-for-captures");
    let file = std::path::Path::new(&none).join("sfu.log").to_str().expect("UTF-8").to_owned();
    let cases = [
        ("CAPTURE_DIR", &none, "cannot be read"),
        ("KEYLOG_DIR", &none, "cannot be read"),
        ("LOG_FILE", &file, "cannot be opened for writing"),
        ("LOG_FILE", &folder.path(""), "cannot be opened for writing"), // A folder.
    ];
    for (variable, value, fault) in cases {
        for args in [&[][..], &["--check"]] {
            let output = ended_start(sfu(args), &[token, (variable, value)]);
            let words = said(&output);
            assert_eq!(output.status.code(), Some(1), "{words}");
            let (what, why) = (format!("sfu: {variable}={value:?} {fault}: "), "(os error ");
            assert!(words.contains(&what) && words.contains(why), "{words}");
        }
    }

    let (file, folder) = (folder.path("sfu.log"), folder.path(""));
    let given = [token, ("CAPTURE_DIR", &folder), ("KEYLOG_DIR", &folder), ("LOG_FILE", &file)];
    assert!(ended_start(sfu(&["--check"]), &given).status.success());
    assert!(!std::path::Path::new(&file).exists(), "it only looks");
}

/// On a file system where not even root may write.
#[test]
fn a_log_file_that_cannot_be_made_is_said_by_the_check_as_by_the_start() {
    let folder = Folder::new();
    let (file, folder) = (folder.path("sfu.log"), folder.path(""));
    for args in [&[][..], &["--check"]] {
        let inner = sfu(args);
        let mut outer = Command::new("unshare");
        let mount = r#"mount -t tmpfs -o ro none "$0" && exec "$@""#;
        outer.args(["--user", "--map-root-user", "--mount", "sh", "-c", mount, &folder]);
        outer.arg(inner.get_program()).args(inner.get_args());
        let output = ended_start(outer, &[("LOG_FILE", &file)]);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("Read-only file system"), "{}", said(&output));
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
    let mut server = Server::spawn(&[
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
    // A line may come after its answer.
    let log = server.wait_for_log("the clients' names", |log| {
        (log.contains("198.51.100.1") && log.contains("198.51.100.3")).then(|| log.to_owned())
    });
    assert!(!log.contains("203.0.113"), "and nobody whom he invented: {log}");
}

#[test]
fn a_stranger_that_calls_itself_a_proxy_is_not_believed() {
    let mut server = Server::spawn(&[
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_REQUESTS", "1"),
        ("RATE_LIMIT_WINDOW", "1h"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("LOG_LEVEL", "debug"),
    ]);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "198.51.100.1")]).0, 101);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "198.51.100.2")]).0, 429);
    assert_eq!(upgrade(&server, &[("x-forwarded-for", "10.0.0.1")]).0, 429);
    let log = server.whole_log();
    assert!(log.contains("too many requests") && !log.contains("198.51.100."), "{log}");
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

/// With another character in place of what is none, every token would be refused and nobody would know why.
#[test]
fn a_value_that_is_no_utf_8_ends_the_start_and_is_not_shown() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = sfu(&["--check"]);
    command
        .env("AUTH_SECRET", std::ffi::OsStr::from_bytes(b"a-secret-of-more-than-32-bytes-in-latin-1-\xe9"));
    let output = ended_start(command, &[]);
    assert_eq!(
        (output.status.code(), said(&output)),
        (Some(2), "sfu: AUTH_SECRET is not accepted: it is not UTF-8\n".into())
    );
}
