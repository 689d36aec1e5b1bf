//! Bare metal: start.sh, sysctl settings, and what README.md refers to.

use std::path::Path;
use std::process::Command;

use gryt_sfu::net::socket::BUFFER_LEN_WANTED;

use crate::house::{Folder, path, printed, text, tool};
use crate::support::server::ended_start;
use crate::support::{PATIENCE, Server};

const START: &str = "tools/deploy/start.sh";
const SYSCTL: &str = "tools/deploy/sysctl.d/60-gryt-sfu.conf";

#[test]
fn a_linter_finds_nothing_in_scripts() {
    let scripts = ["tools/check.sh", "tools/deep.sh", START, ".ci/run"];
    for script in scripts.map(path).iter().filter(|script| script.exists()) {
        printed(tool("shellcheck").arg("--severity=warning").arg(script));
    }
}

#[test]
fn start_sh_becomes_the_server() {
    let folder = Folder::new("start");
    let start = || {
        let mut start = Command::new(path(START));
        start.arg(env!("CARGO_BIN_EXE_sfu")).current_dir(&folder.0);
        start
    };
    let mut server = Server::spawn_command(start(), &[]);
    assert_eq!(server.get("/health").0, 200);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let numbers: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "soft and hard");
    server.terminate();
    assert!(server.wait(PATIENCE).is_some_and(|status| status.success()), "it is the server that was told");
    let wrong = ended_start(start(), &[("PORT", "none")]);
    let words = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{words}");
    assert!(words.starts_with("sfu: PORT="), "{words}");
}

#[test]
fn sysctl_settings_exist_and_are_enough() {
    let mut buffers = 0;
    for line in text(SYSCTL).lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(!key.contains("io_uring"), "{key}: a hardening of the whole machine is not lifted unasked");
        let here = Path::new("/proc/sys").join(key.replace('.', "/"));
        // A network namespace of a container shows some of them only to the host.
        assert!(here.exists() || Path::new("/.dockerenv").exists(), "this kernel knows no {key}");
        if key == "net.core.rmem_max" || key == "net.core.wmem_max" {
            assert!(value.parse::<usize>().expect("bytes") >= BUFFER_LEN_WANTED, "{line}");
            buffers += 1;
        }
    }
    assert_eq!(buffers, 2);
}

#[test]
fn the_readme_refers_to_files_that_are_there() {
    let readme = text("tools/deploy/README.md");
    let links: Vec<_> = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let files = links.iter().filter(|link| !link.contains("://") && !link.starts_with('#'));
    assert!(links.len() >= 8);
    for link in files {
        assert!(path("tools/deploy").join(link).exists(), "README.md links to {link}");
    }
}
