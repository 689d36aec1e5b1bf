//! What a capture holds: its RTP streams with loss, jitter and reordering, and how much of everything else.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gryt_sfu::demux::Protocol;
use gryt_sfu::ids::Ssrc;
use gryt_sfu::rtcp::reception::Reception;
use gryt_sfu::rtp::header::Header;

use super::link::Skips;

/// Streams that are counted; packets of further ones are counted together.
const STREAM_COUNT_MAX: usize = 4_096;

/// One direction of one SSRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) ssrc: Ssrc,
}

/// Which streams are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) ssrcs: Vec<u32>,
    pub(crate) payload_types: Vec<u8>,
    pub(crate) ports: Vec<u16>,
    pub(crate) hosts: Vec<std::net::IpAddr>,
}

impl Filter {
    /// By addresses alone: what is not RTP is judged by this.
    pub(crate) fn takes_path(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        let is_port = |port: &u16| source.port() == *port || destination.port() == *port;
        let is_host = |host: &std::net::IpAddr| source.ip() == *host || destination.ip() == *host;
        (self.ports.is_empty() || self.ports.iter().any(is_port))
            && (self.hosts.is_empty() || self.hosts.iter().any(is_host))
    }

    /// By SSRC and payload type.
    pub(crate) fn takes_stream(&self, header: &Header) -> bool {
        (self.ssrcs.is_empty() || self.ssrcs.contains(&header.ssrc.0))
            && (self.payload_types.is_empty() || self.payload_types.contains(&header.payload_type.get()))
    }

    /// Whether anything but RTP is wanted.
    pub(crate) fn is_of_rtp_only(&self) -> bool {
        !self.ssrcs.is_empty() || !self.payload_types.is_empty()
    }
}

/// What was counted of a stream.
pub(crate) struct Stream {
    pub(crate) reception: Reception,
    pub(crate) payload_types: u128,
    pub(crate) bytes: u64,
    /// Behind one that was sent later.
    pub(crate) reordered: u64,
    /// As the one before it.
    pub(crate) duplicates: u64,
    newest: u16,
    began: Duration,
    ended: Duration,
    order: usize,
}

/// Everything that was counted.
pub(crate) struct Inspection {
    streams: HashMap<StreamKey, Stream>,
    clock_rate: u32,
    origin: (Instant, Option<Duration>),
    protocols: [u64; 4],
    unknown: u64,
    malformed: u64,
    beyond_limit: u64,
}

impl Inspection {
    /// `origin` is any instant: times of the capture count from there.
    pub(crate) fn new(clock_rate: u32, origin: Instant) -> Inspection {
        Inspection {
            streams: HashMap::new(),
            clock_rate,
            origin: (origin, None),
            protocols: [0; 4],
            unknown: 0,
            malformed: 0,
            beyond_limit: 0,
        }
    }

    /// Takes a UDP payload.
    pub(crate) fn take(
        &mut self,
        time: Duration,
        path: (SocketAddr, SocketAddr),
        payload: &[u8],
        filter: &Filter,
    ) {
        if !filter.takes_path(path.0, path.1) {
            return;
        }
        match Protocol::of(payload) {
            Ok(Protocol::Rtp) => match Header::parse(payload) {
                Ok(header) if filter.takes_stream(&header) => {
                    self.protocols[Protocol::Rtp as usize] += 1;
                    self.take_rtp(time, path, payload.len(), &header);
                }
                Ok(_) => {}
                Err(_) => self.malformed += 1,
            },
            Ok(protocol) => self.protocols[protocol as usize] += 1,
            Err(_) => self.unknown += 1,
        }
    }

    fn take_rtp(&mut self, time: Duration, path: (SocketAddr, SocketAddr), len: usize, header: &Header) {
        let key = StreamKey { source: path.0, destination: path.1, ssrc: header.ssrc };
        let first = *self.origin.1.get_or_insert(time);
        let arrival = self.origin.0 + time.saturating_sub(first).min(Duration::from_secs(86_400 * 365));
        let order = self.streams.len();
        if order >= STREAM_COUNT_MAX && !self.streams.contains_key(&key) {
            self.beyond_limit += 1;
            return;
        }
        let seq = header.sequence_number;
        let stream = self.streams.entry(key).or_insert_with(|| Stream {
            reception: Reception::new(header.ssrc),
            payload_types: 0,
            bytes: 0,
            reordered: 0,
            duplicates: 0,
            newest: seq.wrapping_sub(1),
            began: time,
            ended: time,
            order,
        });
        stream.reception.handle_packet(arrival, header.timestamp, seq, self.clock_rate);
        stream.payload_types |= 1 << header.payload_type.get();
        stream.bytes += len as u64;
        stream.ended = stream.ended.max(time);
        match seq.wrapping_sub(stream.newest) as i16 {
            0 => stream.duplicates += 1,
            ..0 => stream.reordered += 1,
            _ => stream.newest = seq,
        }
    }

    /// Streams in the order in which they began.
    pub(crate) fn streams(&self) -> Vec<(&StreamKey, &Stream)> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_by_key(|(_, stream)| stream.order);
        streams
    }

    /// Prints the table.
    pub(crate) fn print(&self, skips: &Skips, out: &mut impl Write) -> io::Result<()> {
        let clock_rate = f64::from(self.clock_rate);
        let now = self.origin.0;
        writeln!(
            out,
            "{:<10} {:>7} {:>9} {:>8} {:>7} {:>9} {:>9} {:>6} {:>8} {:>7}  from -> to",
            "SSRC", "PT", "packets", "lost", "loss", "jitter", "reordered", "twice", "seconds", "kbit/s"
        )?;
        for (key, stream) in self.streams() {
            let received = stream.reception.received_count();
            let lost = stream.reception.cumulative_lost();
            let loss = 100.0 * f64::from(lost.max(0)) / f64::from(lost.max(0) as u32 + received).max(1.0);
            let jitter = stream.reception.clone().report_block(now).map_or(0, |block| block.jitter);
            let seconds = stream.ended.saturating_sub(stream.began).as_secs_f64();
            let rate = if seconds > 0.0 { stream.bytes as f64 * 8.0 / 1e3 / seconds } else { 0.0 };
            let types: Vec<_> =
                (0..128).filter(|n| stream.payload_types >> n & 1 == 1).map(|n| n.to_string()).collect();
            writeln!(
                out,
                "{:#010x} {:>7} {:>9} {:>8} {:>6.2}% {:>6.2} ms {:>9} {:>6} {:>8.2} {:>7.1}  {} -> {}",
                key.ssrc.0,
                types.join(","),
                received,
                lost,
                loss,
                f64::from(jitter) * 1e3 / clock_rate,
                stream.reordered,
                stream.duplicates,
                seconds,
                rate,
                key.source,
                key.destination,
            )?;
        }
        let [stun, dtls, rtp, rtcp] = [Protocol::Stun, Protocol::Dtls, Protocol::Rtp, Protocol::Rtcp]
            .map(|p| self.protocols[p as usize]);
        let frames = skips.datagrams + skips.total();
        writeln!(out, "{frames} frames: {rtp} RTP, {rtcp} RTCP, {stun} STUN, {dtls} DTLS")?;
        for (count, what) in [
            (self.unknown, "UDP datagrams of no known protocol"),
            (self.malformed, "malformed RTP packets"),
            (self.beyond_limit, "RTP packets of streams beyond the 4096 that are counted"),
        ] {
            if count > 0 {
                writeln!(out, "{count} {what}")?;
            }
        }
        skips.print(out)
    }
}
