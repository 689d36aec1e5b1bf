//! What a run found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::histogram::Histogram;

/// Different texts of failures that are kept; the server may invent some.
const FAILURE_TEXT_COUNT_MAX: usize = 20;

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Second {
    /// Since the first join.
    pub(crate) at: f64,
    pub(crate) connected: u64,
    pub(crate) received_per_second: f64,
    /// `None` where it is counted for the whole run only.
    pub(crate) loss_percent: Option<f64>,
    pub(crate) latency_ms: Option<Latency>,
    /// All of the delays, so that seconds can be taken together: µs, at most a 32nd too many, and how often.
    pub(crate) latency_counts: Vec<(u64, u64)>,
    pub(crate) server_cpu_percent: Option<f64>,
    pub(crate) server_mib: Option<f64>,
    /// Of the busiest thread of listeners with one of speakers.
    pub(crate) own_cpu_percent: f64,
    pub(crate) overflowed: u64,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    pub(crate) fn of(histogram: &Histogram) -> Option<Latency> {
        let at = |permille| histogram.quantile(permille).map(|micros| micros as f64 / 1_000.0);
        Some(Latency {
            p50: at(500)?,
            p90: at(900)?,
            p95: at(950)?,
            p99: at(990)?,
            p999: at(999)?,
            max: histogram.max() as f64 / 1_000.0,
        })
    }
}

/// How joining went.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Joins {
    /// First joins and those again.
    pub(crate) started: u64,
    pub(crate) connected: u64,
    /// Never connected.
    pub(crate) failed: u64,
    /// Connected, then lost.
    pub(crate) lost: u64,
    /// Members that churn made leave and join again.
    pub(crate) rejoined: u64,
    pub(crate) to_connected_ms: Option<Latency>,
    pub(crate) to_first_audio_ms: Option<Latency>,
    /// Distributions, by percentile from 0 to 100.
    #[serde(skip)]
    pub(crate) connected_curve: Vec<f64>,
    #[serde(skip)]
    pub(crate) audio_curve: Vec<f64>,
}

/// Values in milliseconds at each percent from 0 to 100.
pub(crate) fn curve(histogram: &Histogram) -> Vec<f64> {
    (0..=100).filter_map(|percent| Some(histogram.quantile(percent * 10)? as f64 / 1_000.0)).collect()
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Packets {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) missing: u64,
    pub(crate) loss_percent: f64,
    pub(crate) doubles: u64,
    pub(crate) unreadable: u64,
    /// (Listener, speaker) pairs at the end.
    pub(crate) pairs_heard: u64,
    pub(crate) pairs_unheard: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Server {
    pub(crate) pid: u32,
    pub(crate) cpu_percent_mean: f64,
    pub(crate) cpu_percent_max: f64,
    pub(crate) mib_first: f64,
    pub(crate) mib_last: f64,
    pub(crate) mib_max: f64,
}

/// The program that measures.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Own {
    /// Of the busiest thread of listeners with one of speakers, in its busiest second and over the run.
    pub(crate) cpu_percent_max: f64,
    pub(crate) cpu_percent_mean: f64,
    /// Datagrams that came but were dropped because we did not read them in time.
    pub(crate) overflowed: u64,
    /// Why the figures say more about this program than about the server, if they do.
    pub(crate) bottleneck: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Setting {
    pub(crate) url: String,
    pub(crate) rooms: u32,
    pub(crate) speakers: u32,
    pub(crate) listeners: u32,
    pub(crate) seconds: u32,
    pub(crate) join_rate: u32,
    pub(crate) churn: u32,
    pub(crate) light: bool,
    pub(crate) hear_every: u32,
    pub(crate) deaf_speakers: bool,
    pub(crate) voice: String,
}

/// The whole of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outcome {
    pub(crate) setting: Setting,
    /// From the first join to the end.
    pub(crate) duration_seconds: f64,
    /// Ended by a signal.
    pub(crate) interrupted: bool,
    pub(crate) joins: Joins,
    pub(crate) packets: Packets,
    pub(crate) latency_ms: Option<Latency>,
    pub(crate) server: Option<Server>,
    pub(crate) own: Own,
    /// What went wrong, how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Thresholds that are broken, in words.
    pub(crate) broken: Vec<String>,
    pub(crate) seconds: Vec<Second>,
}

/// What may be at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    pub(crate) loss_percent: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) failures: u64,
}

impl Outcome {
    pub(crate) fn count_failure(&mut self, why: String) {
        let is_new = !self.failures.contains_key(&why);
        let why = if is_new && self.failures.len() >= FAILURE_TEXT_COUNT_MAX { "other".into() } else { why };
        *self.failures.entry(why).or_default() += 1;
    }

    /// Says which thresholds are broken.
    pub(crate) fn judge(&mut self, thresholds: Thresholds) {
        let failures = self.joins.failed + self.joins.lost;
        if failures > thresholds.failures {
            self.broken.push(format!(
                "{failures} joins failed or connections were lost, allowed: {}",
                thresholds.failures
            ));
        }
        let can_be_heard = self.setting.speakers > 0 && self.setting.speakers + self.setting.listeners > 1;
        if self.packets.received == 0 && can_be_heard {
            self.broken.push("nothing was heard".into());
        }
        if let Some(most) = thresholds.loss_percent.filter(|&most| self.packets.loss_percent > most) {
            self.broken.push(format!(
                "{:.3} % of the packets were lost, allowed: {most} %",
                self.packets.loss_percent
            ));
        }
        if let (Some(most), Some(latency)) = (thresholds.p99_ms, self.latency_ms)
            && latency.p99 > most
        {
            self.broken
                .push(format!("the 99th percentile of latency is {:.2} ms, allowed: {most} ms", latency.p99));
        }
    }

