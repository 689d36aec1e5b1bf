//! `KEYLOG_DIR` of the running server: what is written, for whom, what is said of it, and that calls go on when nothing
//! can be written. That its keys open what was said is shown in `tests/replay.rs`.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use gryt_sfu::dtls::key_log::{Entry, parse};
use support::folder::Folder;
use support::server::{ended_start, sfu};
use support::{Client, Options, PATIENCE, Server, now};

const TOKEN: &str = "a-token-of-more-than-16-bytes";

fn files(folder: &Folder) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder.dir()).expect("a folder");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// Every line there is, once there are this many that say something.
async fn lines_of(folder: &Folder, count: usize) -> Vec<String> {
    let deadline = now() + PATIENCE;
    loop {
        let text: String =
            files(folder).iter().map(|file| std::fs::read_to_string(file).expect("a file")).collect();
        // A line that is being written has no end yet.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines: Vec<_> = whole.filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(now() < deadline, "{} of {count} lines: {text}", lines.len());
        tokio::time::sleep(Duration::from_millis(50)).await; // Nobody tells when a file grows.
    }
}

#[tokio::test]
async fn keys_of_each_handshake_are_written_for_the_owner_alone_and_never_logged() {
    let folder = Folder::new();
    let mut server =
        Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("KEYLOG_DIR", folder.dir()), ("LOG_LEVEL", "debug")]);
    let ann = Client::join(&server, "a secret room", "ann", Options::default()).await;
    let ben = Client::join(&server, "a secret room", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    let lines = lines_of(&folder, 2).await;
    let entries: Vec<Entry> = lines
        .iter()
        .map(|line| parse(line).expect("a line as documented").expect("it says something"))
        .collect();
    assert_eq!(entries.len(), 2);
    assert_ne!(entries[0].transport, entries[1].transport);
    assert_ne!(entries[0].keys.client.key, entries[1].keys.client.key);
    let began = gryt_sfu::time::Now::read().ntp.unix_seconds();
    assert!(entries.iter().all(|entry| u64::from(began).abs_diff(entry.time) < 60), "{lines:?}");

    let [file] = &files(&folder)[..] else { panic!("one file a server: {:?}", files(&folder)) };
    let mode = std::fs::metadata(file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(file).expect("a file");
    for private in ["secret", "ann", "ben", "127.0.0.1"] {
        assert!(!text.contains(private), "{private} in {text}");
    }
    let name = file.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
    server.wait_for_log("the file", |log| log.contains(&name).then_some(()));
    let log = server.log();
    let warned = |what: &str| log.lines().filter(|line| line.contains("WARN") && line.contains(what)).count();
    assert_eq!((warned("KEYLOG_DIR is set"), warned(&name)), (1, 1), "{log}");
    for value in lines.iter().flat_map(|line| line.split_ascii_whitespace().skip(4)) {
        assert!(value.len() >= 24 && !log.contains(value), "a key in the log");
    }
}

#[tokio::test]
async fn a_call_goes_on_when_its_keys_cannot_be_written() {
    let folder = Folder::new();
    for number in 0..32 {
        folder.write(&format!("sfu-{number}.keys"), b"");
    }
    let mut server = Server::spawn(&[("DEBUG_TOKEN", TOKEN), ("KEYLOG_DIR", folder.dir())]);
    let ann = Client::join(&server, "hall", "ann", Options::default()).await;
    let ben = Client::join(&server, "hall", "ben", Options::default()).await;
    ann.speak(20);
    ben.hears(&ann, 50).await;
    let fault = "KEYLOG_DIR holds as many files as it may";
    server.wait_for_log("a warning", |log| log.contains(fault).then_some(()));
    // There is room again: the next is written, and how many are missing is said.
    std::fs::remove_file(folder.path("sfu-7.keys")).expect("a file");
    let _eve = Client::join(&server, "hall", "eve", Options::default()).await;
    lines_of(&folder, 1).await;
    server.wait_for_log("how many", |log| log.contains("missed=2").then_some(()));
    let log = server.log();
    let said: Vec<_> = log.lines().filter(|line| line.contains(fault)).collect();
    assert_eq!(said.len(), 1, "once for both: {said:?}");
}

#[test]
fn without_a_token_or_a_folder_there_is_no_start() {
    let start = |variables: &[(&str, &str)]| {
        let output = ended_start(sfu(&[]), variables);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let (status, said) = start(&[("KEYLOG_DIR", "/tmp")]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("KEYLOG_DIR is not accepted alone; it needs DEBUG_TOKEN"), "{said}");
    let (status, said) = start(&[("KEYLOG_DIR", "/etc/hostname"), ("DEBUG_TOKEN", TOKEN)]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(r#"KEYLOG_DIR="/etc/hostname" cannot be read: Not a directory"#), "{said}");
}
