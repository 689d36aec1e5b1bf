//! `sfu token`, and what the start says of bad keys.

use std::process::{Command, Output};

use serde_json::json;

use crate::signer::{SECRET, Signer, is_refused, openssl, server, with_token};
use crate::support::folder::Folder;
use crate::support::{Client, Server};

fn sfu(arguments: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfu"));
    command.args(arguments).envs(env.iter().copied()).current_dir(std::env::temp_dir());
    command.output().expect("it runs")
}

fn token(arguments: &[&str], env: &[(&str, &str)]) -> String {
    let output = sfu(&[&["token"], arguments].concat(), env);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

fn refusal(arguments: &[&str], env: &[(&str, &str)]) -> String {
    let output = sfu(arguments, env);
    assert_eq!(output.status.code(), Some(2), "{arguments:?} {env:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const HALL: [&str; 4] = ["--room", "hall", "--user", "ann"];

#[tokio::test]
async fn what_it_prints_joins_a_room() {
    let server = server();
    let env = [("AUTH_SECRET", SECRET)];
    let ann = Client::join(&server, "hall", "ann", with_token(token(&HALL, &env))).await;
    assert_eq!(ann.joined().await["grants"], json!({"publish": true, "subscribe": true, "moderate": false}));
    let flags = ["--moderate", "--no-publish", "--no-subscribe", "--ttl", "2m"];
    let all = token(&[&["--room", "the \"hall\"", "--user", "bén"][..], &flags].concat(), &env);
    let ben = Client::join(&server, "the \"hall\"", "bén", with_token(all)).await;
    assert_eq!(ben.joined().await["grants"], json!({"publish": false, "subscribe": false, "moderate": true}));
    let other = token(&HALL, &[("AUTH_SECRET", "another secret of more than 32 bytes")]);
    let eve = Client::start(server.http, "hall", "ann", with_token(other)).await;
    is_refused(&eve, "the token is not valid here").await;
}

#[tokio::test]
async fn a_private_key_signs_for_its_public_half() {
    for algorithm in ["EdDSA", "ES256"] {
        let (signer, public) = Signer::key(algorithm);
        let (other, _) = Signer::key(algorithm);
        let (private, others) = (signer.file(), other.file());
        let env = [("AUTH_PUBLIC_KEY", public.as_str())];
        let server = Server::spawn(&env);
        let with_key = |key| [&HALL[..], &["--key", key]].concat();
        for env in [&env[..], &[]] {
            let token = token(&with_key(private.as_str()), env);
            Client::join(&server, "hall", "ann", with_token(token)).await.joined().await;
        }
        let said = refusal(&[&["token"], &with_key(others.as_str())[..]].concat(), &env);
        assert!(said.contains("not the key that the server set up here checks with"), "{said}");
    }
}

#[test]
fn it_says_what_it_lacks() {
    let (_, public) = Signer::key("EdDSA");
    let token: &[&str] = &[&["token"], &HALL[..]].concat();
    let with = |more: &[&'static str]| [token, more].concat();
    let long = "x".repeat(129);
    let env = [("AUTH_SECRET", SECRET)];
    type Case<'a> = (Vec<&'a str>, &'a [(&'a str, &'a str)], &'a str);
    let cases: Vec<Case<'_>> = vec![
        (token.to_vec(), &[], "sfu: there is nothing to sign with: set AUTH_SECRET"),
        (vec!["token", "--room", "hall"], &env, "--user"),
        (vec!["token", "--user", "ann"], &env, "--room"),
        (vec!["token", "--room", "", "--user", "ann"], &env, "1 to 128 bytes"),
        (vec!["token", "--room", &long, "--user", "ann"], &env, "1 to 128 bytes"),
        (vec!["token", "--room", "hall", "--user", "a\nb"], &env, "1 to 128 bytes"),
        (with(&["--ttl", "0s"]), &env, "1s to 8760h"),
        (with(&["--ttl", "8761h"]), &env, "1s to 8760h"),
        (with(&["--ttl", "60"]), &env, "1s to 8760h"),
        (with(&["--ttl", "999999999999999999h"]), &env, "1s to 8760h"),
        (with(&["--key", "/nowhere/key.pem"]), &env, "--key /nowhere/key.pem: the file cannot be read"),
        (with(&["--key", "/dev/zero"]), &env, "--key /dev/zero: the file cannot be read: not a file"),
        (with(&["--key", "/etc/passwd"]), &env, "--key /etc/passwd: no private key that is accepted"),
        (with(&["--check"]), &env, "--check"),
    ];
    for (arguments, env, word) in cases {
        let said = refusal(&arguments, env);
        assert!(said.contains(word) && !said.contains(SECRET), "{arguments:?}: {said}");
    }
    let said = refusal(token, &[("AUTH_PUBLIC_KEY", &public)]);
    assert!(said.contains("AUTH_PUBLIC_KEY only checks tokens: give --key FILE"), "{said}");
    for (arguments, word) in [(&["--help"][..], "token"), (&["token", "--help"], "--no-subscribe")] {
        let output = sfu(arguments, &[]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(word));
    }
}

#[test]
fn the_start_ends_at_a_key_that_is_none() {
    let folder = Folder::new();
    let (signer, public) = Signer::key("EdDSA");
    let private = signer.file();
    let secret_pem = std::fs::read_to_string(&private).expect("a key");
    let p384 = folder.path("p384.pem");
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", &p384]);
    let p384 = openssl(&["pkey", "-in", &p384, "-pubout"]);
    let rsa = folder.path("rsa.pem");
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &rsa]);
    let rsa = openssl(&["pkey", "-in", &rsa, "-pubout"]);
    let huge = folder.write("huge.pem", public.repeat(200).as_bytes());
    let (_, p256) = Signer::key("ES256");
    // A point beside the curve.
    let line = p256.lines().nth(2).expect("two lines of base64");
    let off = p256.replace(line, &format!("{}{}", if line.starts_with('A') { 'B' } else { 'A' }, &line[1..]));
    let (shown, hidden) =
        ("AUTH_PUBLIC_KEY=\"…\" is not accepted: ", "AUTH_SECRET=\"…\" is not accepted; accepted: 32");
    for (env, word) in [
        (vec![("AUTH_SECRET", "0123456789abcdef0123456789abcde")], hidden),
        (vec![("AUTH_SECRET", SECRET), ("AUTH_PUBLIC_KEY", &public)], "are not accepted together"),
        (
            vec![("AUTH_PUBLIC_KEY", "/nowhere/key.pem")],
            "AUTH_PUBLIC_KEY=\"/nowhere/key.pem\" is not accepted: the file cannot",
        ),
        (vec![("AUTH_PUBLIC_KEY", "/dev/zero")], "not a file"),
        (vec![("AUTH_PUBLIC_KEY", &huge)], "too long"),
        (vec![("AUTH_PUBLIC_KEY", "/etc/passwd")], "this is no such key"),
        (vec![("AUTH_PUBLIC_KEY", &private)], "this is a private key"),
        (vec![("AUTH_PUBLIC_KEY", &secret_pem)], "this is a private key"),
        (vec![("AUTH_PUBLIC_KEY", &p384)], shown),
        (vec![("AUTH_PUBLIC_KEY", &rsa)], shown),
        (vec![("AUTH_PUBLIC_KEY", &off)], shown),
        (vec![("AUTH_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----")], shown),
    ] {
        let said = refusal(&["--check"], &env);
        assert!(said.starts_with("sfu: ") && said.contains(word), "{env:?}: {said}");
        assert!(
            env.iter().all(|(name, value)| *name == "AUTH_PUBLIC_KEY" || !said.contains(value)),
            "{said}"
        );
        assert!(!said.contains("-----BEGIN"), "{said}");
    }
    // What is accepted is shown on one line, and the secret not at all.
    let output = sfu(&["--check"], &[("AUTH_PUBLIC_KEY", &public)]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.starts_with("AUTH_PUBLIC_KEY=")).expect("a line");
    assert_eq!(line, format!("AUTH_PUBLIC_KEY={}", public.trim().replace('\n', "\\n")));
    let said = sfu(&["--check"], &[("AUTH_SECRET", SECRET)]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("AUTH_SECRET=…\n"));
}
