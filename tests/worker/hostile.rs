//! Whoever lies, floods or is a stranger changes nothing for anybody else.

use super::*;

#[test]
fn strangers_get_nothing_and_leave_nothing() {
    let (mut sim, mut callers) = room_of(2);
    let stranger = path(77, 9);
    let mut voice = [0; 200];
    let len = callers[0].protect(0, b"stolen", &mut voice);
    let sealed = voice[..len].to_vec();
    let rtcp = callers[0].protect_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
    for (bytes, reason) in [
        (sealed.clone(), DropReason::UnknownPath),
        (rtcp, DropReason::UnknownPath),
        (vec![22, 254, 253, 0], DropReason::UnknownPath),
        (vec![100; 50], DropReason::UnknownProtocol),
        (vec![255], DropReason::TooShort),
        (vec![0; 20], DropReason::StunMalformed),
        (
            binding_request_with("AAAAAAAAAAAAA", "no-password-of-ours-is-this", true),
            DropReason::StunUnknownUser,
        ),
        (
            binding_request_with(callers[0].local.ufrag.as_str(), "no-password-of-ours-is-this", true),
            DropReason::StunUnauthenticated,
        ),
    ] {
        let before = sim.drops(reason);
        sim.deliver(stranger, &mut bytes.clone());
        assert_eq!(sim.drops(reason), before + 1, "{reason:?}");
    }
    sim.flush();
    assert_eq!((sim.sent.len(), sim.events().len(), sim.relays().len()), (0, 0, 0));
    // The packet itself was good: from its own address it is heard.
    sim.deliver(callers[0].path, &mut sealed.clone());
    assert_eq!(payloads(&hear(&mut sim, &mut callers[1])), [b"stolen"]);
}

#[test]
fn a_flood_of_bad_tags_has_no_effect_at_all() {
    let (mut sim, mut callers) = room_of(3);
    let mut seqs = Vec::new();
    sim.speak(&mut callers[0], 127, b"voice");
    seqs.extend(hear(&mut sim, &mut callers[1]).iter().map(|heard| heard.seq));
    sim.pass(Duration::from_millis(400));
    sim.events();
    sim.sent.clear();
    let victim = callers[0].path;
    let mut forged_count = 0;
    for round in 0..50_u16 {
        for forged in 0..200_u16 {
            // The victim's SSRC, at its loudest, far ahead of its sequence; every fourth is SRTCP.
            let seq = 3_000 + 200 * round + forged;
            let mut bytes = [0xA5; 80];
            bytes[..2].copy_from_slice(if forged % 4 == 0 { &[0x80, 205] } else { &[0x90, OPUS] });
            bytes[2..4].copy_from_slice(&seq.to_be_bytes());
            let ssrc_at = if forged % 4 == 0 { 4 } else { 8 };
            bytes[ssrc_at..ssrc_at + 4].copy_from_slice(&callers[0].ssrc.0.to_be_bytes());
            bytes[12..20].copy_from_slice(&[0xBE, 0xDE, 0, 1, 0x10, 0, 0, 0]);
            sim.deliver(victim, &mut bytes);
            forged_count += 1;
        }
        sim.pass(MS20);
        sim.speak(&mut callers[0], 127, b"voice");
        sim.flush();
        seqs.extend(sim.heard(&mut callers[1]).iter().map(|heard| heard.seq));
        let (blocks, _) = reports_to(&sim, &mut callers[0]);
        for block in blocks {
            assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 0), "no loss was seen");
            assert!(block.highest_seq < 1_000, "no sequence number was believed");
        }
        sim.sent.clear();
    }
    assert_eq!(sim.drops(DropReason::BadAuthTag), forged_count);
    assert_eq!(seqs.len(), 51);
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "every word was heard");
    let told = sim.events();
    assert!(told.iter().all(|event| matches!(event, Event::Counters(_))), "no level, no state");
}

