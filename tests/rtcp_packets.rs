//! RTCP against the `rtcp` crate both ways, and against lengths that lie.

use gryt_sfu::ids::Ssrc;
use gryt_sfu::packet::DropReason;
use gryt_sfu::rtcp::feedback::FirRequest;
use gryt_sfu::rtcp::packet::{Chunk, Compound, ITEM_COUNT_MAX, Packet};
use gryt_sfu::rtcp::report::{REPORT_BLOCK_LEN, ReportBlock, SenderInfo};
use gryt_sfu::rtcp::writer::{OutOfRoom, Writer};
use gryt_sfu::time::{NtpTime, RtpTime};
use proptest::collection::vec;
use proptest::prelude::*;
use rtcp::goodbye::Goodbye;
use rtcp::packet::Packet as OraclePacket;
use rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtcp::receiver_report::ReceiverReport;
use rtcp::reception_report::ReceptionReport;
use rtcp::sender_report::SenderReport;
use rtcp::source_description::{SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem};
use rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};

type Boxed = Box<dyn OraclePacket + Send + Sync>;

fn packets(bytes: &[u8]) -> Vec<Packet<'_>> {
    Compound::parse(bytes).expect("a compound").packets().collect()
}

fn is_malformed(bytes: &[u8]) -> bool {
    matches!(Compound::parse(bytes), Err(DropReason::RtcpMalformed))
}

