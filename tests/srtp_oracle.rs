//! SRTP and SRTCP against another implementation, webrtc-srtp, in both directions.
//!
//! The oracle is asked only where it is right. It derives the index itself, even to encrypt, from the
//! order in which packets come, and its index moves back with a late packet: so what it encrypts comes in
//! order, with gaps below 2^15, and what it decrypts is late by a few thousand indices at most. It takes
//! SRTCP with a clear E bit, and panics on what does not parse: so it sees only packets that were sealed.
//! Its replay windows are off; ours are held against a set that forgets nothing.

use std::collections::HashSet;

use gryt_sfu::dtls::keying::{MasterKey, SrtpProfile};
use gryt_sfu::ids::Ssrc;
use gryt_sfu::packet::DropReason;
use gryt_sfu::srtp::context::{SRTCP_OVERHEAD_MAX, SRTP_OVERHEAD_MAX, SrtpRx, SrtpTx};
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::srtp::path::CryptoPath;
use proptest::collection::vec;
use proptest::prelude::*;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use zeroize::Zeroizing;

const SSRC: Ssrc = Ssrc(0x89AB_CDEF);
const RTP_WINDOW: u64 = 1024;
const RTCP_WINDOW: u64 = 128;

/// What this processor is at its best with, and what runs on any.
fn paths_and_profiles() -> impl Iterator<Item = (CryptoPath, SrtpProfile)> {
    let paths = [CryptoPath::best(), CryptoPath::Portable];
    paths.into_iter().flat_map(|path| SrtpProfile::ALL.into_iter().map(move |profile| (path, profile)))
}

fn ours(profile: SrtpProfile, secret: &[u8; 46]) -> MasterKey {
    let (key, salt) = secret.split_at(32);
    MasterKey {
        key: Zeroizing::new(key[..profile.key_len()].to_vec()),
        salt: Zeroizing::new(salt[..profile.salt_len()].to_vec()),
    }
}

fn oracle(profile: SrtpProfile, secret: &[u8; 46]) -> Context {
    let master = ours(profile, secret);
    let profile = match profile {
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    Context::new(&master.key, &master.salt, profile, None, None).expect("lengths of the profile")
}

/// What varies between packets, besides the index.
#[derive(Clone, Debug)]
struct Content {
    csrc_count: u8,
    extension: Option<(u16, Vec<u8>)>,
    marker_and_type: u8,
    payload: Vec<u8>,
}

fn content() -> impl Strategy<Value = Content> {
    let extension = prop_oneof![
        Just(None),
        // One element of three bytes (RFC 8285 §4.2), and a profile that nobody knows.
        any::<[u8; 3]>().prop_map(|[a, b, c]| Some((0xBEDE, vec![0x12, a, b, c]))),
        vec(any::<[u8; 4]>(), 0..4).prop_map(|words| Some((0x1234, words.concat()))),
    ];
    let payload = prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 0..1300)];
    (0..16_u8, extension, any::<u8>(), payload).prop_map(
        |(csrc_count, extension, marker_and_type, payload)| Content {
            csrc_count,
            extension,
            marker_and_type,
            payload,
        },
    )
}

impl Content {
    fn header(&self, index: PacketIndex) -> Vec<u8> {
        let extension_bit = if self.extension.is_some() { 0x10 } else { 0 };
        let mut header = vec![0x80 | extension_bit | self.csrc_count, self.marker_and_type];
        header.extend(index.seq().to_be_bytes());
        header.extend((index.0 as u32).wrapping_mul(960).to_be_bytes());
        header.extend(SSRC.0.to_be_bytes());
        for csrc in 0..self.csrc_count {
            header.extend([csrc; 4]);
        }
        if let Some((profile, data)) = &self.extension {
            header.extend(profile.to_be_bytes());
            header.extend(((data.len() / 4) as u16).to_be_bytes());
            header.extend(data);
        }
        header
    }
}