#[test]
fn a_flood_of_dtls_reaches_control_only_so_far_each_second() {
    let mut sim = Sim::new(8);
    let (flooder, other) = (sim.add(1, GCM), sim.add(2, GCM));
    let handed_over = |sim: &mut Sim, caller: &Caller| {
        let is_it =
            |event: &Event| matches!(event, Event::Dtls { transport, .. } if *transport == caller.transport);
        sim.events().iter().filter(|event| is_it(event)).count()
    };
    sim.consent(&flooder);
    sim.consent(&other);
    for second in 1..=3 {
        for _ in 0..200 {
            sim.deliver(flooder.path, &mut DTLS.clone());
        }
        assert_eq!(handed_over(&mut sim, &flooder), 64);
        assert_eq!(sim.drops(DropReason::DtlsLimit), 136 * second);
        sim.deliver(other.path, &mut DTLS.clone());
        assert_eq!(handed_over(&mut sim, &other), 1, "each has a share of its own");
        sim.pass(Duration::from_secs(1));
    }
}

#[test]
fn a_flood_of_rtcp_is_not_read_beyond_its_rate_and_costs_no_voice() {
    let (mut sim, mut callers) = room_of(2);
    for second in 1..=3 {
        for _ in 0..400 {
            // What was read shows in a counter of its own.
            let sealed = callers[0].protect_rtcp(&[0x9F, 200, 0, 1, 0, 0, 0, 1]);
            sim.deliver(callers[0].path, &mut sealed.clone());
        }
        assert_eq!(sim.drops(DropReason::RtcpMalformed), 250 * second);
        assert_eq!(sim.drops(DropReason::RateLimited), 150 * second);
        sim.speak(&mut callers[0], 20, b"voice");
        assert_eq!(payloads(&hear(&mut sim, &mut callers[1])), [b"voice"]);
        sim.pass(Duration::from_secs(1));
    }
}

#[test]
fn what_was_heard_once_is_not_heard_again() {
    for profile in SrtpProfile::ALL {
        let mut sim = Sim::new(8);
        let (mut speaker, mut listener) = (sim.join(1, profile), sim.join(2, profile));
        let track = sim.publish(&speaker);
        sim.add_slot(&listener, 0, Some(track));
        sim.sent.clear();
        let mut recorded = Vec::new();
        for _ in 0..20 {
            let mut bytes = [0; 200];
            let len = speaker.protect(20, b"voice", &mut bytes);
            recorded.push(bytes[..len].to_vec());
        }
        for bytes in &recorded {
            sim.deliver(speaker.path, &mut bytes.clone());
            sim.deliver(speaker.path, &mut bytes.clone());
        }
        assert_eq!(hear(&mut sim, &mut listener).len(), 20);
        for bytes in recorded.iter().rev() {
            sim.deliver(speaker.path, &mut bytes.clone());
        }
        assert_eq!(hear(&mut sim, &mut listener), []);
        assert_eq!(sim.drops(DropReason::Replayed), 40, "{profile:?}");
        let report = speaker.protect_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 1]);
        sim.deliver(speaker.path, &mut report.clone());
        assert_eq!(sim.drops(DropReason::Replayed), 40);
        sim.deliver(speaker.path, &mut report.clone());
        assert_eq!(sim.drops(DropReason::Replayed), 41);
    }
}

/// A header without extensions.
fn plain_header(payload_type: u8, ssrc: Ssrc) -> Vec<u8> {
    let mut header = vec![0x80, payload_type, 0, 0, 0, 0, 0, 9];
    header.extend(ssrc.0.to_be_bytes());
    header
}

/// A header with a MID.
fn header_with_mid(mid: u8, ssrc: Ssrc) -> Vec<u8> {
    let mut header = plain_header(OPUS, ssrc);
    header[0] = 0x90;
    header.extend([0xBE, 0xDE, 0, 1, 0x40, mid, 0, 0]);
    header
}

