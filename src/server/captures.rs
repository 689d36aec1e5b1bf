//! Captures of a peer's packets, one file each. A thread of its own makes it and writes: neither control nor a worker ever
//! waits for a disk.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use crossbeam_channel::{Receiver, bounded};
use tokio::sync::oneshot;

use super::private_folder::{self, count, create};
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
    /// Whoever makes a file there holds it, so that no two count the same files.
    folder: Option<Arc<Mutex<PathBuf>>>,
    threads: RefCell<Vec<JoinHandle<()>>>,
}

impl Captures {
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn new(folder: Option<PathBuf>) -> Result<Captures> {
        folder.as_deref().map(|folder| private_folder::check("CAPTURE_DIR", folder)).transpose()?;
        let folder = folder.map(|folder| Arc::new(Mutex::new(folder)));
        Ok(Captures { folder, threads: RefCell::default() })
    }

    /// Begins one; returns its file's name.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn begin(
        &self,
        workers: &Workers,
        worker: WorkerId,
        transport: TransportId,
        port: u16,
        time: Duration,
    ) -> Result<Capturing, CaptureRefused> {
        let folder = self.folder.clone().ok_or(CaptureRefused::NoFolder)?;
        let seconds = Now::read().ntp.unix_seconds();
        let name = format!("sfu-{seconds}-transport-{transport}{EXTENSION}");
        let (queue, packets) = bounded(CAPTURE_QUEUE_LEN);
        let (made, is_made) = oneshot::channel();
        let capturing = Capturing { file: name.clone() };
        self.spawn(move || {
            let (file, path) = match make(&folder, &name) {
                Ok(made) => made,
                Err(refused) => {
                    let _ = made.send(Err(refused)); // Whoever asked may be gone by now.
                    return;
                }
            };
            // And would leave an empty one for each time that he asks again.
            if made.send(Ok(())).is_err() {
                let _ = fs::remove_file(path);
                return;
            }
            match write(file, &packets, port) {
                Ok(packets) => tracing::info!(packets, %transport, "capture written"),
                Err(error) => throttled!(warn, %error, %transport, "capture ended early"),
            }
        })?;
        is_made.await.unwrap_or(Err(CaptureRefused::Disk))?;
        let capture = Box::new(Capture { queue, until: Now::read().instant + time });
        workers.send(worker, Command::Capture { transport, capture });
        Ok(capturing)
    }

    fn spawn(&self, body: impl FnOnce() + Send + 'static) -> Result<(), CaptureRefused> {
        let mut threads = self.threads.borrow_mut();
        threads.retain(|thread| !thread.is_finished());
        if threads.len() >= UNDER_WAY_MAX {
            return Err(CaptureRefused::Busy);
        }
        let thread = thread::Builder::new().name("capture".into()).spawn(body);
        threads.push(thread.map_err(|_| CaptureRefused::Disk)?);
        Ok(())
    }
}

/// A new file, unless there are as many as there may be.
fn make(folder: &Mutex<PathBuf>, name: &str) -> Result<(File, PathBuf), CaptureRefused> {
    let folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = |error: io::Error| {
        throttled!(warn, %error, "cannot make a capture's file");
        CaptureRefused::Disk
    };
    if count(&folder, EXTENSION).map_err(fault)? >= FILE_COUNT_MAX {
        return Err(CaptureRefused::Full);
    }
    let path = folder.join(name);
    Ok((create(&path).map_err(fault)?, path))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::pin::pin;

    use tokio::time::timeout;

    use super::*;
    use crate::control::workers::WorkerQueue;

    #[tokio::test]
    async fn a_disk_that_stalls_is_waited_for_by_who_asked_alone_and_no_longer_than_he_does() {
        let path = std::env::temp_dir().join(format!("sfu-captures-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let captures = Captures::new(Some(path.clone())).unwrap();
        let (commands, orders) = bounded(8);
        let workers = Workers::new(vec![WorkerQueue { commands, wake: Box::new(|| ()) }]);
        // Who has the folder has the disk.
        let folder = captures.folder.clone().unwrap();
        let (stalled, is_stalled) = bounded(1);
        let (go_on, goes_on) = bounded(1);
        let disk = thread::spawn(move || {
            let _folder = folder.lock();
            stalled.send(()).unwrap();
            let _ = goes_on.recv_timeout(Duration::from_secs(3));
        });
        is_stalled.recv().unwrap();
        let capturing = captures.begin(&workers, WorkerId(0), TransportId(1), 9, Duration::from_secs(60));
        let mut capturing = pin!(capturing);
        assert!(timeout(Duration::from_millis(50), &mut capturing).await.is_err());
        // Somebody else asks, and goes.
        let given_up = captures.begin(&workers, WorkerId(0), TransportId(2), 9, Duration::from_secs(60));
        assert!(timeout(Duration::from_millis(50), given_up).await.is_err());
        assert!(orders.is_empty());
        assert!(go_on.send(()).is_ok(), "control waited for the disk");
        let file = path.join(capturing.await.unwrap().file);
        assert!(matches!(orders.try_recv(), Ok(Command::Capture { transport: TransportId(1), .. })));
        // With the order the capture has ended.
        captures.threads.take().into_iter().chain([disk]).for_each(|thread| thread.join().unwrap());
        let written = fs::read(file).map(|bytes| bytes.len());
        let file_count = fs::read_dir(&path).unwrap().count();
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(written.unwrap(), 24, "a header and no packet");
        assert_eq!(file_count, 1);
    }
}
