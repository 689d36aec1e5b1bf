//! Ogg/Opus files (RFC 7845) as a row of packets that are ready to be sent.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use ogg::reading::{OggReadError, PacketReader};
use thiserror::Error;

use super::opus::{self, OpusError};
use super::stamp::STAMP_LEN;

/// A longer file is refused: it is an hour of music already.
pub(crate) const FILE_LEN_MAX: u64 = 64 << 20;
/// A longer payload does not fit a datagram that every network carries.
pub(crate) const PAYLOAD_LEN_MAX: usize = 1_150;

/// Why a file cannot be played.
#[derive(Debug, Error)]
pub(crate) enum VoiceError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it is longer than {} MiB", FILE_LEN_MAX >> 20)]
    TooLong,
    #[error("it is not Ogg, or damaged: {0}")]
    Ogg(OggReadError),
    #[error("it does not begin with an OpusHead of version 0 or 1: only Opus in Ogg is played")]
    NoHead,
    #[error("it has {0} channels or a channel mapping: voices have one or two and none")]
    Channels(u8),
    #[error("its second packet is no OpusTags")]
    NoTags,
    #[error("packet {index}: {error}")]
    Packet { index: usize, error: OpusError },
    #[error(
        "packet {index} has {len} bytes; at most {PAYLOAD_LEN_MAX} fit a datagram (encode with a lower bit rate)"
    )]
    PacketTooLong { index: usize, len: usize },
    #[error("it has no sound")]
    Silent,
}

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VoicePacket {
    /// With room for a stamp at its end.
    pub(crate) payload: Vec<u8>,
    /// How long it lasts, in units of 1/48000 s.
    pub(crate) ticks: u32,
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<VoicePacket>, VoiceError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(VoiceError::TooLong);
    }
    parse(&bytes)
}

/// The packets of the first logical stream; others that are multiplexed with it are passed over.
pub(crate) fn parse(file: &[u8]) -> Result<Vec<VoicePacket>, VoiceError> {
    let mut reader = PacketReader::new(Cursor::new(file));
    let head = reader.read_packet().map_err(VoiceError::Ogg)?.ok_or(VoiceError::NoHead)?;
    let serial = head.stream_serial();
    check_head(&head.data)?;
    let mut packets = Vec::new();
    let mut has_tags = false;
    while let Some(packet) = reader.read_packet().map_err(VoiceError::Ogg)? {
        if packet.stream_serial() != serial {
            continue;
        }
        if !has_tags {
            has_tags = packet.data.starts_with(b"OpusTags");
            if !has_tags {
                return Err(VoiceError::NoTags);
            }
            continue;
        }
        packets.push(prepared(&packet.data, packets.len())?);
        if packet.last_in_stream() {
            break;
        }
    }
    if packets.is_empty() { Err(VoiceError::Silent) } else { Ok(packets) }
}

fn prepared(packet: &[u8], index: usize) -> Result<VoicePacket, VoiceError> {
    let failed = |error| VoiceError::Packet { index, error };
    let ticks = opus::ticks(packet).map_err(failed)?;
    let payload = opus::padded(packet, STAMP_LEN).map_err(failed)?;
    if payload.len() > PAYLOAD_LEN_MAX {
        return Err(VoiceError::PacketTooLong { index, len: packet.len() });
    }
    Ok(VoicePacket { payload, ticks })
}

