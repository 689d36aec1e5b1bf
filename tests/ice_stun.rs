//! Our Binding messages against RFC 5769, against the `stun` crate both ways, and against bytes that
//! nobody means well with.

use std::net::SocketAddr;

use gryt_sfu::ice::credentials::{LocalCredentials, LocalUfrag, Secret};
use gryt_sfu::ice::integrity::IntegrityKey;
use gryt_sfu::ice::stun::{
    ANSWER_LEN_MAX, CHECK_LEN_MAX, Check, Message, Request, Response, Role, TransactionId, write_check,
    write_role_conflict, write_success,
};
use gryt_sfu::ids::WorkerId;
use gryt_sfu::packet::DropReason;
use proptest::collection::vec;
use proptest::prelude::*;
use stun::agent::TransactionId as OracleId;
use stun::attributes::{
    ATTR_ICE_CONTROLLED, ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME,
};
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, MessageType, Setter};
use stun::textattrs::TextAttribute;
use stun::xoraddr::XorMappedAddress;

#[path = "vectors/stun_rfc5769.rs"]
mod rfc5769;

const REMOTE_PASSWORD: &str = "0123456789abcdefghijkl";

fn local() -> LocalCredentials {
    let ufrag = LocalUfrag::new(WorkerId(3), [9; 11]);
    LocalCredentials { ufrag, password: Secret::from_bytes(&[4; 32]).password(&ufrag) }
}

fn key() -> IntegrityKey {
    IntegrityKey::new(local().password.as_str())
}

fn request(bytes: &[u8]) -> Request<'_> {
    match Message::parse(bytes) {
        Ok(Message::Request(request)) => request,
        other => panic!("no request: {other:?}"),
    }
}

fn response(bytes: &[u8]) -> Response<'_> {
    match Message::parse(bytes) {
        Ok(Message::Response(response)) => response,
        other => panic!("no response: {other:?}"),
    }
}

fn drop_reason(bytes: &[u8]) -> Option<DropReason> {
    Message::parse(bytes).err()
}

/// A message of the `stun` crate: attributes as given, then MESSAGE-INTEGRITY and FINGERPRINT.
fn oracle(kind: MessageType, attributes: &[(u16, &[u8])], password: &str) -> Vec<u8> {
    let mut message = unsealed(kind, attributes);
    MessageIntegrity::new_short_term_integrity(password.into()).add_to(&mut message).unwrap();
    FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}

fn unsealed(kind: MessageType, attributes: &[(u16, &[u8])]) -> stun::message::Message {
    let mut message = stun::message::Message::new();
    message.set_type(kind);
    message.transaction_id = OracleId([7; 12]);
    message.write_header();
    for (kind, value) in attributes {
        message.add(stun::attributes::AttrType(*kind), value);
    }
    message
}

fn username() -> Vec<u8> {
    format!("{}:wxyz", local().ufrag.as_str()).into_bytes()
}

fn oracle_request(more: &[(u16, &[u8])]) -> Vec<u8> {
    let username = username();
    let mut attributes = vec![(ATTR_USERNAME.0, &username[..])];
    attributes.extend_from_slice(more);
    oracle(BINDING_REQUEST, &attributes, local().password.as_str())
}

/// The same message as the `stun` crate reads it, MESSAGE-INTEGRITY and FINGERPRINT checked.
fn read_by_oracle(bytes: &[u8], password: &str) -> stun::message::Message {
    let mut message = stun::message::Message::new();
    message.unmarshal_binary(bytes).unwrap();
    MessageIntegrity::new_short_term_integrity(password.into()).check(&mut message).unwrap();
    FINGERPRINT.check(&message).unwrap();
    message
}

/// Inserts an attribute at `at` and mends the header's length; the tags stay as they were.
fn insert(mut bytes: Vec<u8>, at: usize, attribute: &[u8]) -> Vec<u8> {
    bytes.splice(at..at, attribute.iter().copied());
    let len = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// Mends length and FINGERPRINT, as an attacker can.
fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
    let at = bytes.len() - 8;
    let len = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let crc = stun::fingerprint::fingerprint_value(&bytes[..at]).to_be_bytes();
    bytes[at + 4..].copy_from_slice(&crc);
    bytes
}

