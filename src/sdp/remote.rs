//! A client's description, parsed within limits.
//!
//! The text is hostile: its length, its lines and its m-lines are bounded before the `sdp` crate sees it,
//! every pass is linear, and what comes out holds no text but ICE credentials.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use ::sdp::SessionDescription;
use ::sdp::description::common::Attribute;
use ::sdp::description::media::MediaDescription;

use super::{Direction, Extensions, Format, Kind, Opus};
use crate::ids::{Fingerprint, Mid, PayloadType, Ssrc};

/// Longest description, in bytes.
pub const DESCRIPTION_LEN_MAX: usize = 256 * 1024;
/// Most lines, for each costs some allocations. Of a browser's, which have 30 bytes on the average, there are fewer in
/// [`DESCRIPTION_LEN_MAX`].
pub const LINE_COUNT_MAX: usize = 10_000;
/// Most m-lines: every slot that a receiver can have, and some of the client's own.
pub const MEDIA_COUNT_MAX: usize = 300;
/// SSRCs kept of an m-line; more are passed over.
pub const SSRC_COUNT_MAX: usize = 4;

/// Why a description was refused. The text is for the client's author and holds nothing of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`DESCRIPTION_LEN_MAX`].
    #[error("the description is longer than 256 KiB")]
    TooLong,
    /// More than [`LINE_COUNT_MAX`] lines.
    #[error("the description has more than 10000 lines")]
    TooManyLines,
    /// More than [`MEDIA_COUNT_MAX`] m-lines.
    #[error("the description has more than 300 m-lines")]
    TooManyMedia,
    /// Not a session description (RFC 8866 §5).
    #[error("the description is not valid SDP")]
    Syntax,
    /// Neither RTP nor SCTP over DTLS.
    #[error("an m-line has an unknown transport")]
    UnknownProtocol,
    /// A payload type above 127, or none (RFC 8866 §5.14).
    #[error("a payload type is not a number from 0 to 127")]
    PayloadType,
    /// An m-line in use without `a=mid` (RFC 8829 §5.2.1).
    #[error("an m-line has no a=mid")]
    NoMid,
    /// Not 1–16 token characters.
    #[error("an a=mid is not 1 to 16 token characters")]
    BadMid,
    /// The same `a=mid` twice.
    #[error("two m-lines have the same a=mid")]
    DuplicateMid,
    /// An audio m-line outside the BUNDLE group (RFC 8843).
    #[error("BUNDLE is required: an audio m-line is not in an a=group:BUNDLE")]
    NoBundle,
    /// The first m-line of the bundle is audio without `a=rtcp-mux` (RFC 5761).
    #[error("a=rtcp-mux is required on audio m-lines")]
    NoRtcpMux,
    /// Two header extensions with one id (RFC 8285 §5).
    #[error("two header extensions of an m-line have the same id")]
    DuplicateExtension,
    /// An SSRC that is not a number (RFC 5576 §4.1).
    #[error("an a=ssrc is not a 32-bit number")]
    BadSsrc,
    /// No `a=ice-ufrag` or no `a=ice-pwd` (RFC 8839 §5.4).
    #[error("a=ice-ufrag and a=ice-pwd are required")]
    NoIceCredentials,
    /// The peer is ICE-lite as we are: nobody would check (RFC 8445 §2.5).
    #[error("a=ice-lite on both sides")]
    PeerIsLite,
    /// No `a=fingerprint` (RFC 8122 §5).
    #[error("a=fingerprint is required")]
    NoFingerprint,
    /// Only hashes other than sha-256, or not 32 bytes of it.
    #[error("a=fingerprint must be a sha-256 one")]
    BadFingerprint,
    /// `a=setup:passive`, which RFC 8842 §5 allows: but we are the server of every handshake.
    #[error(
        "a=setup:passive is not supported, this server never begins a DTLS handshake: offer actpass, \
         answer active (as browsers do)"
    )]
    SetupPassive,
    /// Not a word of RFC 4145 §4 that makes sense here.
    #[error("a=setup must be actpass or active")]
    BadSetup,
}

/// A client's description.
#[derive(Clone, Debug)]
pub struct Description {
    /// Of the BUNDLE group; `None` where no m-line is usable.
    pub transport: Option<Transport>,
    /// In the order of the description.
    pub media: Vec<Media>,
}

/// The transport that all usable m-lines share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// As written; its characters are not checked here.
    pub ufrag: Box<str>,
    /// As written; its characters are not checked here.
    pub password: Box<str>,
    /// The first sha-256 one.
    pub fingerprint: Fingerprint,
}

/// One m-line.
#[derive(Clone, Debug)]
pub struct Media {
    /// Kind and transport.
    pub format: Format,
    /// Its tag; only a rejected m-line can lack it.
    pub mid: Option<Mid>,
    /// Port 0, unless `bundle-only` (RFC 8843 §6).
    pub is_rejected: bool,
    /// Who sends, seen from the client.
    pub direction: Direction,
    /// Every payload type that is Opus, the preferred first.
    pub opus: Vec<Opus>,
    /// Header extensions that we know.
    pub extensions: Extensions,
    /// At most [`SSRC_COUNT_MAX`], in the order of the description.
    pub ssrcs: Vec<Ssrc>,
}

