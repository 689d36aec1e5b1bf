//! One attempt, from a peer's ClientHello to keys.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::{Instant, sleep_until, timeout};
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;

use super::endpoint::{AbortOnDrop, Acceptor, Error, Output};
use super::guard::Guard;
use super::hello::{CLIENT_HELLO, Hello};
use super::identity::fingerprint_of;
use super::inbox::Inbox;
use super::keying::{KeyingMaterial, SrtpProfile};
use super::pipe::{Pipe, PipeEnd};
use super::reassembly::Reassembly;
use super::record::{ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE, fragments, put_record_header, records};
use crate::ids::Fingerprint;

/// Our last flight is sent again when the peer does not answer for this long; the crate knows no back-off.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(200);

/// After a fatal alert that nothing protects: time for a real peer to go on, if the alert was not his.
const ALERT_GRACE: Duration = Duration::from_secs(2);

/// Time for who began an attempt to return our cookie, once another hello came. The hello of a peer that is
/// gone, or was never there, must not keep the real one out, nor the other way round. And time for another hello, once
/// one came that leads to nothing.
const RIVAL_GRACE: Duration = Duration::from_secs(1);

/// Our alerts are numbered above everything that the crate sends in epoch 0, or they would be replays.
const ALERT_SEQUENCE: u64 = 1 << 40;

/// How an attempt ended.
pub(super) enum Outcome {
    /// The peer proved its certificate.
    Established {
        keys: Box<KeyingMaterial>,
        /// Our last flight, in one datagram.
        last_flight: Bytes,
    },
    /// It cannot succeed any more.
    Failed(Error),
    /// The peer began another one.
    Superseded(Hello),
    /// Nobody waits for it any more.
    Abandoned,
}

/// What an attempt is made for.
pub(super) struct Peer<'a> {
    pub(super) acceptor: &'a Acceptor,
    pub(super) fingerprint: Fingerprint,
    pub(super) output: &'a dyn Fn(Output),
    pub(super) inbox: &'a Inbox,
}

