//! The compose file, as Docker Compose itself reads it.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use gryt_sfu::config::Config;
use serde_json::{Value, json};

use crate::house::{CLOSING, Folder, assert_variables, path, printed, seconds, text, tool};

const FILE: &str = "tools/deploy/docker-compose.yml";
const EXAMPLE: &str = "tools/deploy/compose.env.example";

/// What the example leaves empty: everybody could read it there.
const SECRETS: [(&str, &str); 2] =
    [("TURN_SECRET", "a-secret-of-this-test-alone"), ("GRAFANA_PASSWORD", "a-password-of-this-test-alone")];

/// Compose with the example's variables, and the secrets of whoever filled them in.
fn filled_in() -> Command {
    let mut compose = tool("docker-compose");
    compose.arg("--file").arg(path(FILE)).arg("--env-file").arg(path(EXAMPLE)).envs(SECRETS);
    compose
}

fn compose() -> Value {
    let config = printed(filled_in().args(["config", "--format", "json"]));
    serde_json::from_str(&config).expect("it writes JSON")
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn the_server_is_set_up_with_values_that_it_takes() {
    let compose = compose();
    let environment = compose["services"]["sfu"]["environment"].as_object().expect("variables");
    assert_variables(FILE, environment.keys().map(String::as_str));
    let values: HashMap<_, _> = environment.iter().map(|(name, value)| (name, value.as_str())).collect();
    Config::parse(4, |name| values.get(&name.to_owned()).copied().flatten().map(str::to_owned))
        .unwrap_or_else(|error| panic!("{FILE}: {error}"));
    let drain = seconds(environment["DRAIN_TIMEOUT"].as_str().expect("set"));
    let grace = compose["services"]["sfu"]["stop_grace_period"].as_str().expect("set");
    let grace = grace
        .split_once('m')
        .map_or_else(|| seconds(grace), |(m, s)| m.parse::<u64>().expect("minutes") * 60 + seconds(s));
    assert!(grace > drain + CLOSING);
}

#[test]
fn the_server_is_confined_and_may_use_rings() {
    let compose = compose();
    let sfu = &compose["services"]["sfu"];
    let options = strings(&sfu["security_opt"]);
    let profile = options.iter().find_map(|option| option.strip_prefix("seccomp=")).expect("a profile");
    assert!(path("tools/deploy").join(profile).exists(), "{profile} beside the compose file");
    assert!(options.contains(&"no-new-privileges:true"));
    assert_eq!((strings(&sfu["cap_drop"]), &sfu["read_only"]), (vec!["ALL"], &json!(true)));
    assert_eq!(sfu["build"]["context"].as_str(), path("").to_str().map(|root| root.trim_end_matches('/')));
    assert!(sfu["privileged"].is_null() && sfu["cap_add"].is_null());
}

#[test]
fn all_four_share_the_hosts_network_and_only_two_are_open() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    for name in ["sfu", "coturn", "prometheus", "grafana"] {
        assert_eq!(services[name]["network_mode"], "host", "{name}");
        assert_eq!(services[name]["restart"], "unless-stopped", "{name}");
        assert!(services[name]["image"].as_str().is_some_and(|image| !image.ends_with(":latest")), "{name}");
    }
    assert!(strings(&services["prometheus"]["command"]).contains(&"--web.listen-address=127.0.0.1:9090"));
    assert_eq!(services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"], "127.0.0.1");
}

#[test]
fn configurations_are_mounted_where_they_are_read() {
    let compose = compose();
    let mounts = |service: &str| -> Vec<(String, String)> {
        let volumes = compose["services"][service]["volumes"].as_array().expect("volumes");
        let bound = volumes.iter().filter(|volume| volume["type"] == "bind");
        bound
            .map(|volume| {
                assert_eq!(volume["read_only"], true);
                let source = volume["source"].as_str().expect("a path");
                let inside =
                    source.strip_prefix(path("tools/deploy/").to_str().expect("plain")).expect("beside");
                (inside.to_owned(), volume["target"].as_str().expect("a path").to_owned())
            })
            .collect()
    };
    let pair = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(mounts("coturn"), [pair("coturn/turnserver.conf", "/etc/coturn/turnserver.conf")]);
    assert_eq!(mounts("prometheus"), [pair("prometheus", "/etc/prometheus")]);
    assert_eq!(mounts("grafana"), [pair("grafana/dashboard.json", "/var/lib/dashboards/dashboard.json")]);
}

/// coturn's start, with its files in a folder of ours and a stand-in that prints its settings.
#[test]
fn coturn_has_this_machines_settings_and_no_others() {
    let compose = compose();
    let coturn = &compose["services"]["coturn"];
    let sfu = &compose["services"]["sfu"];
    let folder = Folder::new("coturn");
    let here = folder.0.to_str().expect("plain names");
    let example =
        "static-auth-secret=CHANGE-ME\nrealm=example\nallowed-peer-ip=203.0.113.5\nno-cli\nsyslog\n";
    fs::write(folder.0.join("etc.conf"), example).expect("our own folder");
    let entry = strings(&coturn["entrypoint"]);
    let script = strings(&coturn["command"])[0].replace("$$", "$");
    let script = script.replace("/tmp/turnserver.conf", &format!("{here}/new.conf"));
    let script = script.replace("/etc/coturn/turnserver.conf", &format!("{here}/etc.conf"));
    let script = script.replace("exec turnserver -c", "exec cat");
    let mut command = Command::new(entry[0]);
    command.args(&entry[1..]).arg(script);
    for (name, value) in coturn["environment"].as_object().expect("variables") {
        assert_eq!(name == "TURN_HOST", sfu["environment"][name] != *value, "{name} is the server's");
        command.env(name, value.as_str().expect("set"));
    }
    command.env(
        "ICE_ADVERTISE_IP",
        "198.51.100.7, 2001:db8::7,198.51.100.8:13478,[2001:db8::8],[2001:db8::9]:13478",
    );
    let settings = printed(&mut command);
    let expected = [
        "no-cli",
        "static-auth-secret=a-secret-of-this-test-alone",
        "realm=turn.example.org",
        "allowed-peer-ip=198.51.100.7",
        "allowed-peer-ip=2001:db8::7",
        "allowed-peer-ip=198.51.100.8",
        "allowed-peer-ip=2001:db8::8",
        "allowed-peer-ip=2001:db8::9",
        "denied-peer-ip=0.0.0.0-255.255.255.255",
        "denied-peer-ip=::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "log-file=stdout",
        "pidfile=/tmp/turnserver.pid",
    ];
    assert_eq!(settings.lines().collect::<Vec<_>>(), expected);
}

/// How compose ends, and what it says, with this variable empty in the environment, or only in the file.
fn without(name: &str, is_given: bool) -> (bool, String) {
    let mut compose = filled_in();
    if is_given {
        compose.env(name, "");
    } else {
        compose.env_remove(name);
    }
    let output = compose.args(["config", "--quiet"]).output().expect("it runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_must_be_given_is_asked_for() {
    for name in ["ICE_ADVERTISE_IP", "TURN_HOST", "TURN_SECRET", "GRAFANA_PASSWORD"] {
        let (is_taken, words) = without(name, true);
        assert!(!is_taken && words.contains(name), "{name}: {words}");
        assert!(text(EXAMPLE).contains(&format!("\n{name}=")));
    }
}

#[test]
fn the_example_starts_nothing_before_its_secrets_are_filled_in() {
    for (name, _) in SECRETS {
        let (is_taken, words) = without(name, false);
        assert!(!is_taken && words.contains(name), "{name}: {words}");
    }
}
