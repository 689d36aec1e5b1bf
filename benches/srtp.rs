//! What does it cost to seal one packet for one receiver, and to open one?
//!
//! Per profile, for a payload of a voice packet (120 B) and of a video packet (1200 B) behind a header of
//! 20 B, in one run: on wide registers where the processor has them, on the libraries that serve where it has
//! not (aws-lc-rs for GCM, RustCrypto for CM), and by webrtc-srtp. Where there are wide instructions the libraries use
//! them as well: what they do on an older processor is not seen here. Sealing reads the payload where it lies and writes
//! header, ciphertext and tag into the slot, as a fan-out does; opening is in place and ends with the replay window;
//! webrtc-srtp returns a buffer of its own, and keeps no window here. One key, warm caches: a lower bound of what a
//! fan-out over many receivers pays.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gryt_sfu::dtls::keying::{MasterKey, SrtpProfile};
use gryt_sfu::ids::Ssrc;
use gryt_sfu::srtp::context::{SRTP_OVERHEAD_MAX, SrtpRx, SrtpTx};
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::srtp::path::CryptoPath;
use webrtc_srtp::context::Context;
use webrtc_srtp::protection_profile::ProtectionProfile;
use zeroize::Zeroizing;

const SSRC: Ssrc = Ssrc(0x5155_4945);
const HEADER_LEN: usize = 20;
const PAYLOAD_LENS: [usize; 2] = [120, 1200];
/// Packets sealed ahead of opening them: within L2.
const BATCH: BatchSize = BatchSize::NumIterations(256);

fn master(profile: SrtpProfile) -> MasterKey {
    MasterKey {
        key: Zeroizing::new(vec![0x42; profile.key_len()]),
        salt: Zeroizing::new(vec![0x17; profile.salt_len()]),
    }
}

fn header(seq: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..2].copy_from_slice(&[0x90, 111]);
    header[2..4].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&SSRC.0.to_be_bytes());
    header[12..].copy_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, 0x7F, 0, 0]);
    header
}

/// Seals packet after packet of one stream.
struct Sealer {
    tx: SrtpTx,
    next: u64,
    payload: Vec<u8>,
}

impl Sealer {
    fn new(path: CryptoPath, profile: SrtpProfile, payload_len: usize) -> Sealer {
        let tx = SrtpTx::on(path, profile, &master(profile));
        Sealer { tx, next: 0, payload: vec![0x5A; payload_len] }
    }

    fn slot(&self) -> Vec<u8> {
        vec![0; HEADER_LEN + self.payload.len() + SRTP_OVERHEAD_MAX]
    }

    fn seal(&mut self, slot: &mut [u8]) -> usize {
        let index = PacketIndex(self.next);
        self.next += 1;
        self.tx.protect_rtp(index, &header(index.seq()), &self.payload, slot).expect("room for it")
    }
}

/// Each once.
fn paths() -> Vec<(&'static str, CryptoPath)> {
    let mut paths = vec![("portable", CryptoPath::Portable)];
    if let vector @ CryptoPath::Vector(_) = CryptoPath::best() {
        paths.insert(0, ("vector", vector));
    }
    paths
}

fn oracle(profile: SrtpProfile) -> Context {
    let master = master(profile);
    let profile = match profile {
        SrtpProfile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        SrtpProfile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        SrtpProfile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    };
    Context::new(&master.key, &master.salt, profile, None, None).expect("lengths of the profile")
}

fn protect(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp/protect");
    group.throughput(Throughput::Elements(1));
    for profile in SrtpProfile::ALL {
        for payload_len in PAYLOAD_LENS {
            for (name, path) in paths() {
                let mut sealer = Sealer::new(path, profile, payload_len);
                let mut slot = sealer.slot();
                let id = BenchmarkId::new(format!("{profile:?}/{name}"), payload_len);
                group.bench_function(id, |b| b.iter(|| sealer.seal(black_box(&mut slot))));
            }
            let mut oracle = oracle(profile);
            let mut plain = [&header(0)[..], &vec![0x5A; payload_len]].concat();
            let mut seq = 0_u16;
            let id = BenchmarkId::new(format!("{profile:?}/webrtc-srtp"), payload_len);
            group.bench_function(id, |b| {
                b.iter(|| {
                    seq = seq.wrapping_add(1);
                    plain[2..4].copy_from_slice(&seq.to_be_bytes());
                    oracle.encrypt_rtp(black_box(&plain)).expect("a well-formed packet")
                });
            });
        }
    }
}

fn unprotect(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp/unprotect");
    group.throughput(Throughput::Elements(1));
    for profile in SrtpProfile::ALL {
        for payload_len in PAYLOAD_LENS {
            for (name, path) in paths() {
                let mut sealer = Sealer::new(path, profile, payload_len);
                let mut rx = SrtpRx::on(path, profile, &master(profile));
                let mut sealed = || {
                    let mut slot = sealer.slot();
                    let len = sealer.seal(&mut slot);
                    slot.truncate(len);
                    slot
                };
                let mut open = |bytes: &mut Vec<u8>| {
                    let seq = u16::from_be_bytes([bytes[2], bytes[3]]);
                    rx.unprotect_rtp(SSRC, seq, HEADER_LEN, bytes).expect("a genuine packet")
                };
                let id = BenchmarkId::new(format!("{profile:?}/{name}"), payload_len);
                group.bench_function(id, |b| b.iter_batched_ref(&mut sealed, &mut open, BATCH));
            }
            let mut sealer = Sealer::new(CryptoPath::Portable, profile, payload_len);
            let mut slot = sealer.slot();
            let len = sealer.seal(&mut slot);
            let mut oracle = oracle(profile);
            let id = BenchmarkId::new(format!("{profile:?}/webrtc-srtp"), payload_len);
            group.bench_function(id, |b| {
                #[expect(clippy::disallowed_methods, reason = "a genuine packet")]
                b.iter(|| oracle.decrypt_rtp(black_box(&slot[..len])).expect("a genuine packet"));
            });
        }
    }
}

/// Dozens of figures, side by side: rather all of them while the machine is the same than each for long.
fn criterion() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group!(name = benches; config = criterion(); targets = protect, unprotect);
criterion_main!(benches);