impl Peer<'_> {
    /// Runs the handshake that `hello` begins.
    pub(super) async fn handshake(&mut self, hello: &Hello) -> Outcome {
        let outcome = match hello.choose() {
            Ok(profile) => self.attempt(hello, profile).await,
            Err(error) => match timeout(RIVAL_GRACE, self.other_hello(hello)).await {
                Ok(other) => Outcome::Superseded(other),
                Err(_) => Outcome::Failed(error),
            },
        };
        if let Outcome::Failed(error) = &outcome
            && let Some(description) = error.alert()
        {
            (self.output)(Output::Datagram(alert(description)));
        }
        outcome
    }

    /// Waits for a hello that is none of this one's copies: nothing has shown yet that the peer sent it.
    async fn other_hello(&self, hello: &Hello) -> Hello {
        let mut reassembly = Reassembly::default();
        loop {
            let datagram = self.inbox.next().await;
            for record in records(&datagram).filter(|it| it.content_type == HANDSHAKE && it.epoch == 0) {
                let hellos = fragments(record.body)
                    .filter(|it| it.message_type == CLIENT_HELLO && it.message_seq == 0);
                for fragment in hellos {
                    let other = reassembly.insert(&fragment).and_then(Hello::parse);
                    if let Some(other) = other.filter(|other| other.random != hello.random) {
                        return other;
                    }
                }
            }
        }
    }

    async fn attempt(&mut self, hello: &Hello, profile: SrtpProfile) -> Outcome {
        let acceptor = self.acceptor;
        let mut guard = Guard::new(hello);
        let mut rival = None;
        let mut turn = pin!(acceptor.turns.acquire());
        let mut permit = loop {
            tokio::select! {
                Ok(permit) = &mut turn => break Some(permit),
                datagram = self.inbox.next() => {
                    match guard.handle_datagram(&datagram) {
                        Ok(notice) => rival = notice.rival.or(rival),
                        Err(error) => return Outcome::Failed(error),
                    }
                }
            }
        };

        let (pipe, mut end) = Pipe::new();
        let mismatch = Arc::new(AtomicBool::new(false));
        let config = self.config(profile, Arc::clone(&mismatch));
        // A task of its own, so that a panic in the crate is a failed handshake and no more.
        let mut conn = AbortOnDrop(tokio::spawn(DTLSConn::new(Arc::new(pipe), config, false, None)));
        let started = Instant::now();
        let mut deadline = started + acceptor.deadline;
        let mut alerted: Option<(u8, Instant)> = None;
        let mut last_flight = Bytes::new();
        let finished = loop {
            if permit.is_some() {
                for datagram in guard.take_outbox() {
                    // The crate's end is gone only when its task is, which ends this loop.
                    let _ = end.incoming.send(datagram);
                }
            }
            let until = alerted.map_or(deadline, |(_, until)| until.min(deadline));
            tokio::select! {
                biased;
                Some(datagram) = end.outgoing.recv() => {
                    guard.handle_outgoing(&datagram);
                    self.send(datagram, &mut last_flight);
                }
                finished = &mut conn.0 => break finished,
                () = sleep_until(until) => {
                    return Outcome::Failed(alerted.map_or(Error::Timeout, |(alert, _)| Error::PeerAlert(alert)));
                }
                () = sleep_until(started + RIVAL_GRACE), if rival.is_some() => {
                    return rival.map_or(Outcome::Abandoned, Outcome::Superseded);
                }
                // A peer that lets us wait does not hold up the others.
                () = end.idle.notified(), if permit.is_some() => {
                    permit = None;
                    turn.set(acceptor.turns.acquire());
                }
                Ok(next) = &mut turn, if permit.is_none() && guard.is_ready() => permit = Some(next),
                datagram = self.inbox.next() => {
                    let notice = match guard.handle_datagram(&datagram) {
                        Ok(notice) => notice,
                        Err(error) => return Outcome::Failed(error),
                    };
                    rival = notice.rival.or(rival);
                    if notice.is_progress {
                        (alerted, rival) = (None, None);
                        deadline = Instant::now() + acceptor.deadline;
                    } else if let Some(alert) = notice.fatal_alert {
                        alerted.get_or_insert((alert, Instant::now() + ALERT_GRACE));
                    }
                }
            }
        };
        self.drain(&mut end, &mut last_flight);
        match finished {
            Ok(Ok(conn)) => match KeyingMaterial::export(&conn, profile).await {
                Some(keys) if !last_flight.is_empty() => {
                    Outcome::Established { keys: Box::new(keys), last_flight }
                }
                _ => Outcome::Failed(Error::Export),
            },
            Ok(Err(_)) if mismatch.load(Ordering::Relaxed) => Outcome::Failed(Error::FingerprintMismatch),
            Ok(Err(webrtc_dtls::Error::ErrClientCertificateRequired)) => {
                Outcome::Failed(Error::NoCertificate)
            }
            Ok(Err(error)) => Outcome::Failed(Error::Refused(error.to_string())),
            Err(_) => Outcome::Failed(Error::Panicked),
        }
    }

    fn config(&self, profile: SrtpProfile, mismatch: Arc<AtomicBool>) -> Config {
        let fingerprint = self.fingerprint;
        Config {
            certificates: vec![self.acceptor.identity.certificate()],
            cipher_suites: vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256],
            // The crate prefers as the client does; with one there is nothing to prefer.
            srtp_protection_profiles: vec![profile.into()],
            client_auth: ClientAuthType::RequireAnyClientCert,
            // Besides what RFC 7627 says: the crate does not check a client's Finished, and this binds the
            // keys to the whole handshake all the same.
            extended_master_secret: ExtendedMasterSecretType::Require,
            flight_interval: FLIGHT_INTERVAL,
            // Called once the peer proved the certificate's key.
            verify_peer_certificate: Some(Arc::new(move |certificates, _| {
                if certificates.first().map(|der| fingerprint_of(der)) == Some(fingerprint) {
                    Ok(())
                } else {
                    mismatch.store(true, Ordering::Relaxed);
                    Err(webrtc_dtls::Error::ErrInvalidCertificate)
                }
            })),
            ..Config::default()
        }
    }

    fn send(&self, datagram: Bytes, last_flight: &mut Bytes) {
        if datagram.first() == Some(&CHANGE_CIPHER_SPEC) {
            last_flight.clone_from(&datagram);
        }
        (self.output)(Output::Datagram(datagram));
    }

    /// What the crate sent before it ended.
    fn drain(&self, end: &mut PipeEnd, last_flight: &mut Bytes) {
        while let Ok(datagram) = end.outgoing.try_recv() {
            self.send(datagram, last_flight);
        }
    }
}

/// A fatal alert, without protection.
fn alert(description: u8) -> Bytes {
    let mut datagram = BytesMut::new();
    put_record_header(&mut datagram, ALERT, ALERT_SEQUENCE, 2);
    datagram.put_slice(&[2, description]);
    datagram.freeze()
}
