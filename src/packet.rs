//! What crosses the border between the kernel and the core: datagrams in, runs of datagrams out, and
//! the reasons why one went no further.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Largest datagram taken in or sent; anything longer is dropped and counted.
pub const DATAGRAM_LEN_MAX: usize = 1500;

/// One of a worker's sockets, as an index into its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u8);

/// A 5-tuple seen from us: our socket, our address on it, the remote. Canonical: an IPv4 remote is
/// never written as an IPv4-mapped IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// The socket that the datagram came in by, and by which the answer leaves.
    pub socket: SocketId,
    /// The destination address of what came in; the source address of what leaves.
    pub local: IpAddr,
    /// The peer.
    pub remote: SocketAddr,
}

/// A datagram as it came in. The core may change its bytes (it decrypts in place).
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Where it came from.
    pub path: Path,
    /// When the kernel took it from the network, by the wall clock since 1970; `None` where it did not say.
    pub arrived: Option<Duration>,
    /// All of it: 1 to [`DATAGRAM_LEN_MAX`] bytes.
    pub bytes: &'a mut [u8],
}

/// A time for which a wait was to go on although datagrams came: the more there are at once, the less each costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    /// When it began.
    pub from: Instant,
    /// When it was to end, at the latest; where somebody ended it before, nobody knows when.
    pub until: Instant,
}

impl Coalescing {
    /// For how long.
    pub fn duration(&self) -> Duration {
        self.until.saturating_duration_since(self.from)
    }

    /// How much of it is between two moments.
    pub fn within(&self, since: Instant, until: Instant) -> Duration {
        self.until.min(until).saturating_duration_since(self.from.max(since))
    }
}

/// Where outgoing datagrams are written: a socket's send memory in production, a `Vec` in tests.
///
/// Used through [`run`]: datagrams to one receiver are written side by side, so that a backend can let
/// them leave together.
pub trait Egress {
    /// Whether datagrams of one length along `path` leave as one send, so that it pays to make them equal.
    fn cuts_segments(&self, path: Path) -> bool;

    /// Opens a run of datagrams to one receiver. What the kernel does not take is counted, and nobody waits for it.
    fn open(&mut self, path: Path);

    /// Lends room for the run's next datagram, exactly `len_max` bytes, at most [`DATAGRAM_LEN_MAX`].
    ///
    /// # Panics
    /// When it is more, or no run is open.
    fn segment(&mut self, len_max: usize) -> &mut [u8];

    /// Keeps the first `len` bytes of the segment lent last. Without it the segment is not sent.
    fn commit(&mut self, len: usize);

    /// Ends the run: its datagrams are on their way, in order but for those that the kernel refuses at first.
    fn close(&mut self);
}

/// An open run. Ends when dropped, so ending it cannot be forgotten.
pub struct Run<'a, E: Egress>(&'a mut E);

/// Opens a run of datagrams along `path`.
pub fn run<E: Egress>(egress: &mut E, path: Path) -> Run<'_, E> {
    egress.open(path);
    Run(egress)
}

impl<E: Egress> Run<'_, E> {
    /// As [`Egress::segment`].
    pub fn segment(&mut self, len_max: usize) -> &mut [u8] {
        self.0.segment(len_max)
    }

    /// As [`Egress::commit`].
    pub fn commit(&mut self, len: usize) {
        self.0.commit(len);
    }
}

impl<E: Egress> Drop for Run<'_, E> {
    fn drop(&mut self) {
        self.0.close();
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)*) => {
        /// Why a packet went no further; each variant is one `reason` label and one counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// How many there are.
            pub const COUNT: usize = DropReason::ALL.len();

            /// The metric's `reason` label.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$variant => $label,)* }
            }
        }
    };
}

drop_reasons! {
    /// Longer than [`DATAGRAM_LEN_MAX`].
    TooLong = "too_long",
    /// Too short to be anything.
    TooShort = "too_short",
    /// First byte in no range of RFC 7983 §7.
    UnknownProtocol = "unknown_protocol",
    /// From a 5-tuple that no transport has authenticated.
    UnknownPath = "unknown_path",
    /// The queue to the worker that owns it, or holds another part of its room, is full.
    RelayFull = "relay_full",
    /// Relayed for a track that this worker was not told of, or by a worker that it does not come from.
    RelayUnknown = "relay_unknown",
    /// The queue to control is full.
    ControlFull = "control_full",
    /// STUN that does not parse, or is no Binding message.
    StunMalformed = "stun_malformed",
    /// USERNAME names no transport of this server.
    StunUnknownUser = "stun_unknown_user",
    /// MESSAGE-INTEGRITY or FINGERPRINT missing or wrong.
    StunUnauthenticated = "stun_unauthenticated",
    /// A response to no request of ours.
    StunUnexpected = "stun_unexpected",
    /// More unverified pairs, checks or moves than a transport may have.
    StunLimit = "stun_limit",
    /// DTLS record that does not parse, or comes at the wrong time.
    DtlsUnexpected = "dtls_unexpected",
    /// More DTLS than a handshake may queue, or than may be sent over a pair that it moved to.
    DtlsLimit = "dtls_limit",
    /// SRTP or SRTCP before the handshake gave keys.
    NoKeys = "no_keys",
    /// SRTP or SRTCP whose tag does not verify.
    BadAuthTag = "bad_auth_tag",
    /// SRTP or SRTCP seen before, or older than the replay window.
    Replayed = "replayed",
    /// SRTCP without encryption (E bit 0).
    SrtcpUnencrypted = "srtcp_unencrypted",
    /// The SRTP or SRTCP index space of a key is used up (RFC 3711 §9.2).
    IndexExhausted = "index_exhausted",
    /// More SSRCs from one peer than the bounded table holds.
    SsrcLimit = "ssrc_limit",
    /// RTP header, extension or padding that does not parse.
    RtpMalformed = "rtp_malformed",
    /// RTP that belongs to no published track.
    RtpUnknownStream = "rtp_unknown_stream",
    /// RTP of a payload type that was not negotiated.
    RtpUnknownPayloadType = "rtp_unknown_payload_type",
    /// The publisher is muted.
    Muted = "muted",
    /// More packets than a publisher may send.
    RateLimited = "rate_limited",
    /// RTCP that does not parse.
    RtcpMalformed = "rtcp_malformed",
    /// The receiver has no selected pair.
    NoPath = "no_path",
    /// The kernel would have blocked or was out of buffers.
    SendWouldBlock = "send_would_block",
    /// The kernel knows no way to the peer, or the peer refused.
    SendUnreachable = "send_unreachable",
    /// The kernel refused the datagram for another reason.
    SendFailed = "send_failed",
}

const _: () = assert!(DropReason::COUNT <= 64);