    /// For a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<16} {value}"); // A `String` takes everything.
        };
        let Outcome { joins, packets, own, .. } = self;
        let again =
            if joins.rejoined > 0 { format!(", {} of them again", joins.rejoined) } else { String::new() };
        row(
            "joins",
            format!(
                "{} started{again}; {} connected, {} failed, {} lost",
                joins.started, joins.connected, joins.failed, joins.lost
            ),
        );
        for (name, times) in
            [("to connected", joins.to_connected_ms), ("to first audio", joins.to_first_audio_ms)]
        {
            row(
                name,
                times.map_or("none".into(), |times| {
                    format!("p50 {}  p95 {}  max {}", ms(times.p50), ms(times.p95), ms(times.max))
                }),
            );
        }
        row(
            "packets",
            format!(
                "{} sent, {} received, {} missing",
                thousands(packets.sent),
                thousands(packets.received),
                thousands(packets.missing)
            ),
        );
        row("loss", format!("{:.3} %", packets.loss_percent));
        row(
            "pairs heard",
            format!("{} of {}", packets.pairs_heard, packets.pairs_heard + packets.pairs_unheard),
        );
        if packets.doubles + packets.unreadable > 0 {
            row(
                "oddities",
                format!("{} came twice, {} could not be read", packets.doubles, packets.unreadable),
            );
        }
        row(
            "latency",
            self.latency_ms.map_or("none".into(), |at| {
                format!(
                    "p50 {}  p95 {}  p99 {}  p99.9 {}  max {}",
                    ms(at.p50),
                    ms(at.p95),
                    ms(at.p99),
                    ms(at.p999),
                    ms(at.max)
                )
            }),
        );
        if let Some(server) = &self.server {
            row(
                "server CPU",
                format!("mean {:.1} %  max {:.1} %", server.cpu_percent_mean, server.cpu_percent_max),
            );
            row(
                "server memory",
                format!(
                    "first {:.1} MiB  last {:.1} MiB  max {:.1} MiB",
                    server.mib_first, server.mib_last, server.mib_max
                ),
            );
        }
        row(
            "own CPU",
            format!(
                "mean {:.1} %  max {:.1} % of a core (busiest of --threads)",
                own.cpu_percent_mean, own.cpu_percent_max
            ),
        );
        for (why, count) in &self.failures {
            row("failed", format!("{count} × {why}"));
        }
        if let Some(why) = &own.bottleneck {
            row("CAUTION", why.clone());
        }
        for broken in &self.broken {
            row("BROKEN", broken.clone());
        }
        text
    }
}

/// Milliseconds, three digits that count.
pub(crate) fn ms(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0} ms"),
        value if value >= 10.0 => format!("{value:.1} ms"),
        value => format!("{value:.2} ms"),
    }
}

/// Digits in groups of three.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard() -> Outcome {
        let setting = Setting { speakers: 1, listeners: 1, ..Setting::default() };
        let packets = Packets { received: 1_000, loss_percent: 0.5, ..Packets::default() };
        let latency_ms = Some(Latency { p99: 12.0, ..Latency::default() });
        Outcome { setting, packets, latency_ms, ..Outcome::default() }
    }

    #[test]
    fn thresholds_break_when_passed_and_not_before() {
        let judge = |change: fn(&mut Outcome), thresholds| {
            let mut outcome = heard();
            change(&mut outcome);
            outcome.judge(thresholds);
            outcome.broken.len()
        };
        let none = Thresholds::default();
        assert_eq!(judge(|_| {}, none), 0);
        assert_eq!(judge(|_| {}, Thresholds { loss_percent: Some(0.5), p99_ms: Some(12.0), failures: 0 }), 0);
        assert_eq!(judge(|_| {}, Thresholds { loss_percent: Some(0.4), p99_ms: Some(11.0), failures: 0 }), 2);
        assert_eq!(judge(|outcome| outcome.joins.failed = 1, none), 1);
        assert_eq!(judge(|outcome| outcome.joins.lost = 2, Thresholds { failures: 2, ..none }), 0);
        assert_eq!(judge(|outcome| outcome.packets.received = 0, none), 1);
        assert_eq!(judge(|outcome| (outcome.packets.received, outcome.setting.speakers) = (0, 0), none), 0);
    }

    #[test]
    fn failures_are_bounded() {
        let mut outcome = Outcome::default();
        (0..1_000).for_each(|i| outcome.count_failure(format!("failure {i}")));
        assert_eq!(outcome.failures.len(), FAILURE_TEXT_COUNT_MAX + 1);
        assert_eq!(outcome.failures.values().sum::<u64>(), 1_000);
        assert!(outcome.table().contains("other"));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.123, 12.34, 123.4].map(ms), ["0.12 ms", "12.3 ms", "123 ms"]);
    }
}