/// What we write, as the `rtcp` crate reads it.
fn read_by_oracle(write: impl FnOnce(&mut Writer<'_>)) -> Vec<Boxed> {
    let mut out = [0xAA; 1500];
    let mut writer = Writer::new(&mut out);
    write(&mut writer);
    let len = writer.len();
    rtcp::packet::unmarshal(&mut &out[..len]).expect("a compound")
}

fn to_oracle(block: &ReportBlock) -> ReceptionReport {
    ReceptionReport {
        ssrc: block.ssrc.0,
        fraction_lost: block.fraction_lost,
        total_lost: block.cumulative_lost as u32 & 0xFF_FFFF,
        last_sequence_number: block.highest_seq,
        jitter: block.jitter,
        last_sender_report: block.last_sr,
        delay: block.delay_since_last_sr,
    }
}

fn blocks(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<ReportBlock>> {
    let block = (
        any::<u32>(),
        any::<u8>(),
        -0x80_0000_i32..0x80_0000,
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    );
    let block = block.prop_map(
        |(ssrc, fraction_lost, cumulative_lost, highest_seq, jitter, last_sr, delay_since_last_sr)| {
            ReportBlock {
                ssrc: Ssrc(ssrc),
                fraction_lost,
                cumulative_lost,
                highest_seq,
                jitter,
                last_sr,
                delay_since_last_sr,
            }
        },
    );
    vec(block, count)
}

prop_compose! {
    fn sender_info()(
        ssrc in any::<u32>(),
        ntp in any::<u64>(),
        rtp_time in any::<u32>(),
        packet_count in any::<u32>(),
        octet_count in any::<u32>(),
    ) -> SenderInfo {
        SenderInfo { ssrc: Ssrc(ssrc), ntp: NtpTime(ntp), rtp_time: RtpTime(rtp_time), packet_count, octet_count }
    }
}

fn oracle_sender_report(info: &SenderInfo, blocks: &[ReportBlock]) -> SenderReport {
    SenderReport {
        ssrc: info.ssrc.0,
        ntp_time: info.ntp.0,
        rtp_time: info.rtp_time.0,
        packet_count: info.packet_count,
        octet_count: info.octet_count,
        reports: blocks.iter().map(to_oracle).collect(),
        ..SenderReport::default()
    }
}

proptest! {
    #[test]
    fn reports_of_the_rtcp_crate_are_read(
        info in sender_info(),
        on_sender in blocks(0..ITEM_COUNT_MAX + 1),
        reporter in any::<u32>(),
        on_others in blocks(0..ITEM_COUNT_MAX + 1),
        extension_words in 0_usize..3,
    ) {
        let receiver_report = ReceiverReport {
            ssrc: reporter,
            reports: on_others.iter().map(to_oracle).collect(),
            profile_extensions: vec![7; extension_words * 4].into(),
        };
        let compound: [Boxed; 2] =
            [Box::new(oracle_sender_report(&info, &on_sender)), Box::new(receiver_report)];
        let bytes = rtcp::packet::marshal(&compound).unwrap();
        let packets = packets(&bytes);
        let [
            Packet::SenderReport { info: read, reports },
            Packet::ReceiverReport { ssrc, reports: others },
        ] = packets[..] else { panic!("{packets:?}") };
        prop_assert_eq!(read, info);
        prop_assert_eq!(ssrc, Ssrc(reporter));
        prop_assert_eq!(reports.iter().collect::<Vec<_>>(), on_sender);
        prop_assert_eq!(others.iter().collect::<Vec<_>>(), on_others);
    }

    #[test]
    fn reports_of_ours_are_read_by_the_rtcp_crate(
        info in sender_info(),
        on_sender in blocks(0..ITEM_COUNT_MAX + 1),
        on_others in blocks(0..20),
    ) {
        let read = read_by_oracle(|writer| {
            writer.sender_report(&info, on_sender.iter().copied()).unwrap();
            writer.receiver_report(info.ssrc, on_others.iter().copied()).unwrap();
        });
        prop_assert_eq!(read.len(), 2);
        let sender_report: &SenderReport = read[0].as_any().downcast_ref().unwrap();
        prop_assert_eq!(sender_report, &oracle_sender_report(&info, &on_sender));
        let receiver_report: &ReceiverReport = read[1].as_any().downcast_ref().unwrap();
        prop_assert_eq!(receiver_report.ssrc, info.ssrc.0);
        let expected: Vec<_> = on_others.iter().map(to_oracle).collect();
        prop_assert_eq!(&receiver_report.reports, &expected);
    }

    #[test]
    fn report_blocks_beyond_31_go_into_more_packets(info in sender_info(), blocks in blocks(32..58)) {
        let mut out = [0; 1500];
        let mut writer = Writer::new(&mut out);
        writer.sender_report(&info, blocks.iter().copied()).unwrap();
        let len = writer.len();
        let packets = packets(&out[..len]);
        let [Packet::SenderReport { reports: first, .. }, Packet::ReceiverReport { ssrc, reports: second }] =
            packets[..] else { panic!("{packets:?}") };
        prop_assert_eq!(ssrc, info.ssrc);
        prop_assert_eq!(first.iter().chain(second.iter()).collect::<Vec<_>>(), blocks);
        prop_assert_eq!(first.iter().len(), ITEM_COUNT_MAX);
    }

    #[test]
    fn names_and_farewells_go_both_ways(
        ssrc in any::<u32>(),
        cname in "\\PC{0,60}",
        note in vec(any::<u8>(), 0..255),
        leaving in vec(any::<u32>(), 0..ITEM_COUNT_MAX + 1),
        reason in "[a-z ]{0,40}",
    ) {
        let read = read_by_oracle(|writer| {
            writer.cname(Ssrc(ssrc), &cname).unwrap();
            writer.bye(&leaving.iter().map(|ssrc| Ssrc(*ssrc)).collect::<Vec<_>>()).unwrap();
        });
        let sdes: &SourceDescription = read[0].as_any().downcast_ref().unwrap();
        prop_assert_eq!(sdes.chunks.len(), 1);
        prop_assert_eq!(sdes.chunks[0].source, ssrc);
        prop_assert_eq!(sdes.chunks[0].items[0].sdes_type, SdesType::SdesCname);
        prop_assert_eq!(&sdes.chunks[0].items[0].text[..], cname.as_bytes());
        let bye: &Goodbye = read[1].as_any().downcast_ref().unwrap();
        prop_assert_eq!(&bye.sources, &leaving);

        let item = |sdes_type, text: &[u8]| SourceDescriptionItem { sdes_type, text: text.to_vec().into() };
        let sdes = SourceDescription {
            chunks: vec![
                SourceDescriptionChunk {
                    source: ssrc,
                    items: vec![
                        item(SdesType::SdesNote, &note),
                        item(SdesType::SdesCname, cname.as_bytes()),
                        item(SdesType::SdesCname, b"another"),
                    ],
                },
                SourceDescriptionChunk { source: 2, items: vec![item(SdesType::SdesTool, b"tool")] },
                SourceDescriptionChunk { source: 3, items: vec![] },
            ],
        };
        let bye = Goodbye { sources: leaving.clone(), reason: reason.into_bytes().into() };
        let compound: [Boxed; 2] = [Box::new(sdes), Box::new(bye)];
        let bytes = rtcp::packet::marshal(&compound).unwrap();
        let packets = packets(&bytes);
        let [Packet::Sdes(sdes), Packet::Bye { ssrcs }] = packets[..] else { panic!("{packets:?}") };
        prop_assert_eq!(
            sdes.chunks().collect::<Vec<_>>(),
            [
                Chunk { ssrc: Ssrc(ssrc), cname: Some(cname.as_bytes()) },
                Chunk { ssrc: Ssrc(2), cname: None },
                Chunk { ssrc: Ssrc(3), cname: None },
            ]
        );
        prop_assert_eq!(ssrcs.iter().map(|ssrc| ssrc.0).collect::<Vec<_>>(), leaving);
    }

    #[test]
    fn feedback_of_the_rtcp_crate_is_read(
        sender_ssrc in any::<u32>(),
        media_ssrc in any::<u32>(),
        pairs in vec(any::<(u16, u16)>(), 1..20),
        requests in vec(any::<(u32, u8)>(), 1..20),
        ssrcs in vec(any::<u32>(), 0..20),
        (mantissa, exponent) in (0x2_0000_u64..0x4_0000, 0_u32..40),
    ) {
        let nacks: Vec<_> =
            pairs.iter().map(|(packet_id, lost_packets)| NackPair {
                packet_id: *packet_id,
                lost_packets: *lost_packets,
            }).collect();
        let fir: Vec<_> = requests
            .iter()
            .map(|(ssrc, sequence_number)| FirEntry { ssrc: *ssrc, sequence_number: *sequence_number })
            .collect();
        let bitrate = mantissa << exponent; // 18 significant bits, which both formats hold.
        let compound: [Boxed; 4] = [
            Box::new(TransportLayerNack { sender_ssrc, media_ssrc, nacks: nacks.clone() }),
            Box::new(PictureLossIndication { sender_ssrc, media_ssrc }),
            Box::new(FullIntraRequest { sender_ssrc, media_ssrc, fir }),
            Box::new(ReceiverEstimatedMaximumBitrate {
                sender_ssrc,
                bitrate: bitrate as f32,
                ssrcs: ssrcs.clone(),
            }),
        ];
        let bytes = rtcp::packet::marshal(&compound).unwrap();
        let packets = packets(&bytes);
        let [
            Packet::Nack { sender: nacker, media: nacked, lost },
            Packet::Pli { sender: pli_sender, media },
            Packet::Fir { sender: fir_sender, requests: read },
            Packet::Remb { sender: remb_sender, bitrate_bps, ssrcs: estimated },
        ] = packets[..] else { panic!("{packets:?}") };
        for sender in [nacker, pli_sender, fir_sender, remb_sender] {
            prop_assert_eq!(sender, Ssrc(sender_ssrc));
        }
        prop_assert_eq!((nacked, media), (Ssrc(media_ssrc), Ssrc(media_ssrc)));
        let expected: Vec<u16> = nacks.iter().flat_map(NackPair::packet_list).collect();
        prop_assert_eq!(lost.seqs().collect::<Vec<_>>(), expected);
        let expected: Vec<_> =
            requests.iter().map(|(ssrc, number)| FirRequest { ssrc: Ssrc(*ssrc), number: *number }).collect();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(bitrate_bps, bitrate);
        prop_assert_eq!(estimated.iter().map(|ssrc| ssrc.0).collect::<Vec<_>>(), ssrcs);
    }

    #[test]
    fn feedback_of_ours_is_read_by_the_rtcp_crate(
        sender in any::<u32>(),
        media in any::<u32>(),
        first in any::<u16>(),
        gaps in vec(0_u16..40, 1..100),
    ) {
        let mut seq = first;
        let seqs: Vec<u16> = gaps.iter().map(|gap| { seq = seq.wrapping_add(*gap); seq }).collect();
        let read = read_by_oracle(|writer| {
            writer.nack(Ssrc(sender), Ssrc(media), seqs.iter().copied()).unwrap();
            writer.pli(Ssrc(sender), Ssrc(media)).unwrap();
        });
        let nack: &TransportLayerNack = read[0].as_any().downcast_ref().unwrap();
        prop_assert_eq!((nack.sender_ssrc, nack.media_ssrc), (sender, media));
        let listed: Vec<u16> = nack.nacks.iter().flat_map(NackPair::packet_list).collect();
        let mut expected = seqs;
        expected.dedup();
        prop_assert_eq!(listed, expected);
        let pli: &PictureLossIndication = read[1].as_any().downcast_ref().unwrap();
        prop_assert_eq!((pli.sender_ssrc, pli.media_ssrc), (sender, media));
    }

    #[test]
    fn a_slot_of_any_length_holds_whole_packets_only(len in 0_usize..300, blocks in blocks(0..8)) {
        let mut out = vec![0xAA; len];
        let mut writer = Writer::new(&mut out);
        let info = SenderInfo {
            ssrc: Ssrc(1), ntp: NtpTime(2), rtp_time: RtpTime(3), packet_count: 4, octet_count: 5,
        };
        let results = [
            writer.sender_report(&info, blocks.iter().copied()),
            writer.cname(Ssrc(1), "a name"),
            writer.nack(Ssrc(1), Ssrc(2), [1, 2, 900]),
            writer.pli(Ssrc(1), Ssrc(2)),
            writer.bye(&[Ssrc(1)]),
        ];
        let written = writer.len();
        let packet_count = results.iter().filter(|result| result.is_ok()).count();
        let read_count = if written == 0 { 0 } else { packets(&out[..written]).len() };
        prop_assert_eq!(read_count, packet_count);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    /// Bytes that look like a compound: headers that mostly tell the truth about random bodies.
    #[test]
    fn no_compound_makes_it_panic(
        packets in vec((190_u8..220, 0_u8..64, vec(any::<u8>(), 0..80), -1_i32..8), 1..6),
    ) {
        let mut bytes = Vec::new();
        for (packet_type, count, mut body, lie) in packets {
            body.resize(body.len().next_multiple_of(4), 0);
            let words = (body.len() / 4) as i32 + if lie < 2 { lie } else { 0 };
            bytes.extend([0x80 | count, packet_type]);
            bytes.extend((words as u16).to_be_bytes());
            bytes.extend(body);
        }
        read_all(&bytes);
    }

    /// Of a valid compound every change is either refused or read without a panic.
    #[test]
    fn no_change_of_a_compound_makes_it_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = whole_compound();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(&bytes);
        read_all(&bytes[..cut.index(bytes.len())]);
    }
}

/// Reads all there is to read of it, if anything.
fn read_all(bytes: &[u8]) {
    let Ok(compound) = Compound::parse(bytes) else { return };
    let mut packet_count = 0;
    for packet in compound.packets() {
        packet_count += 1;
        match packet {
            Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                assert!(reports.iter().count() <= ITEM_COUNT_MAX);
                for report in reports.iter() {
                    let _ = report.round_trip(NtpTime(1 << 40));
                }
            }
            Packet::Sdes(sdes) => assert!(sdes.chunks().count() <= ITEM_COUNT_MAX),
            Packet::Bye { ssrcs } | Packet::Remb { ssrcs, .. } => {
                assert!(ssrcs.iter().count() * 4 <= bytes.len());
            }
            Packet::Nack { lost, .. } => assert!(lost.seqs().count() <= bytes.len() / 4 * 17),
            Packet::Fir { requests, .. } => assert!(requests.iter().count() * 8 <= bytes.len()),
            Packet::Pli { .. } | Packet::Other { .. } => {}
        }
    }
    assert!(packet_count >= 1 && packet_count * 4 <= bytes.len());
}

/// One of each that we write.
fn whole_compound() -> Vec<u8> {
    let mut out = [0; 1500];
    let mut writer = Writer::new(&mut out);
    let info =
        SenderInfo { ssrc: Ssrc(1), ntp: NtpTime(2), rtp_time: RtpTime(3), packet_count: 4, octet_count: 5 };
    let block = ReportBlock {
        ssrc: Ssrc(9),
        fraction_lost: 1,
        cumulative_lost: -2,
        highest_seq: 3,
        jitter: 4,
        last_sr: 5,
        delay_since_last_sr: 6,
    };
    writer.sender_report(&info, [block; 2]).unwrap();
    writer.receiver_report(Ssrc(1), [block]).unwrap();
    writer.cname(Ssrc(1), "gryt").unwrap();
    writer.nack(Ssrc(1), Ssrc(2), [65_535, 0, 16, 17]).unwrap();
    writer.pli(Ssrc(1), Ssrc(2)).unwrap();
    writer.bye(&[Ssrc(1), Ssrc(2)]).unwrap();
    let len = writer.len();
    out[..len].to_vec()
}

/// A packet of this first byte and type, whose header tells the truth.
fn packet(first: u8, packet_type: u8, body: &[u8]) -> Vec<u8> {
    let words = (body.len() / 4) as u16;
    [&[first, packet_type], &words.to_be_bytes()[..], body].concat()
}

#[test]
fn a_compound_cut_anywhere_but_between_packets_is_refused() {
    let bytes = whole_compound();
    let mut boundaries = vec![0];
    while let Some(at) = boundaries.last().copied().filter(|at| *at < bytes.len()) {
        boundaries.push(at + 4 + 4 * usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])));
    }
    for len in 0..=bytes.len() {
        let is_whole = len > 0 && boundaries.contains(&len);
        assert_eq!(!is_malformed(&bytes[..len]), is_whole, "{len}");
    }
}

