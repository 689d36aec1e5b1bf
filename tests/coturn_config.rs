//! The configuration of coturn that is shipped: a real coturn takes every line of it, and relays to the SFU's
//! addresses and to no other that is not public.

mod support;

use std::net::{IpAddr, UdpSocket};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gryt_sfu::time::Now;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use support::coturn::{Coturn, SECRET};
use support::turn::Allocation;

const SHIPPED: &str = include_str!("../tools/deploy/coturn/turnserver.conf");

const UNAUTHORIZED: u16 = 401;
const FORBIDDEN: u16 = 403;

/// The shipped configuration for this machine: what says CHANGE is changed, all else is as it is.
fn shipped(ports: &str, has_ipv6: bool) -> String {
    let mut text = SHIPPED.to_owned();
    for (line, changed) in [
        ("#static-auth-secret=", format!("static-auth-secret={SECRET}")),
        ("#allowed-peer-ip=10.20.30.40", "allowed-peer-ip=10.20.30.40\nallowed-peer-ip=fd00::40".to_owned()),
        ("listening-port=3479", String::new()),
        ("tls-listening-port=5349", String::new()),
    ] {
        let line = format!("\n{line}\n");
        assert_eq!(text.matches(&line).count(), 1, "{line}");
        text = text.replace(&line, &format!("\n{changed}\n"));
    }
    text += "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\n";
    if has_ipv6 {
        text += "relay-ip=::1\n";
    }
    text + ports
}

/// A name that is good for `seconds` from now on.
fn user(seconds: i32) -> String {
    let now = Now::read().ntp.unix_seconds();
    format!("{}:ada", now.saturating_add_signed(seconds))
}

fn password(username: &str, secret: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any key length");
    mac.update(username.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[test]
fn it_relays_to_the_sfu_and_to_nothing_private() {
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    let coturn = Coturn::with("shipped", |ports| shipped(ports, has_ipv6));
    let families = [
        (
            false,
            &["10.20.30.40", "9.9.9.9", "198.20.0.1"][..],
            &[
                "10.20.30.41",
                "0.0.0.0",
                "0.1.2.3",
                "10.0.0.1",
                "100.64.0.1",
                "127.0.0.1",
                "127.9.9.9",
                "169.254.169.254",
                "172.16.0.1",
                "172.31.255.255",
                "192.0.0.1",
                "192.168.0.1",
                "198.18.0.1",
                "203.0.113.5",
                "224.0.0.1",
                "240.0.0.1",
                "255.255.255.255",
            ][..],
        ),
        (
            true,
            &["fd00::40", "2600::1"],
            &[
                "fd00::41",
                "::",
                "::1",
                "::7f00:1",
                "::ffff:0.0.0.0",
                "::ffff:127.0.0.1",
                "::ffff:10.20.30.40",
                "::ffff:192.168.0.1",
                "::ffff:9.9.9.9",
                "64:ff9b::7f00:1",
                "2001::1",
                "2001:db8::1",
                "2002:7f00:1::1",
                "fc00::1",
                "fe80::1",
                "fec0::1",
                "ff02::1",
            ],
        ),
    ];
    for (is_ipv6, allowed, denied) in families.into_iter().filter(|(is_ipv6, ..)| has_ipv6 || !is_ipv6) {
        let user = user(3600);
        let relay = Allocation::request(coturn.address, &user, &password(&user, SECRET), is_ipv6);
        let relay = relay.expect("a relay for whoever has a credential");
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        for peer in allowed {
            assert_eq!(relay.permit(ip(peer)), Ok(()), "{peer}");
        }
        for peer in denied {
            assert_eq!(relay.permit(ip(peer)), Err(FORBIDDEN), "{peer}");
        }
    }
}

/// Unchanged it lets nobody in: a secret that everybody can read is none.
#[test]
fn it_has_no_secret_of_its_own() {
    let coturn = Coturn::with("unchanged", |ports| {
        shipped(ports, false).replace(&format!("static-auth-secret={SECRET}"), "")
    });
    let user = user(3600);
    for secret in ["", SECRET] {
        let asked = Allocation::request(coturn.address, &user, &password(&user, secret), false);
        assert_eq!(asked.map(drop), Err(UNAUTHORIZED));
    }
}

/// A line that coturn does not know it passes over, with a word in its log.
#[test]
fn every_line_is_understood() {
    let coturn = Coturn::with("lines", |ports| shipped(ports, false));
    let log = coturn.log();
    assert!(log.contains("Black listing: 127.0.0.0-127.255.255.255"), "{log}");
    for trouble in ["Bad configuration", "Wrong address", "CONFIG ERROR"] {
        assert!(!log.contains(trouble), "{log}");
    }
}

/// As the file offers in its comments, and as docker-compose.yml has it.
#[test]
fn it_can_be_told_to_relay_to_the_sfu_alone() {
    let has_ipv6 = UdpSocket::bind("[::1]:0").is_ok();
    let coturn = Coturn::with("strict", |ports| {
        let strict = shipped(ports, has_ipv6).replace("\n#denied-peer-ip=", "\ndenied-peer-ip=");
        assert!(strict.contains("\ndenied-peer-ip=0.0.0.0-255.255.255.255\n"));
        strict
    });
    let families = [
        (false, "10.20.30.40", &["1.1.1.1", "9.9.9.9", "10.20.30.39", "10.20.30.41", "223.255.255.255"][..]),
        (true, "fd00::40", &["::", "::1", "2600::1", "fd00::39", "fd00::41", "::ffff:9.9.9.9"]),
    ];
    for (is_ipv6, sfu, others) in families.into_iter().filter(|(is_ipv6, ..)| has_ipv6 || !is_ipv6) {
        let user = user(3600);
        let relay = Allocation::request(coturn.address, &user, &password(&user, SECRET), is_ipv6);
        let relay = relay.expect("a relay");
        let ip = |text: &str| text.parse::<IpAddr>().expect(text);
        assert_eq!(relay.permit(ip(sfu)), Ok(()));
        for peer in others {
            assert_eq!(relay.permit(ip(peer)), Err(FORBIDDEN), "{peer}");
        }
    }
}

#[test]
fn it_wants_a_credential_that_is_good_now() {
    let coturn = Coturn::with("credentials", |ports| shipped(ports, false));
    let ask =
        |user: &str, password: &str| Allocation::request(coturn.address, user, password, false).map(drop);
    let (good, past) = (user(3600), user(-60));
    assert_eq!(ask(&good, &password(&good, SECRET)), Ok(()));
    assert_eq!(ask(&past, &password(&past, SECRET)), Err(UNAUTHORIZED));
    assert_eq!(ask(&good, &password(&good, "another secret, as long")), Err(UNAUTHORIZED));
    assert_eq!(ask(&user(7200), &password(&good, SECRET)), Err(UNAUTHORIZED), "the time is signed too");
    assert_eq!(ask("ada", &password("ada", SECRET)), Err(UNAUTHORIZED));
}
