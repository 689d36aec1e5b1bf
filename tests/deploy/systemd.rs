//! The unit for bare metal: verified and rated by systemd's own tools, and its filter put to the test.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::house::{CLOSING, Folder, assert_variables, printed, seconds, text};
use crate::seccomp::{assert_serves, folder_with_server, under};
use crate::support::Server;
use crate::support::server::{ended_start, sfu};

const UNIT: &str = "tools/deploy/systemd/gryt-sfu.service";

/// Of systemd's rating, 0 to 100: what a service that needs the network, a ring and /proc/sys comes to.
const EXPOSURE_MAX: &str = "--threshold=12";

/// Values of a setting, in order.
fn settings(name: &str) -> Vec<String> {
    let is_it =
        |line: &str| Some(line.split_once('=')?).filter(|(key, _)| *key == name).map(|(_, v)| v.to_owned());
    text(UNIT).lines().filter_map(is_it).collect()
}

fn setting(name: &str) -> String {
    let values = settings(name);
    assert_eq!(values.len(), 1, "{name}={values:?}");
    values.into_iter().next().expect("just counted")
}

/// The unit with a server that is there.
fn unit(folder: &Folder) -> PathBuf {
    let path = folder.0.join("gryt-sfu.service");
    let here = text(UNIT).replace("/usr/local/bin/sfu", env!("CARGO_BIN_EXE_sfu"));
    assert_ne!(here, text(UNIT));
    fs::write(&path, here).expect("our own folder");
    path
}

#[test]
fn systemd_verifies_it() {
    let folder = Folder::new("verify");
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no"]).arg(unit(&folder)).output().expect("systemd-analyze");
    let words = String::from_utf8_lossy(&output.stderr);
    // Unknown settings are warnings to it.
    assert!(output.status.success() && !words.contains("gryt-sfu.service"), "{words}");
}

#[test]
fn systemd_rates_it_well() {
    let folder = Folder::new("rate");
    let mut rate = Command::new("systemd-analyze");
    rate.args(["security", "--offline=true", "--no-pager", EXPOSURE_MAX]).arg(unit(&folder));
    printed(&mut rate);
}

#[test]
fn it_ends_calls_and_restarts_as_the_server_means_it() {
    let environment = setting("Environment");
    let variables = || environment.split(' ').map(|pair| pair.split_once('=').expect("NAME=value"));
    assert_variables(UNIT, variables().map(|(name, _)| name));
    let (_, drain) = variables().find(|(name, _)| *name == "DRAIN_TIMEOUT").expect("calls may end");
    assert!(seconds(&setting("TimeoutStopSec")) > seconds(drain) + CLOSING);
    assert_eq!(setting("Type"), "notify");
    assert!(seconds(&setting("WatchdogSec")) > 0);
    assert_eq!(setting("Restart"), "on-failure");
    // The status of a configuration at fault.
    let status = ended_start(sfu(&[]), &[("PORT", "none")]).status;
    assert_eq!(status.code().map(|code| code.to_string()), Some(setting("RestartPreventExitStatus")));
    assert_eq!(
        (setting("CapabilityBoundingSet"), setting("AmbientCapabilities")),
        (String::new(), String::new())
    );
}

/// The calls of a filter's line, systemd's own sets taken apart.
fn calls(words: &str) -> HashSet<String> {
    let mut calls = HashSet::new();
    for word in words.trim_start_matches('~').split_whitespace() {
        if word.starts_with('@') {
            let listed =
                printed(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", word]));
            let members = listed.lines().skip(1).map(str::trim);
            for member in members.filter(|member| !member.is_empty() && !member.starts_with('#')) {
                calls.extend(self::calls(member));
            }
        } else {
            calls.insert(word.to_owned());
        }
    }
    calls
}

#[tokio::test]
async fn the_server_serves_under_its_filter() {
    let mut allowed = HashSet::new();
    for line in settings("SystemCallFilter") {
        if line.starts_with('~') {
            let denied = calls(&line);
            allowed.retain(|call| !denied.contains(call));
        } else {
            allowed.extend(calls(&line));
        }
    }
    assert!(allowed.contains("io_uring_setup") && !allowed.contains("mount") && !allowed.contains("chown"));
    // The service manager has become the service's user by then, as this test has to.
    let before = ["execve", "setuid", "setresuid", "setresgid", "setgroups", "capset", "prctl"];
    allowed.extend(before.map(str::to_owned));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [],
        "syscalls": [{ "names": allowed, "action": "SCMP_ACT_ALLOW" }],
    });
    assert_eq!(setting("SystemCallErrorNumber"), "EPERM", "the default of a profile");
    let (folder, sfu) = folder_with_server("filter");
    let path = folder.0.join("profile.json");
    fs::write(&path, profile.to_string()).expect("our own folder");
    let server = Server::spawn_command(under(&path, &[], &folder.0, &[&sfu]), &[]);
    assert_serves(&server).await;
}
