//! pcap and pcapng, one packet at a time: memory is bounded by the largest packet taken, whatever a file says.
//!
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Both byte orders, both time scales of pcap.

use std::io::{self, Read};
use std::time::Duration;

/// Largest packet taken: what `tcpdump` takes at most.
const PACKET_LEN_MAX: usize = 262_144;
/// Largest pcapng block that is read; a larger one of a kind that we skip is skipped all the same.
const BLOCK_LEN_MAX: usize = PACKET_LEN_MAX + 65_536;
/// Interfaces of a section that are remembered.
const INTERFACE_COUNT_MAX: usize = 1_024;

/// Where the link layer of a packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkType(pub(crate) u16);

/// One packet of a capture.
pub(crate) struct Captured<'a> {
    /// Since 1970.
    pub(crate) time: Duration,
    /// How its bytes begin.
    pub(crate) link: LinkType,
    /// What was kept of it.
    pub(crate) bytes: &'a [u8],
}

/// Why a capture could not be read to its end. Positions are bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    #[error("this is neither pcap nor pcapng (it begins with {0:02x?})")]
    UnknownFormat([u8; 4]),
    #[error("the file is empty or shorter than a header")]
    Empty,
    #[error("the capture ends in the middle of a packet at byte {0}; what came before was read")]
    Truncated(u64),
    #[error(
        "the packet at byte {at} says it is {len} bytes long; {PACKET_LEN_MAX} are the most that is taken"
    )]
    TooLong { at: u64, len: usize },
    #[error("the block at byte {at} is damaged: {what}")]
    Damaged { at: u64, what: &'static str },
    #[error("the section at byte {0} has more interfaces than {INTERFACE_COUNT_MAX}")]
    TooManyInterfaces(u64),
    #[error("reading failed at byte {at}: {error}")]
    Io { at: u64, error: io::Error },
}

/// Reads a capture.
pub(crate) struct Capture<R> {
    input: R,
    /// Bytes read so far.
    at: u64,
    buffer: Vec<u8>,
    format: Format,
}

enum Format {
    Pcap { order: Order, link: LinkType, is_nanos: bool },
    PcapNg { order: Order, interfaces: Vec<Interface> },
}

#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    snap_len: usize,
    ticks_per_second: u64,
    offset_s: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self == Order::Big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self == Order::Big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type, length, and the length again at the end.
const BLOCK_OVERHEAD: usize = 12;

impl<R: Read> Capture<R> {
    /// Reads the file's header.
    pub(crate) fn open(input: R) -> Result<Capture<R>, CaptureError> {
        let format = Format::PcapNg { order: Order::Little, interfaces: Vec::new() };
        let mut capture = Capture { input, at: 0, buffer: Vec::new(), format };
        let magic = match capture.read(4) {
            Ok(Some(())) => [capture.buffer[0], capture.buffer[1], capture.buffer[2], capture.buffer[3]],
            Ok(None) | Err(CaptureError::Truncated(_)) => return Err(CaptureError::Empty),
            Err(error) => return Err(error),
        };
        let (order, is_nanos) = match magic {
            [0xA1, 0xB2, 0xC3, 0xD4] => (Order::Big, false),
            [0xD4, 0xC3, 0xB2, 0xA1] => (Order::Little, false),
            [0xA1, 0xB2, 0x3C, 0x4D] => (Order::Big, true),
            [0x4D, 0x3C, 0xB2, 0xA1] => (Order::Little, true),
            [0x0A, 0x0D, 0x0D, 0x0A] => {
                capture.begin_section(0)?;
                return Ok(capture);
            }
            other => return Err(CaptureError::UnknownFormat(other)),
        };
        match capture.read(20) {
            Ok(Some(())) => {}
            Ok(None) | Err(CaptureError::Truncated(_)) => return Err(CaptureError::Empty),
            Err(error) => return Err(error),
        }
        // The upper bits say something of frame checks.
        let link = LinkType(order.u32(&capture.buffer[16..]) as u16);
        capture.format = Format::Pcap { order, link, is_nanos };
        Ok(capture)
    }

