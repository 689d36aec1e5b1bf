//! Whoever reads the log may stall: calls go on, and what is missing is said when he reads again.

mod support;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use support::server::{ended_start, sfu};
use support::{Client, Options, PATIENCE, Server, now, pipe};

/// A pipe by name that nobody reads until told to, full from the beginning when told so.
struct Pipe {
    path: PathBuf,
    /// Both ends, so that neither side waits for the other to open it.
    ends: File,
}

impl Pipe {
    fn new(name: &str) -> Pipe {
        let path = std::env::temp_dir().join(format!("sfu-{name}-{}", std::process::id()));
        let made = Command::new("mkfifo").arg(&path).status().expect("coreutils");
        assert!(made.success());
        let ends = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
        Pipe { ends: ends.expect("our own pipe"), path }
    }

    /// Until another byte would block.
    fn fill(&mut self) {
        loop {
            match self.ends.write(b"\n") {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads lines until one is as wanted.
    fn line(&self, is_it: impl Fn(&str) -> bool) -> String {
        let reader = OpenOptions::new().read(true).open(&self.path).expect("our own pipe");
        pipe::line(reader, is_it).expect("a line in time")
    }

    /// The server, with its standard error here.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        let words = format!("exec {} 2>{}", env!("CARGO_BIN_EXE_sfu"), self.path.display());
        command.current_dir(std::env::temp_dir()).args(["-c", &words]);
        command
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Has the server say something at each of so many requests, over one connection.
fn say_much(server: &Server, count: usize) {
    let mut stream = TcpStream::connect(server.http).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
    let mut answers = BufReader::new(stream.try_clone().expect("a socket"));
    for _ in 0..count / 10 {
        stream
            .write_all("GET /icon.svg HTTP/1.1\r\nhost: sfu\r\n\r\n".repeat(10).as_bytes())
            .expect("it reads");
        for _ in 0..10 {
            let mut body_len = 0;
            loop {
                let mut line = String::new();
                answers.read_line(&mut line).expect("control hangs at its log");
                if let Some(len) = line.strip_prefix("content-length: ") {
                    body_len = len.trim().parse().expect("a number");
                }
                if line == "\r\n" {
                    break;
                }
            }
            answers.read_exact(&mut vec![0; body_len]).expect("a body");
        }
    }
}

#[test]
fn a_log_that_nobody_reads_stops_no_call_and_says_later_what_is_missing() {
    let mut pipe = Pipe::new("stalled-log");
    let server = Server::spawn_command(
        pipe.command(),
        &[("LOG_LEVEL", "debug"), ("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_REQUESTS", "20")],
    );
    pipe.fill();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let call = async {
            let ann = Client::join(&server, "hall", "ann", Options::default()).await;
            let ben = Client::join(&server, "hall", "ben", Options::default()).await;
            ann.speak(20);
            ben.hears(&ann, 10).await;
            say_much(&server, 6_000);
            ben.hears(&ann, 50).await;
            assert_eq!(server.get("/health").0, 200);
        };
        tokio::time::timeout(2 * PATIENCE, call).await.expect("the call hangs with the log");
    });
    let lost = server.metric("gryt_sfu_log_lines_lost_total", &[]);
    assert!(lost > 1_000.0, "{lost}");
    let said = pipe.line(|line| line.contains("lines of the log are missing here"));
    let count: f64 = said.rsplit_once("lost=").and_then(|(_, count)| count.parse().ok()).expect("a count");
    assert!(said.contains(" WARN ") && count >= lost, "{lost} lost: {said}");
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_server_from_ending() {
    let mut pipe = Pipe::new("stalled-end");
    let mut server = Server::spawn_command(pipe.command(), &[("LOG_LEVEL", "debug")]);
    pipe.fill();
    let begun = now();
    server.terminate();
    assert!(server.wait(Duration::from_secs(5)).expect("it ends").success());
    assert!(begun.elapsed() >= Duration::from_millis(900), "the last lines were given their time");
}

/// A start that fails says why, behind what it said before.
#[test]
fn the_last_words_of_a_start_that_fails_come_last_and_whole() {
    for _ in 0..20 {
        let output = ended_start(sfu(&[]), &[("METRICS_ADDR", "192.0.2.1:9"), ("LOG_FORMAT", "json")]);
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("sfu: ") && last.contains("METRICS_ADDR") && said.ends_with('\n'), "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}