#[test]
fn counts_that_lie_are_refused() {
    let body = [0; 24 + 2 * REPORT_BLOCK_LEN];
    assert!(!is_malformed(&packet(0x82, 200, &body)));
    assert!(is_malformed(&packet(0x83, 200, &body)));
    assert!(is_malformed(&packet(0x9F, 201, &[0; 4 + 30 * REPORT_BLOCK_LEN])));
    assert!(!is_malformed(&packet(0x9F, 201, &[0; 4 + 31 * REPORT_BLOCK_LEN])));
    assert!(!is_malformed(&packet(0x80, 203, &[])), "BYE of nobody");
    assert!(is_malformed(&packet(0x82, 203, &[0; 4])));
    for (first, packet_type) in [(0x80, 200), (0x80, 201), (0x81, 202), (0x81, 205), (0x81, 206)] {
        assert!(is_malformed(&packet(first, packet_type, &[])), "{packet_type}");
    }
    assert!(is_malformed(&packet(0x81, 205, &[0; 8])), "a NACK of nothing");
    assert!(is_malformed(&packet(0x84, 206, &[0; 12])), "a FIR of nothing");
    assert!(is_malformed(&packet(0x84, 206, &[0; 20])), "half a FIR entry");
    let mut remb = [&[0; 8][..], b"REMB", &[2, 0, 0, 0], &[0; 4]].concat();
    assert!(is_malformed(&packet(0x8F, 206, &remb)), "two SSRCs, one there");
    remb[12] = 1;
    assert!(!is_malformed(&packet(0x8F, 206, &remb)));
    remb[8] = b'X';
    let bytes = packet(0x8F, 206, &remb);
    assert!(matches!(packets(&bytes)[..], [Packet::Other { packet_type: 206, format: 15 }]));
}

