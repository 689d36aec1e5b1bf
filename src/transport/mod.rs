//! One peer's ICE, DTLS and SRTP: ciphertext in, plaintext RTP out, and back. Knows no rooms.
//!
//! Invariant: nothing changes before it is authenticated, and nothing but STUN and answers to DTLS goes
//! anywhere but to the selected pair.

use std::time::{Duration, Instant};

use crate::dtls::keying::{KeyingMaterial, SrtpProfile};
use crate::ice::agent::{Agent, Answered, Consent};
use crate::ice::credentials::{LocalCredentials, LocalUfrag, RemoteCredentials};
use crate::ice::stun::{Request, Response};
#[cfg(feature = "tools")]
use crate::ids::Ssrc;
use crate::ids::TransportId;
use crate::packet::{DropReason, Path};
use crate::rtp::header::Header;
use crate::srtp::context::{SrtpRx, SrtpTx};
use crate::srtp::index::PacketIndex;
use crate::vector;

/// State of a transport as the W3C names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// No authenticated Binding request yet.
    New,
    /// Authenticated, no keys yet.
    Connecting,
    /// Keys and a selected pair.
    Connected,
    /// No authenticated check on the selected pair for 13 s, or no such pair any more.
    Disconnected,
    /// That for 30 s (RFC 7675 §5.1) and no ICE restart under way, or never connected in that time: nothing is sent any more.
    Failed,
}

/// A peer that has not connected after this long never will.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// ICE restarts that give it that time anew, as a client's network may change just then. No more: a member that never
/// connects must not keep its transport for ever.
const RESTART_COUNT_MAX: u8 = 2;

/// An ICE restart that comes before consent expires has so long to bring a path, even if consent expires meanwhile.
const RESTART_TIMEOUT: Duration = Duration::from_secs(10);

/// DTLS datagrams that a transport hands to control, at most, in each [`DTLS_INTERVAL`].
const DTLS_COUNT_MAX: u32 = 64;
/// Bytes that go back for each that came over a pair that DTLS has moved to (QUIC has three, too: RFC 9000 §8).
const DTLS_GAIN_MAX: usize = 3;
const DTLS_INTERVAL: Duration = Duration::from_secs(1);

/// A peer's transport.
pub struct Transport {
    /// Its name.
    pub id: TransportId,
    agent: Agent,
    rx: Option<SrtpRx>,
    tx: Option<SrtpTx>,
    dtls_path: Option<Path>,
    /// DTLS came over several pairs.
    has_dtls_moved: bool,
    /// Bytes that may go back over the latest of these, if so.
    dtls_credit: usize,
    dtls_window: (Instant, u32),
    state: ConnectionState,
    since: Instant,
    profile: Option<SrtpProfile>,
    /// When it was made, or ICE restarted before it connected.
    begun_at: Instant,
    /// How often the latter may still happen.
    restarts_left: u8,
    /// When ICE restarted while consent had not expired.
    restarted_at: Option<Instant>,
}

impl Transport {
    /// A transport that waits for its first Binding request. `seed` is 32 random bytes.
    pub fn new(
        now: Instant,
        id: TransportId,
        local: LocalCredentials,
        remote: RemoteCredentials,
        seed: [u8; 32],
    ) -> Transport {
        Transport {
            id,
            agent: Agent::new(now, local, remote, seed),
            rx: None,
            tx: None,
            dtls_path: None,
            has_dtls_moved: false,
            dtls_credit: 0,
            dtls_window: (now, 0),
            state: ConnectionState::New,
            since: now,
            profile: None,
            begun_at: now,
            restarts_left: RESTART_COUNT_MAX,
            restarted_at: None,
        }
    }

    /// ICE restart (RFC 8445 §9). Keys and indices go on.
    pub fn restart_ice(&mut self, now: Instant, local: LocalCredentials, remote: RemoteCredentials) {
        if self.agent.consent(now) != Consent::Expired {
            self.restarted_at = Some(now);
        }
        self.agent.restart(now, local, remote);
        if !self.has_keys()
            && let Some(left) = self.restarts_left.checked_sub(1)
        {
            (self.begun_at, self.restarts_left) = (now, left);
        }
    }