struct Packet {
    index: PacketIndex,
    header_len: usize,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

fn seal(tx: &mut SrtpTx, index: PacketIndex, content: &Content) -> Packet {
    let header = content.header(index);
    let mut sealed = vec![0; header.len() + content.payload.len() + SRTP_OVERHEAD_MAX];
    let len = tx.protect_rtp(index, &header, &content.payload, &mut sealed).expect("room for it");
    sealed.truncate(len);
    Packet { index, header_len: header.len(), plain: [&header[..], &content.payload].concat(), sealed }
}

fn open(rx: &mut SrtpRx, packet: &Packet) -> Result<(PacketIndex, Vec<u8>), DropReason> {
    let mut bytes = packet.sealed.clone();
    let (index, len) = rx.unprotect_rtp(SSRC, packet.index.seq(), packet.header_len, &mut bytes)?;
    bytes.truncate(len);
    Ok((index, bytes))
}

#[expect(clippy::disallowed_methods, reason = "sealed packets, and that it takes them is what we ask")]
fn oracle_opens(oracle: &mut Context, packet: &Packet) -> Vec<u8> {
    oracle.decrypt_rtp(&packet.sealed).expect("the oracle opens what we sealed").to_vec()
}

/// How packet n travels: lost, once or twice, and how many packets overtake it.
#[derive(Clone, Copy, Debug)]
struct Travel {
    copies: usize,
    late_by: usize,
}

fn travel() -> impl Strategy<Value = Travel> {
    let copies = prop_oneof![1 => Just(0), 7 => Just(1), 1 => Just(2)];
    let late_by = prop_oneof![3 => Just(0), 1 => 1..6_usize];
    (copies, late_by).prop_map(|(copies, late_by)| Travel { copies, late_by })
}

/// In the order of their arrival. The first is never lost or late: who joins after a wrap cannot know the
/// ROC (RFC 3711 §3.3.1).
fn arrivals(travels: &[Travel]) -> Vec<usize> {
    let mut arrivals = vec![(0, 0)];
    for (n, travel) in travels.iter().enumerate().skip(1) {
        for copy in 0..travel.copies {
            arrivals.push((n + travel.late_by + 3 * copy, n));
        }
    }
    arrivals.sort();
    arrivals.into_iter().map(|(_, n)| n).collect()
}

fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![12 => Just(1_u64), 3 => 2..60_u64, 1 => 61..3000_u64]
}

/// A stream that begins in the first round and soon leaves it.
fn indices(start: u16, gaps: impl Iterator<Item = u64>) -> Vec<PacketIndex> {
    let start = u64::from(start);
    let next = gaps.scan(start, |index, gap| {
        *index += gap;
        Some(*index)
    });
    std::iter::once(start).chain(next).map(PacketIndex).collect()
}