#[test]
fn a_peer_that_changes_its_ssrc_all_the_time_is_cut_off_at_the_table() {
    let (mut sim, mut callers) = room_of(3);
    sim.speak(&mut callers[0], 20, b"first");
    let first = hear(&mut sim, &mut callers[2]).remove(0);
    let mut seqs = vec![first.seq];
    for n in 0..2_000 {
        if n % 20 == 0 {
            sim.pass(MS20 * 10);
        }
        let bytes =
            callers[0].protect_packet(PacketIndex(9), &plain_header(OPUS, Ssrc(0x7000_0000 + n)), b"x");
        sim.deliver(callers[0].path, &mut bytes.clone());
        seqs.extend(hear(&mut sim, &mut callers[2]).iter().map(|heard| heard.seq));
    }
    assert!(sim.drops(DropReason::SsrcLimit) >= 1_700, "{}", sim.drops(DropReason::SsrcLimit));
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "the line went on");
    // Itself under the SSRC that it began with, and the others, are heard as before.
    sim.speak(&mut callers[0], 20, b"again");
    sim.speak(&mut callers[1], 20, b"other");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b"again", b"other"]);
}

#[test]
fn a_voice_whose_first_packet_is_refused_is_heard_from_the_next() {
    let (mut sim, mut callers) = room_of(2);
    for _ in 0..300 {
        sim.speak(&mut callers[0], 20, b"a burst");
    }
    hear(&mut sim, &mut callers[1]);
    let refused = sim.drops(DropReason::RateLimited);
    assert!(refused > 0);
    // Another SSRC, whose numbers are lower.
    let renewed = plain_header(OPUS, Ssrc(0x7000_0000));
    let mut say = |sim: &mut Sim, index| {
        let bytes = callers[0].protect_packet(PacketIndex(index), &renewed, b"renewed");
        sim.deliver(callers[0].path, &mut bytes.clone());
    };
    say(&mut sim, 1);
    assert_eq!(sim.drops(DropReason::RateLimited), refused + 1);
    sim.pass(Duration::from_secs(1));
    say(&mut sim, 2);
    assert_eq!(payloads(&hear(&mut sim, &mut callers[1])), [b"renewed"]);
}

#[test]
fn an_ssrc_or_a_mid_names_nothing_of_anybody_else() {
    let (mut sim, mut callers) = room_of(3);
    sim.speak(&mut callers[0], 20, b"one");
    hear(&mut sim, &mut callers[2]);
    // Caller 2 speaks under the SSRC of caller 1: it is heard as caller 2.
    let stolen = callers[0].ssrc;
    let bytes = callers[1].protect_packet(PacketIndex(500), &plain_header(OPUS, stolen), b"two");
    sim.deliver(callers[1].path, &mut bytes.clone());
    let heard = hear(&mut sim, &mut callers[2]);
    assert_eq!((heard[0].ssrc, payloads(&heard)), (slot_ssrc(2), vec![&b"two"[..]]));
    // A MID that is none of its own.
    let bytes = callers[1].protect_packet(PacketIndex(1), &header_with_mid(b'7', Ssrc(5)), b"lie");
    sim.deliver(callers[1].path, &mut bytes.clone());
    assert_eq!(hear(&mut sim, &mut callers[2]), []);
    assert_eq!(sim.drops(DropReason::RtpUnknownStream), 1);
}

