//! What clients are told of STUN and TURN, and when they are told anew.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gryt_sfu::config::Config;
use gryt_sfu::signalling::IceServers;
use serde_json::{Value, json};

use crate::harness::{House, RESUME_WINDOW, Shape};

const HOUR: Duration = Duration::from_secs(60 * 60);
const SECRET: &str = "a secret of the house";
/// When every test begins: 2027.
const START: u64 = 1_800_000_000;

fn ice_servers(start: Instant, variables: &[(&str, &str)]) -> IceServers {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let config = Config::parse(2, |name| variables.get(name).map(|value| (*value).to_owned())).unwrap();
    IceServers::new(&config, move |now| START + (now - start).as_secs())
}

fn house(ice_servers: fn(Instant) -> IceServers) -> House {
    House::of(&Shape { ice_servers, ..Shape::default() })
}

fn with_secret(start: Instant) -> IceServers {
    ice_servers(
        start,
        &[
            ("STUN_SERVERS", "stun:stun.example"),
            ("TURN_SERVERS", "turn:turn.example,turns:turn.example?transport=tcp"),
            ("TURN_USERNAME", "wanda"),
            ("TURN_PASSWORD", "hunter2"),
            ("TURN_SECRET", SECRET),
        ],
    )
}

/// Checks the list as a TURN server would, and returns when the credential ends, in seconds from the start.
fn ends_at(servers: &Value, user: &str) -> u64 {
    let name = servers[1]["username"].as_str().expect("a name");
    let (expiry, who) = name.split_once(':').expect("time and user");
    assert_eq!(who, user);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let password = STANDARD.encode(hmac::sign(&key, name.as_bytes()));
    assert_eq!(
        *servers,
        json!([
            {"urls": ["stun:stun.example"]},
            {
                "urls": ["turn:turn.example", "turns:turn.example?transport=tcp"],
                "username": name, "credential": password,
            },
        ])
    );
    expiry.parse::<u64>().expect("a time") - START
}

#[test]
fn without_settings_there_are_none() {
    let house = House::new();
    let data = house.connect().join(&house, "r", "a");
    assert_eq!(data["iceServers"], json!([]));
}

#[test]
fn a_shared_password_is_told_as_it_is_and_never_again() {
    let mut house = house(|start| {
        ice_servers(
            start,
            &[
                ("TURN_SERVERS", "turn:turn.example"),
                ("TURN_USERNAME", "wanda"),
                ("TURN_PASSWORD", "hunter2"),
            ],
        )
    });
    let mut client = house.connect();
    let data = client.join(&house, "r", "a");
    let server = json!({"urls": ["turn:turn.example"], "username": "wanda", "credential": "hunter2"});
    assert_eq!(data["iceServers"], json!([server]));
    house.pass(HOUR * 30);
    client.hears_nothing();
}

#[test]
fn each_client_has_a_credential_that_is_renewed_before_it_ends() {
    let mut house = house(with_secret);
    let mut ada = house.connect();
    let data = ada.join(&house, "r", "ada");
    assert_eq!(ends_at(&data["iceServers"], "ada"), 12 * 3600);
    house.pass(HOUR);
    let mut ben = house.connect();
    ben.join(&house, "r", "ben");
    ada.heard();
    let mut end = 12 * 3600;
    for round in 1..=3 {
        house.pass(HOUR * 11 - (if round == 1 { HOUR } else { Duration::ZERO }) - Duration::from_secs(1));
        ada.hears_nothing();
        house.pass(Duration::from_secs(1));
        let heard = ada.heard();
        assert_eq!((heard.len(), &heard[0]["event"]), (1, &json!("ice-servers")));
        assert_eq!(heard[0]["data"].as_object().expect("an object").len(), 1);
        assert!(round * 11 * 3600 < end, "renewed before it ends");
        end = ends_at(&heard[0]["data"]["iceServers"], "ada");
        assert_eq!(end, (round * 11 + 12) * 3600);
    }
    assert_eq!(ben.heard_words(), ["ice-servers"; 2]);
    ada.say(&house, "leave", json!({}));
    house.pass(HOUR * 30);
    ada.heard();
    ada.hears_nothing();
}

#[test]
fn who_was_away_is_told_when_it_comes_back() {
    let mut house = house(with_secret);
    let mut client = house.connect();
    client.join(&house, "r", "ada");
    house.pass(HOUR * 11 - RESUME_WINDOW / 2);
    client.lose(&house);
    house.pass(RESUME_WINDOW - Duration::from_secs(1)); // The time to renew passes meanwhile.
    let now = 11 * 3600 + RESUME_WINDOW.as_secs() / 2 - 1;
    let data = client.resume(&house, "r", "ada");
    assert_eq!(data["resumed"], true);
    let end = ends_at(&data["iceServers"], "ada");
    assert!(now + 12 * 3600 <= end + 1 && end <= now + 1 + 12 * 3600, "{end}");
    house.pass(HOUR * 11);
    assert_eq!(client.heard_words(), ["ice-servers"], "once, and not at the old time");
}

/// A name that could be read as something else stays out of the credential.
#[test]
fn an_odd_user_id_is_hashed() {
    let house = house(with_secret);
    let data = house.connect().join(&house, "r", "a:b c");
    let name = data["iceServers"][1]["username"].as_str().unwrap();
    let (_, who) = name.split_once(':').unwrap();
    assert!(who.starts_with("u-") && who.len() == 24, "{name}");
}
