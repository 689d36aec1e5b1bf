//! What does it cost to seal one packet for one receiver, and to open one?
//!
//! Per profile, for a payload of a voice packet (120 B) and of a video packet (1200 B) behind a header of
//! 20 B. Sealing reads the payload where it lies and writes header, ciphertext and tag into the slot, as
//! a fan-out does; opening is in place and ends with the replay window. One key, warm caches: a lower
//! bound of what a fan-out over many receivers pays.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gryt_sfu::dtls::keying::{MasterKey, SrtpProfile};
use gryt_sfu::ids::Ssrc;
use gryt_sfu::srtp::context::{SRTP_OVERHEAD_MAX, SrtpRx, SrtpTx};
use gryt_sfu::srtp::index::PacketIndex;
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
    fn new(profile: SrtpProfile, payload_len: usize) -> Sealer {
        Sealer { tx: SrtpTx::new(profile, &master(profile)), next: 0, payload: vec![0x5A; payload_len] }
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

fn protect(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp/protect");
    group.throughput(Throughput::Elements(1));
    for profile in SrtpProfile::ALL {
        for payload_len in PAYLOAD_LENS {
            let mut sealer = Sealer::new(profile, payload_len);
            let mut slot = sealer.slot();
            let id = BenchmarkId::new(format!("{profile:?}"), payload_len);
            group.bench_function(id, |b| b.iter(|| sealer.seal(black_box(&mut slot))));
        }
    }
}

fn unprotect(c: &mut Criterion) {
    let mut group = c.benchmark_group("srtp/unprotect");
    group.throughput(Throughput::Elements(1));
    for profile in SrtpProfile::ALL {
        for payload_len in PAYLOAD_LENS {
            let mut sealer = Sealer::new(profile, payload_len);
            let mut rx = SrtpRx::new(profile, &master(profile));
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
            let id = BenchmarkId::new(format!("{profile:?}"), payload_len);
            group.bench_function(id, |b| b.iter_batched_ref(&mut sealed, &mut open, BATCH));
        }
    }
}

criterion_group!(benches, protect, unprotect);
criterion_main!(benches);
