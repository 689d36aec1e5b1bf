//! Binding requests and responses (RFC 8489), read and written without allocation.
//!
//! Parsing says that a message is well-formed and carries what it must, no more: nothing it says
//! counts before `verify`. Classic STUN (RFC 3489, no cookie) is refused. A request with an attribute
//! that must be comprehended and is not gets no answer, where RFC 8489 §6.3.1 has a 420: whoever sends
//! such a thing is no ICE agent, and silence amplifies nothing.

use std::net::{IpAddr, SocketAddr};

use super::credentials::{LOCAL_UFRAG_LEN, LocalPassword, LocalUfrag, UFRAG_LEN_RANGE};
use super::integrity::{INTEGRITY_LEN, IntegrityKey, fingerprint};
use crate::packet::{DATAGRAM_LEN_MAX, DropReason};

/// Longest answer to a request: success with an IPv6 address.
pub const ANSWER_LEN_MAX: usize =
    HEADER_LEN + (ATTRIBUTE_HEADER_LEN + 20) + INTEGRITY_ATTRIBUTE_LEN + FINGERPRINT_ATTRIBUTE_LEN;

/// Longest check of ours: to a peer whose ufrag is as long as RFC 8839 lets it be.
pub const CHECK_LEN_MAX: usize = HEADER_LEN
    + (ATTRIBUTE_HEADER_LEN + (*UFRAG_LEN_RANGE.end() + 1 + LOCAL_UFRAG_LEN).next_multiple_of(4))
    + (ATTRIBUTE_HEADER_LEN + 4)
    + (ATTRIBUTE_HEADER_LEN + 8)
    + INTEGRITY_ATTRIBUTE_LEN
    + FINGERPRINT_ATTRIBUTE_LEN;

/// Shortest request that can name a transport of ours.
const REQUEST_LEN_MIN: usize = HEADER_LEN
    + (ATTRIBUTE_HEADER_LEN + (LOCAL_UFRAG_LEN + 1 + *UFRAG_LEN_RANGE.start()).next_multiple_of(4))
    + INTEGRITY_ATTRIBUTE_LEN
    + FINGERPRINT_ATTRIBUTE_LEN;

// No answer is longer than its request, so a forged source address gains nothing.
const _: () = assert!(ANSWER_LEN_MAX <= REQUEST_LEN_MIN);
const _: () = assert!(CHECK_LEN_MAX <= DATAGRAM_LEN_MAX);

const HEADER_LEN: usize = 20;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const INTEGRITY_ATTRIBUTE_LEN: usize = ATTRIBUTE_HEADER_LEN + INTEGRITY_LEN;
const FINGERPRINT_ATTRIBUTE_LEN: usize = ATTRIBUTE_HEADER_LEN + 4;

/// RFC 8489 §5.
const COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();

/// Message types of the Binding method (RFC 8489 §5, §18.2).
mod kind {
    pub(super) const REQUEST: u16 = 0x0001;
    pub(super) const INDICATION: u16 = 0x0011;
    pub(super) const SUCCESS: u16 = 0x0101;
    pub(super) const ERROR: u16 = 0x0111;
}

/// Attributes (RFC 8489 §18.3, RFC 8445 §20.2). Below 0x8000 they must be comprehended.
mod attribute {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const REALM: u16 = 0x0014;
    pub(super) const NONCE: u16 = 0x0015;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub(super) const USERHASH: u16 = 0x001E;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802A;

    /// First attribute that may be skipped by whoever does not know it.
    pub(super) const OPTIONAL_MIN: u16 = 0x8000;
}

/// Names a request and its answer (RFC 8489 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub [u8; 12]);

/// The side that a peer claims in its request (RFC 8445 §7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nominates. The only side that a peer of an ICE-lite agent can have (RFC 8445 §6.1.1).
    Controlling,
    /// Waits for the nomination: our side.
    Controlled,
}

/// A Binding message that is well-formed; not yet authenticated.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// A Binding request.
    Request(Request<'a>),
    /// A success response to a request of ours.
    Response(Response<'a>),
}

/// A Binding request with USERNAME, MESSAGE-INTEGRITY and FINGERPRINT.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    sealed: Sealed<'a>,
    username: &'a [u8],
    role: Option<Role>,
    priority: u32,
    has_use_candidate: bool,
}

/// A Binding success response with MESSAGE-INTEGRITY and FINGERPRINT.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    sealed: Sealed<'a>,
}

/// A whole message that ends in FINGERPRINT, and where its MESSAGE-INTEGRITY begins.
#[derive(Clone, Copy, Debug)]
struct Sealed<'a> {
    bytes: &'a [u8],
    integrity_at: usize,
}