/// RFC 7845 §5.1.
fn check_head(head: &[u8]) -> Result<(), VoiceError> {
    let Some(head) = head.strip_prefix(b"OpusHead").filter(|head| head.len() >= 11 && head[0] < 16) else {
        return Err(VoiceError::NoHead);
    };
    let (channels, mapping) = (head[1], head[10]);
    if (1..=2).contains(&channels) && mapping == 0 { Ok(()) } else { Err(VoiceError::Channels(channels)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogg::writing::{PacketWriteEndInfo, PacketWriter};
    use proptest::prelude::*;

    const HEAD: &[u8] = b"OpusHead\x01\x01\x38\x01\x80\xBB\0\0\0\0\0";
    const TAGS: &[u8] = b"OpusTags\0\0\0\0\0\0\0\0";

    fn file(packets: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = PacketWriter::new(&mut bytes);
        for (i, packet) in packets.iter().enumerate() {
            let end = match i {
                _ if i + 1 == packets.len() => PacketWriteEndInfo::EndStream,
                0 | 1 => PacketWriteEndInfo::EndPage,
                _ => PacketWriteEndInfo::NormalPacket,
            };
            writer.write_packet(packet.to_vec(), 77, end, i as u64 * 960).unwrap();
        }
        bytes
    }

    #[test]
    fn packets_come_with_their_durations_and_room() {
        let packets = parse(&file(&[HEAD, TAGS, &[0xF8, 1, 2, 3], &[0x18, 9], &[0xFA, 1, 5, 6]])).unwrap();
        let ticks: Vec<u32> = packets.iter().map(|packet| packet.ticks).collect();
        assert_eq!(ticks, [960, 2880, 1920]);
        assert_eq!(packets[0].payload[..6], [0xFB, 0x41, STAMP_LEN as u8, 1, 2, 3]);
        assert_eq!(packets[0].payload.len(), 6 + STAMP_LEN);
    }

    #[test]
    fn what_is_not_a_voice_is_refused_by_name() {
        let stereo: Vec<u8> = [&HEAD[..9], b"\x03", &HEAD[10..]].concat();
        let mapped: Vec<u8> = [&HEAD[..18], b"\x01\x01\x01\0\0"].concat();
        let later: Vec<u8> = [&HEAD[..8], b"\x10", &HEAD[9..]].concat();
        for (bytes, expected) in [
            (Vec::new(), "not Ogg"),
            (b"RIFF....WAVE".repeat(9), "not Ogg"),
            (file(&[b"\x01vorbis, as it were"]), "OpusHead"),
            (file(&[&HEAD[..18], TAGS, &[0xF8]]), "OpusHead"),
            (file(&[&later, TAGS, &[0xF8]]), "OpusHead"),
            (file(&[&stereo, TAGS, &[0xF8]]), "3 channels"),
            (file(&[&mapped, TAGS, &[0xF8]]), "mapping"),
            (file(&[HEAD, &[0xF8, 1], &[0xF8]]), "OpusTags"),
            (file(&[HEAD, TAGS]), "no sound"),
            (file(&[HEAD]), "no sound"),
            (file(&[HEAD, TAGS, &[0xF8], &[]]), "packet 1: an empty"),
            (file(&[HEAD, TAGS, &[0xFB, 0x30, 1]]), "packet 0: a packet of more than 120 ms"),
            (file(&[HEAD, TAGS, &[0xF8; 1_200]]), "1200 bytes"),
        ] {
            let said = parse(&bytes).unwrap_err().to_string();
            assert!(said.contains(expected), "{said:?}, not {expected:?}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_shorter_or_refused() {
        let whole = file(&[HEAD, TAGS, &[0xF8; 300], &[0xF8; 40], &[0xF8; 1_000]]);
        for len in 0..whole.len() {
            if let Ok(packets) = parse(&whole[..len]) {
                assert!(packets.len() < 3, "cut at {len}");
            }
        }
        assert_eq!(parse(&whole).unwrap().len(), 3);
    }

    proptest! {
        #[test]
        fn damaged_files_do_no_harm(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            twice in any::<bool>(),
        ) {
            let mut bytes = file(&[HEAD, TAGS, &[0xF8; 600], &[0xFB, 0x42, 255, 3], &[0xF8; 40]]);
            if twice {
                bytes.extend(bytes.clone());
            }
            for (place, value) in damage {
                let at = place.index(bytes.len());
                bytes[at] = value;
            }
            let _ = parse(&bytes); // It returns.
        }

        #[test]
        fn any_packet_in_a_sound_file_is_played_or_refused(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packets) = parse(&file(&[HEAD, TAGS, &packet])) {
                prop_assert_eq!(packets[0].ticks, opus::ticks(&packets[0].payload).unwrap());
                prop_assert!(packets[0].ticks > 0);
            }
        }
    }
}