    /// Bytes of the file that were read.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Bytes held.
    #[cfg(test)]
    #[allow(dead_code, reason = "tests/replay.rs looks; the tool's own test build does not")]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// The next packet, `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        match self.format {
            Format::Pcap { order, link, is_nanos } => self.next_record(order, link, is_nanos),
            Format::PcapNg { .. } => self.next_block(),
        }
    }

    fn next_record(
        &mut self,
        order: Order,
        link: LinkType,
        is_nanos: bool,
    ) -> Result<Option<Captured<'_>>, CaptureError> {
        let start = self.at;
        let Some(()) = self.read(16)? else { return Ok(None) };
        let seconds = order.u32(&self.buffer);
        let fraction = u64::from(order.u32(&self.buffer[4..])) * if is_nanos { 1 } else { 1_000 };
        let len = order.u32(&self.buffer[8..]) as usize;
        if len > PACKET_LEN_MAX {
            return Err(CaptureError::TooLong { at: start, len });
        }
        self.read_all(len, start)?;
        let time = Duration::from_secs(seconds.into()) + Duration::from_nanos(fraction);
        Ok(Some(Captured { time, link, bytes: &self.buffer }))
    }

    fn next_block(&mut self) -> Result<Option<Captured<'_>>, CaptureError> {
        loop {
            let start = self.at;
            let Some(()) = self.read(4)? else { return Ok(None) };
            // The type of a section reads the same in both orders.
            if u32::from_be_bytes([self.buffer[0], self.buffer[1], self.buffer[2], self.buffer[3]]) == SECTION
            {
                self.begin_section(start)?;
                continue;
            }
            let Format::PcapNg { order, .. } = self.format else { return Ok(None) };
            let kind = order.u32(&self.buffer);
            self.read_all(4, start)?;
            let body_len = body_len(order.u32(&self.buffer), start)?;
            if !matches!(kind, INTERFACE | OLD_PACKET | SIMPLE_PACKET | ENHANCED_PACKET) {
                self.skip(body_len as u64, start)?;
                self.end_block(order, body_len, start)?;
                continue;
            }
            if body_len > BLOCK_LEN_MAX {
                return Err(CaptureError::TooLong { at: start, len: body_len });
            }
            self.read_all(body_len, start)?;
            let body = std::mem::take(&mut self.buffer);
            let ended = self.end_block(order, body_len, start);
            self.buffer = body;
            ended?;
            if kind == INTERFACE {
                self.add_interface(order, start)?;
                continue;
            }
            if let Some((range, link, time)) = self.packet(order, kind, start)? {
                return Ok(Some(Captured { time, link, bytes: &self.buffer[range] }));
            }
        }
    }

    /// The section header, behind its type.
    fn begin_section(&mut self, start: u64) -> Result<(), CaptureError> {
        self.read_all(8, start)?;
        let order = match self.buffer[4..8] {
            [0x1A, 0x2B, 0x3C, 0x4D] => Order::Big,
            [0x4D, 0x3C, 0x2B, 0x1A] => Order::Little,
            _ => return Err(CaptureError::Damaged { at: start, what: "its byte order is neither" }),
        };
        let body_len = body_len(order.u32(&self.buffer), start)?;
        let rest = body_len.checked_sub(4);
        let rest = rest.ok_or(CaptureError::Damaged { at: start, what: "its length is a lie" })?;
        self.skip(rest as u64, start)?;
        self.end_block(order, body_len, start)?;
        self.format = Format::PcapNg { order, interfaces: Vec::new() };
        Ok(())
    }

    fn add_interface(&mut self, order: Order, start: u64) -> Result<(), CaptureError> {
        let body = self.buffer.as_slice();
        if body.len() < 8 {
            return Err(CaptureError::Damaged { at: start, what: "an interface of less than 8 bytes" });
        }
        let snap_len = match order.u32(&body[4..]) as usize {
            0 => PACKET_LEN_MAX,
            len => len,
        };
        let mut interface =
            Interface { link: LinkType(order.u16(body)), snap_len, ticks_per_second: 1_000_000, offset_s: 0 };
        let mut options = &body[8..];
        while options.len() >= 4 {
            let (code, len) = (order.u16(options), usize::from(order.u16(&options[2..])));
            let Some(value) = options.get(4..4 + len) else { break };
            match (code, value) {
                (0, _) => break,
                (9, [resolution]) => interface.ticks_per_second = ticks_per_second(*resolution),
                (14, [a, b, c, d, e, f, g, h]) => {
                    let bytes = [*a, *b, *c, *d, *e, *f, *g, *h];
                    let is_big = order == Order::Big;
                    interface.offset_s =
                        if is_big { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
                _ => {}
            }
            options = options.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        }
        let Format::PcapNg { interfaces, .. } = &mut self.format else { return Ok(()) };
        if interfaces.len() == INTERFACE_COUNT_MAX {
            return Err(CaptureError::TooManyInterfaces(start));
        }
        interfaces.push(interface);
        Ok(())
    }

    /// Where the packet of the block in the buffer lies.
    fn packet(
        &self,
        order: Order,
        kind: u32,
        start: u64,
    ) -> Result<Option<(std::ops::Range<usize>, LinkType, Duration)>, CaptureError> {
        let damaged = |what| CaptureError::Damaged { at: start, what };
        let body = self.buffer.as_slice();
        let Format::PcapNg { interfaces, .. } = &self.format else { return Ok(None) };
        let header_len = if kind == SIMPLE_PACKET { 4 } else { 20 };
        if body.len() < header_len {
            return Err(damaged("a packet shorter than its header"));
        }
        let id = match kind {
            SIMPLE_PACKET => 0,
            OLD_PACKET => usize::from(order.u16(body)),
            _ => order.u32(body) as usize,
        };
        let interface = interfaces.get(id).ok_or_else(|| damaged("a packet of an unknown interface"))?;
        let (len, ticks) = match kind {
            SIMPLE_PACKET => ((order.u32(body) as usize).min(interface.snap_len).min(body.len() - 4), 0),
            _ => {
                let (high, low) = (order.u32(&body[4..]), order.u32(&body[8..]));
                (order.u32(&body[12..]) as usize, u64::from(high) << 32 | u64::from(low))
            }
        };
        if len > PACKET_LEN_MAX {
            return Err(CaptureError::TooLong { at: start, len });
        }
        if body.len() - header_len < len {
            return Err(damaged("a packet longer than its block"));
        }
        let seconds = (ticks / interface.ticks_per_second).saturating_add_signed(interface.offset_s);
        let nanos = u128::from(ticks % interface.ticks_per_second) * 1_000_000_000;
        let nanos = (nanos / u128::from(interface.ticks_per_second)) as u32;
        // No clock of ours shows the year 10000.
        let time = Duration::new(seconds.min(253_402_300_799), nanos);
        Ok(Some((header_len..header_len + len, interface.link, time)))
    }

    fn end_block(&mut self, order: Order, body_len: usize, start: u64) -> Result<(), CaptureError> {
        self.read_all(4, start)?;
        if order.u32(&self.buffer) as usize == body_len + BLOCK_OVERHEAD {
            Ok(())
        } else {
            Err(CaptureError::Damaged { at: start, what: "its two lengths differ" })
        }
    }

    /// `len` bytes into the buffer; `None` at the end of the file, before the first of them.
    fn read(&mut self, len: usize) -> Result<Option<()>, CaptureError> {
        self.buffer.resize(len, 0);
        let (start, mut filled) = (self.at, 0);
        while filled < len {
            match self.input.read(&mut self.buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(CaptureError::Truncated(start)),
                Ok(count) => {
                    filled += count;
                    self.at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CaptureError::Io { at: self.at, error }),
            }
        }
        Ok(Some(()))
    }

    /// `len` bytes that have to be there, as part of what began at `start`.
    fn read_all(&mut self, len: usize, start: u64) -> Result<(), CaptureError> {
        match self.read(len) {
            Ok(None) if len > 0 => Err(CaptureError::Truncated(start)),
            Err(CaptureError::Truncated(_)) => Err(CaptureError::Truncated(start)),
            other => other.map(|_| ()),
        }
    }

    fn skip(&mut self, mut len: u64, start: u64) -> Result<(), CaptureError> {
        while len > 0 {
            let step = len.min(65_536);
            self.read_all(step as usize, start)?;
            len -= step;
        }
        Ok(())
    }
}

fn body_len(block_len: u32, start: u64) -> Result<usize, CaptureError> {
    let len = block_len as usize;
    if len.is_multiple_of(4) && len >= BLOCK_OVERHEAD {
        Ok(len - BLOCK_OVERHEAD)
    } else {
        Err(CaptureError::Damaged { at: start, what: "its length is a lie" })
    }
}

/// `if_tsresol`: a power of 10, or of 2 with the highest bit set.
fn ticks_per_second(resolution: u8) -> u64 {
    let exponent = u32::from(resolution & 0x7F);
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(exponent).unwrap_or(u64::MAX)
}
