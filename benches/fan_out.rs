//! What does one more receiver of a packet cost the worker, from ciphertext in to ciphertext out?
//!
//! The production core with an egress in memory, AEAD_AES_128_GCM, 120 B of payload: one packet comes in, is
//! opened once, and leaves sealed for 2, 10, 100 or 1000 receivers. The figure is per packet and receiver; what it
//! costs to open the packet is in it, so it falls towards the price of one seal as receivers grow, until their keys
//! no longer fit the caches. With four packets to a batch, a receiver's are sealed side by side. Neither the
//! kernel nor the publisher's sealing is in it. Beside each figure: allocations per packet and receiver; any ends the
//! bench.

#[path = "../tests/sim/mod.rs"]
mod sim;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gryt_sfu::dtls::keying::SrtpProfile;
use gryt_sfu::ids::TrackId;
use sim::{Caller, Sim};

const RECEIVERS: [u16; 4] = [2, 10, 100, 1000];
const BATCHES: [u16; 2] = [1, 4];
const PAYLOAD: [u8; 120] = [0x5A; 120];

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator that counts has to be one")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: by the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: by the caller's word.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: by the caller's word.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Speakers 1 to `speakers`, heard by so many others.
fn room(speakers: u16, receivers: u16) -> (Sim, Vec<Caller>) {
    let profile = SrtpProfile::AeadAes128Gcm;
    let mut sim = Sim::new(32);
    let callers: Vec<_> = (1..=speakers).map(|number| sim.join(number, profile)).collect();
    for speaker in &callers {
        sim.publish(speaker);
    }
    for number in speakers + 1..=speakers + receivers {
        let listener = sim.join(number, profile);
        (1..=speakers).for_each(|speaker| sim.add_slot(&listener, speaker, Some(TrackId(speaker.into()))));
    }
    sim.sent.clear();
    (sim, callers)
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    for batch in BATCHES {
        for receivers in RECEIVERS {
            let (mut sim, callers) = room(batch, receivers);
            let callers = RefCell::new(callers);
            let (mut packets, mut allocations) = (0, 0);
            let seal = || {
                callers
                    .borrow_mut()
                    .iter_mut()
                    .map(|caller| {
                        let mut bytes = vec![0; 200];
                        let len = caller.protect(20, &PAYLOAD, &mut bytes);
                        bytes.truncate(len);
                        (caller.path, bytes)
                    })
                    .collect::<Vec<_>>()
            };
            let mut forward = |mut datagrams: Vec<(gryt_sfu::packet::Path, Vec<u8>)>| {
                let before = ALLOCATIONS.get();
                sim.now = sim.now.after(Duration::from_millis(20));
                sim.sent.clear();
                for (path, bytes) in &mut datagrams {
                    sim.deliver(*path, bytes);
                }
                sim.flush();
                // The first, before the measurement, fills vectors that are kept; events are none.
                if packets > 0 {
                    allocations += ALLOCATIONS.get() - before;
                }
                packets += u64::from(batch);
                assert_eq!(sim.sent.len(), usize::from(batch * receivers));
                datagrams
            };
            forward(seal());
            group.throughput(Throughput::Elements(u64::from(batch) * u64::from(receivers)));
            group.bench_function(BenchmarkId::new(format!("{batch}_a_batch"), receivers), |bencher| {
                bencher.iter_batched(seal, &mut forward, BatchSize::NumIterations(16));
            });
            let receptions = packets * u64::from(receivers);
            eprintln!(
                "{batch} a batch, {receivers} receivers: {allocations} allocations in {receptions} receptions"
            );
            assert_eq!(allocations, 0, "{batch} a batch, {receivers} receivers");
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(20);
    targets = bench
}
criterion_main!(benches);
