//! Our own descriptions.

use std::fmt::Write;
use std::net::SocketAddr;

use super::{Direction, Extensions, Format, Opus};
use crate::ids::{Fingerprint, Mid, Ssrc, TrackId, is_token_char};

/// CNAME of everything that we send (RFC 7022): one endpoint, one clock.
pub const CNAME: &str = "gryt-sfu";

/// Whether it offers or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `a=setup:actpass` (RFC 8842 §5.2).
    Offer,
    /// `a=setup:passive`: we are the server of every handshake.
    Answer,
}

/// A description of ours: ICE-lite, one BUNDLE group, all candidates at once.
pub struct Description<'a> {
    /// Offer or answer.
    pub role: Role,
    /// `sess-id`, below 2^62 (RFC 8866 §5.2, RFC 8829 §5.2.1).
    pub session_id: u64,
    /// `sess-version`, one more each time.
    pub version: u64,
    /// Our ufrag.
    pub ufrag: &'a str,
    /// Our password.
    pub password: &'a str,
    /// Of our certificate.
    pub fingerprint: Fingerprint,
    /// Where we can be reached, the preferred first.
    pub candidates: &'a [SocketAddr],
    /// The m-lines.
    pub media: Vec<Media<'a>>,
}

/// An m-line of ours.
pub struct Media<'a> {
    /// Kind and transport, as the client wrote them.
    pub format: Format,
    /// Its tag; only a rejected m-line can lack it.
    pub mid: Option<Mid>,
    /// `None` rejects it: port 0.
    pub audio: Option<Audio<'a>>,
}

/// An m-line in use.
pub struct Audio<'a> {
    /// Seen from us.
    pub direction: Direction,
    /// Opus, as the client numbers it.
    pub opus: Opus,
    /// Header extensions, as the client numbers them.
    pub extensions: Extensions,
    /// Whose voice it carries to the client.
    pub voice: Option<Voice<'a>>,
}

/// A voice on an m-line.
#[derive(Clone, Copy)]
pub struct Voice<'a> {
    /// The first half of `a=msid`; `-` (no stream, RFC 8830 §2) is written unless it is 1–64 token characters.
    pub stream_id: &'a str,
    /// The second half.
    pub track: TrackId,
    /// What its packets have.
    pub ssrc: Ssrc,
}

impl Description<'_> {
    /// Tag and index of the m-line that carries the candidates: the first in use (RFC 8843 §7.3).
    pub fn tagged(&self) -> Option<(Mid, usize)> {
        let index = self.media.iter().position(|media| media.audio.is_some())?;
        Some((self.media[index].mid?, index))
    }

    /// The text of the description.
    pub fn write(&self) -> String {
        let mut text = String::with_capacity(256 + 640 * self.media.len());
        self.write_to(&mut text).expect("a String takes all that is written to it");
        text
    }

    fn write_to(&self, text: &mut String) -> std::fmt::Result {
        let tagged = self.tagged().map(|(_, index)| index);
        let transport = self.transport();
        write!(text, "v=0\r\no=- {} {} IN IP4 127.0.0.1\r\n", self.session_id, self.version)?;
        text.write_str("s=-\r\nt=0 0\r\na=ice-lite\r\n")?;
        if !self.media.is_empty() {
            // Empty where all is rejected, which RFC 5888 §9.2 has; some clients insist on the attribute.
            text.write_str("a=group:BUNDLE")?;
            for mid in self.media.iter().filter(|media| media.audio.is_some()).filter_map(|media| media.mid) {
                write!(text, " {mid}")?;
            }
            text.write_str("\r\n")?;
        }
        text.write_str("a=msid-semantic:WMS *\r\n")?;
        for (index, media) in self.media.iter().enumerate() {
            match &media.audio {
                Some(audio) => self.write_audio(text, media, audio, &transport, Some(index) == tagged)?,
                None => write_rejected(text, media)?,
            }
        }
        Ok(())
    }

    /// What every m-line says of the transport that they share: written once, then copied.
    fn transport(&self) -> String {
        let setup = match self.role {
            Role::Offer => "actpass",
            Role::Answer => "passive",
        };
        format!(
            "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\na=rtcp-mux\r\n",
            self.ufrag, self.password, self.fingerprint
        )
    }

    fn write_audio(
        &self,
        text: &mut String,
        media: &Media<'_>,
        audio: &Audio<'_>,
        transport: &str,
        is_tagged: bool,
    ) -> std::fmt::Result {
        let (kind, protocol) = (media.format.kind.as_str(), media.format.protocol());
        let payload_type = audio.opus.payload_type.get();
        // Port 9 and this address say "see the candidates" (RFC 8839 §4.3.2).
        write!(text, "m={kind} 9 {protocol} {payload_type}\r\nc=IN IP4 0.0.0.0\r\n")?;
        if let Some(mid) = media.mid {
            write!(text, "a=mid:{mid}\r\n")?;
        }
        write!(text, "a={}\r\n", audio.direction.as_str())?;
        text.write_str(transport)?;
        write!(text, "a=rtpmap:{payload_type} opus/48000/2\r\na=fmtp:{payload_type} {}\r\n", audio.opus)?;
        for (id, uri) in audio.extensions.iter() {
            write!(text, "a=extmap:{id} {uri}\r\n")?;
        }
        if let Some(voice) = &audio.voice {
            let stream_id = if is_stream_id(voice.stream_id) { voice.stream_id } else { "-" };
            write!(text, "a=msid:{stream_id} t{}\r\n", voice.track)?;
            write!(text, "a=ssrc:{} cname:{CNAME}\r\n", voice.ssrc.0)?;
        }
        if is_tagged {
            for (index, address) in self.candidates.iter().enumerate() {
                write!(text, "a={}\r\n", candidate(index, address))?;
            }
            text.write_str("a=end-of-candidates\r\n")?;
        }
        Ok(())
    }
}

/// The formats of a rejected m-line mean nothing, but one must stand there (RFC 3264 §6).
fn write_rejected(text: &mut String, media: &Media<'_>) -> std::fmt::Result {
    let format = if media.format.is_rtp() { "0" } else { "webrtc-datachannel" };
    let (kind, protocol) = (media.format.kind.as_str(), media.format.protocol());
    write!(text, "m={kind} 0 {protocol} {format}\r\nc=IN IP4 0.0.0.0\r\n")?;
    if let Some(mid) = media.mid {
        write!(text, "a=mid:{mid}\r\n")?;
    }
    text.write_str("a=inactive\r\n")
}

/// `candidate:…` of a host candidate, the `index`-th in the order of preference (RFC 8839 §5.1).
pub fn candidate(index: usize, address: &SocketAddr) -> String {
    // RFC 8445 §5.1.2.1: type preference of a host, local preference, component 1.
    let local_preference = 65_535_u32.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
    let priority = (126 << 24) + (local_preference << 8) + 255;
    let (foundation, ip, port) = (index + 1, address.ip(), address.port());
    format!("candidate:{foundation} 1 udp {priority} {ip} {port} typ host")
}

fn is_stream_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(is_token_char)
}