impl<'a> Message<'a> {
    /// Reads a datagram that is one Binding message and nothing else.
    ///
    /// Of an attribute that comes twice the first counts, and of what follows MESSAGE-INTEGRITY only
    /// FINGERPRINT (RFC 8489 §14, §14.5). FINGERPRINT must be there, last (RFC 8445 §7.1.3, RFC 8489
    /// §14.7); MESSAGE-INTEGRITY-SHA256 is not looked at, ICE keeps to SHA-1.
    ///
    /// # Errors
    /// [`DropReason::StunMalformed`]; [`DropReason::StunUnauthenticated`] where USERNAME,
    /// MESSAGE-INTEGRITY or FINGERPRINT is missing; [`DropReason::StunUnexpected`] for Binding
    /// indications and error responses, which change nothing here.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, DropReason> {
        let kind = header_kind(bytes).ok_or(DropReason::StunMalformed)?;
        match kind {
            kind::REQUEST => {
                let found = Found::walk(bytes)?;
                let username = found.username.ok_or(DropReason::StunUnauthenticated)?;
                Ok(Message::Request(Request {
                    sealed: found.sealed(bytes)?,
                    username,
                    role: found.role,
                    priority: found.priority.unwrap_or(0),
                    has_use_candidate: found.has_use_candidate,
                }))
            }
            kind::SUCCESS => {
                let sealed = Found::walk(bytes)?.sealed(bytes)?;
                Ok(Message::Response(Response { sealed }))
            }
            kind::INDICATION | kind::ERROR => Err(DropReason::StunUnexpected),
            _ => Err(DropReason::StunMalformed),
        }
    }
}

/// The message type of a datagram whose header is STUN's and whose length is its own.
fn header_kind(bytes: &[u8]) -> Option<u16> {
    let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
    let [k0, k1, l0, l1, c0, c1, c2, c3, ..] = *header;
    let is_whole = usize::from(u16::from_be_bytes([l0, l1])) == bytes.len() - HEADER_LEN;
    (bytes.len().is_multiple_of(4)
        && is_whole
        && bytes.len() <= DATAGRAM_LEN_MAX
        && [c0, c1, c2, c3] == COOKIE)
        .then_some(u16::from_be_bytes([k0, k1]))
}

/// What one walk over the attributes found.
#[derive(Default)]
struct Found<'a> {
    username: Option<&'a [u8]>,
    role: Option<Role>,
    priority: Option<u32>,
    has_use_candidate: bool,
    integrity_at: Option<usize>,
    has_fingerprint: bool,
}