/// One packet of each length.
#[test]
fn seals_and_opens_every_length_as_the_oracle_does() {
    for (path, profile) in paths_and_profiles() {
        let secret = std::array::from_fn(|at| at as u8);
        let mut tx = SrtpTx::on(path, profile, &ours(profile, &secret));
        let mut rx = SrtpRx::on(path, profile, &ours(profile, &secret));
        let mut oracle = oracle(profile, &secret);
        for len in 0..=1500 {
            let payload = (0..len).map(|at| (at * 7 + len) as u8).collect();
            let content = Content {
                csrc_count: (len % 16) as u8,
                extension: (len % 3 == 0).then(|| (0xBEDE, vec![0x12, 1, 2, 3])),
                marker_and_type: 111,
                payload,
            };
            let packet = seal(&mut tx, PacketIndex(65_000 + len), &content);
            let expected = oracle.encrypt_rtp(&packet.plain).expect("a well-formed packet");
            assert_eq!(packet.sealed, expected, "{path:?} {profile:?} {len}");
            assert_eq!(
                open(&mut rx, &packet),
                Ok((packet.index, packet.plain)),
                "{path:?} {profile:?} {len}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Byte for byte what the oracle encrypts, over many rounds of the sequence number.
    #[test]
    fn seals_rtp_as_the_oracle_does(
        secret in any::<[u8; 46]>(),
        start: u16,
        packets in vec((1..30_000_u64, content()), 1..60),
    ) {
        for (path, profile) in paths_and_profiles() {
            let mut tx = SrtpTx::on(path, profile, &ours(profile, &secret));
            let mut oracle = oracle(profile, &secret);
            let indices = indices(start, packets.iter().map(|(gap, _)| *gap));
            for (index, (_, content)) in indices.into_iter().zip(&packets) {
                let packet = seal(&mut tx, index, content);
                let expected = oracle.encrypt_rtp(&packet.plain).expect("a well-formed packet");
                prop_assert_eq!(&packet.sealed[..], &expected[..], "{:?} {:?} {:?}", path, profile, index);
            }
        }
    }

    /// Over loss, duplicates and reordering across the wrap: the oracle opens all that we sealed, and we
    /// open all that is new and within the window, with the right index, and nothing else.
    #[test]
    fn opens_rtp_as_the_oracle_does(
        secret in any::<[u8; 46]>(),
        start in 65_300..=u16::MAX,
        packets in vec((gap(), content(), travel()), 2..250),
    ) {
        for (path, profile) in paths_and_profiles() {
            let mut tx = SrtpTx::on(path, profile, &ours(profile, &secret));
            let mut rx = SrtpRx::on(path, profile, &ours(profile, &secret));
            let mut oracle = oracle(profile, &secret);
            let indices = indices(start, packets.iter().map(|(gap, ..)| *gap));
            let sent: Vec<_> =
                indices.into_iter().zip(&packets).map(|(i, (_, content, _))| seal(&mut tx, i, content)).collect();
            let travels: Vec<_> = packets.iter().map(|(.., travel)| *travel).collect();

            let mut seen = HashSet::new();
            let mut highest = 0;
            for packet in arrivals(&travels).into_iter().map(|n| &sent[n]) {
                prop_assert_eq!(&oracle_opens(&mut oracle, packet), &packet.plain);
                let too_old = packet.index.0 + RTP_WINDOW <= highest;
                let expected = if too_old || !seen.insert(packet.index) {
                    Err(DropReason::Replayed)
                } else {
                    Ok((packet.index, packet.plain.clone()))
                };
                prop_assert_eq!(open(&mut rx, packet), expected, "{:?} {:?} {:?}", path, profile, packet.index);
                highest = highest.max(packet.index.0);
            }
        }
    }

    /// Byte for byte in one direction; loss, duplicates and reordering in the other.
    #[test]
    fn seals_and_opens_rtcp_as_the_oracle_does(
        secret in any::<[u8; 46]>(),
        packets in vec((0..32_u8, 200..=206_u8, vec(any::<[u8; 4]>(), 0..60), travel()), 2..250),
        late_by_a_window in 1..200_usize,
    ) {
        for (path, profile) in paths_and_profiles() {
            let mut tx = SrtpTx::on(path, profile, &ours(profile, &secret));
            let mut rx = SrtpRx::on(path, profile, &ours(profile, &secret));
            let mut oracle = oracle(profile, &secret);
            // We count from 0 as RFC 3711 §3.4 says, the oracle from 1.
            tx.protect_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 0], &mut [0; 64]).expect("room for it");

            let mut sent = Vec::new();
            for (count, packet_type, words, _) in &packets {
                let mut plain = vec![0x80 | count, *packet_type, 0, words.len() as u8 + 1];
                plain.extend(SSRC.0.to_be_bytes());
                plain.extend(words.concat());
                let mut sealed = vec![0; plain.len() + SRTCP_OVERHEAD_MAX];
                let len = tx.protect_rtcp(&plain, &mut sealed).expect("room for it");
                sealed.truncate(len);
                let expected = oracle.encrypt_rtcp(&plain).expect("a well-formed packet");
                prop_assert_eq!(&sealed[..], &expected[..], "{:?} {:?} {}", path, profile, sent.len());
                sent.push((plain, sealed));
            }

            let mut travels: Vec<_> = packets.iter().map(|(.., travel)| *travel).collect();
            travels[1] = Travel { copies: 1, late_by: late_by_a_window };
            let mut seen = HashSet::new();
            let mut highest = 0;
            for n in arrivals(&travels) {
                let (plain, sealed) = &sent[n];
                #[expect(clippy::disallowed_methods, reason = "a sealed packet, with its E bit set")]
                let opened = oracle.decrypt_rtcp(sealed).expect("the oracle opens what we sealed");
                prop_assert_eq!(&opened[..], &plain[..]);

                let index = n as u64;
                let too_old = index + RTCP_WINDOW <= highest;
                let expected = if too_old || !seen.insert(index) {
                    Err(DropReason::Replayed)
                } else {
                    Ok(plain.clone())
                };
                let mut bytes = sealed.clone();
                let opened = rx.unprotect_rtcp(&mut bytes).map(|len| bytes[..len].to_vec());
                prop_assert_eq!(opened, expected, "{:?} {:?} {}", path, profile, index);
                highest = highest.max(index);
            }
        }
    }
}
