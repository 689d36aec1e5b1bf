//! README's own command lines, word for word but for the port, against the real server:
//! `cargo test --features integration`.
//!
//! Needs `curl` (Debian) and `wscat` (npm): `tools/check.sh` installs both, wscat below `target/tools`.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;

use serde_json::Value;
use support::{PATIENCE, Server, now, pipe};

const README: &str = include_str!("../README.md");

/// Where the lines of README find the server.
const DOCUMENTED: &str = "localhost:5005";

/// The lines of README's section "Testing" that begin so, without the comment at the end.
fn documented(beginning: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once("\n## Testing\n").expect("README has a section on testing");
    let section = section.split("\n## ").next().unwrap_or_default();
    let lines = section.lines().filter(|line| line.starts_with(beginning));
    lines.map(|line| line.split("  #").next().unwrap_or_default().trim_end()).collect()
}

/// A shell that runs a line of README against this server; what was installed below `target` is found first.
fn shell(line: &str, server: &Server) -> Command {
    assert!(line.contains(DOCUMENTED), "{line}");
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node/node_modules/.bin");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    // `exec`, so that whoever ends the shell ends the program.
    command.arg("-c").arg(format!("exec {}", line.replace(DOCUMENTED, &server.http.to_string())));
    command.env("PATH", format!("{}:{path}", installed.display()));
    command
}

fn curl(line: &str, server: &Server) -> String {
    let output = shell(line, server).stdin(Stdio::null()).output().expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line} (Debian's `curl` is needed): {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// Ends with the value.
struct Talk {
    child: Child,
    lines: Receiver<String>,
}

impl Talk {
    /// On a terminal, as people use it: elsewhere it does not say when it is connected.
    fn start(line: &str, server: &Server) -> Talk {
        let mut command = shell(&format!("script -qefc '{line}' /dev/null 2>&1"), server);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let lines = pipe::lines(child.stdout.take().expect("piped"));
        let talk = Talk { child, lines };
        talk.until("Connected", |line| line.contains("Connected").then_some(()));
        talk
    }

    fn say(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    /// The next message of this event.
    fn hears(&self, event: &str) -> Value {
        self.until(event, |line| {
            // What the server says begins with `< `; what we type is echoed.
            let (_, message) = line.split_once("< ")?;
            let mut messages = serde_json::Deserializer::from_str(message).into_iter::<Value>();
            let message = messages.next()?.ok().filter(|message| message["event"] == event)?;
            Some(message["data"].clone())
        })
    }

    fn until<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let deadline = now() + PATIENCE;
        let mut all = String::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(now())) {
            if let Some(found) = find(&line) {
                return found;
            }
            all.push_str(&line);
            all.push('\n');
        }
        panic!("no {what} (wscat is needed: npm install --prefix target/tools/node wscat): {all}");
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_commands_of_cargo_are_there() {
    let manifest = include_str!("../Cargo.toml");
    for line in
        ["cargo test", "cargo test --features integration", "cargo test --features load", "cargo bench"]
    {
        assert!(documented("cargo ").contains(&line), "{line}: {:?}", documented("cargo "));
        if let Some((_, feature)) = line.split_once("--features ") {
            assert!(manifest.contains(&format!("required-features = [\"{feature}\"]")), "{feature}");
        }
    }
}

#[test]
fn health_is_as_documented() {
    let server = Server::spawn(&[]);
    let lines = documented("curl ");
    let line = lines.iter().find(|line| line.ends_with("/health")).expect("a line on health");
    let health: Value = serde_json::from_str(&curl(line, &server)).expect("JSON");
    assert_eq!(health["status"], "healthy", "{health}");
}

#[test]
fn every_curl_line_is_answered() {
    let server = Server::spawn(&[]);
    let lines = documented("curl ");
    assert!(lines.len() >= 2, "{lines:?}");
    for line in lines {
        let body = curl(&format!("{line} --fail"), &server);
        assert!(!body.is_empty(), "{line}");
        if line.ends_with("/metrics") {
            assert!(body.contains("# TYPE gryt_sfu_"), "{body}");
        }
    }
}

#[test]
fn wscat_joins_as_documented_and_is_told_of_the_next() {
    let server = Server::spawn(&[]);
    let [wscat] = documented("wscat ")[..] else { panic!("one line with wscat") };
    let [join] = documented("{\"event\":\"join\"")[..] else { panic!("one join") };
    let wanted: Value = serde_json::from_str(join).expect("the documented join is JSON");
    let mut first = Talk::start(wscat, &server);
    first.say(join);
    let joined = first.hears("joined");
    assert_eq!(joined["success"], true, "{joined}");
    assert_eq!(
        (&joined["roomId"], &joined["userId"]),
        (&wanted["data"]["roomId"], &wanted["data"]["userId"])
    );

    let mut second = Talk::start(wscat, &server);
    second.say(&join.replace("user-123", "user-456"));
    let joined = second.hears("joined");
    assert_eq!(joined["peers"], serde_json::json!(["user-123"]), "{joined}");
    assert_eq!(
        joined["peerInfo"]["user-123"]["nickname"], wanted["data"]["userInfo"]["nickname"],
        "{joined}"
    );
    assert_eq!(first.hears("user-joined")["userId"], "user-456");
    second.say(r#"{"event":"leave","data":{}}"#);
    assert_eq!(first.hears("user-left")["userId"], "user-456");
}