#[test]
fn an_estimate_beyond_64_bits_saturates() {
    let estimate = |bits: [u8; 3]| {
        let bytes = packet(0x8F, 206, &[&[0; 8][..], b"REMB", &[0], &bits].concat());
        let [Packet::Remb { bitrate_bps, .. }] = packets(&bytes)[..] else { panic!("no REMB") };
        bitrate_bps
    };
    assert_eq!(estimate([0xFF, 0xFF, 0xFF]), u64::MAX);
    assert_eq!(estimate([0xFC, 0x00, 0x01]), 1 << 63);
    assert_eq!(estimate([0xFC, 0x00, 0x02]), u64::MAX);
    assert_eq!(estimate([0xFC, 0x00, 0x00]), 0);
    assert_eq!(estimate([0x03, 0xFF, 0xFF]), 0x3_FFFF);
}

#[test]
fn items_of_sdes_end_where_the_chunk_does() {
    let ssrc = [0, 0, 0, 1];
    let cname = |body: &[u8]| {
        let bytes = packet(0x81, 202, &[&ssrc, body].concat());
        let compound = Compound::parse(&bytes).ok()?;
        match compound.packets().next()? {
            Packet::Sdes(sdes) => sdes.chunks().next()?.cname.map(<[u8]>::to_vec),
            _ => None,
        }
    };
    assert_eq!(cname(&[1, 1, b'a', 0]).as_deref(), Some(&b"a"[..]));
    assert_eq!(cname(&[1, 0, 0, 0]).as_deref(), Some(&b""[..]));
    assert_eq!(cname(&[1, 2, b'a', b'b']), None, "no end");
    assert_eq!(cname(&[1, 255, b'a', 0]), None, "longer than the packet");
    assert_eq!(cname(&[2, 1, b'a', 1]), None, "one byte of an item");
    assert_eq!(cname(&[]), None);
    assert!(is_malformed(&packet(0x81, 202, &ssrc)));
    assert!(!is_malformed(&packet(0x81, 202, &[ssrc, [0; 4]].concat())));
    assert!(is_malformed(&packet(0x82, 202, &[ssrc, [0; 4]].concat())), "a second chunk is missing");
}

