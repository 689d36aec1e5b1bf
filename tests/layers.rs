//! The direction of the house: a room (top-level module) imports only from earlier rows. Neighbours in a
//! row are strangers, so each can be read and tested alone.

use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up.
const ROWS: &[&[&str]] = &[
    &["ids", "time", "packet"],
    &["throttle", "crowd", "config", "metrics", "net", "demux", "rtp", "sdp", "dtls", "vector"],
    &["ice", "rtcp", "srtp"],
    &["bwe"],
    &["transport", "room"],
    &["worker"],
    &["control", "auth"],
    &["signalling"],
    &["http"],
    &["server"],
    &["main", "lib"],
];

fn row_of(room: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&room))
}

/// What follows each `crate::` (or, in the binary, `gryt_sfu::`) of the source, comments left out: one
/// name, or those at the top of a `{…}` group.
fn imports(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n").replace("gryt_sfu::", "crate::");
    let mut found = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(first_name(rest));
            continue;
        };
        let (mut depth, mut expects_name) = (0_u32, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                _ if c.is_whitespace() => {}
                _ if expects_name => {
                    found.push(first_name(&group[i..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// A line for each import of `source`, a file of `room`, that the rows forbid. A name in no row can only be an
/// item of the crate's root, which is above everybody.
fn violations(room: &str, source: &str) -> Vec<String> {
    let Some(row) = row_of(room) else {
        return vec![format!("{room} is in no row")];
    };
    let forbidden = |name: &String| name != room && row_of(name).is_none_or(|other| other >= row);
    imports(source).into_iter().filter(forbidden).map(|name| format!("{room} imports {name}")).collect()
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn rooms_import_only_from_earlier_rows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() >= 10, "only {} files found in src", files.len());
    let mut all = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).expect("found below src");
        let room = inside.iter().next().and_then(|name| Path::new(name).file_stem()).expect("has a name");
        let source = fs::read_to_string(&file).expect("a Rust file is text");
        let found = violations(&room.to_string_lossy(), &source);
        all.extend(found.into_iter().map(|violation| format!("{}: {violation}", inside.display())));
    }
    assert!(all.is_empty(), "against the direction of the house:\n{}", all.join("\n"));
}

/// `net` talks to the kernel and cannot do without; in `vector` one file is enough.
#[test]
fn the_vector_room_touches_memory_in_one_file() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/vector");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let touches = |source: &str| {
        ["_ptr", "*const ", "*mut ", "&raw ", "transmute", "loadu", "storeu", "_unchecked"]
            .iter()
            .any(|word| source.contains(word))
    };
    for file in files {
        let source = fs::read_to_string(&file).expect("a Rust file is text");
        assert_eq!(touches(&source), file.ends_with("memory.rs"), "{}", file.display());
    }
}

#[test]
fn a_forbidden_import_is_found() {
    let none: [&str; 0] = [];
    assert_eq!(violations("room", "use crate::ids::Ssrc;\nuse crate::room::track::Track;"), none);
    assert_eq!(violations("room", "// crate::server is above\n/// [`crate::http`]"), none);
    assert_eq!(violations("main", "use gryt_sfu::server::Server;"), none);
    for (room, source, name) in [
        ("ids", "use crate::time::Now;", "time"),
        ("ice", "let x: crate::srtp::Context;", "srtp"),
        ("room", "use crate::{\n    ids::{Mid, Ssrc},\n    transport::Transport,\n};", "transport"),
        ("worker", "use crate::{self as house, control};", "self"),
        ("worker", "pub use crate::server::*;", "server"),
        ("net", "use crate::Oddity;", "Oddity"),
        ("server", "fn f() { gryt_sfu::main::run() }", "main"),
    ] {
        assert!(violations(room, source).contains(&format!("{room} imports {name}")), "{source}");
    }
    assert_eq!(violations("attic", "").len(), 1);
}