impl Media {
    /// Audio that we could carry. It is in the BUNDLE group and has RTCP multiplexed.
    pub fn is_usable(&self) -> bool {
        self.format.kind == Kind::Audio && !self.is_rejected && !self.opus.is_empty()
    }

    /// Opus with the payload type `preferred` where the m-line has that, else its first one.
    pub fn opus(&self, preferred: Option<PayloadType>) -> Option<Opus> {
        let same = self.opus.iter().find(|opus| Some(opus.payload_type) == preferred);
        same.or(self.opus.first()).copied()
    }
}

impl Description {
    /// Parses an offer or an answer.
    ///
    /// # Errors
    /// See [`Error`]; nothing of a refused description is of use.
    pub fn parse(text: &str) -> Result<Description, Error> {
        if text.len() > DESCRIPTION_LEN_MAX {
            return Err(Error::TooLong);
        }
        if text.bytes().filter(|byte| *byte == b'\n').count() > LINE_COUNT_MAX {
            return Err(Error::TooManyLines);
        }
        if text.split('\n').filter(|line| line.trim_start().starts_with("m=")).count() > MEDIA_COUNT_MAX {
            return Err(Error::TooManyMedia);
        }
        let parsed = SessionDescription::unmarshal(&mut std::io::Cursor::new(text.as_bytes()))
            .map_err(|_| Error::Syntax)?;
        Description::of(&parsed)
    }

    fn of(parsed: &SessionDescription) -> Result<Description, Error> {
        let bundle = Bundle::of(&parsed.attributes);
        let session = Attributes::of(&parsed.attributes);
        if session.is_lite {
            return Err(Error::PeerIsLite);
        }
        let mut mids = HashSet::new();
        let mut media = Vec::with_capacity(parsed.media_descriptions.len());
        // Where transport attributes are looked for: the first usable m-line, the group's first, the session.
        let mut usable = None;
        let mut tagged = None;
        for description in &parsed.media_descriptions {
            let attributes = Attributes::of(&description.attributes);
            let line = media_line(description, &attributes, &session, &bundle)?;
            if let Some(mid) = line.mid {
                if !mids.insert(mid) {
                    return Err(Error::DuplicateMid);
                }
                if bundle.first.is_some_and(|first| first == mid.as_str()) {
                    tagged = Some(attributes);
                }
            }
            if line.is_usable() && usable.is_none() {
                usable = Some(attributes);
            }
            media.push(line);
        }
        let transport = match usable {
            Some(usable) => Some(transport(&[usable, tagged.unwrap_or_default(), session])?),
            None => None,
        };
        Ok(Description { transport, media })
    }
}

