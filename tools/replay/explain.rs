//! What the server would do with each packet: with its keys, by its own core; without, as far as it can be told.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use gryt_sfu::demux::Protocol;
use gryt_sfu::ice::stun::Message;
use gryt_sfu::packet::DropReason;
use gryt_sfu::rtcp::packet::{Compound, Packet};
use gryt_sfu::rtp::header::Header;

use super::judge::{Judge, Rtcp};
use super::streams::Filter;

/// Explains packet after packet.
pub(crate) struct Explainer<'a> {
    pub(crate) content: Content,
    pub(crate) filter: &'a Filter,
    first: Option<Duration>,
}

/// What the capture's RTP and RTCP are.
pub(crate) enum Content {
    /// Encrypted, and nobody has the keys.
    Sealed,
    /// Encrypted; these keys may open it.
    Keys(Box<Judge>),
    /// Decrypted.
    Plaintext,
}

impl<'a> Explainer<'a> {
    pub(crate) fn new(content: Content, filter: &'a Filter) -> Explainer<'a> {
        Explainer { content, filter, first: None }
    }

    /// One line for one datagram.
    pub(crate) fn take(
        &mut self,
        time: Duration,
        (source, destination): (SocketAddr, SocketAddr),
        payload: &[u8],
        out: &mut impl Write,
    ) -> io::Result<()> {
        let since = time.saturating_sub(*self.first.get_or_insert(time)).as_secs_f64();
        if !self.filter.takes_path(source, destination) {
            return Ok(());
        }
        let path = (source, destination);
        // What is not shown counts all the same: who is there is seen by it.
        let (is_shown, text) = match Protocol::of(payload) {
            Ok(Protocol::Rtp) => match Header::parse(payload) {
                Ok(header) => (self.filter.takes_stream(&header), self.rtp(time, path, &header, payload)),
                Err(reason) => (true, format!("RTP, dropped: {}", reason.label())),
            },
            Ok(Protocol::Rtcp) => (!self.filter.is_of_rtp_only(), self.rtcp(time, path, payload)),
            Ok(Protocol::Stun) => (!self.filter.is_of_rtp_only(), self.stun(time, path, payload)),
            Ok(Protocol::Dtls) => (!self.filter.is_of_rtp_only(), dtls(payload)),
            Err(reason) => (!self.filter.is_of_rtp_only(), format!("dropped: {}", reason.label())),
        };
        if !is_shown {
            return Ok(());
        }
        writeln!(out, "{since:>10.6} {source} -> {destination} {:>4} B  {text}", payload.len())
    }

    fn rtp(
        &mut self,
        time: Duration,
        path: (SocketAddr, SocketAddr),
        header: &Header,
        packet: &[u8],
    ) -> String {
        let what = format!(
            "RTP ssrc {:#010x} pt {} seq {} time {}{} header {} B",
            header.ssrc.0,
            header.payload_type.get(),
            header.sequence_number,
            header.timestamp.0,
            if header.marker { " marker" } else { "" },
            header.len,
        );
        match &mut self.content {
            Content::Sealed => {
                return format!(
                    "{what}: opened with the key of this 5-tuple if STUN made it known, else dropped \
                     (unknown_path, no_keys, bad_auth_tag, replayed)"
                );
            }
            Content::Keys(judge) => return format!("{what}: {}", judge.rtp(time, path, header, packet)),
            Content::Plaintext => {}
        }
        match header.payload(packet) {
            Ok([]) => format!("{what}: no payload, counted and not forwarded"),
            Ok(payload) => {
                format!("{what}: {} B of payload to every slot that carries its track", payload.len())
            }
            Err(reason) => format!("{what}: dropped: {}", reason.label()),
        }
    }

    fn rtcp(&mut self, time: Duration, path: (SocketAddr, SocketAddr), packet: &[u8]) -> String {
        match &mut self.content {
            Content::Sealed => {
                "RTCP: opened with the key of this 5-tuple, else dropped; ends at the server".into()
            }
            Content::Keys(judge) => match judge.rtcp(time, path, packet) {
                Rtcp::Opened(whose, plain) => {
                    let parts = parts(&plain).unwrap_or_else(|reason| reason.label().into());
                    format!("RTCP {parts}: {whose}")
                }
                Rtcp::Closed(what) => format!("RTCP: {what}"),
            },
            Content::Plaintext => match parts(packet) {
                Ok(parts) => format!("RTCP {parts}: ends at the server"),
                Err(reason) => format!("RTCP, dropped: {}", reason.label()),
            },
        }
    }

    fn stun(&mut self, time: Duration, path: (SocketAddr, SocketAddr), packet: &[u8]) -> String {
        if let Content::Keys(judge) = &mut self.content {
            judge.stun(time, path);
        }
        stun(packet)
    }
}

fn parts(packet: &[u8]) -> Result<String, DropReason> {
    let compound = Compound::parse(packet)?;
    // Bounded: a datagram has room for 375 packets.
    let parts: Vec<_> = compound.packets().map(|packet| part(&packet)).collect();
    Ok(parts.join(", "))
}

fn part(packet: &Packet<'_>) -> String {
    match packet {
        Packet::SenderReport { info, reports } => {
            format!("SR of {:#010x} with {} blocks", info.ssrc.0, reports.iter().len())
        }
        Packet::ReceiverReport { ssrc, reports } => {
            format!("RR of {:#010x} with {} blocks", ssrc.0, reports.iter().len())
        }
        Packet::Sdes(sdes) => format!("SDES with {} chunks", sdes.chunks().count()),
        Packet::Bye { ssrcs } => format!("BYE of {}", ssrcs.iter().len()),
        Packet::Nack { media, lost, .. } => {
            format!("NACK for {} of {:#010x} (nothing is sent again)", lost.seqs().count(), media.0)
        }
        Packet::Pli { media, .. } => format!("PLI for {:#010x}", media.0),
        Packet::Fir { requests, .. } => format!("FIR with {} requests", requests.iter().len()),
        Packet::Remb { bitrate_bps, .. } => format!("REMB {bitrate_bps} bit/s"),
        Packet::Other { packet_type, format } => format!("packet type {packet_type}/{format}"),
    }
}

fn stun(packet: &[u8]) -> String {
    match Message::parse(packet) {
        Ok(Message::Request(request)) => {
            let nomination = if request.has_use_candidate() { ", nominates this pair" } else { "" };
            match request.local_ufrag() {
                Ok(ufrag) => format!(
                    "STUN request for {}{nomination}: worker {} checks its MESSAGE-INTEGRITY, then answers and learns \
                     this 5-tuple",
                    ufrag.as_str(),
                    ufrag.owner()
                ),
                Err(reason) => format!("STUN request{nomination}, dropped: {}", reason.label()),
            }
        }
        Ok(Message::Response(_)) => "STUN response: taken if it answers a check of the server's own".into(),
        Err(reason) => format!("STUN, dropped: {}", reason.label()),
    }
}

/// RFC 6347 §4.1, §4.2.2.
fn dtls(packet: &[u8]) -> String {
    let what = match packet {
        [20, ..] => "change of cipher",
        [21, ..] => "alert",
        [22, _, _, 0, 0, ..] => match packet.get(13) {
            Some(1) => "ClientHello",
            Some(2) => "ServerHello",
            Some(3) => "HelloVerifyRequest",
            Some(11) => "Certificate",
            Some(12) => "ServerKeyExchange",
            Some(13) => "CertificateRequest",
            Some(14) => "ServerHelloDone",
            Some(15) => "CertificateVerify",
            Some(16) => "ClientKeyExchange",
            _ => "handshake message",
        },
        [22, ..] => "encrypted handshake message",
        [23, ..] => "application data (there is no data channel)",
        _ => "record of an unknown kind",
    };
    format!("DTLS {what}: handed to the handshake if this 5-tuple is authenticated, else dropped")
}