impl<'a> Found<'a> {
    /// Every step takes at least 4 bytes of a datagram, so a walk has at most 370.
    fn walk(bytes: &'a [u8]) -> Result<Found<'a>, DropReason> {
        let mut found = Found::default();
        let mut rest = &bytes[HEADER_LEN..];
        while let [k0, k1, l0, l1, after @ ..] = rest {
            let at = bytes.len() - rest.len();
            let kind = u16::from_be_bytes([*k0, *k1]);
            let len = usize::from(u16::from_be_bytes([*l0, *l1]));
            let (value, next) =
                after.split_at_checked(len.next_multiple_of(4)).ok_or(DropReason::StunMalformed)?;
            found.take(kind, &value[..len], at).ok_or(DropReason::StunMalformed)?;
            if found.has_fingerprint && !next.is_empty() {
                return Err(DropReason::StunMalformed); // RFC 8489 §14.7: it is the last one.
            }
            rest = next;
        }
        Ok(found)
    }

    fn take(&mut self, kind: u16, value: &'a [u8], at: usize) -> Option<()> {
        if kind == attribute::FINGERPRINT {
            self.has_fingerprint = true;
            return (value.len() == 4).then_some(());
        }
        if self.integrity_at.is_some() {
            return Some(()); // Not covered, so not there.
        }
        match kind {
            attribute::MESSAGE_INTEGRITY if value.len() == INTEGRITY_LEN => self.integrity_at = Some(at),
            attribute::USERNAME => self.username = self.username.or(Some(value)),
            attribute::USE_CANDIDATE if value.is_empty() => self.has_use_candidate = true,
            attribute::ICE_CONTROLLED if value.len() == 8 => {
                self.role = self.role.or(Some(Role::Controlled));
            }
            attribute::ICE_CONTROLLING if value.len() == 8 => {
                self.role = self.role.or(Some(Role::Controlling));
            }
            attribute::PRIORITY if let Ok(value) = value.try_into() => {
                self.priority = self.priority.or(Some(u32::from_be_bytes(value)));
            }
            attribute::MESSAGE_INTEGRITY
            | attribute::PRIORITY
            | attribute::USE_CANDIDATE
            | attribute::ICE_CONTROLLED
            | attribute::ICE_CONTROLLING => return None,
            // Comprehended, and of no account here: we need no mapped address.
            attribute::MAPPED_ADDRESS
            | attribute::XOR_MAPPED_ADDRESS
            | attribute::ERROR_CODE
            | attribute::REALM
            | attribute::NONCE
            | attribute::MESSAGE_INTEGRITY_SHA256
            | attribute::PASSWORD_ALGORITHM
            | attribute::USERHASH => {}
            attribute::OPTIONAL_MIN.. => {}
            _ => return None,
        }
        Some(())
    }

    fn sealed(&self, bytes: &'a [u8]) -> Result<Sealed<'a>, DropReason> {
        match self.integrity_at {
            Some(integrity_at) if self.has_fingerprint => Ok(Sealed { bytes, integrity_at }),
            _ => Err(DropReason::StunUnauthenticated),
        }
    }
}

impl<'a> Request<'a> {
    /// The peer's choice; its answer carries the same.
    pub fn transaction_id(&self) -> TransactionId {
        self.sealed.transaction_id()
    }

    /// All of USERNAME: the receiver's ufrag, a colon, the sender's (RFC 8445 §7.2.2).
    pub fn username(&self) -> &'a [u8] {
        self.username
    }

    /// The part of USERNAME before the colon, if it is one of our ufrags.
    ///
    /// # Errors
    /// [`DropReason::StunUnknownUser`] when it is not, or no ufrag of 4–256 characters follows.
    pub fn local_ufrag(&self) -> Result<LocalUfrag, DropReason> {
        let (local, rest) =
            self.username.split_at_checked(LOCAL_UFRAG_LEN).ok_or(DropReason::StunUnknownUser)?;
        match rest {
            [b':', remote @ ..] if UFRAG_LEN_RANGE.contains(&remote.len()) => {
                LocalUfrag::parse(local).ok_or(DropReason::StunUnknownUser)
            }
            _ => Err(DropReason::StunUnknownUser),
        }
    }

    /// The side that the peer claims; the first, if it claims both.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// PRIORITY: how the peer ranks its side of the pair (RFC 8445 §7.1.1); the first, and 0 where there is none.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// The peer nominates the pair (RFC 8445 §7.1.2).
    pub fn has_use_candidate(&self) -> bool {
        self.has_use_candidate
    }

    /// Checks FINGERPRINT, then MESSAGE-INTEGRITY in constant time.
    ///
    /// # Errors
    /// [`DropReason::StunUnauthenticated`].
    pub fn verify(&self, password: &LocalPassword) -> Result<(), DropReason> {
        self.verify_with(&IntegrityKey::new(password.as_str()))
    }

    /// As [`Request::verify`], with the password's key kept ready.
    ///
    /// # Errors
    /// [`DropReason::StunUnauthenticated`].
    pub fn verify_with(&self, key: &IntegrityKey) -> Result<(), DropReason> {
        self.sealed.verify(key)
    }
}

impl Response<'_> {
    /// Of the request that it answers.
    pub fn transaction_id(&self) -> TransactionId {
        self.sealed.transaction_id()
    }

    /// As [`Request::verify_with`]; the key is that of the responder's password.
    ///
    /// # Errors
    /// [`DropReason::StunUnauthenticated`].
    pub fn verify_with(&self, key: &IntegrityKey) -> Result<(), DropReason> {
        self.sealed.verify(key)
    }
}

impl Sealed<'_> {
    fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        TransactionId(id)
    }

    fn verify(&self, key: &IntegrityKey) -> Result<(), DropReason> {
        let (before, last) = self.bytes.split_at(self.bytes.len() - 4);
        let before = &before[..before.len() - ATTRIBUTE_HEADER_LEN];
        let tag = &self.bytes[self.integrity_at + ATTRIBUTE_HEADER_LEN..][..INTEGRITY_LEN];
        let is_authentic =
            last == fingerprint(before).to_be_bytes() && key.verify(&self.bytes[..self.integrity_at], tag);
        is_authentic.then_some(()).ok_or(DropReason::StunUnauthenticated)
    }
}