#[test]
fn only_the_last_packet_may_be_padded() {
    let bye = packet(0x81, 203, &[0, 0, 0, 1]);
    let padded = packet(0xA1, 203, &[0, 0, 0, 1, 0, 0, 0, 4]);
    let compound = [&bye[..], &padded].concat();
    let packets = packets(&compound);
    let [Packet::Bye { .. }, Packet::Bye { ssrcs }] = packets[..] else { panic!("{packets:?}") };
    assert_eq!(ssrcs.iter().collect::<Vec<_>>(), [Ssrc(1)]);
    assert!(is_malformed(&[&padded[..], &bye].concat()));
    for padding_len in [0, 9, 12, 255] {
        let lie = packet(0xA0, 203, &[0, 0, 0, 1, 0, 0, 0, padding_len]);
        assert!(is_malformed(&lie), "{padding_len}");
    }
    for padding_len in 1..=4 {
        let lie = packet(0xA1, 203, &[0, 0, 0, padding_len]);
        assert!(is_malformed(&lie), "its SSRC was padding");
        let padded = packet(0xA1, 203, &[0, 0, 0, 1, 0, 0, 0, padding_len]);
        assert!(!is_malformed(&padded), "{padding_len}");
    }
    assert!(is_malformed(&packet(0xA0, 203, &[])));
}

