//! What a receiver counts, against the sample code of RFC 3550 appendix A word for word.

use std::time::{Duration, Instant};

use gryt_sfu::ids::Ssrc;
use gryt_sfu::rtcp::reception::Reception;
use gryt_sfu::rtcp::report::ReportBlock;
use gryt_sfu::time::{Now, NtpTime, RtpTime};
use proptest::collection::vec;
use proptest::prelude::*;

const CLOCK_RATE: u32 = 48_000;
/// Ticks of a packet of 20 ms.
const FRAME: u32 = 960;

/// `source` of RFC 3550 A.1, with `init_seq`, `update_seq` (without the probation, and with another MAX_MISORDER), the
/// loss of A.3 and the jitter of A.8, in wider types than the RFC's so that it cannot wrap where ours could.
struct Source {
    max_seq: u16,
    cycles: u64,
    base_seq: u64,
    bad_seq: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    transit: i64,
    jitter: i64,
}

impl Source {
    const RTP_SEQ_MOD: u64 = 1 << 16;

    fn new(seq: u16) -> Source {
        let mut source = Source {
            max_seq: 0,
            cycles: 0,
            base_seq: 0,
            bad_seq: 0,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            transit: 0,
            jitter: 0,
        };
        source.init_seq(seq);
        source
    }

    fn init_seq(&mut self, seq: u16) {
        self.base_seq = seq.into();
        self.max_seq = seq;
        self.bad_seq = Source::RTP_SEQ_MOD + 1;
        self.cycles = 0;
        self.received = 0;
        self.received_prior = 0;
        self.expected_prior = 0;
    }

    fn update_seq(&mut self, seq: u16) {
        const MAX_DROPOUT: u64 = 3000;
        const MAX_MISORDER: u64 = 1024;

        let udelta = u64::from(seq.wrapping_sub(self.max_seq));
        if udelta < MAX_DROPOUT {
            if seq < self.max_seq {
                self.cycles += Source::RTP_SEQ_MOD;
            }
            self.max_seq = seq;
        } else if udelta <= Source::RTP_SEQ_MOD - MAX_MISORDER {
            if u64::from(seq) == self.bad_seq {
                self.init_seq(seq);
            } else {
                self.bad_seq = u64::from(seq.wrapping_add(1));
                return;
            }
        }
        self.received += 1;
    }

    fn update_jitter(&mut self, arrival: i64, rtp_time: i64) {
        let transit = arrival - rtp_time;
        let d = (transit - self.transit).abs();
        self.transit = transit;
        self.jitter += d - ((self.jitter + 8) >> 4);
    }

    fn extended_max(&self) -> u64 {
        self.cycles + u64::from(self.max_seq)
    }

    fn lost(&self) -> i64 {
        (self.extended_max() - self.base_seq + 1) as i64 - self.received as i64
    }

    fn fraction(&mut self) -> u8 {
        let expected = self.extended_max() - self.base_seq + 1;
        let expected_interval = expected - self.expected_prior;
        self.expected_prior = expected;
        let received_interval = self.received - self.received_prior;
        self.received_prior = self.received;
        let lost_interval = expected_interval as i64 - received_interval as i64;
        if expected_interval == 0 || lost_interval <= 0 {
            0
        } else {
            ((lost_interval << 8) / expected_interval as i64) as u8
        }
    }
}

struct Stream {
    reception: Reception,
    now: Instant,
    rtp_time: u32,
}

impl Stream {
    fn new() -> Stream {
        Stream { reception: Reception::new(Ssrc(5)), now: Now::read().instant, rtp_time: 0xFFFF_F000 }
    }

    /// A packet 20 ms after the last one, in both times.
    fn packet(&mut self, seq: u16) {
        self.now += Duration::from_millis(20);
        self.rtp_time = self.rtp_time.wrapping_add(FRAME);
        self.reception.handle_packet(self.now, RtpTime(self.rtp_time), seq, CLOCK_RATE);
    }

    fn report(&mut self) -> ReportBlock {
        self.reception.report_block(self.now).expect("a report")
    }
}

#[test]
fn nothing_is_reported_before_the_first_packet() {
    let mut stream = Stream::new();
    stream.reception.handle_sender_report(stream.now, NtpTime(1 << 32));
    assert_eq!(stream.reception.report_block(stream.now), None);
    assert_eq!((stream.reception.received_count(), stream.reception.cumulative_lost()), (0, 0));
    stream.packet(7);
    let report = stream.report();
    assert_eq!((report.ssrc, report.highest_seq), (Ssrc(5), 7));
}

#[test]
fn losses_count_once_and_a_late_packet_takes_one_back() {
    let mut stream = Stream::new();
    for seq in [65_533, 65_534, 1, 2] {
        stream.packet(seq); // 65535 and 0 are missing.
    }
    let report = stream.report();
    assert_eq!((report.cumulative_lost, report.fraction_lost), (2, (2 * 256 / 6) as u8));
    assert_eq!(report.highest_seq, 0x1_0002);
    assert_eq!(stream.reception.report_block(stream.now), None, "nothing since");

    stream.packet(65_535);
    let report = stream.report();
    assert_eq!((report.cumulative_lost, report.fraction_lost, report.highest_seq), (1, 0, 0x1_0002));
    for _ in 0..3 {
        stream.packet(2);
    }
    assert_eq!(stream.report().cumulative_lost, -2, "duplicates outweigh");
    assert_eq!(stream.reception.received_count(), 8);
}

