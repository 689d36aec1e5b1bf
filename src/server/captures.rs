//! Captures of a peer's packets, one file each. A thread of its own writes: neither control nor a worker ever waits
//! for a disk.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::private_folder::{count, create};
use crate::control::workers::Workers;
use crate::http::{CaptureRefused, Capturing};
use crate::ids::{TransportId, WorkerId};
use crate::throttle::throttled;
use crate::time::Now;
use crate::worker::capture::{CAPTURE_QUEUE_LEN, Capture, Captured};
use crate::worker::command::Command;

/// Files of ours in the folder; more are not made.
const FILE_COUNT_MAX: usize = 32;
/// Largest file.
const FILE_LEN_MAX: u64 = 64 << 20;
/// Captures under way.
const UNDER_WAY_MAX: usize = 4;

const EXTENSION: &str = ".pcap";

/// Packets begin with an IP header (LINKTYPE_RAW).
const LINK_TYPE_RAW: u32 = 101;
const IP_UDP_LEN_MAX: usize = 48;

/// Where captures go, and those under way.
pub(super) struct Captures {
    folder: Option<PathBuf>,
    threads: std::cell::RefCell<Vec<thread::JoinHandle<()>>>,
}

impl Captures {
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn new(folder: Option<PathBuf>) -> io::Result<Captures> {
        folder.as_deref().map(|folder| count(folder, EXTENSION)).transpose()?;
        Ok(Captures { folder, threads: std::cell::RefCell::default() })
    }

    /// Begins one; returns its file's name.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn begin(
        &self,
        workers: &Workers,
        worker: WorkerId,
        transport: TransportId,
        port: u16,
        time: Duration,
    ) -> Result<Capturing, CaptureRefused> {
        let folder = self.folder.as_ref().ok_or(CaptureRefused::NoFolder)?;
        let mut threads = self.threads.borrow_mut();
        threads.retain(|thread| !thread.is_finished());
        if threads.len() >= UNDER_WAY_MAX {
            return Err(CaptureRefused::Busy);
        }
        let is_full = count(folder, EXTENSION).map_err(|_| CaptureRefused::Disk)? >= FILE_COUNT_MAX;
        if is_full {
            return Err(CaptureRefused::Full);
        }
        let now = Now::read();
        let name = format!("sfu-{}-transport-{transport}{EXTENSION}", now.ntp.unix_seconds());
        let file = create(&folder.join(&name)).map_err(|error| {
            throttled!(warn, %error, "cannot make a capture's file");
            CaptureRefused::Disk
        })?;
        let (queue, packets) = bounded(CAPTURE_QUEUE_LEN);
        let body = move || match write(file, &packets, port) {
            Ok(packets) => tracing::info!(packets, %transport, "capture written"),
            Err(error) => throttled!(warn, %error, %transport, "capture ended early"),
        };
        let thread = thread::Builder::new().name("capture".into()).spawn(body);
        threads.push(thread.map_err(|_| CaptureRefused::Disk)?);
        let capture = Box::new(Capture { queue, until: now.instant + time });
        workers.send(worker, Command::Capture { transport, capture });
        Ok(Capturing { file: name })
    }
}

/// Until the worker ends the capture, or the file is as large as it may be.
fn write(file: File, packets: &Receiver<Captured>, port: u16) -> io::Result<u64> {
    let mut out = BufWriter::new(file);
    let (mut len, mut packet_count) = (write_header(&mut out)?, 0);
    for packet in packets {
        let next = 16 + IP_UDP_LEN_MAX as u64 + packet.bytes.len() as u64;
        if len + next > FILE_LEN_MAX {
            break;
        }
        len += write_packet(&mut out, &packet, port)?;
        packet_count += 1;
    }
    out.flush()?;
    Ok(packet_count)
}

/// draft-ietf-opsawg-pcap §4, nanoseconds.
fn write_header(out: &mut impl Write) -> io::Result<u64> {
    for word in [0xA1B2_3C4D, 0x0002_0004, 0, 0, 65_535, LINK_TYPE_RAW] {
        // The version's two halves are numbers of their own; in this order they are one big-endian word.
        out.write_all(&u32::to_be_bytes(word))?;
    }
    Ok(24)
}

/// draft-ietf-opsawg-pcap §5, with the headers that the datagram had.
fn write_packet(out: &mut impl Write, packet: &Captured, port: u16) -> io::Result<u64> {
    let ours = SocketAddr::new(packet.path.local, port);
    let theirs = packet.path.remote;
    let (from, to) = if packet.is_out { (ours, theirs) } else { (theirs, ours) };
    let mut frame = Vec::with_capacity(IP_UDP_LEN_MAX + packet.bytes.len());
    write_ip_udp(&mut frame, from, to, &packet.bytes);
    let nanos = ((packet.at.0 & 0xFFFF_FFFF) * 1_000_000_000) >> 32;
    let len = frame.len() as u32;
    for word in [packet.at.unix_seconds(), nanos as u32, len, len] {
        out.write_all(&word.to_be_bytes())?;
    }
    out.write_all(&frame)?;
    Ok(16 + u64::from(len))
}

/// RFC 791 or RFC 8200, then RFC 768.
fn write_ip_udp(frame: &mut Vec<u8>, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
    const UDP: u8 = 17;
    let udp_len = (8 + payload.len()) as u16;
    let mut pseudo = Vec::new();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let len = (20 + udp_len).to_be_bytes();
            let mut header = [0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, UDP, 0, 0].to_vec();
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            pseudo.extend(&header[12..20]);
            frame.extend(header);
        }
        (from, to) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            pseudo.extend(v6(from).octets());
            pseudo.extend(v6(to).octets());
            let len = udp_len.to_be_bytes();
            frame.extend([0x60, 0, 0, 0, len[0], len[1], UDP, 64]);
            frame.extend(&pseudo);
        }
    }
    let mut udp = Vec::with_capacity(usize::from(udp_len));
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    pseudo.extend([0, UDP]);
    pseudo.extend(udp_len.to_be_bytes());
    pseudo.extend(&udp);
    // All zeros would mean none.
    let sum = match checksum(&pseudo) {
        0 => 0xFFFF,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame.extend(udp);
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default());
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
