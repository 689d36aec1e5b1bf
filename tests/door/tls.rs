//! The front door with a certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::support::folder::Folder;

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
        let check = ended_start(sfu(&["--check"]), &certified.env());
        assert!(check.status.success() && said(&check).contains(warning), "{}", said(&check));
    }
    let before = server.log().len();
    folder.certify_between("20200101000000Z", "21210101000000Z");
    hang_up(&server);
    server.wait_for_log("the change", |log| warned(&log[before..], "new connections get the certificate"));
    let deadline = now() + PATIENCE;
    while expiry() != 4_765_132_800 {
        assert!(now() < deadline, "{}", expiry());
        std::thread::sleep(Duration::from_millis(50)); // A page of metrics is kept for a moment.
    }
    // Its log is in order: a warning would be there by now.
    let later = server.log()[before..].to_owned();
    assert!(WARNINGS.iter().all(|warning| !later.contains(warning)), "{later}");
}

/// In a container nobody can send a signal.
#[test]
fn a_renewed_certificate_is_noticed_without_a_signal() {
    let folder = Folder::new();
    let mut server = Server::spawn(&folder.certify().env());
    let renewed = folder.certify();
    server
        .wait_for_log("the change", |log| log.contains("new connections get the certificate").then_some(()));
    let mut ann = secure(&server, &renewed.der());
    join(&mut ann, "ann");

    let chain = std::fs::read(&renewed.certificate).expect("our own file");
    std::fs::write(&renewed.certificate, "no certificate").expect("our own file");
    server.wait_for_log("the fault", |log| log.contains("the certificate in use stays").then_some(()));
    std::fs::write(&renewed.certificate, chain).expect("our own file");
    server.wait_for_log("that it is over, though it is no other", |log| {
        (log.matches("new connections get the certificate").count() == 2).then_some(())
    });
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
            let output = ended_start(sfu(args), &[("TLS_CERT", certificate), ("TLS_KEY", key)]);
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
    let check = ended_start(sfu(&["--check"]), &good.env());
    assert!(check.status.success() && said(&check).contains("TLS_CERT="), "{}", said(&check));
}