#[test]
fn other_versions_are_refused_and_other_types_skipped() {
    for version in [0x00, 0x40, 0xC0] {
        assert!(is_malformed(&packet(version | 1, 203, &[0, 0, 0, 1])));
    }
    let extended_report = packet(0x80, 207, &[0; 16]);
    let unknown = packet(0x85, 222, &[]);
    let transport_wide = packet(0x8F, 205, &[0; 16]);
    let bye = packet(0x80, 203, &[]);
    let compound = [&extended_report[..], &unknown, &transport_wide, &bye].concat();
    let packets = packets(&compound);
    assert!(
        matches!(
            packets[..],
            [
                Packet::Other { packet_type: 207, format: 0 },
                Packet::Other { packet_type: 222, format: 5 },
                Packet::Other { packet_type: 205, format: 15 },
                Packet::Bye { .. },
            ]
        ),
        "{packets:?}"
    );
}

#[test]
fn what_cannot_be_said_is_not_written() {
    let mut out = [0; 1500];
    let mut writer = Writer::new(&mut out);
    assert_eq!(writer.nack(Ssrc(1), Ssrc(2), []), Ok(()));
    assert!(writer.is_empty());
    assert_eq!(writer.cname(Ssrc(1), &"n".repeat(256)), Err(OutOfRoom));
    assert_eq!(writer.bye(&[Ssrc(1); ITEM_COUNT_MAX + 1]), Err(OutOfRoom));
    assert!(writer.is_empty());
    assert_eq!(writer.cname(Ssrc(1), &"n".repeat(255)), Ok(()));
    assert_eq!(writer.bye(&[Ssrc(1); ITEM_COUNT_MAX]), Ok(()));
    let len = writer.len();
    assert_eq!(packets(&out[..len]).len(), 2);
}

#[test]
fn losses_beyond_24_bits_are_clamped() {
    let block = |cumulative_lost| ReportBlock {
        ssrc: Ssrc(1),
        fraction_lost: 255,
        cumulative_lost,
        highest_seq: 0,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    let written = |cumulative_lost| {
        let mut out = [0; 32];
        Writer::new(&mut out).receiver_report(Ssrc(1), [block(cumulative_lost)]).unwrap();
        match packets(&out)[..] {
            [Packet::ReceiverReport { reports, .. }] => reports.iter().next().unwrap(),
            _ => panic!("no RR"),
        }
    };
    for (lost, expected) in [(i32::MAX, 0x7F_FFFF), (i32::MIN, -0x80_0000), (-1, -1), (7, 7)] {
        assert_eq!(written(lost), block(expected));
    }
}
