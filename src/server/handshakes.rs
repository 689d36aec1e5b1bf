//! The DTLS endpoints of all transports: datagrams from workers in, datagrams and keys back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::key_log::KeyLog;
use crate::control::workers::Workers;
use crate::dtls::endpoint::{Acceptor, Endpoint, Output};
use crate::ids::{Fingerprint, TransportId, WorkerId};
use crate::metrics::counters::WAIT_BOUNDS;
use crate::metrics::histogram::Histogram;
use crate::signalling;
use crate::throttle::throttled;
use crate::time::Now;
use crate::worker::command::Command;

/// All endpoints. Clones are the same.
#[derive(Clone)]
pub(super) struct Handshakes(Rc<Inner>);

struct Inner {
    acceptor: Rc<Acceptor>,
    workers: Workers,
    key_log: KeyLog,
    endpoints: RefCell<BTreeMap<TransportId, Endpoint>>,
    /// Those without keys, and when their first datagram came.
    unfinished: RefCell<BTreeMap<TransportId, Option<Instant>>>,
    /// Nanoseconds from the first datagram to the keys.
    durations: RefCell<Histogram<12>>,
    failed_count: Cell<u64>,
}

impl Handshakes {
    /// Without endpoints.
    pub(super) fn new(acceptor: Rc<Acceptor>, workers: Workers, key_log: KeyLog) -> Handshakes {
        Handshakes(Rc::new(Inner {
            acceptor,
            workers,
            key_log,
            endpoints: RefCell::default(),
            unfinished: RefCell::default(),
            durations: RefCell::new(Histogram::new(WAIT_BOUNDS)),
            failed_count: Cell::new(0),
        }))
    }

    /// A datagram of the transport's peer.
    pub(super) fn handle_datagram(&self, now: Instant, transport: TransportId, datagram: Bytes) {
        if let Some(begun) = self.0.unfinished.borrow_mut().get_mut(&transport) {
            begun.get_or_insert(now);
        }
        if let Some(endpoint) = self.0.endpoints.borrow_mut().get_mut(&transport) {
            endpoint.handle_datagram(datagram);
        }
    }

    /// Handshakes that gave keys, and those that failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.0.durations.borrow().count(), self.0.failed_count.get())
    }

    /// How long those took that gave keys, in nanoseconds.
    pub(super) fn durations(&self) -> Histogram<12> {
        self.0.durations.borrow().clone()
    }

    /// Transports that still wait for their keys.
    pub(super) fn unfinished_count(&self) -> usize {
        self.0.unfinished.borrow().len()
    }
}

impl signalling::Handshakes for Handshakes {
    fn expect(&self, worker: WorkerId, transport: TransportId, fingerprint: Fingerprint) {
        let inner = Rc::downgrade(&self.0);
        let output = move |output: Output| {
            let Some(inner) = inner.upgrade() else { return };
            match output {
                Output::Datagram(datagram) => {
                    inner.workers.send(worker, Command::SendDtls { transport, datagram });
                }
                Output::Established(keys) => {
                    let begun = inner.unfinished.borrow_mut().remove(&transport).flatten();
                    let now = Now::read().instant;
                    let elapsed = begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
                    inner.durations.borrow_mut().record(elapsed.as_nanos() as u64);
                    inner.key_log.take(transport, &keys);
                    inner.workers.send(worker, Command::SetKeys { transport, keys });
                }
                Output::Failed(error) => {
                    tracing::debug!(%transport, %error, "DTLS handshake failed");
                    throttled!(info, %error, "a DTLS handshake failed");
                    // The transport goes on, and ends if none succeeds in time: whoever knows where a peer is could
                    // have made this one fail.
                    inner.failed_count.set(inner.failed_count.get() + 1);
                }
            }
        };
        let endpoint = Endpoint::new(&self.0.acceptor, fingerprint, output);
        self.0.unfinished.borrow_mut().insert(transport, None);
        self.0.endpoints.borrow_mut().insert(transport, endpoint);
    }

    fn forget(&self, transport: TransportId) {
        self.0.unfinished.borrow_mut().remove(&transport);
        let endpoint = self.0.endpoints.borrow_mut().remove(&transport);
        // Outside of the borrow: what it drops may call back.
        drop(endpoint);
    }
}
