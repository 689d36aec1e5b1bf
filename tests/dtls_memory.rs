//! What endpoints cost: while they wait, under a flood, and once their handshakes are over.
//!
//! One test, because it counts every byte that the process allocates.

mod dtls_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dtls_support::*;
use gryt_sfu::dtls::endpoint::{Acceptor, Error, Output};
use gryt_sfu::dtls::identity::Identity;
use gryt_sfu::dtls::keying::SrtpProfile;
use tokio::time::timeout;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Lets the tasks that were told to end do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A protected record of the length of a Finished, from nobody.
fn forged_finished(sequence: u64) -> Bytes {
    let mut record = BytesMut::new();
    record.put_slice(&[22, 0xFE, 0xFD, 0, 1]);
    record.put_uint(sequence, 6);
    record.put_u16(48);
    record.put_bytes(0xA5, 48);
    record.freeze()
}

const COUNT: usize = 20;

#[test]
fn bounded_in_every_state_and_freed_after_each() {
    local(async {
        let acceptor = Acceptor::with_deadline(Identity::generate().unwrap(), Duration::from_millis(500));
        let (certificate, fingerprint) = certificate();
        let config = client_config(certificate, &SrtpProfile::ALL);
        let hello = first_datagram(config.clone()).await;
        // Whatever is made once is made now.
        let mut server = Server::start(&acceptor, fingerprint, fair(), fair()).await;
        server.news_of(connect(server.address, config.clone())).await;
        drop(server);
        settle().await;

        let before = live();
        let mut endpoints: Vec<_> = (0..COUNT).map(|_| bare_endpoint(&acceptor, fingerprint)).collect();
        settle().await;
        let each = (live() - before) / COUNT;
        assert!(each < 8 * 1024, "a waiting endpoint takes {each} bytes");

        // Records of the next epoch, and half a hello, before there is a handshake.
        for i in 0..20_000 {
            let (endpoint, _) = &mut endpoints[i % COUNT];
            endpoint.handle_datagram(forged_finished(i as u64));
            endpoint.handle_datagram(hello.slice(..100));
            if i % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        settle().await;
        let each = (live() - before) / COUNT;
        assert!(each < 16 * 1024, "a flooded endpoint takes {each} bytes");

        // The same while a handshake waits for its peer.
        for (endpoint, outputs) in &mut endpoints {
            endpoint.handle_datagram(hello.clone());
            assert!(matches!(timeout(PATIENCE, outputs.recv()).await.unwrap(), Some(Output::Datagram(_))));
        }
        for i in 0..20_000 {
            endpoints[i % COUNT].0.handle_datagram(forged_finished(i as u64));
            if i % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
        settle().await;
        let each = (live() - before) / COUNT;
        assert!(each < 64 * 1024, "a handshake takes {each} bytes");

        // The deadline frees the handshakes.
        for (_, outputs) in &mut endpoints {
            let alert = timeout(PATIENCE, outputs.recv()).await.unwrap();
            assert!(matches!(alert, Some(Output::Datagram(_))));
            let output = timeout(PATIENCE, outputs.recv()).await.unwrap();
            assert!(matches!(output, Some(Output::Failed(Error::Timeout))));
        }
        settle().await;
        let each = (live() - before) / COUNT;
        assert!(each < 16 * 1024, "after a failed handshake {each} bytes stay");
        drop(endpoints);
        settle().await;
        let left = live().saturating_sub(before);
        assert!(left < 8 * 1024, "{left} bytes are left");

        // What stays of a handshake that succeeded is its last flight.
        let before = live();
        let mut servers = Vec::new();
        for _ in 0..COUNT {
            let mut server = Server::start(&acceptor, fingerprint, fair(), fair()).await;
            server.news_of(connect(server.address, config.clone())).await;
            servers.push(server);
        }
        settle().await;
        let each = (live() - before) / COUNT;
        assert!(
            each < 16 * 1024,
            "an endpoint with keys takes {each} bytes, its socket and test task included"
        );
        println!("an endpoint with keys, its socket and test task: {each} bytes");
        drop(servers);
        settle().await;
        let left = live().saturating_sub(before);
        assert!(left < 8 * 1024, "{left} bytes are left");
    });
}
