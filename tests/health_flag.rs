//! `sfu --health`, as a container's health check calls it: 0 for a live server, 1 for everything else.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output};
use std::thread;

use support::Server;

fn health(port: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
    command.arg("--health").env("PORT", port).current_dir(std::env::temp_dir()).output().expect("it runs")
}

fn refused(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.starts_with("sfu: ") && words.lines().count() == 1, "{words}");
    words
}

#[test]
fn a_live_server_is_healthy_until_it_ends() {
    let mut server = Server::spawn(&[]);
    let port = server.http.port().to_string();
    let output = health(&port);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"healthy\n");
    server.terminate();
    assert!(server.wait(support::PATIENCE).is_some());
    assert!(refused(&health(&port)).contains(&format!("no answer on TCP port {port}")));
}

#[test]
fn another_answer_or_none_is_unhealthy() {
    for (answer, word) in [
        (&b"HTTP/1.1 503 Service Unavailable\r\n\r\n"[..], "HTTP/1.1 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0"),
        (b"HTTP", "no answer"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port().to_string();
        let stranger = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("it connects");
            let mut asked = [0; 11];
            stream.read_exact(&mut asked).expect("it asks");
            assert_eq!(&asked, b"GET /health");
            stream.write_all(answer).expect("it reads");
        });
        let words = refused(&health(&port));
        assert!(words.contains(word), "{words}");
        stranger.join().expect("the stranger was asked");
    }
}

#[test]
fn silence_is_unhealthy_within_seconds() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let start = support::now();
    assert!(
        refused(&health(&listener.local_addr().expect("bound").port().to_string())).contains("no answer")
    );
    assert!(start.elapsed() < support::PATIENCE / 4);
}

#[test]
fn what_cannot_be_asked_is_unhealthy() {
    assert!(refused(&health("0")).contains("PORT=0"));
    assert!(refused(&health("http")).contains("not accepted"));
}
