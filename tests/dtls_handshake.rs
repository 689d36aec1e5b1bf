//! The DTLS endpoint against the crate's own client side, over UDP on loopback and bad networks.

mod dtls_support;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dtls_support::*;
use gryt_sfu::dtls::endpoint::{Acceptor, Error, Output};
use gryt_sfu::dtls::identity::Identity;
use gryt_sfu::dtls::keying::SrtpProfile;
use tokio::time::timeout;
use webrtc_dtls::config::{Config, ExtendedMasterSecretType};
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;

#[test]
fn every_profile_and_our_preference() {
    use SrtpProfile::{AeadAes128Gcm as G128, AeadAes256Gcm as G256, AesCm128HmacSha1_80 as CM};
    local(async {
        let acceptor = acceptor();
        let (certificate, fingerprint) = certificate();
        for (offered, expected) in [
            (vec![G128], G128),
            (vec![G256], G256),
            (vec![CM], CM),
            (vec![CM, G256, G128], G128),
            (vec![CM, G256], G256),
        ] {
            let mut server = Server::start(&acceptor, fingerprint, fair(), fair()).await;
            let config = client_config(certificate.clone(), &offered);
            let client = connect(server.address, config).await.unwrap();
            let keys = server.news().await.unwrap();
            assert_eq!(keys.profile, expected, "of {offered:?}");
            assert_eq!(client.selected_srtpprotection_profile(), expected.into());
            assert_same_keys(&client, &keys).await;
        }
    });
}

#[test]
fn hellos_and_certificates_in_pieces_in_either_order() {
    local(async {
        let acceptor = acceptor();
        let (certificate, fingerprint) = certificate();
        for (inbound, mtu) in [(fair(), 100), (swapped(), 100), (fair(), 33), (swapped(), 33)] {
            let mut server = Server::start(&acceptor, fingerprint, inbound, fair()).await;
            let config = Config { mtu, ..client_config(certificate.clone(), &SrtpProfile::ALL) };
            let client = connect(server.address, config).await.unwrap();
            assert_same_keys(&client, &server.news().await.unwrap()).await;
        }
    });
}

#[test]
fn everything_twice() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let twice = || -> Weather { Box::new(|datagram| vec![datagram.clone(), datagram]) };
        let mut server = Server::start(&acceptor(), fingerprint, twice(), twice()).await;
        let client = connect(server.address, client_config(certificate, &SrtpProfile::ALL)).await.unwrap();
        assert_same_keys(&client, &server.news().await.unwrap()).await;
    });
}

#[test]
fn losses_on_either_way() {
    local(async {
        let acceptor = acceptor();
        let (certificate, fingerprint) = certificate();
        for (inbound, outbound) in [(losing(4), fair()), (fair(), losing(4)), (losing(3), losing(3))] {
            let mut server = Server::start(&acceptor, fingerprint, inbound, outbound).await;
            let config = client_config(certificate.clone(), &SrtpProfile::ALL);
            let client = connect(server.address, config).await.unwrap();
            assert_same_keys(&client, &server.news().await.unwrap()).await;
        }
    });
}

#[test]
fn the_last_flight_lost_is_sent_again_byte_for_byte() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let sent = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&sent);
        // ChangeCipherSpec begins the last flight.
        let outbound: Weather = Box::new(move |datagram| {
            if datagram[0] != 20 {
                return vec![datagram];
            }
            log.borrow_mut().push(datagram.clone());
            if log.borrow().len() <= 2 { vec![] } else { vec![datagram] }
        });
        let mut server = Server::start(&acceptor(), fingerprint, fair(), outbound).await;
        let client = connect(server.address, client_config(certificate, &SrtpProfile::ALL)).await.unwrap();
        assert_same_keys(&client, &server.news().await.unwrap()).await;
        let sent = sent.borrow();
        assert!(sent.len() >= 3 && sent.iter().all(|datagram| *datagram == sent[0]), "{sent:?}");
        assert!(server.news.is_empty(), "one handshake, one set of keys");
    });
}