#[test]
fn the_samples_of_rfc_5769() {
    let key = IntegrityKey::new(rfc5769::PASSWORD);
    let bytes = rfc5769::bytes(rfc5769::REQUEST);
    let sample = request(&bytes);
    assert_eq!(sample.username(), b"evtj:h6vY");
    assert_eq!(sample.role(), Some(Role::Controlled));
    assert!(!sample.has_use_candidate());
    assert_eq!(sample.transaction_id().0[..4], [0xB7, 0xE7, 0xA7, 0x01]);
    assert_eq!(sample.verify_with(&key), Ok(()));
    assert_eq!(sample.local_ufrag(), Err(DropReason::StunUnknownUser));

    for hex in [rfc5769::RESPONSE_IPV4, rfc5769::RESPONSE_IPV6] {
        let bytes = rfc5769::bytes(hex);
        assert_eq!(response(&bytes).verify_with(&key), Ok(()));
        assert_eq!(response(&bytes).transaction_id(), sample.transaction_id());
    }
}

#[test]
fn every_flipped_bit_of_the_samples_is_noticed() {
    let key = IntegrityKey::new(rfc5769::PASSWORD);
    for hex in [rfc5769::REQUEST, rfc5769::RESPONSE_IPV4, rfc5769::RESPONSE_IPV6] {
        let bytes = rfc5769::bytes(hex);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let verified = match Message::parse(&bytes) {
                Ok(Message::Request(request)) => request.verify_with(&key),
                Ok(Message::Response(response)) => response.verify_with(&key),
                Err(reason) => Err(reason),
            };
            assert!(verified.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn requests_of_the_stun_crate_are_read() {
    let bytes = oracle_request(&[
        (ATTR_PRIORITY.0, &u32::MAX.to_be_bytes()),
        (ATTR_ICE_CONTROLLING.0, &[1; 8]),
        (ATTR_USE_CANDIDATE.0, &[]),
        (0xC057, &[0, 1, 0, 10]), // GOOG-NETWORK-INFO, of Chromium.
    ]);
    let request = request(&bytes);
    assert_eq!(request.local_ufrag(), Ok(local().ufrag));
    assert_eq!(request.verify(&local().password), Ok(()));
    assert_eq!(request.role(), Some(Role::Controlling));
    assert_eq!(request.priority(), u32::MAX);
    assert!(request.has_use_candidate());
    assert_eq!(request.transaction_id(), TransactionId([7; 12]));

    let other = Secret::from_bytes(&[5; 32]).password(&local().ufrag);
    assert_eq!(request.verify(&other), Err(DropReason::StunUnauthenticated));
}

#[test]
fn answers_are_read_by_the_stun_crate() {
    let bytes = oracle_request(&[]);
    for remote in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:1", "255.255.255.255:65535"] {
        let remote: SocketAddr = remote.parse().unwrap();
        let mut out = [0xAA; ANSWER_LEN_MAX];
        let len = write_success(&request(&bytes), remote, &key(), &mut out).unwrap();
        assert!(len <= bytes.len());

        let message = read_by_oracle(&out[..len], local().password.as_str());
        assert_eq!(message.typ, BINDING_SUCCESS);
        assert_eq!(message.transaction_id, OracleId([7; 12]));
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&message).unwrap();
        assert_eq!(SocketAddr::new(mapped.ip, mapped.port), remote);

        assert_eq!(response(&out[..len]).verify_with(&key()), Ok(()));
        for short in 0..len {
            assert_eq!(write_success(&request(&bytes), remote, &key(), &mut out[..short]), None);
        }
    }
}

#[test]
fn no_answer_is_longer_than_the_shortest_request_that_names_us() {
    let bytes = oracle_request(&[]); // A ufrag of 4 characters, and nothing that can be left out.
    assert!(request(&bytes).local_ufrag().is_ok());
    assert_eq!(bytes.len(), ANSWER_LEN_MAX);
    let mut out = [0; 1500];
    let remote = "[2001:db8::1]:5000".parse().unwrap();
    assert_eq!(write_success(&request(&bytes), remote, &key(), &mut out), Some(bytes.len()));
    assert!(write_role_conflict(&request(&bytes), &key(), &mut out).unwrap() <= bytes.len());
}

#[test]
fn a_role_conflict_is_487_with_integrity() {
    let bytes = oracle_request(&[(ATTR_ICE_CONTROLLED.0, &[1; 8])]);
    let mut out = [0; 128];
    let len = write_role_conflict(&request(&bytes), &key(), &mut out).unwrap();
    let message = read_by_oracle(&out[..len], local().password.as_str());
    assert_eq!(message.typ, BINDING_ERROR);
    let mut error = ErrorCodeAttribute::default();
    error.get_from(&message).unwrap();
    assert!(error.code == stun::error_code::CODE_ROLE_CONFLICT);
}

#[test]
fn checks_of_ours_are_read_by_the_stun_crate() {
    for remote_ufrag in ["wxyz", "abcde", "0123456789abcdef", &"u".repeat(256)] {
        let check =
            Check { transaction_id: TransactionId([8; 12]), remote_ufrag, local_ufrag: local().ufrag };
        let remote_key = IntegrityKey::new(REMOTE_PASSWORD);
        let mut out = [0xAA; CHECK_LEN_MAX];
        let len = write_check(&check, &remote_key, &mut out).unwrap();

        let message = read_by_oracle(&out[..len], REMOTE_PASSWORD);
        assert_eq!(message.typ, BINDING_REQUEST);
        assert_eq!(message.transaction_id, OracleId([8; 12]));
        let username = TextAttribute::get_from_as(&message, ATTR_USERNAME).unwrap();
        assert_eq!(username.text, format!("{remote_ufrag}:{}", local().ufrag.as_str()));
        assert_eq!(message.get(ATTR_PRIORITY).unwrap(), [110, 255, 255, 255]);
        assert_eq!(message.get(ATTR_ICE_CONTROLLED).unwrap(), [0; 8]);
        assert!(!message.contains(ATTR_USE_CANDIDATE) && !message.contains(ATTR_ICE_CONTROLLING));

        assert_eq!(request(&out[..len]).verify_with(&remote_key), Ok(()));
        assert_eq!(write_check(&check, &remote_key, &mut out[..len - 1]), None);
    }
}

#[test]
fn a_username_names_us_only_with_a_ufrag_of_the_peer_behind_it() {
    let ours = local().ufrag;
    let ours = ours.as_str();
    let long = "r".repeat(257);
    let refused = [
        String::new(),
        ours.into(),
        format!("{ours}:"),
        format!("{ours}:abc"),
        format!("{ours}abcd"),
        format!("{}:wxyz", &ours[1..]),
        format!("A{ours}:wxyz"),
        format!("wxyz:{ours}"),
        format!("{ours}:{long}"),
        ":".repeat(17),
    ];
    for name in refused {
        let bytes = oracle(BINDING_REQUEST, &[(ATTR_USERNAME.0, name.as_bytes())], "any");
        assert_eq!(request(&bytes).local_ufrag(), Err(DropReason::StunUnknownUser), "{name:?}");
    }
    let bytes =
        oracle(BINDING_REQUEST, &[(ATTR_USERNAME.0, format!("{ours}:{}", &long[1..]).as_bytes())], "any");
    assert_eq!(request(&bytes).local_ufrag(), Ok(local().ufrag));
}

#[test]
fn the_first_of_two_attributes_counts() {
    let other = b"AAAAAAAAAAAA:wxyz";
    let bytes = oracle_request(&[
        (ATTR_ICE_CONTROLLING.0, &[1; 8]),
        (ATTR_USERNAME.0, other),
        (ATTR_ICE_CONTROLLED.0, &[1; 8]),
        (ATTR_PRIORITY.0, &[1; 4]),
        (ATTR_PRIORITY.0, &[2; 4]),
    ]);
    assert_eq!(request(&bytes).priority(), 0x0101_0101);
    assert_eq!(request(&bytes).local_ufrag(), Ok(local().ufrag));
    assert_eq!(request(&bytes).role(), Some(Role::Controlling));
}

#[test]
fn what_follows_message_integrity_is_not_there() {
    let bytes = oracle_request(&[]);
    let after_integrity = bytes.len() - 8;
    let injected = [
        &[0x00, 0x25, 0, 0][..],                     // USE-CANDIDATE
        &[0x80, 0x29, 0, 8, 1, 1, 1, 1, 1, 1, 1, 1], // ICE-CONTROLLED
        &[0x7F, 0xFF, 0, 4, 0, 0, 0, 0],             // comprehension-required, unknown
        &[0x00, 0x08, 0, 4, 0, 0, 0, 0],             // a second MESSAGE-INTEGRITY, too short
        &[[0x00, 0x1C, 0, 32], [0; 4], [0; 4], [0; 4], [0; 4], [0; 4], [0; 4], [0; 4], [0; 4]].concat(),
    ];
    for attribute in injected {
        let bytes = reseal(insert(bytes.clone(), after_integrity, attribute));
        let request = request(&bytes);
        assert!(!request.has_use_candidate());
        assert_eq!(request.role(), None);
        assert_eq!(request.verify(&local().password), Ok(()));
    }
    // The same attribute in front of it is seen, and breaks it.
    let bytes = reseal(insert(bytes, 20, &[0x00, 0x25, 0, 0]));
    assert!(request(&bytes).has_use_candidate());
    assert_eq!(request(&bytes).verify(&local().password), Err(DropReason::StunUnauthenticated));
}

#[test]
fn what_is_missing_or_in_the_wrong_place_is_refused() {
    let username = username();
    let names = (ATTR_USERNAME.0, &username[..]);
    let integrity = MessageIntegrity::new_short_term_integrity(local().password.as_str().into());
    use DropReason::{StunMalformed, StunUnauthenticated, StunUnexpected};

    let mut no_integrity = unsealed(BINDING_REQUEST, &[names]);
    FINGERPRINT.add_to(&mut no_integrity).unwrap();
    assert_eq!(drop_reason(&no_integrity.raw), Some(StunUnauthenticated));

    let mut no_fingerprint = unsealed(BINDING_REQUEST, &[names]);
    integrity.add_to(&mut no_fingerprint).unwrap();
    assert_eq!(drop_reason(&no_fingerprint.raw), Some(StunUnauthenticated));

    let no_username = oracle(BINDING_REQUEST, &[], local().password.as_str());
    assert_eq!(drop_reason(&no_username), Some(StunUnauthenticated));

    // FINGERPRINT with another attribute behind it, or of another length.
    let whole = oracle_request(&[]);
    let end = whole.len();
    for fingerprint in [&[0x80, 0x28, 0, 4, 0, 0, 0, 0][..], &[0x80, 0x28, 0, 0]] {
        assert_eq!(drop_reason(&insert(whole.clone(), 20, fingerprint)), Some(StunMalformed));
        assert_eq!(drop_reason(&insert(whole.clone(), end - 8, fingerprint)), Some(StunMalformed));
    }
    assert_eq!(
        drop_reason(&insert(whole[..end - 8].to_vec(), end - 8, &[0x80, 0x28, 0, 0])),
        Some(StunMalformed)
    );
    assert_eq!(drop_reason(&insert(whole, end, &[0x80, 0x22, 0, 0])), Some(StunMalformed));

    // Attributes whose length is not theirs, and one that must be known and is not.
    let wrong: &[(u16, &[u8])] = &[
        (ATTR_USE_CANDIDATE.0, &[0; 4]),
        (ATTR_PRIORITY.0, &[0; 8]),
        (ATTR_ICE_CONTROLLING.0, &[0; 4]),
        (ATTR_ICE_CONTROLLED.0, &[0; 12]),
        (0x0008, &[0; 16]),
        (0x0003, &[0; 4]), // CHANGE-REQUEST, of RFC 3489 and 5780.
        (0x7FFF, &[]),
    ];
    for attribute in wrong {
        assert_eq!(drop_reason(&oracle_request(&[*attribute])), Some(StunMalformed), "{attribute:?}");
    }

    let indication = MessageType { class: stun::message::CLASS_INDICATION, ..BINDING_REQUEST };
    assert_eq!(drop_reason(&oracle(indication, &[names], "any")), Some(StunUnexpected));
    assert_eq!(drop_reason(&oracle(BINDING_ERROR, &[names], "any")), Some(StunUnexpected));
    let allocate = MessageType { method: stun::message::METHOD_ALLOCATE, ..BINDING_REQUEST };
    assert_eq!(drop_reason(&oracle(allocate, &[names], "any")), Some(StunMalformed));
}

#[test]
fn headers_that_lie_are_refused() {
    let good = oracle_request(&[]);
    let refuse = |bytes: &[u8]| assert_eq!(drop_reason(bytes), Some(DropReason::StunMalformed), "{bytes:?}");
    for len in 0..good.len() {
        refuse(&good[..len]);
    }
    let mut classic = good.clone(); // RFC 3489 had no cookie.
    classic[4] ^= 1;
    refuse(&classic);
    for length in [0, 4, good.len() - 24, good.len() - 16, 0xFFFC, 0xFFFF] {
        let mut bytes = good.clone();
        bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        refuse(&bytes);
    }
    for trailing in 1..9 {
        refuse(&[&good[..], &[0; 8][..trailing]].concat());
    }
    // An attribute longer than what is left: at the end, in the middle, and by its padding alone.
    for length in [0x00, 0x05, 0x09, 0xFF] {
        let mut bytes = good.clone();
        let at = bytes.len() - 8;
        bytes[at + 2..at + 4].copy_from_slice(&[0, length]);
        refuse(&reseal(bytes));
    }
    let mut bytes = good.clone();
    bytes[22..24].copy_from_slice(&[0xFF, 0xFF]);
    refuse(&bytes);

    // Longer than any datagram taken in.
    let many: Vec<(u16, &[u8])> = vec![(0x8022, &[]); 16_000];
    refuse(&oracle_request(&many));
    let most: Vec<(u16, &[u8])> = vec![(0x8022, &[]); 350];
    assert_eq!(request(&oracle_request(&most)).verify(&local().password), Ok(()));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(&bytes);
    }

    /// Whatever has a header and some attributes: parsed, verified, answered, without a panic; and what
    /// verifies is what the `stun` crate finds authentic too.
    #[test]
    fn no_attributes_make_it_panic(
        kind in prop_oneof![Just(0x0001_u16), Just(0x0101), any::<u16>()],
        attributes in vec(
            (
                prop_oneof![
                    Just(0x0006_u16), Just(0x0008), Just(0x0025), Just(0x8028), Just(0x8029),
                    Just(0x802A), any::<u16>(),
                ],
                vec(any::<u8>(), 0..40),
                -3_i32..4,
            ),
            0..8,
        ),
    ) {
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0, 0x21, 0x12, 0xA4, 0x42]);
        bytes.extend([7; 12]);
        for (kind, value, lie) in &attributes {
            bytes.extend(kind.to_be_bytes());
            // Three in seven tell the truth.
            let lie = if *lie < 0 { 0 } else { *lie };
            bytes.extend((value.len() as u16).wrapping_add_signed(lie as i16).to_be_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let len = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        match Message::parse(&bytes) {
            Ok(Message::Request(request)) => {
                let _ = request.local_ufrag();
                prop_assert!(request.verify(&local().password).is_err());
                let mut out = [0; 128];
                prop_assert!(write_success(&request, "[::1]:1".parse().unwrap(), &key(), &mut out).is_some());
            }
            Ok(Message::Response(response)) => prop_assert!(response.verify_with(&key()).is_err()),
            Err(_) => {}
        }
    }

    /// A valid request with one byte changed never verifies, and never panics.
    #[test]
    fn no_single_change_goes_unnoticed(at in 0_usize..76, change in 1_u8..) {
        let mut bytes = oracle_request(&[]);
        bytes[at] ^= change;
        if let Ok(Message::Request(request)) = Message::parse(&bytes) {
            prop_assert_eq!(request.verify(&local().password), Err(DropReason::StunUnauthenticated));
        }
    }

    /// Any well-formed request of the `stun` crate is authentic to us, with the same content.
    #[test]
    fn agrees_with_the_stun_crate(
        remote_ufrag in "[A-Za-z0-9+/]{4,256}",
        password in "[A-Za-z0-9+/]{22,256}",
        priority in any::<u32>(),
        tie_breaker in any::<u64>(),
        is_controlling in any::<bool>(),
        has_use_candidate in any::<bool>(),
        software in vec(any::<u8>(), 0..128),
    ) {
        let name = format!("{}:{remote_ufrag}", local().ufrag.as_str());
        let role = if is_controlling { ATTR_ICE_CONTROLLING.0 } else { ATTR_ICE_CONTROLLED.0 };
        let (priority_bytes, tie_breaker) = (priority.to_be_bytes(), tie_breaker.to_be_bytes());
        let mut attributes: Vec<(u16, &[u8])> = vec![
            (0x8022, &software),
            (ATTR_PRIORITY.0, &priority_bytes),
            (role, &tie_breaker),
            (ATTR_USERNAME.0, name.as_bytes()),
        ];
        if has_use_candidate {
            attributes.push((ATTR_USE_CANDIDATE.0, &[]));
        }
        let bytes = oracle(BINDING_REQUEST, &attributes, &password);
        let request = request(&bytes);
        prop_assert_eq!(request.verify_with(&IntegrityKey::new(&password)), Ok(()));
        prop_assert_eq!(request.local_ufrag(), Ok(local().ufrag));
        prop_assert_eq!(request.priority(), priority);
        prop_assert_eq!(request.has_use_candidate(), has_use_candidate);
        prop_assert_eq!(request.role() == Some(Role::Controlling), is_controlling);
    }
}