#[test]
fn two_m_lines_of_a_peer_are_told_apart_by_their_mid() {
    let mut sim = Sim::new(8);
    let (mut speaker, mut listener) = (sim.join(1, GCM), sim.join(2, GCM));
    for (track, mid) in [(10, "0"), (11, "1")] {
        let stream = PublishedStream {
            mid: Mid::parse(mid).unwrap(),
            is_only: false,
            ssrcs: Vec::new(),
            payload_type: PayloadType::new(OPUS).unwrap(),
            extensions: IDS,
        };
        let (transport, track) = (speaker.transport, TrackId(track));
        sim.command(Command::Publish { transport, track, stream: Box::new(stream), muted: false });
        sim.add_slot(&listener, track.0 as u16, Some(track));
    }
    sim.sent.clear();
    let mut say = |sim: &mut Sim, index, header: Vec<u8>, payload: &[u8]| {
        let bytes = speaker.protect_packet(PacketIndex(index), &header, payload);
        sim.deliver(speaker.path, &mut bytes.clone());
        hear(sim, &mut listener).into_iter().map(|heard| heard.ssrc).collect::<Vec<_>>()
    };
    assert_eq!(say(&mut sim, 1, plain_header(OPUS, Ssrc(1)), b"who?"), []);
    assert_eq!(say(&mut sim, 2, header_with_mid(b'1', Ssrc(1)), b"one"), [slot_ssrc(11)]);
    assert_eq!(say(&mut sim, 3, plain_header(OPUS, Ssrc(1)), b"one"), [slot_ssrc(11)], "bound by now");
    assert_eq!(say(&mut sim, 4, header_with_mid(b'0', Ssrc(2)), b"nought"), [slot_ssrc(10)]);
    assert_eq!(sim.drops(DropReason::RtpUnknownStream), 1);
}

#[test]
fn packets_that_lie_are_dropped_one_by_one() {
    let (mut sim, mut callers) = room_of(2);
    let ssrc = callers[0].ssrc;
    let mut index = 200;
    let mut say = |sim: &mut Sim, callers: &mut [Caller], header: &[u8], payload: &[u8]| {
        index += 1;
        let bytes = callers[0].protect_packet(PacketIndex(index), header, payload);
        sim.deliver(callers[0].path, &mut bytes.clone());
        hear(sim, &mut callers[1]).into_iter().map(|heard| heard.payload).collect::<Vec<_>>()
    };
    let plain = plain_header(OPUS, ssrc);
    assert_eq!(say(&mut sim, &mut callers, &plain, b"voice"), [b"voice"]);
    // Payload types that were not negotiated.
    for payload_type in [0, 63, 96, 127] {
        assert!(say(&mut sim, &mut callers, &plain_header(payload_type, ssrc), b"voice").is_empty());
    }
    assert_eq!(sim.drops(DropReason::RtpUnknownPayloadType), 4);
    // Padding of 0, of more than there is, of nothing.
    let padded = [&[0xA0], &plain[1..]].concat();
    for payload in [&b"voice\0"[..], b"voice\x07", b"\xFF", b""] {
        assert!(say(&mut sim, &mut callers, &padded, payload).is_empty());
    }
    assert_eq!(sim.drops(DropReason::RtpMalformed), 4);
    // Padding that is what it says; padding and nothing else; nothing at all.
    assert_eq!(say(&mut sim, &mut callers, &padded, b"voice\0\0\x03"), [b"voice"]);
    assert!(say(&mut sim, &mut callers, &padded, b"\0\0\0\x04").is_empty());
    assert!(say(&mut sim, &mut callers, &plain, b"").is_empty());
    // Extensions that end in the middle of an element, of an unknown kind, or with the id that ends them.
    for extension in [
        &[0xBE, 0xDE, 0, 1, 0x1F, 1, 2, 3][..],
        &[0x12, 0x34, 0, 1, 1, 2, 3, 4],
        &[0xBE, 0xDE, 0, 1, 0xF0, 0, 0x10, 9],
        &[0x10, 0, 0, 1, 1, 200, 0, 0],
        &[0xBE, 0xDE, 0, 0],
    ] {
        let header = [&[0x90], &plain[1..], extension].concat();
        assert_eq!(say(&mut sim, &mut callers, &header, b"voice"), [b"voice"]);
    }
    // Lengths beyond the packet, in front of any key.
    for (first, rest) in [(0x90, &[0xBE, 0xDE, 0xFF, 0xFF][..]), (0x90, &[]), (0x8F, &[1; 16])] {
        let mut bytes = [&[first], &plain[1..], rest].concat();
        sim.deliver(callers[0].path, &mut bytes);
    }
    assert_eq!(sim.drops(DropReason::RtpMalformed), 7);
    assert_eq!(say(&mut sim, &mut callers, &plain, b"voice"), [b"voice"], "the call goes on");
    assert_eq!(states(&mut sim), []);
}