#[test]
fn another_certificate_than_the_sdp_says() {
    local(async {
        let ((certificate, _), (_, other)) = (certificate(), certificate());
        let mut server = Server::start(&acceptor(), other, fair(), fair()).await;
        assert!(connect(server.address, client_config(certificate, &SrtpProfile::ALL)).await.is_err());
        assert_eq!(server.news().await.err(), Some(Error::FingerprintMismatch));
    });
}

#[test]
fn no_certificate_no_srtp_no_extended_master_secret() {
    local(async {
        let acceptor = acceptor();
        let (certificate, fingerprint) = certificate();
        let good = client_config(certificate, &SrtpProfile::ALL);
        let extended_master_secret = ExtendedMasterSecretType::Disable;
        let sha1_32 = vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32];
        for (config, expected) in [
            (Config { certificates: vec![], ..good.clone() }, Error::NoCertificate),
            (Config { srtp_protection_profiles: vec![], ..good.clone() }, Error::NoUseSrtp),
            (Config { srtp_protection_profiles: sha1_32, ..good.clone() }, Error::NoCommonProfile),
            (Config { extended_master_secret, ..good.clone() }, Error::NoExtendedMasterSecret),
        ] {
            let mut server = Server::start(&acceptor, fingerprint, fair(), fair()).await;
            // The alert ends the client's wait.
            assert!(connect(server.address, config).await.is_err());
            assert_eq!(server.news().await.err(), Some(expected));
        }
    });
}

#[test]
fn after_a_failure_the_endpoint_listens_on_for_five_more_attempts_a_minute() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let good = client_config(certificate, &SrtpProfile::ALL);
        let bad = Config { certificates: vec![], ..good.clone() };
        let mut server = Server::start(&acceptor(), fingerprint, fair(), fair()).await;
        assert!(connect(server.address, bad.clone()).await.is_err());
        assert_eq!(server.news().await.err(), Some(Error::NoCertificate));
        server.news_of(connect(server.address, good.clone())).await;

        let mut server = Server::start(&acceptor(), fingerprint, fair(), fair()).await;
        for _ in 0..6 {
            assert!(connect(server.address, bad.clone()).await.is_err());
            assert_eq!(server.news().await.err(), Some(Error::NoCertificate));
        }
        // After that not even an alert.
        let late = timeout(Duration::from_millis(700), connect(server.address, good)).await;
        assert!(late.is_err(), "the sixth attempt after the first within a minute");
        assert!(server.news.is_empty());
    });
}

/// Whose the panic was does not matter: here it is of whoever is told what to send.
#[test]
fn a_fault_of_ours_costs_an_attempt_and_no_more() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let mut is_faulty = true;
        let outbound: Weather = Box::new(move |datagram| {
            assert!(!std::mem::take(&mut is_faulty), "as a fault of ours would");
            vec![datagram]
        });
        let mut server = Server::start(&acceptor(), fingerprint, fair(), outbound).await;
        let client = connect(server.address, client_config(certificate, &SrtpProfile::ALL)).await.unwrap();
        assert!(matches!(server.news().await, Err(Error::Panicked)));
        assert_same_keys(&client, &server.news().await.unwrap()).await;
    });
}

#[test]
fn a_hello_of_somebody_else_that_comes_to_nothing_spoils_no_handshake() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let good = client_config(certificate, &SrtpProfile::ALL);
        let mut stray = Vec::new();
        for _ in 0..12 {
            stray.push(first_datagram(Config { srtp_protection_profiles: vec![], ..good.clone() }).await);
        }
        let mut stray = Some(stray);
        // The peer's own first one is lost, so that it comes a little later.
        let inbound: Weather = Box::new(move |datagram| stray.take().unwrap_or_else(|| vec![datagram]));
        let no_alert: Weather = Box::new(|datagram| {
            assert_ne!(datagram[0], 21);
            vec![datagram]
        });
        let mut server = Server::start(&acceptor(), fingerprint, inbound, no_alert).await;
        server.news_of(connect(server.address, good)).await;
        assert!(server.news.is_empty());
    });
}

