//! Which tokens let in.

use serde_json::{Value, json};

use crate::signer::{SECRET, Signer, claims, is_refused, server, unix_time, unsigned, with_token};
use crate::support::folder::Folder;
use crate::support::{Client, Options, Server, now};

const INVALID: &str = "the token is not valid here";

async fn refused(server: &Server, token: Option<String>, why: &str) {
    let options = Options { token, ..Options::default() };
    let client = Client::start(server.http, "hall", "ann", options).await;
    is_refused(&client, why).await;
}

#[tokio::test]
async fn a_token_lets_its_user_into_its_room() {
    let server = server();
    assert!(!server.log().contains("warning:   open"), "it is not open");
    let signer = Signer::secret();
    let ann = Client::join(&server, "hall", "ann", with_token(signer.sign(&claims("hall", "ann")))).await;
    let grants = json!({"publish": true, "subscribe": true, "moderate": false});
    assert_eq!(ann.joined().await["grants"], grants, "what is not said");
    let mut fancy = claims("hall", "ben");
    fancy["nbf"] = json!(unix_time(2)); // Within the leeway.
    fancy["exp"] = json!(unix_time(60) as f64 + 0.5); // RFC 7519 §2 allows fractions.
    fancy["aud"] = json!(["somebody"]);
    fancy["grants"] = json!({"moderate": true, "fly": true});
    let header = json!({"alg": "HS256", "kid": "../../etc/passwd", "jku": "http://localhost/keys"});
    let ben = Client::join(&server, "hall", "ben", with_token(signer.sign_with(&header, &fancy))).await;
    assert_eq!(ben.joined().await["grants"]["moderate"], true);
    ann.speak(20);
    ben.hears(&ann, 10).await;
}

#[tokio::test]
async fn every_other_token_is_refused() {
    let mut server = server();
    let signer = Signer::secret();
    let good = claims("hall", "ann");
    refused(&server, None, "a token is needed here").await;
    refused(&server, Some(String::new()), "a token is needed here").await;
    let with = |name: &str, value: Value| {
        let mut claims = claims("hall", "ann");
        claims[name] = value;
        Some(signer.sign(&claims))
    };
    refused(&server, with("exp", json!(unix_time(-30))), "the token has expired").await;
    refused(&server, with("exp", json!(0)), "the token has expired").await;
    refused(&server, with("nbf", json!(unix_time(60))), "the token is not valid yet").await;
    refused(&server, with("room", json!("Hall")), "the token is for another room").await;
    refused(&server, with("sub", json!("anna")), "the token is for another user").await;
    // Of the wrong type, or not there.
    for (name, value) in [
        ("exp", json!(null)),
        ("exp", json!("4102444800")),
        ("room", json!(null)),
        ("sub", json!(7)),
        ("grants", json!("all")),
        ("grants", json!({"moderate": "yes"})),
        ("grants", json!({"publish": null})),
    ] {
        refused(&server, with(name, value), INVALID).await;
    }
    refused(&server, Some(signer.sign(&json!({"room": "hall", "sub": "ann"}))), INVALID).await;
    // Of other algorithms, other keys, and none.
    refused(&server, Some(unsigned(&good)), INVALID).await;
    for alg in ["none", "None", "HS384", "HS512", "ES256", "EdDSA", "RS256", "hs256", ""] {
        refused(&server, Some(signer.sign_with(&json!({"alg": alg}), &good)), INVALID).await;
    }
    refused(&server, Some(signer.sign_with(&json!({"typ": "JWT"}), &good)), INVALID).await;
    refused(&server, Some(signer.sign_with(&json!({"alg": "HS256", "crit": ["b64"]}), &good)), INVALID).await;
    let other = Signer::Secret(SECRET.replace('0', "1"));
    refused(&server, Some(other.sign(&good)), INVALID).await;
    let empty = Signer::Secret(String::new());
    refused(&server, Some(empty.sign_with(&json!({"alg": "HS256", "kid": "/dev/null"}), &good)), INVALID)
        .await;
    // Cut, swapped, too much of it.
    let token = signer.sign(&good);
    let parts: Vec<&str> = token.split('.').collect();
    let theirs = signer.sign(&claims("hall", "eve"));
    let payload = theirs.split('.').nth(1).expect("three parts");
    for damaged in [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{payload}.{}", parts[0], parts[2]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!("{token}=="),
        format!(" {token}"),
        token[..token.len() - 2].to_owned(),
        "...".to_owned(),
        "🎤".to_owned(),
    ] {
        refused(&server, Some(damaged), INVALID).await;
    }
    let mut long = good.clone();
    long["x"] = json!("x".repeat(4000));
    refused(&server, Some(signer.sign(&long)), "the token is too long").await;
    // None of them left anything behind, and the log names no token.
    assert_eq!(server.metric("gryt_sfu_peers_active", &[]), 0.0);
    let log = server.whole_log();
    assert!(!log.contains(parts[1]) && !log.contains(parts[2]), "a token in the log");
}

#[tokio::test]
async fn refusals_are_counted_and_do_not_flood_the_log() {
    let begun = now();
    let mut server = server();
    for number in 0..12 {
        refused(&server, Some(format!("{number}")), INVALID).await;
    }
    assert_eq!(server.metric("gryt_sfu_joins_unauthorized_total", &[]), 12.0);
    assert_eq!(server.metric("gryt_sfu_joins_refused_total", &[]), 12.0);
    server.wait_for_log("the first", |log| log.contains("a join was refused").then_some(()));
    let lines = server.throttled_lines("a join was refused", begun);
    let named = ["room=hall", "user=ann", "connection=", INVALID];
    assert!(named.iter().all(|name| lines[0].contains(name)), "{lines:?}");
}

