//! What each path answers.

mod http_support;

use http_support::{short, with_door};

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|h| h.1)
}

#[test]
fn health_says_who_is_alive_to_every_origin() {
    with_door(short(), |door| async move {
        let (head, body) = door.request("GET /health HTTP/1.1").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(header(&head, "access-control-allow-origin"), Some("*"));
        assert_eq!(header(&head, "content-type"), Some("application/json"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], "healthy");
        assert_eq!(body["service"], "sfu");
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
        let timestamp = body["timestamp"].as_str().unwrap();
        assert!(
            timestamp.len() == 20 && timestamp.starts_with("20") && timestamp.ends_with('Z'),
            "{timestamp}"
        );
    });
}

#[test]
fn ready_follows_the_house() {
    with_door(short(), |door| async move {
        let (head, _) = door.request("GET /ready HTTP/1.1").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        door.ready.set(false);
        let (head, body) = door.request("GET /ready HTTP/1.1").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert!(body.contains("draining"), "{body}");
        let (head, body) = door.request("GET /health HTTP/1.1").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "a draining server is alive: {head}");
        assert!(body.contains("draining"), "{body}");
        // A worker that hangs is not waited for, also not by a drain.
        for is_ready in [false, true] {
            door.ready.set(is_ready);
            door.alive.set(false);
            let (head, body) = door.request("GET /health HTTP/1.1").await;
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            assert_eq!(header(&head, "access-control-allow-origin"), Some("*"));
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(
                (&body["status"], &body["detail"]),
                (&"unhealthy".into(), &"a worker does not answer".into())
            );
        }
    });
}

#[test]
fn metrics_count_this_very_request() {
    with_door(short(), |door| async move {
        let (head, body) = door.request("GET /metrics HTTP/1.1").await;
        assert_eq!(header(&head, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("\ngryt_sfu_http_requests_total 1\n"), "{body}");
        assert!(body.contains("\ngryt_sfu_http_connections_active 1\n"), "{body}");
        assert!(body.contains("gryt_sfu_drops_total{worker=\"1\",reason=\"bad_auth_tag\"} 0"), "{body}");
        assert!(body.contains("\n# TYPE gryt_sfu_http_requests_total counter\n"), "{body}");
        let (head, body) =
            door.request("GET /metrics HTTP/1.1\r\naccept: application/openmetrics-text;version=1.0.0").await;
        assert!(header(&head, "content-type").unwrap().starts_with("application/openmetrics-text"), "{head}");
        assert!(body.contains("\n# TYPE gryt_sfu_http_requests counter\n"), "{body}");
    });
}

#[test]
fn the_page_keeps_to_itself() {
    with_door(short(), |door| async move {
        for (path, content_type) in [
            ("/", "text/html"),
            ("/?room=tea", "text/html"),
            ("/app.js", "text/javascript"),
            ("/style.css", "text/css"),
            ("/session.js", "text/javascript"),
            ("/sound.js", "text/javascript"),
            ("/stats.js", "text/javascript"),
            ("/view.js", "text/javascript"),
            ("/icon.svg", "image/svg+xml"),
        ] {
            let (head, body) = door.request(&format!("GET {path} HTTP/1.1")).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
            assert!(header(&head, "content-type").unwrap().starts_with(content_type), "{path}: {head}");
            let policy = header(&head, "content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(header(&head, "x-content-type-options"), Some("nosniff"));
            assert_eq!(header(&head, "referrer-policy"), Some("no-referrer"));
            assert_eq!(header(&head, "cache-control"), Some("no-store"));
            // Whatever the page loads or asks for comes from its own server; names of formats are no request.
            for word in ["//cdn", "https://", "@import", "innerHTML", "<script>", " style=\""] {
                assert!(!body.contains(word), "{path} contains {word}");
            }
        }
    });
}

#[test]
fn other_paths_and_methods_are_refused_in_few_words() {
    with_door(short(), |door| async move {
        for path in ["/nothing", "/debug/rooms", "/index.html", "/../Cargo.toml", "/health/", "/server"] {
            let (head, body) = door.request(&format!("GET {path} HTTP/1.1")).await;
            assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
            assert_eq!(body, "Not found.\n");
        }
        for path in ["/", "/health", "/ready", "/metrics"] {
            let (head, _) = door.request(&format!("POST {path} HTTP/1.1\r\ncontent-length: 0")).await;
            assert!(head.starts_with("HTTP/1.1 405 "), "{path}: {head}");
            assert_eq!(header(&head, "allow"), Some("GET, HEAD"));
            let (head, body) = door.request(&format!("HEAD {path} HTTP/1.1")).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty(), "{path}: {head}");
        }
    });
}