#[test]
fn once_there_are_keys_no_hello_begins_anything() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let mut server = Server::start(&acceptor(), fingerprint, fair(), fair()).await;
        server.news_of(connect(server.address, config.clone())).await;
        let again = timeout(Duration::from_millis(700), connect(server.address, config)).await;
        assert!(again.is_err(), "the same certificate, another handshake");
        assert!(server.news.is_empty());
    });
}

#[test]
fn a_forged_alert_does_not_end_a_handshake() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let alert = Bytes::from_static(&[21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40]);
        // A slow peer: each of his flights gets through at the second try, so that he is done only after
        // the first alert's grace, and well within it each time.
        let mut last = None;
        let inbound: Weather = Box::new(move |datagram| {
            let now = tokio::time::Instant::now();
            let is_first_try = last.is_some_and(|last| now - last < Duration::from_millis(1000));
            if is_first_try {
                return vec![alert.clone()];
            }
            last = Some(now);
            vec![datagram, alert.clone()]
        });
        let mut server = Server::start(&acceptor(), fingerprint, inbound, fair()).await;
        let flight_interval = Duration::from_millis(1200);
        let config = Config { flight_interval, ..client_config(certificate, &SrtpProfile::ALL) };
        server.news_of(connect(server.address, config)).await;
    });
}

#[test]
fn a_fatal_alert_and_silence_is_a_failure() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let hello = first_datagram(client_config(certificate, &SrtpProfile::ALL)).await;
        let (mut endpoint, mut outputs) = bare_endpoint(&acceptor(), fingerprint);
        endpoint.handle_datagram(hello);
        assert!(matches!(outputs.recv().await, Some(Output::Datagram(_))));
        endpoint.handle_datagram(Bytes::from_static(&[21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 48]));
        let output = timeout(PATIENCE, outputs.recv()).await.unwrap();
        assert!(matches!(output, Some(Output::Failed(Error::PeerAlert(48)))));
    });
}

#[test]
fn many_at_once_and_silent_ones_among_them() {
    local(async {
        // The silent ones are not saved by their deadline.
        let acceptor = Acceptor::with_deadline(Identity::generate().unwrap(), 10 * PATIENCE);
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let all = async {
            // More than there are turns, begun and never continued.
            let mut silent = Vec::new();
            for _ in 0..10 {
                let (mut endpoint, mut outputs) = bare_endpoint(&acceptor, fingerprint);
                endpoint.handle_datagram(first_datagram(config.clone()).await);
                assert!(matches!(outputs.recv().await, Some(Output::Datagram(_))));
                silent.push((endpoint, outputs));
            }
            let mut clients = Vec::new();
            for _ in 0..20 {
                let server = Server::start(&acceptor, fingerprint, fair(), fair()).await;
                clients.push((tokio::spawn(connect(server.address, config.clone())), server));
            }
            for (client, server) in &mut clients {
                let client = client.await.unwrap().unwrap();
                assert_same_keys(&client, &server.news().await.unwrap()).await;
            }
        };
        timeout(PATIENCE, all).await.unwrap();
    });
}

/// A hello of nobody's.
async fn stray_hello(config: &Config) -> Bytes {
    first_datagram(config.clone()).await
}

#[test]
fn a_stray_hello_before_the_peers_own_costs_a_second() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let mut stray = Some(stray_hello(&config).await);
        let inbound: Weather = Box::new(move |datagram| stray.take().into_iter().chain([datagram]).collect());
        // Its answer comes before the peer listens.
        let mut sent = 0;
        let outbound: Weather = Box::new(move |datagram| {
            sent += 1;
            if sent == 1 { vec![] } else { vec![datagram] }
        });
        let mut server = Server::start(&acceptor(), fingerprint, inbound, outbound).await;
        server.news_of(connect(server.address, config)).await;
    });
}