#[tokio::test]
async fn a_public_key_checks_and_settles_the_algorithm() {
    for algorithm in ["EdDSA", "ES256"] {
        let (signer, public) = Signer::key(algorithm);
        let folder = Folder::new();
        let file = folder.write("public.pem", public.as_bytes());
        for given in [public.as_str(), &public.replace('\n', "\\n"), &file] {
            let server = Server::spawn(&[("AUTH_PUBLIC_KEY", given)]);
            let good = claims("hall", "ann");
            let ann = Client::join(&server, "hall", "ann", with_token(signer.sign(&good))).await;
            // What everybody knows is no secret to sign with.
            for secret in [public.as_str(), public.trim(), given] {
                let confused = Signer::Secret(secret.to_owned());
                refused(&server, Some(confused.sign(&good)), INVALID).await;
                refused(&server, Some(confused.sign_with(&json!({"alg": algorithm}), &good)), INVALID).await;
            }
            let (other, _) = Signer::key(algorithm);
            refused(&server, Some(other.sign(&good)), INVALID).await;
            let (other, _) = Signer::key(if algorithm == "EdDSA" { "ES256" } else { "EdDSA" });
            refused(&server, Some(other.sign(&good)), INVALID).await;
            refused(&server, Some(unsigned(&good)), INVALID).await;
            assert!(ann.state().closed.is_none());
        }
    }
}

#[tokio::test]
async fn nobody_takes_a_place_over_with_anothers_token() {
    let server = server();
    let signer = Signer::secret();
    let ann = Client::join(&server, "hall", "ann", with_token(signer.sign(&claims("hall", "ann")))).await;
    let ben = Client::join(&server, "hall", "ben", with_token(signer.sign(&claims("hall", "ben")))).await;
    let eve =
        Client::start(server.http, "hall", "ann", with_token(signer.sign(&claims("hall", "eve")))).await;
    is_refused(&eve, "the token is for another user").await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    assert!(ann.state().closed.is_none(), "she is where she was");
    // With her own she moves.
    let again = Client::join(&server, "hall", "ann", with_token(signer.sign(&claims("hall", "ann")))).await;
    ann.error("already-joined").await;
    again.speak(20);
    ben.hears(&again, 10).await;
}

#[tokio::test]
async fn a_resume_needs_a_good_token_too() {
    let server = Server::spawn(&[("AUTH_SECRET", SECRET), ("RESUME_WINDOW", "5m")]);
    let signer = Signer::secret();
    let mut short = claims("hall", "ann");
    short["exp"] = json!(unix_time(-30));
    let expired = signer.sign(&short);
    let token = signer.sign(&claims("hall", "ann"));
    let ann = Client::join(&server, "hall", "ann", with_token(token.clone())).await;
    let ben = Client::join(&server, "hall", "ben", with_token(signer.sign(&claims("hall", "ben")))).await;
    for bad in [Some(expired), None] {
        let mark = ann.mark();
        ann.lose_socket();
        ann.use_token(bad);
        ann.resume();
        ann.message_since(mark, "joined", |data| data["success"] == false).await;
        ann.message_since(mark, "error", |data| data["code"] == "unauthorized").await;
    }
    // The place was kept all the while, and what lets her resume as well.
    ann.use_token(Some(token));
    ann.resume();
    ann.message("joined", |data| data["resumed"] == true).await;
    ann.speak(20);
    ben.hears(&ann, 10).await;
    assert_eq!(ben.state().events("user-left", 0).count(), 0);
}

#[tokio::test]
async fn the_end_of_a_token_does_not_end_a_call() {
    let server = server();
    let signer = Signer::secret();
    let ben = Client::join(&server, "hall", "ben", with_token(signer.sign(&claims("hall", "ben")))).await;
    let until = unix_time(6);
    let short = |user: &str| signer.sign(&json!({"room": "hall", "sub": user, "exp": until}));
    let ann = Client::join(&server, "hall", "ann", with_token(short("ann"))).await;
    ann.speak(20);
    // Until it lets nobody in any more; nobody tells when that is.
    for number in 0.. {
        let user = format!("late{number}");
        let late = Client::start(server.http, "hall", &user, with_token(short(&user))).await;
        let joined = late.message("joined", |_| true).await;
        if joined["success"] == false {
            assert_eq!(joined["message"], "the token has expired");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    ben.hears(&ann, 25).await;
    assert!(ann.state().closed.is_none());
}

#[tokio::test]
async fn an_open_house_says_so_and_asks_for_nothing() {
    let mut server = Server::spawn(&[]);
    let warning = |log: &str| log.contains("anyone may join any room under any name").then_some(());
    server.wait_for_log("a warning", warning);
    let ann = Client::join(&server, "hall", "ann", with_token("anything".into())).await;
    let grants = json!({"publish": true, "subscribe": true, "moderate": false});
    assert_eq!(ann.joined().await["grants"], grants);
    ann.send("kick", &json!({"userId": "ann"}));
    ann.error("unauthorized").await;
}