#[test]
fn a_single_packet_out_of_nowhere_changes_nothing_and_two_are_a_new_beginning() {
    let mut stream = Stream::new();
    for seq in 0..10 {
        stream.packet(seq);
    }
    stream.packet(30_000);
    assert_eq!(stream.report().highest_seq, 9);
    stream.packet(10);
    let report = stream.report();
    assert_eq!((report.highest_seq, report.cumulative_lost), (10, 0));
    stream.packet(30_000);
    stream.packet(30_001);
    let report = stream.report();
    assert_eq!((report.highest_seq, report.cumulative_lost), (30_001, 0));
    assert_eq!(stream.reception.received_count(), 1);
}

/// As when the old path of one who changed networks still gives up what it held.
#[test]
fn what_is_seconds_late_is_no_new_beginning() {
    let mut stream = Stream::new();
    for seq in (0..50).chain(100..=200) {
        stream.packet(seq);
    }
    assert_eq!(stream.report().cumulative_lost, 50);
    for seq in (50..100).chain([201]) {
        stream.packet(seq);
    }
    let report = stream.report();
    assert_eq!((report.cumulative_lost, report.fraction_lost, report.highest_seq), (0, 0, 201));
    assert_eq!(stream.reception.received_count(), 202);
}

#[test]
fn a_steady_stream_has_no_jitter_across_the_wrap_of_media_time() {
    let mut stream = Stream::new();
    for seq in 0..1000 {
        stream.packet(seq);
    }
    assert_eq!(stream.report().jitter, 0);
    stream.now += Duration::from_millis(10);
    stream.packet(1000);
    assert_eq!(stream.report().jitter, 480 / 16);
}

#[test]
fn a_pause_of_days_is_no_jitter_where_media_time_went_on() {
    let mut stream = Stream::new();
    stream.packet(0);
    let pause = Duration::from_secs(9 * 24 * 3600);
    stream.now += pause;
    stream.rtp_time = RtpTime(stream.rtp_time).after(pause, CLOCK_RATE).0;
    stream.packet(1);
    assert_eq!(stream.report().jitter, 0);
}

#[test]
fn the_last_sender_report_and_the_time_since() {
    let mut stream = Stream::new();
    stream.packet(0);
    let report = stream.report();
    assert_eq!((report.last_sr, report.delay_since_last_sr), (0, 0));
    let sent = NtpTime(0x1234_5678_9ABC_DEF0);
    stream.reception.handle_sender_report(stream.now, sent);
    stream.now += Duration::from_millis(1500);
    let report = stream.report();
    assert_eq!((report.last_sr, report.delay_since_last_sr), (0x5678_9ABC, 0x1_8000));

    // What the sender makes of it: 100 ms there and back.
    let round_trip = report.round_trip(sent.after(Duration::from_millis(1600))).unwrap();
    assert!(round_trip.abs_diff(Duration::from_millis(100)) < Duration::from_micros(16), "{round_trip:?}");
}

proptest! {
    #[test]
    fn agrees_with_the_rfc(
        first in any::<u16>(),
        steps in vec(
            (
                prop_oneof![
                    20 => Just(1_u16), 2 => 0_u16..30, 2 => 65_400_u16..=65_535, 1 => 2_900_u16..3_100,
                    1 => 64_480_u16..64_540, 1 => any::<u16>(),
                ],
                0_u64..80_000, // Microseconds between packets.
                any::<bool>(),
            ),
            0..600,
        ),
    ) {
        let start = Now::read().instant;
        let mut reception = Reception::new(Ssrc(1));
        let mut source = Source::new(first);
        let (mut seq, mut elapsed_us, mut rtp_time) = (first, 0_u64, 0_i64);
        source.received = 1; // The RFC's first packet goes through `update_seq` after probation.
        reception.handle_packet(start, RtpTime(0), first, CLOCK_RATE);
        for (step, gap_us, is_reported) in steps {
            seq = seq.wrapping_add(step);
            elapsed_us += gap_us;
            rtp_time += i64::from(FRAME);
            let now = start + Duration::from_micros(elapsed_us);
            reception.handle_packet(now, RtpTime(rtp_time as u32), seq, CLOCK_RATE);
            source.update_seq(seq);
            source.update_jitter((elapsed_us * u64::from(CLOCK_RATE) / 1_000_000) as i64, rtp_time);
            if is_reported {
                let report = reception.report_block(now).unwrap();
                prop_assert_eq!(u64::from(report.highest_seq), source.extended_max());
                prop_assert_eq!(i64::from(report.cumulative_lost), source.lost());
                prop_assert_eq!(report.fraction_lost, source.fraction());
                prop_assert_eq!(i64::from(report.jitter), source.jitter >> 4);
            }
        }
    }

    #[test]
    fn no_stream_makes_it_panic(
        packets in vec((any::<u64>(), any::<u32>(), any::<u16>(), any::<u32>()), 0..200),
    ) {
        let start = Now::read().instant;
        let mut reception = Reception::new(Ssrc(1));
        for (offset_ns, rtp_time, seq, clock_rate) in packets {
            // Time may even go back.
            let now = start + Duration::from_nanos(offset_ns >> 8);
            reception.handle_packet(now, RtpTime(rtp_time), seq, clock_rate);
            reception.handle_sender_report(now, NtpTime(offset_ns));
            let _ = reception.report_block(start);
        }
    }
}