#[test]
fn a_stray_hello_amid_a_handshake_costs_nothing() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let stray = stray_hello(&config).await;
        // One of three, for the machine may be at other things.
        for _ in 0..3 {
            let (mut seen, stray) = (0, stray.clone());
            let inbound: Weather = Box::new(move |datagram| {
                seen += 1;
                if seen == 1 { vec![datagram] } else { vec![stray.clone(), datagram] }
            });
            let mut server = Server::start(&acceptor(), fingerprint, inbound, fair()).await;
            let handshake = server.news_of(connect(server.address, config.clone()));
            if timeout(Duration::from_millis(900), handshake).await.is_ok() {
                return;
            }
        }
        panic!("no handshake was quick");
    });
}

#[test]
fn the_deadline_ends_an_attempt_and_a_dropped_endpoint_is_silent() {
    local(async {
        let acceptor = Acceptor::with_deadline(Identity::generate().unwrap(), Duration::from_millis(300));
        let (certificate, fingerprint) = certificate();
        let hello = first_datagram(client_config(certificate, &SrtpProfile::ALL)).await;
        let (mut endpoint, mut outputs) = bare_endpoint(&acceptor, fingerprint);
        endpoint.handle_datagram(hello.clone());
        assert!(matches!(outputs.recv().await, Some(Output::Datagram(_))));
        let output = timeout(PATIENCE, outputs.recv()).await.unwrap();
        let alert = matches!(&output, Some(Output::Datagram(datagram)) if datagram[0] == 21);
        assert!(alert, "a browser that is told begins anew at once");
        let output = timeout(PATIENCE, outputs.recv()).await.unwrap();
        assert!(matches!(output, Some(Output::Failed(Error::Timeout))));
        endpoint.handle_datagram(hello);
        drop(endpoint);
        // The channel's other end goes with the endpoint's task.
        assert!(timeout(PATIENCE, outputs.recv()).await.unwrap().is_none());
    });
}

#[test]
fn garbage_gets_no_answer_and_does_no_harm() {
    local(async {
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let hello = first_datagram(config.clone()).await;
        let acceptor = acceptor();
        let (mut endpoint, mut outputs) = bare_endpoint(&acceptor, fingerprint);
        let mut random = Random(1);
        for _ in 0..20_000 {
            let mut datagram: Vec<u8> = (0..random.next(120)).map(|_| random.next(256) as u8).collect();
            if let Some(first) = datagram.first_mut() {
                *first = 20 + *first % 44;
            }
            endpoint.handle_datagram(datagram.into());
            endpoint.handle_datagram(hello.slice(..random.next(hello.len())));
            if random.next(16) == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::task::yield_now().await;
        assert!(outputs.try_recv().is_err());
        // Not even an attempt was spent.
        endpoint.handle_datagram(hello);
        assert!(matches!(timeout(PATIENCE, outputs.recv()).await.unwrap(), Some(Output::Datagram(_))));
    });
}

#[test]
fn flipped_bits_fail_one_handshake_and_nothing_else() {
    local(async {
        let acceptor = Acceptor::with_deadline(Identity::generate().unwrap(), Duration::from_secs(2));
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let mut clients = Vec::new();
        for seed in 0..150 {
            let mut random = Random(seed);
            let inbound: Weather = Box::new(move |datagram| {
                let mut bytes = datagram.to_vec();
                // Any byte of any record, its header's as well, but for the kind of the first.
                for _ in 0..random.next(3) {
                    let position = 1 + random.next(bytes.len() - 1);
                    bytes[position] ^= 1 << random.next(8);
                }
                vec![bytes.into()]
            });
            let server = Server::start(&acceptor, fingerprint, inbound, fair()).await;
            let client =
                tokio::spawn(timeout(Duration::from_secs(3), connect(server.address, config.clone())));
            clients.push((client, server));
        }
        let mut established = 0;
        for (client, server) in &mut clients {
            let client = client.await.unwrap();
            if let Ok(Ok(client)) = client {
                established += 1;
                let keys = loop {
                    if let Ok(keys) = server.news().await {
                        break keys;
                    }
                };
                assert_same_keys(&client, &keys).await;
            }
        }
        assert!((1..150).contains(&established), "{established} of 150: too few or too many flips");
        let mut server = Server::start(&acceptor, fingerprint, fair(), fair()).await;
        server.news_of(connect(server.address, config)).await;
    });
}