/// Writes the success response to an authenticated request that came from `remote`, and returns its
/// length, at most [`ANSWER_LEN_MAX`]; `None` when `out` is too short. `key` is that of our password.
pub fn write_success(
    request: &Request<'_>,
    remote: SocketAddr,
    key: &IntegrityKey,
    out: &mut [u8],
) -> Option<usize> {
    let id = request.transaction_id();
    let mut writer = Writer::new(out, kind::SUCCESS, id)?;
    let port = remote.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let [p0, p1] = port.to_be_bytes();
    match remote.ip() {
        IpAddr::V4(ip) => {
            let ip = xor(ip.octets(), &COOKIE, &[]);
            writer.attribute(attribute::XOR_MAPPED_ADDRESS, &[&[0, 1, p0, p1], &ip])?;
        }
        IpAddr::V6(ip) => {
            let ip = xor(ip.octets(), &COOKIE, &id.0);
            writer.attribute(attribute::XOR_MAPPED_ADDRESS, &[&[0, 2, p0, p1], &ip])?;
        }
    }
    writer.seal(key)
}

/// Writes the 487 to an authenticated request of a peer that claims our role (RFC 8445 §7.3.1.1), and
/// returns its length; `None` when `out` is too short. `key` is that of our password.
pub fn write_role_conflict(request: &Request<'_>, key: &IntegrityKey, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::new(out, kind::ERROR, request.transaction_id())?;
    // Class 4, number 87; no words, which would make it longer than its request can be.
    writer.attribute(attribute::ERROR_CODE, &[&[0, 0, 4, 87]])?;
    writer.seal(key)
}

/// What a Binding request of ours says.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// Random: only who gets the request can answer it.
    pub transaction_id: TransactionId,
    /// The peer's.
    pub remote_ufrag: &'a str,
    /// Ours.
    pub local_ufrag: LocalUfrag,
}

/// Writes a Binding request of ours, and returns its length, at most [`CHECK_LEN_MAX`]; `None` when
/// `out` is too short. `key` is that of the peer's password.
pub fn write_check(check: &Check<'_>, key: &IntegrityKey, out: &mut [u8]) -> Option<usize> {
    /// Peer-reflexive, the first of the only component (RFC 8445 §5.1.2.1).
    const PRIORITY: u32 = (110 << 24) | (0xFFFF << 8) | 255;
    /// The lowest there is: should a peer take itself for controlled too, it is the one that yields
    /// (RFC 8445 §7.3.1.1). An ICE-lite agent never controls a full one.
    const TIE_BREAKER: u64 = 0;

    let mut writer = Writer::new(out, kind::REQUEST, check.transaction_id)?;
    let username = [check.remote_ufrag.as_bytes(), b":", check.local_ufrag.as_str().as_bytes()];
    writer.attribute(attribute::USERNAME, &username)?;
    writer.attribute(attribute::PRIORITY, &[&PRIORITY.to_be_bytes()])?;
    writer.attribute(attribute::ICE_CONTROLLED, &[&TIE_BREAKER.to_be_bytes()])?;
    writer.seal(key)
}

/// XOR with the cookie and, where the address is that long, the transaction id (RFC 8489 §14.2).
fn xor<const LEN: usize>(mut address: [u8; LEN], cookie: &[u8; 4], id: &[u8]) -> [u8; LEN] {
    for (byte, mask) in address.iter_mut().zip(cookie.iter().chain(id)) {
        *byte ^= mask;
    }
    address
}

/// A message in the making.
struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut [u8], kind: u16, id: TransactionId) -> Option<Writer<'a>> {
        let mut writer = Writer { out, len: 0 };
        writer.put(&kind.to_be_bytes())?;
        writer.put(&[0; 2])?; // The length, which `seal` knows.
        writer.put(&COOKIE)?;
        writer.put(&id.0)?;
        Some(writer)
    }

    fn attribute(&mut self, kind: u16, parts: &[&[u8]]) -> Option<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.put(&kind.to_be_bytes())?;
        self.put(&u16::try_from(len).ok()?.to_be_bytes())?;
        for part in parts {
            self.put(part)?;
        }
        self.put(&[0; 3][..len.next_multiple_of(4) - len])
    }

    /// Adds MESSAGE-INTEGRITY and FINGERPRINT; the length of it all.
    fn seal(mut self, key: &IntegrityKey) -> Option<usize> {
        let end = self.len + INTEGRITY_ATTRIBUTE_LEN + FINGERPRINT_ATTRIBUTE_LEN;
        let len = u16::try_from(end - HEADER_LEN).ok()?;
        self.out[2..4].copy_from_slice(&len.to_be_bytes());
        let tag = key.sign(&self.out[..self.len]);
        self.attribute(attribute::MESSAGE_INTEGRITY, &[&tag])?;
        let crc = fingerprint(&self.out[..self.len]);
        self.attribute(attribute::FINGERPRINT, &[&crc.to_be_bytes()])?;
        Some(self.len)
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }
}