#[test]
fn rtcp_that_lies_is_dropped_and_what_it_says_of_others_counts_for_nothing() {
    let (mut sim, mut callers) = room_of(3);
    sim.speak(&mut callers[0], 10, b"voice");
    sim.flush();
    sim.sent.clear();
    let [a, b, c, d] = callers[0].ssrc.0.to_be_bytes();
    let [e, f, g, h] = callers[1].ssrc.0.to_be_bytes();
    let mut many_nacks = vec![0x81, 205, 0, 0, e, f, g, h, a, b, c, d];
    (0..340_u16).for_each(|n| many_nacks.extend([&(n * 17).to_be_bytes()[..], &[0xFF, 0xFF]].concat()));
    let words = (many_nacks.len() / 4 - 1) as u16;
    many_nacks[2..4].copy_from_slice(&words.to_be_bytes());
    let malformed: [&[u8]; 6] = [
        &[0x80, 201, 0, 200, 0, 0, 0, 1],
        &[0x9F, 200, 0, 1, 0, 0, 0, 1],
        &[0x9F, 203, 0, 1, a, b, c, d],
        &[0xA0, 201, 0, 1, 0, 0, 0, 0xFF],
        &[0x8F, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, b'R', b'E', b'M', b'B', 255, 0, 0, 0, 0, 0, 0, 0],
        &[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 200, 0, 0],
    ];
    for lie in malformed {
        let sealed = callers[1].protect_rtcp(lie);
        sim.deliver(callers[1].path, &mut sealed.clone());
    }
    assert_eq!(sim.drops(DropReason::RtcpMalformed), 6);
    // 5,780 packets wanted again, 40 times over; a keyframe; a goodbye in another's name.
    for _ in 0..40 {
        let sealed = callers[1].protect_rtcp(&many_nacks);
        sim.deliver(callers[1].path, &mut sealed.clone());
    }
    for other in [&[0x81, 206, 0, 2, e, f, g, h, a, b, c, d][..], &[0x81, 203, 0, 1, a, b, c, d]] {
        let sealed = callers[1].protect_rtcp(other);
        sim.deliver(callers[1].path, &mut sealed.clone());
    }
    sim.flush();
    assert_eq!(sim.sent.len(), 0, "nothing is sent for the asking");
    // Caller 1 still speaks, as everybody will be told.
    for _ in 0..5 {
        sim.speak(&mut callers[0], 10, b"voice");
    }
    let goodbye = callers[1].protect_rtcp(&[0x81, 203, 0, 1, a, b, c, d]);
    sim.deliver(callers[1].path, &mut goodbye.clone());
    sim.pass(Duration::from_millis(100));
    let speakers: Vec<_> = sim
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::ActiveSpeakers { speakers, .. } => Some(speakers),
            _ => None,
        })
        .collect();
    assert_eq!(speakers.len(), 1);
    assert_eq!(speakers[0][0].0, TrackId(1));
    // Its own goodbye counts.
    let goodbye = callers[0].protect_rtcp(&[0x81, 203, 0, 1, a, b, c, d]);
    sim.deliver(callers[0].path, &mut goodbye.clone());
    sim.pass(Duration::from_millis(350));
    let silent =
        |event: &Event| matches!(event, Event::ActiveSpeakers { speakers, .. } if speakers.is_empty());
    assert!(sim.events().iter().any(silent));
}
