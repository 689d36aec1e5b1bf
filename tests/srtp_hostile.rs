//! Whatever arrives: no panic, no packet taken that was not sealed, and a genuine one is taken after it.

use gryt_sfu::dtls::keying::{MasterKey, SrtpProfile};
use gryt_sfu::ids::Ssrc;
use gryt_sfu::srtp::context::{SrtpRx, SrtpTx};
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::srtp::path::CryptoPath;
use proptest::collection::vec;
use proptest::prelude::*;
use zeroize::Zeroizing;

const SSRC: u32 = 0x0BAD_CAFE;
const HEADER_LEN: usize = 20;

/// What this processor is at its best with, and what runs on any.
fn paths_and_profiles() -> impl Iterator<Item = (CryptoPath, SrtpProfile)> {
    let paths = [CryptoPath::best(), CryptoPath::Portable];
    paths.into_iter().flat_map(|path| SrtpProfile::ALL.into_iter().map(move |profile| (path, profile)))
}

fn pair(path: CryptoPath, profile: SrtpProfile) -> (SrtpTx, SrtpRx) {
    let master = MasterKey {
        key: Zeroizing::new(vec![0x42; profile.key_len()]),
        salt: Zeroizing::new(vec![0x17; profile.salt_len()]),
    };
    (SrtpTx::on(path, profile, &master), SrtpRx::on(path, profile, &master))
}

fn sealed_rtp(tx: &mut SrtpTx, index: u64) -> Vec<u8> {
    let index = PacketIndex(index);
    let mut header = [0; HEADER_LEN];
    header[..2].copy_from_slice(&[0x90, 111]);
    header[2..4].copy_from_slice(&index.seq().to_be_bytes());
    header[8..12].copy_from_slice(&SSRC.to_be_bytes());
    header[12..].copy_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, 0x7F, 0, 0]);
    let mut out = [0; 200];
    let len = tx.protect_rtp(index, &header, &[7; 60], &mut out).unwrap();
    out[..len].to_vec()
}

fn sealed_rtcp(tx: &mut SrtpTx) -> Vec<u8> {
    let mut packet = [0; 32];
    packet[..4].copy_from_slice(&[0x81, 201, 0, 7]);
    packet[4..8].copy_from_slice(&SSRC.to_be_bytes());
    let mut out = [0; 100];
    let len = tx.protect_rtcp(&packet, &mut out).unwrap();
    out[..len].to_vec()
}

/// As a parser would call it: SSRC and sequence number out of the bytes.
fn takes_rtp(rx: &mut SrtpRx, header_len: usize, mut bytes: Vec<u8>) -> bool {
    let field = |range: std::ops::Range<usize>| {
        bytes.get(range).unwrap_or_default().iter().fold(0, |value, &byte| value << 8 | u32::from(byte))
    };
    let (ssrc, seq) = (Ssrc(field(8..12)), field(2..4) as u16);
    rx.unprotect_rtp(ssrc, seq, header_len, &mut bytes).is_ok()
}

fn takes_rtcp(rx: &mut SrtpRx, mut bytes: Vec<u8>) -> bool {
    rx.unprotect_rtcp(&mut bytes).is_ok()
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Truncate(usize),
    Extend(Vec<u8>),
    Cut(usize, usize),
    Splice(usize, Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<usize>(), 1..=255_u8).prop_map(|(at, mask)| Mutation::Flip(at, mask)),
        1 => any::<usize>().prop_map(Mutation::Truncate),
        1 => vec(any::<u8>(), 1..40).prop_map(Mutation::Extend),
        1 => (any::<usize>(), 1..30_usize).prop_map(|(at, len)| Mutation::Cut(at, len)),
        1 => (any::<usize>(), vec(any::<u8>(), 1..30)).prop_map(|(at, with)| Mutation::Splice(at, with)),
    ]
}

impl Mutation {
    fn apply(&self, packet: &[u8]) -> Vec<u8> {
        let mut bytes = packet.to_vec();
        match self {
            Mutation::Flip(at, mask) => bytes[at % packet.len()] ^= mask,
            Mutation::Truncate(len) => bytes.truncate(len % packet.len()),
            Mutation::Extend(more) => bytes.extend(more),
            Mutation::Cut(at, len) => {
                let at = at % packet.len();
                bytes.drain(at..(at + len).min(packet.len()));
            }
            Mutation::Splice(at, with) => {
                let at = at % packet.len();
                let _: Vec<_> = bytes.splice(at..(at + with.len()).min(packet.len()), with.clone()).collect();
            }
        }
        bytes
    }
}

proptest! {
    #[test]
    fn random_bytes_are_refused_and_change_nothing(
        garbage in vec((vec(any::<u8>(), 0..1600), 0..2000_usize), 1..20),
    ) {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            prop_assert!(takes_rtp(&mut rx, HEADER_LEN, sealed_rtp(&mut tx, 65_535)));
            prop_assert!(takes_rtcp(&mut rx, sealed_rtcp(&mut tx)));
            for (bytes, header_len) in &garbage {
                prop_assert!(!takes_rtp(&mut rx, *header_len, bytes.clone()));
                prop_assert!(!takes_rtcp(&mut rx, bytes.clone()));
            }
            prop_assert!(takes_rtp(&mut rx, HEADER_LEN, sealed_rtp(&mut tx, 65_536)));
            prop_assert!(takes_rtcp(&mut rx, sealed_rtcp(&mut tx)));
        }
    }

    #[test]
    fn what_was_changed_on_the_way_is_refused_and_changes_nothing(
        mutations in vec(mutation(), 1..20),
        before in 0..200_000_u64,
    ) {
        for (path, profile) in paths_and_profiles() {
            let (mut tx, mut rx) = pair(path, profile);
            // Up to where the stream stands, in steps the receiver can follow.
            let mut index = before % 30_000;
            prop_assert!(takes_rtp(&mut rx, HEADER_LEN, sealed_rtp(&mut tx, index)));
            while index < before {
                index = before.min(index + 30_000);
                prop_assert!(takes_rtp(&mut rx, HEADER_LEN, sealed_rtp(&mut tx, index)));
            }
            let rtp = sealed_rtp(&mut tx, before + 1);
            let rtcp = sealed_rtcp(&mut tx);
            for mutation in &mutations {
                let changed = mutation.apply(&rtp);
                prop_assert!(changed == rtp || !takes_rtp(&mut rx, HEADER_LEN, changed));
                let changed = mutation.apply(&rtcp);
                prop_assert!(changed == rtcp || !takes_rtcp(&mut rx, changed));
            }
            prop_assert!(takes_rtp(&mut rx, HEADER_LEN, rtp));
            prop_assert!(takes_rtcp(&mut rx, rtcp));
        }
    }
}