fn media_line(
    description: &MediaDescription,
    attributes: &Attributes<'_>,
    session: &Attributes<'_>,
    bundle: &Bundle<'_>,
) -> Result<Media, Error> {
    let name = &description.media_name;
    let kind = Kind::parse(&name.media).ok_or(Error::Syntax)?;
    let format = Format::new(kind, &name.protos.join("/")).ok_or(Error::UnknownProtocol)?;
    let mid = match attributes.mid {
        Some(mid) => Some(Mid::parse(mid).ok_or(Error::BadMid)?),
        None => None,
    };
    let is_bundled = attributes.mid.is_some_and(|mid| bundle.mids.contains(mid));
    let is_rejected = name.port.value == 0 && !(attributes.is_bundle_only && is_bundled);
    if !is_rejected {
        if mid.is_none() {
            return Err(Error::NoMid);
        }
        if kind == Kind::Audio && !is_bundled {
            return Err(Error::NoBundle);
        }
        // As all of the transport, it is said once of those that share it (RFC 9429 §5.2.1).
        let is_tagged = bundle.first == attributes.mid;
        if kind == Kind::Audio && is_tagged && !attributes.is_rtcp_mux {
            return Err(Error::NoRtcpMux);
        }
    }
    let mut media = Media {
        format,
        mid,
        is_rejected,
        direction: attributes.direction.or(session.direction).unwrap_or(Direction::SendRecv),
        opus: Vec::new(),
        extensions: Extensions::default(),
        ssrcs: Vec::new(),
    };
    if format.is_rtp() {
        media.opus = opus(&name.formats, &description.attributes)?;
        for attribute in &description.attributes {
            let Some(value) = &attribute.value else { continue };
            match attribute.key.as_str() {
                "extmap" => {
                    media.extensions = media.extensions.with(value).ok_or(Error::DuplicateExtension)?;
                }
                "ssrc" if media.ssrcs.len() < SSRC_COUNT_MAX => {
                    let number = value.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
                    let ssrc = Ssrc(number.ok_or(Error::BadSsrc)?);
                    if !media.ssrcs.contains(&ssrc) {
                        media.ssrcs.push(ssrc);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(media)
}

/// With the marker bit these would be RTCP packet types: not to be used beside it (RFC 5761 §4).
const RTCP_PAYLOAD_TYPES: RangeInclusive<u8> = 64..=95;

/// Finds Opus among the payload types of an m-line that RTP may have beside RTCP; checks them all.
fn opus(formats: &[String], attributes: &[Attribute]) -> Result<Vec<Opus>, Error> {
    const PAYLOAD_TYPE_COUNT: usize = 128;
    let mut is_opus: [Option<bool>; PAYLOAD_TYPE_COUNT] = [None; PAYLOAD_TYPE_COUNT];
    let mut parameters: [Option<&str>; PAYLOAD_TYPE_COUNT] = [None; PAYLOAD_TYPE_COUNT];
    for attribute in attributes {
        let Some(value) = attribute.value.as_deref() else { continue };
        let Some((number, rest)) = value.split_once(' ') else { continue };
        match attribute.key.as_str() {
            "rtpmap" => {
                let index = usize::from(payload_type(number)?.get());
                is_opus[index].get_or_insert(rest.trim().eq_ignore_ascii_case("opus/48000/2"));
            }
            "fmtp" => {
                let index = usize::from(payload_type(number)?.get());
                parameters[index].get_or_insert(rest);
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for format in formats {
        let payload_type = payload_type(format)?;
        let index = usize::from(payload_type.get());
        // Taken, so that a format listed twice counts once.
        let is_listed = is_opus[index].take() == Some(true);
        if is_listed && !RTCP_PAYLOAD_TYPES.contains(&payload_type.get()) {
            found.push(Opus::new(payload_type).with_parameters(parameters[index].unwrap_or_default()));
        }
    }
    Ok(found)
}

fn payload_type(word: &str) -> Result<PayloadType, Error> {
    word.parse().ok().and_then(PayloadType::new).ok_or(Error::PayloadType)
}

/// The first of `places` that has it counts (RFC 8843 §7.3.1, RFC 8866 §5.13).
fn transport(places: &[Attributes<'_>; 3]) -> Result<Transport, Error> {
    let ice = places.iter().find_map(|place| Some((place.ufrag?, place.password?)));
    let (ufrag, password) = ice.ok_or(Error::NoIceCredentials)?;
    let fingerprint = places.iter().find_map(|place| place.fingerprint).ok_or(Error::NoFingerprint)?;
    // RFC 5763 §5 requires it; a hand-made client that says nothing begins the handshake (RFC 4145 §4).
    match places.iter().find_map(|place| place.setup) {
        None | Some("actpass" | "active") => {}
        Some("passive") => return Err(Error::SetupPassive),
        Some(_) => return Err(Error::BadSetup),
    }
    Ok(Transport {
        ufrag: ufrag.into(),
        password: password.into(),
        fingerprint: fingerprint.ok_or(Error::BadFingerprint)?,
    })
}

/// The first `a=group:BUNDLE` of the session (RFC 8843 §5).
#[derive(Default)]
struct Bundle<'a> {
    first: Option<&'a str>,
    mids: HashSet<&'a str>,
}

impl<'a> Bundle<'a> {
    fn of(attributes: &'a [Attribute]) -> Bundle<'a> {
        for attribute in attributes.iter().filter(|attribute| attribute.key == "group") {
            let mut words = attribute.value.as_deref().unwrap_or_default().split_ascii_whitespace();
            if words.next() == Some("BUNDLE") {
                let mut mids = words.peekable();
                return Bundle { first: mids.peek().copied(), mids: mids.collect() };
            }
        }
        Bundle::default()
    }
}

/// Attributes that occur once, of the session or of an m-line; the first of each counts.
#[derive(Clone, Copy, Default)]
struct Attributes<'a> {
    mid: Option<&'a str>,
    direction: Option<Direction>,
    ufrag: Option<&'a str>,
    password: Option<&'a str>,
    /// The first sha-256 one; `Some(None)` where there are only others.
    fingerprint: Option<Option<Fingerprint>>,
    setup: Option<&'a str>,
    is_rtcp_mux: bool,
    is_bundle_only: bool,
    is_lite: bool,
}

impl<'a> Attributes<'a> {
    fn of(attributes: &'a [Attribute]) -> Attributes<'a> {
        let mut found = Attributes::default();
        for attribute in attributes {
            let value = attribute.value.as_deref();
            match attribute.key.as_str() {
                "mid" => found.mid = found.mid.or(value),
                "ice-ufrag" => found.ufrag = found.ufrag.or(value),
                "ice-pwd" => found.password = found.password.or(value),
                "setup" => found.setup = found.setup.or(value),
                "rtcp-mux" => found.is_rtcp_mux = true,
                "bundle-only" => found.is_bundle_only = true,
                "ice-lite" => found.is_lite = true,
                "fingerprint" => {
                    let sha_256 = value.and_then(sha_256_fingerprint);
                    found.fingerprint = Some(found.fingerprint.flatten().or(sha_256));
                }
                name => found.direction = found.direction.or(Direction::parse(name)),
            }
        }
        found
    }
}

fn sha_256_fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, fingerprint) = value.split_once(' ')?;
    hash.eq_ignore_ascii_case("sha-256").then(|| Fingerprint::parse(fingerprint.trim()))?
}
