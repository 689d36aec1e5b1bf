//! No packet allocates, sealed or opened, genuine, forged or replayed; only the first of an SSRC does.
//!
//! A binary of its own for its allocator, which counts what this thread asks of it. C code inside the
//! AEAD library allocates past it.
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gryt_sfu::dtls::keying::{MasterKey, SrtpProfile};
use gryt_sfu::ids::Ssrc;
use gryt_sfu::packet::DropReason;
use gryt_sfu::srtp::context::{SrtpRx, SrtpTx};
use gryt_sfu::srtp::index::PacketIndex;
use gryt_sfu::srtp::path::CryptoPath;
use zeroize::Zeroizing;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to `System` as it came; the counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this `layout`, as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: `ptr` came from `System` with this `layout`, as the caller promises.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations this thread makes in `work`.
fn allocations<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATIONS.get();
    let result = work();
    (ALLOCATIONS.get() - before, result)
}

const SSRC: Ssrc = Ssrc(7);

/// What this processor is at its best with, and what runs on any.
fn paths_and_profiles() -> impl Iterator<Item = (CryptoPath, SrtpProfile)> {
    let paths = [CryptoPath::best(), CryptoPath::Portable];
    paths.into_iter().flat_map(|path| SrtpProfile::ALL.into_iter().map(move |profile| (path, profile)))
}

fn pair(path: CryptoPath, profile: SrtpProfile) -> (SrtpTx, SrtpRx) {
    let master = MasterKey {
        key: Zeroizing::new(vec![1; profile.key_len()]),
        salt: Zeroizing::new(vec![2; profile.salt_len()]),
    };
    (SrtpTx::on(path, profile, &master), SrtpRx::on(path, profile, &master))
}

/// One packet of each kind there and back, with the ways in which they may be refused.
fn exchange(tx: &mut SrtpTx, rx: &mut SrtpRx, index: PacketIndex) {
    let mut header = [0x80, 111, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&index.seq().to_be_bytes());
    header[8..].copy_from_slice(&SSRC.0.to_be_bytes());
    let mut sealed = [0; 256];
    let len = tx.protect_rtp(index, &header, &[3; 120], &mut sealed).unwrap();

    let mut bytes = sealed;
    bytes[40] ^= 1;
    let forged = rx.unprotect_rtp(SSRC, index.seq(), header.len(), &mut bytes[..len]);
    assert_eq!(forged, Err(DropReason::BadAuthTag));
    let mut bytes = sealed;
    let stranger = Ssrc(index.0 as u32 | 1 << 31);
    bytes[8..12].copy_from_slice(&stranger.0.to_be_bytes());
    let stranger = rx.unprotect_rtp(stranger, index.seq(), header.len(), &mut bytes[..len]);
    assert_eq!(stranger, Err(DropReason::BadAuthTag));
    let mut bytes = sealed;
    let opened = rx.unprotect_rtp(SSRC, index.seq(), header.len(), &mut bytes[..len]);
    assert_eq!(opened, Ok((index, 132)));
    let replayed = rx.unprotect_rtp(SSRC, index.seq(), header.len(), &mut sealed[..len]);
    assert_eq!(replayed, Err(DropReason::Replayed));

    let report = [&[0x80, 201, 0, 1][..], &SSRC.0.to_be_bytes(), &[0; 24]];
    let mut packet = [0; 32];
    let mut at = 0;
    for part in report {
        packet[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    let mut sealed = [0; 64];
    let len = tx.protect_rtcp(&packet[..at], &mut sealed).unwrap();
    let mut bytes = sealed;
    bytes[20] ^= 1;
    assert_eq!(rx.unprotect_rtcp(&mut bytes[..len]), Err(DropReason::BadAuthTag));
    let mut bytes = sealed;
    assert_eq!(rx.unprotect_rtcp(&mut bytes[..len]), Ok(at));
    assert_eq!(rx.unprotect_rtcp(&mut sealed[..len]), Err(DropReason::Replayed));
}

#[test]
fn no_packet_allocates_but_the_first_of_an_ssrc() {
    for (path, profile) in paths_and_profiles() {
        let (mut tx, mut rx) = pair(path, profile);
        let (first, ()) = allocations(|| exchange(&mut tx, &mut rx, PacketIndex(65_000)));
        assert!(
            (1..10).contains(&first),
            "{path:?} {profile:?}: {first} allocations, or the counter is broken"
        );
        let (later, ()) = allocations(|| {
            for index in 65_001..66_500 {
                exchange(&mut tx, &mut rx, PacketIndex(index));
            }
        });
        assert_eq!(later, 0, "{path:?} {profile:?}");
    }
}
