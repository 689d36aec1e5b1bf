//! Dockerfile: linted, its context complete, and its last stage mirrored on this machine.

use std::path::Path;
use std::process::Command;

use gryt_sfu::config::GROUPS;
use serde_json::Value;

use crate::house::{Folder, NOBODY, is_root, output, path, printed, text, tool};
use crate::support::Server;

/// What the base image of the last stage holds besides certificates and time zones.
const BASE_LIBRARIES: &[&str] =
    &["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];

/// Instructions with their arguments, continued lines joined; one list a stage.
fn stages(dockerfile: &str) -> Vec<Vec<(String, String)>> {
    let mut stages: Vec<Vec<_>> = Vec::new();
    let joined = dockerfile.replace("\\\n", " ");
    for line in joined.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').expect("an instruction has arguments");
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let stage = stages.last_mut().expect("FROM comes first");
        stage.push((word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    stages
}

fn arguments<'a>(stage: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    stage.iter().filter(|(name, _)| name == word).map(|(_, rest)| rest.as_str()).collect()
}

fn list(argument: &str) -> Vec<String> {
    serde_json::from_str(argument).unwrap_or_else(|_| panic!("no shell to run {argument}"))
}

/// Whether a path of the context is sent to the builder: the last pattern that names it or a folder above it
/// decides.
fn is_sent(path: &Path) -> bool {
    let ignore = text(".dockerignore");
    let mut patterns = ignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let decides = |pattern: &&str| {
        let pattern = pattern.trim_start_matches('!');
        assert!(pattern == "*" || !pattern.contains('*'), "{pattern} is more than this test understands");
        pattern == "*" || path.starts_with(pattern)
    };
    patterns.rfind(decides).is_none_or(|pattern| pattern.starts_with('!'))
}

/// Lays `from` of the context into the folder of the builder.
fn send(from: &Path, to: &Folder) {
    if path("").join(from).is_dir() {
        for entry in path("").join(from).read_dir().expect("our own folder") {
            send(&from.join(entry.expect("our own folder").file_name()), to);
        }
    } else if is_sent(from) {
        to.with(&path("").join(from), from.to_str().expect("plain names"));
    }
}

#[test]
fn a_linter_finds_nothing() {
    printed(tool("hadolint").arg("--failure-threshold=info").arg(path("Dockerfile")));
}

#[test]
fn the_build_stage_has_all_that_it_builds_from() {
    let build = &stages(&text("Dockerfile"))[0];
    assert!(
        arguments(build, "FROM")[0].starts_with(concat!("rust:", env!("CARGO_PKG_RUST_VERSION"), "-")),
        "the manifest's Rust"
    );
    assert!(arguments(build, "RUN")[0].contains("cargo build --locked --release --bin sfu"));
    let context = Folder::new("context");
    for copy in arguments(build, "COPY") {
        for from in copy.split(' ').rev().skip(1) {
            send(Path::new(from), &context);
        }
    }
    // What a build reads before it builds: the manifest, the lock, and whether what they name is there.
    let mut none = Command::new(env!("CARGO"));
    none.args(["build", "--locked", "--offline", "--bin", "none"]).current_dir(&context.0);
    let said = String::from_utf8(none.output().expect("cargo").stderr).expect("text");
    assert!(said.contains("no bin target named `none`"), "{said}");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["metadata", "--no-deps", "--locked", "--offline", "--format-version=1"])
        .current_dir(&context.0);
    let metadata: Value = serde_json::from_str(&printed(&mut cargo)).expect("cargo writes JSON");
    let targets = metadata["packages"][0]["targets"].as_array().expect("targets");
    for target in targets {
        let source = target["src_path"].as_str().expect("a path");
        assert!(Path::new(source).exists(), "{source} is not sent to the builder");
    }
    assert!(targets.iter().any(|target| target["name"] == "sfu"));
    for secret in [".env", "target/release/sfu", ".git/config", "tools/deploy/.env", "sfu.log"] {
        assert!(!is_sent(Path::new(secret)), "{secret} is sent to the builder");
    }
}

#[test]
fn the_last_stage_is_small_and_not_root() {
    let stages = stages(&text("Dockerfile"));
    let last = stages.last().expect("a stage");
    assert_eq!(arguments(last, "FROM"), ["gcr.io/distroless/cc-debian12:nonroot"]);
    assert_eq!(arguments(last, "RUN"), [""; 0], "there is no shell");
    assert_eq!(arguments(last, "USER"), [format!("{NOBODY}:{NOBODY}")]);
    assert_eq!(list(arguments(last, "ENTRYPOINT")[0]), ["/sfu"]);
    let (_, check) = arguments(last, "HEALTHCHECK")[0].split_once("CMD ").expect("a command");
    assert_eq!(list(check), ["/sfu", "--health"]);
    let default = |name| {
        GROUPS.iter().flat_map(|(_, variables)| *variables).find(|v| v.name == name).expect("known").default
    };
    let ports = format!("{}/tcp {}/udp", default("PORT"), default("ICE_UDP_MUX_PORT"));
    assert_eq!(arguments(last, "EXPOSE"), [ports]);
}

/// The last stage: nothing but the binary and the libraries of its base, and nobody's rights.
#[test]
fn the_server_runs_in_an_empty_root_as_nobody() {
    let image = Folder::new("image");
    let binary = Path::new(env!("CARGO_BIN_EXE_sfu"));
    image.with(binary, "sfu");
    let libraries = printed(Command::new("ldd").arg(binary));
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let name = Path::new(library).file_name().expect("a file").to_str().expect("plain names");
        assert!(BASE_LIBRARIES.contains(&name), "the base image holds no {name}");
        image.with(Path::new(library), library);
    }
    let into = |arguments: &[&str]| {
        let mut command = Command::new(if is_root() { Path::new("chroot") } else { binary });
        if is_root() {
            command.arg(format!("--userspec={NOBODY}:{NOBODY}")).arg(&image.0).arg("/sfu");
        }
        command.args(arguments).current_dir(&image.0);
        command
    };
    let mut server = Server::spawn_command(into(&[]), &[]);
    let (status, body) = server.get("/health");
    assert_eq!(status, 200, "{body}");
    if is_root() {
        let process = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
        let ids: Vec<_> = process.lines().filter(|line| line.starts_with(['U', 'G'])).collect();
        assert!(process.contains(&format!("\nUid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t")), "{ids:?}");
    }
    let mut check = into(&["--health"]);
    check.env("PORT", server.http.port().to_string());
    assert_eq!(printed(&mut check), "healthy\n");
    server.terminate();
    assert!(server.wait(crate::support::PATIENCE).is_some_and(|status| status.success()));
    assert_eq!(output(&mut check).status.code(), Some(1));
}
