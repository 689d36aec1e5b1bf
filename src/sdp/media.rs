//! What both directions share: kinds, transports, directions, Opus parameters, header extensions.

use std::fmt;

use crate::ids::PayloadType;

/// What an m-line carries (RFC 8866 §8.2.1). Only audio is ever accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `audio`
    Audio,
    /// `video`
    Video,
    /// `application`: data channels (RFC 8841)
    Application,
    /// `text`
    Text,
    /// `message`
    Message,
    /// `image`
    Image,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Audio, Kind::Video, Kind::Application, Kind::Text, Kind::Message, Kind::Image];

    /// Returns `None` for a word that RFC 8866 does not have.
    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// The word of the m-line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::Application => "application",
            Kind::Text => "text",
            Kind::Message => "message",
            Kind::Image => "image",
        }
    }
}

/// RTP profiles that mean the same to WebRTC, whose keys come from DTLS in any case (RFC 8829 §5.1.2).
/// An answer repeats the offer's.
const RTP_PROTOCOLS: [&str; 6] =
    ["UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP", "RTP/SAVPF", "RTP/SAVP", "RTP/AVPF", "RTP/AVP"];
/// Data channels (RFC 8841 §4), and as they were written before it.
const SCTP_PROTOCOLS: [&str; 2] = ["UDP/DTLS/SCTP", "DTLS/SCTP"];

/// Kind and transport of an m-line, which an answer repeats, rejected or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// What it carries.
    pub kind: Kind,
    protocol: &'static str,
}

impl Format {
    /// How our own m-lines are written.
    pub const AUDIO: Format = Format { kind: Kind::Audio, protocol: RTP_PROTOCOLS[0] };

    /// Returns `None` for a transport that no WebRTC peer writes.
    pub fn new(kind: Kind, protocol: &str) -> Option<Format> {
        let known = RTP_PROTOCOLS.iter().chain(&SCTP_PROTOCOLS).find(|known| **known == protocol)?;
        Some(Format { kind, protocol: known })
    }

    /// Its formats are RTP payload types.
    pub fn is_rtp(&self) -> bool {
        RTP_PROTOCOLS.contains(&self.protocol)
    }

    /// The transport, as in the m-line.
    pub const fn protocol(&self) -> &'static str {
        self.protocol
    }
}

/// Who sends, seen from the description's author (RFC 8866 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `sendrecv`
    SendRecv,
    /// `sendonly`
    SendOnly,
    /// `recvonly`
    RecvOnly,
    /// `inactive`
    Inactive,
}

impl Direction {
    const ALL: [Direction; 4] =
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];

    /// From what the author does.
    pub const fn new(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// Returns `None` for any other attribute.
    pub fn parse(word: &str) -> Option<Direction> {
        Direction::ALL.into_iter().find(|direction| direction.as_str() == word)
    }

    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    /// The author sends.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// The author receives.
    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// Opus at 48 kHz, always announced with two channels (RFC 7587 §7): its number and what a receiver
/// prefers. A browser wants these parameters equal wherever the number appears in a bundle, so ours are
/// the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opus {
    /// Its number.
    pub payload_type: PayloadType,
    /// `minptime` in milliseconds, 3–120.
    pub minptime: u8,
    /// `useinbandfec`
    pub inband_fec: bool,
    /// `stereo`, where said.
    pub stereo: Option<bool>,
    /// `sprop-stereo`, where said.
    pub sprop_stereo: Option<bool>,
    /// `usedtx`, where said.
    pub dtx: Option<bool>,
}

impl Opus {
    /// With the parameters that browsers write themselves.
    pub const fn new(payload_type: PayloadType) -> Opus {
        Opus { payload_type, minptime: 10, inband_fec: true, stereo: None, sprop_stereo: None, dtx: None }
    }