    /// The ufrags that Binding requests may name it by.
    pub fn ufrags(&self) -> impl Iterator<Item = LocalUfrag> {
        self.agent.ufrags()
    }

    /// The pairs that its datagrams may come over.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.agent.paths()
    }

    /// Where media goes.
    pub fn selected(&self) -> Option<Path> {
        self.agent.selected()
    }

    /// Answers a Binding request into `out` (at least 128 bytes).
    ///
    /// # Errors
    /// Why it is not answered.
    pub fn handle_stun_request(
        &mut self,
        now: Instant,
        path: Path,
        request: &Request<'_>,
        out: &mut [u8],
    ) -> Result<Answered, DropReason> {
        self.agent.handle_request(now, path, request, out)
    }

    /// Takes the response to a check of ours.
    ///
    /// # Errors
    /// Why it counts for nothing.
    pub fn handle_stun_response(
        &mut self,
        now: Instant,
        path: Path,
        response: &Response<'_>,
    ) -> Result<(), DropReason> {
        self.agent.handle_response(now, path, response)
    }

    /// As [`Agent::next_timeout`].
    pub fn next_timeout(&self) -> Option<Instant> {
        self.agent.next_timeout()
    }

    /// As [`Agent::next_check`].
    pub fn next_check(&mut self, now: Instant, out: &mut [u8]) -> Option<(Path, usize)> {
        self.agent.next_check(now, out)
    }

    /// A DTLS datagram of `len` bytes came over `path`: answers go back there.
    ///
    /// # Errors
    /// [`DropReason::UnknownPath`] from a pair that is not authenticated, [`DropReason::DtlsLimit`].
    pub fn handle_dtls(&mut self, now: Instant, path: Path, len: usize) -> Result<(), DropReason> {
        if !self.agent.is_authenticated(&path) {
            return Err(DropReason::UnknownPath);
        }
        let (since, count) = &mut self.dtls_window;
        if now.duration_since(*since) >= DTLS_INTERVAL {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > DTLS_COUNT_MAX {
            return Err(DropReason::DtlsLimit);
        }
        if self.dtls_path.replace(path).is_some_and(|before| before != path) {
            (self.has_dtls_moved, self.dtls_credit) = (true, 0);
        }
        self.dtls_credit = self.dtls_credit.saturating_add(DTLS_GAIN_MAX * len);
        Ok(())
    }

    /// Where the last of DTLS came from.
    pub fn dtls_path(&self) -> Option<Path> {
        self.dtls_path
    }

    /// Where `len` bytes of DTLS go: back over the pair that the last of it came on.
    ///
    /// # Errors
    /// [`DropReason::UnknownPath`] before any came, [`DropReason::DtlsLimit`] when that is not the first pair and was sent
    /// enough: with a forged source address a member could aim what we send again and again at a victim.
    pub fn send_dtls(&mut self, len: usize) -> Result<Path, DropReason> {
        let path = self.dtls_path.ok_or(DropReason::UnknownPath)?;
        if self.has_dtls_moved {
            self.dtls_credit = self.dtls_credit.checked_sub(len).ok_or(DropReason::DtlsLimit)?;
        }
        Ok(path)
    }

    /// The handshake finished. There is one in a transport's life: later keys are ignored, as with them a publisher could
    /// repeat indices that its listeners have been sealed for.
    pub fn set_keys(&mut self, now: Instant, keys: &KeyingMaterial) {
        if self.has_keys() {
            return;
        }
        self.profile = Some(keys.profile);
        self.rx = Some(SrtpRx::new(keys.profile, &keys.client));
        self.tx = Some(SrtpTx::new(keys.profile, &keys.server));
        self.agent.handle_dtls_finished(now, self.dtls_path.filter(|_| !self.has_dtls_moved));
    }

    /// From now on what comes in is plaintext, and what leaves too if `is_plaintext_out`: for replays of decrypted
    /// captures, never for a network.
    #[cfg(feature = "tools")]
    pub fn leave_plaintext(&mut self, is_plaintext_out: bool) {
        self.rx = Some(SrtpRx::plaintext());
        if is_plaintext_out {
            self.tx = Some(SrtpTx::plaintext());
        }
    }

    /// As [`SrtpRx::begin_at`].
    ///
    /// # Errors
    /// As there, and [`DropReason::NoKeys`].
    #[cfg(feature = "tools")]
    pub fn begin_at(&mut self, ssrc: Ssrc, index: PacketIndex) -> Result<(), DropReason> {
        self.rx.as_mut().ok_or(DropReason::NoKeys)?.begin_at(ssrc, index)
    }

    /// Opens an SRTP packet in place; returns its header, its index and the plaintext's length.
    ///
    /// # Errors
    /// Why it is dropped; nothing has changed then.
    pub fn open_rtp(&mut self, bytes: &mut [u8]) -> Result<(Header, PacketIndex, usize), DropReason> {
        let rx = self.rx.as_mut().ok_or(DropReason::NoKeys)?;
        let header = Header::parse(bytes)?;
        let (index, len) = rx.unprotect_rtp(header.ssrc, header.sequence_number, header.len, bytes)?;
        Ok((header, index, len))
    }

    /// Opens an SRTCP packet in place; returns the plaintext's length.
    ///
    /// # Errors
    /// Why it is dropped; nothing has changed then.
    pub fn open_rtcp(&mut self, bytes: &mut [u8]) -> Result<usize, DropReason> {
        self.rx.as_mut().ok_or(DropReason::NoKeys)?.unprotect_rtcp(bytes)
    }

    /// What media is sealed with and where it goes; `None` before both are known.
    pub fn sending(&mut self) -> Option<(&mut SrtpTx, Path)> {
        let path = self.agent.selected()?;
        self.tx.as_mut().map(|tx| (tx, path))
    }

    /// [`Transport::sending`] is asked in a moment of the one that lies `distance` bytes behind this one.
    pub fn fetch_sending(&self, distance: isize) {
        self.agent.fetch_selected(distance);
        vector::fetch_start_behind(&self.tx, distance);
    }

    /// And then something is sealed.
    pub fn fetch_keys(&self) {
        if let Some(tx) = &self.tx {
            tx.fetch_keys();
        }
    }

    /// Whether the handshake has finished.
    pub fn has_keys(&self) -> bool {
        self.tx.is_some()
    }

    /// As [`Agent::is_authenticated`].
    pub fn is_authenticated(&self, path: &Path) -> bool {
        self.agent.is_authenticated(path)
    }

    /// As [`Agent::is_verified`].
    pub fn is_verified(&self, path: &Path) -> bool {
        self.agent.is_verified(path)
    }

    /// As [`Transport::update_state`] found it last.
    pub fn state(&self) -> ConnectionState {
        self.state
    }

    /// Since when the state is what it is.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// What media is sealed with, once there are keys.
    pub fn profile(&self) -> Option<SrtpProfile> {
        self.profile
    }

    /// Looks at the state again; returns it when it has changed.
    pub fn update_state(&mut self, now: Instant) -> Option<ConnectionState> {
        let state = self.present_state(now);
        (state != self.state).then(|| {
            (self.state, self.since) = (state, now);
            state
        })
    }

    fn present_state(&self, now: Instant) -> ConnectionState {
        match self.agent.consent(now) {
            _ if self.state == ConnectionState::Failed => ConnectionState::Failed,
            Consent::Fresh if self.has_keys() => ConnectionState::Connected,
            Consent::Stale if self.has_keys() => ConnectionState::Disconnected,
            Consent::Expired if self.is_restarting(now) => ConnectionState::Disconnected,
            Consent::Expired => ConnectionState::Failed,
            _ if now.duration_since(self.begun_at) >= CONNECT_TIMEOUT => ConnectionState::Failed,
            _ if self.agent.paths().next().is_some() => ConnectionState::Connecting,
            _ => ConnectionState::New,
        }
    }

    fn is_restarting(&self, now: Instant) -> bool {
        self.restarted_at.is_some_and(|at| now.duration_since(at) < RESTART_TIMEOUT)
    }
}