    /// Reads the parameters of an `a=fmtp` line, past its payload type. What we do not know, and values
    /// out of range, are passed over.
    pub fn with_parameters(mut self, parameters: &str) -> Opus {
        for parameter in parameters.split(';') {
            let Some((name, value)) = parameter.split_once('=') else { continue };
            let flag = match value.trim() {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            };
            match name.trim() {
                "minptime" => {
                    let value = value.trim().parse().ok().filter(|value| (3..=120).contains(value));
                    self.minptime = value.unwrap_or(self.minptime);
                }
                "useinbandfec" => self.inband_fec = flag.unwrap_or(self.inband_fec),
                "stereo" => self.stereo = flag.or(self.stereo),
                "sprop-stereo" => self.sprop_stereo = flag.or(self.sprop_stereo),
                "usedtx" => self.dtx = flag.or(self.dtx),
                _ => {}
            }
        }
        self
    }
}

/// The parameters of an `a=fmtp` line, past its payload type.
impl fmt::Display for Opus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "minptime={};useinbandfec={}", self.minptime, u8::from(self.inband_fec))?;
        for (name, flag) in
            [("stereo", self.stereo), ("sprop-stereo", self.sprop_stereo), ("usedtx", self.dtx)]
        {
            if let Some(flag) = flag {
                write!(f, ";{name}={}", u8::from(flag))?;
            }
        }
        Ok(())
    }
}

/// RFC 6464.
const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// RFC 8843 §15.1.
const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// Not an RFC: the capture time of a packet and the sender's clock offset.
const ABS_CAPTURE_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";

/// Highest id of the one-byte form (RFC 8285 §4.2). The two-byte form is not negotiated
/// (`extmap-allow-mixed` is never answered), so higher ids are passed over.
const EXTENSION_ID_MAX: u8 = 14;

/// The header extensions that we know, with the ids of one m-line, 1–14 (RFC 8285 §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// Client-to-mixer audio level.
    pub audio_level: Option<u8>,
    /// Media identification.
    pub mid: Option<u8>,
    /// Absolute capture time.
    pub abs_capture_time: Option<u8>,
}

impl Extensions {
    /// Takes the value of an `a=extmap` line. Returns `None` when it gives an id that an extension
    /// here already has.
    #[must_use]
    pub fn with(mut self, extmap: &str) -> Option<Extensions> {
        let mut words = extmap.split_ascii_whitespace();
        let id = words.next().map(|word| word.split_once('/').map_or(word, |(id, _direction)| id));
        let id = id.and_then(|id| id.parse().ok()).filter(|id| (1..=EXTENSION_ID_MAX).contains(id));
        let (Some(id), Some(uri)) = (id, words.next()) else { return Some(self) };
        let is_taken = self.iter().any(|(taken, known)| taken == id && known != uri);
        let slot = match uri {
            AUDIO_LEVEL_URI => &mut self.audio_level,
            MID_URI => &mut self.mid,
            ABS_CAPTURE_TIME_URI => &mut self.abs_capture_time,
            _ => return Some(self),
        };
        // The first of two lines for one extension counts.
        slot.get_or_insert(id);
        (!is_taken).then_some(self)
    }

    /// Those that have the same id in `other`.
    #[must_use]
    pub fn in_common(&self, other: &Extensions) -> Extensions {
        let common = |ours: Option<u8>, theirs: Option<u8>| ours.filter(|_| ours == theirs);
        Extensions {
            audio_level: common(self.audio_level, other.audio_level),
            mid: common(self.mid, other.mid),
            abs_capture_time: common(self.abs_capture_time, other.abs_capture_time),
        }
    }

    /// Each id with its URI.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'static str)> {
        [
            (self.audio_level, AUDIO_LEVEL_URI),
            (self.mid, MID_URI),
            (self.abs_capture_time, ABS_CAPTURE_TIME_URI),
        ]
        .into_iter()
        .filter_map(|(id, uri)| Some((id?, uri)))
    }
}
