//! Counters as text: the OpenMetrics format, which Prometheus reads, and the one before it, which others read.
//!
//! Labels are a worker's number and the reason of a drop, never a room or a user: what anybody can
//! invent must not become a time series.

use std::collections::HashSet;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::counters::{WAIT_BOUNDS, WorkerCounters};
use super::histogram::Histogram;
use crate::packet::DropReason;

/// Everything that is counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By worker, from worker 0.
    pub workers: Vec<WorkerCounters>,
    /// Of the control thread.
    pub control: ControlCounters,
    /// Of the front door.
    pub http: HttpCounters,
}

/// What control counts. Cumulative where not said to be a gauge.
#[derive(Clone, Debug)]
pub struct ControlCounters {
    /// Gauge: when the server began, in seconds of Unix time.
    pub started_at: u64,
    /// Gauge: rooms with somebody in them.
    pub rooms: u64,
    /// Gauge: participants, those included who may resume.
    pub participants: u64,
    /// Gauge: those of them whose WebSocket is lost.
    pub participants_lost: u64,
    /// Gauge: orders that wait for room in a worker's queue.
    pub commands_waiting: u64,
    /// DTLS datagrams to peers, dropped for want of that room.
    pub datagrams_dropped: u64,
    /// Joins that succeeded.
    pub joins: u64,
    /// Of those, who took a session over with its token.
    pub resumes: u64,
    /// Joins that were refused.
    pub joins_refused: u64,
    /// Of those, for want of a good token.
    pub joins_unauthorized: u64,
    /// And of members who change more than their rooms can hear of.
    pub joins_rate_limited: u64,
    /// Members whose negotiation or transport failed.
    pub media_failed: u64,
    /// Of those, before there was media.
    pub media_unreached: u64,
    /// Messages from clients that could not be read.
    pub messages_bad: u64,
    /// Messages from clients of a kind that we do not know.
    pub messages_unknown: u64,
    /// Clients let go because they did not read.
    pub clients_slow: u64,
    /// Gauge: transports whose DTLS handshake has not finished, or not begun.
    pub handshakes: u64,
    /// DTLS handshakes that gave keys.
    pub handshakes_completed: u64,
    /// DTLS handshakes that failed or took too long.
    pub handshakes_failed: u64,
    /// Sessions and rooms that a fault of ours ended.
    pub panics: u64,
    /// Lines of the log that could not be written.
    pub log_lines_lost: u64,
    /// Nanoseconds from a handshake's first datagram to its keys.
    pub handshake_time: Histogram<12>,
    /// Nanoseconds from the first offer after a `join` to a transport that media can flow over.
    pub join_to_media: Histogram<12>,
}

impl Default for ControlCounters {
    fn default() -> ControlCounters {
        ControlCounters {
            started_at: 0,
            rooms: 0,
            participants: 0,
            participants_lost: 0,
            commands_waiting: 0,
            datagrams_dropped: 0,
            joins: 0,
            resumes: 0,
            joins_refused: 0,
            joins_unauthorized: 0,
            joins_rate_limited: 0,
            media_failed: 0,
            media_unreached: 0,
            messages_bad: 0,
            messages_unknown: 0,
            clients_slow: 0,
            handshakes: 0,
            handshakes_completed: 0,
            handshakes_failed: 0,
            panics: 0,
            log_lines_lost: 0,
            handshake_time: Histogram::new(WAIT_BOUNDS),
            join_to_media: Histogram::new(WAIT_BOUNDS),
        }
    }
}

/// What the front door counts. Cumulative where not said to be a gauge.
#[derive(Clone, Debug, Default)]
pub struct HttpCounters {
    /// TCP connections taken from the kernel.
    pub connections_accepted: u64,
    /// Those ended to make room for others.
    pub connections_evicted: u64,
    /// Errors of `accept`.
    pub accept_errors: u64,
    /// Gauge: connections that are no WebSocket.
    pub requests_open: u64,
    /// Requests, upgrades included.
    pub requests: u64,
    /// Requests answered with 429.
    pub requests_limited: u64,
    /// Upgrades refused because of their origin.
    pub origins_refused: u64,
    /// Requests for `/debug` and `/metrics` without the token that they need.
    pub tokens_refused: u64,
    /// Connections that came to no TLS.
    pub tls_failed: u64,
    /// Gauge: when the certificate of TLS_CERT ends, in seconds since 1970; `None` without TLS.
    pub certificate_expires: Option<i64>,
    /// Gauge: WebSockets.
    pub websockets_open: u64,
    /// Upgrades.
    pub websockets_admitted: u64,
    /// WebSockets of no member, ended to make room for others.
    pub websockets_evicted: u64,
    /// Upgrades refused because there were too many WebSockets.
    pub websockets_refused: u64,
    /// WebSockets closed for want of an answer to pings.
    pub websockets_silent: u64,
    /// WebSockets closed because the peer did not read.
    pub websockets_stuck: u64,
    /// WebSockets closed because the peer broke the protocol.
    pub websockets_violated: u64,
    /// WebSockets closed because the peer sent too many messages.
    pub websockets_limited: u64,
    /// Text messages from clients.
    pub messages_in: u64,
    /// Text messages to clients.
    pub messages_out: u64,
    /// Writes that they and all other frames left in.
    pub writes: u64,
}

/// How a scrape is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4, which came before it.
    Text,
}

impl Snapshot {
    /// The text of a scrape.
    pub fn render(self, format: Format) -> String {
        let mut registry = Registry::with_prefix("gryt_sfu");
        registry.register_collector(Box::new(self));
        let mut rendered = String::new();
        // Writing into a `String` cannot fail.
        let _ = text::encode(&mut rendered, &registry);
        match format {
            Format::OpenMetrics => rendered,
            Format::Text => counters_named_as_samples(&rendered),
        }
    }
}

/// To readers of the older format a counter is called what its sample is; OpenMetrics leaves `_total` out of the family's
/// name. `# UNIT` and `# EOF` are comments to them.
fn counters_named_as_samples(openmetrics: &str) -> String {
    let family = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: HashSet<String> = openmetrics.lines().filter_map(family).collect();
    let mut renamed = String::with_capacity(openmetrics.len() + counters.len() * 2 * "_total".len());
    for line in openmetrics.lines() {
        let words = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        let described = words.and_then(|(what, rest)| Some((what, rest.split_once(' ')?)));
        match described {
            Some((what @ ("HELP" | "TYPE"), (name, rest))) if counters.contains(name) => {
                renamed.extend(["# ", what, " ", name, "_total ", rest, "\n"]);
            }
            _ => renamed.extend([line, "\n"]),
        }
    }
    renamed
}

/// Reads one field of a worker's counters.
type Field = fn(&WorkerCounters) -> u64;

const WORKER_COUNTERS: &[(&str, &str, Field)] = &[
    ("datagrams_in", "Datagrams taken from the kernel", |worker| worker.datagrams_in),
    ("bytes_in", "Bytes of UDP payload taken from the kernel", |worker| worker.bytes_in),
    ("datagrams_out", "Datagrams handed to the kernel", |worker| worker.datagrams_out),
    ("bytes_out", "Bytes of UDP payload handed to the kernel", |worker| worker.bytes_out),
    (
        "padding_out_bytes",
        "Bytes of RTP padding among them, by which packets of several lengths leave as one send",
        |worker| worker.padding_out,
    ),
    ("rtp_in", "RTP packets that verified", |worker| worker.rtp_in),
    ("rtp_out", "RTP packets sealed for a receiver", |worker| worker.rtp_out),
    ("relayed_out", "Datagrams handed to the worker that owns them", |worker| worker.relayed_out),
    (
        "voices_relayed_out",
        "RTP packets relayed to other workers that hold a part of their room, one a part",
        |worker| worker.voices_relayed_out,
    ),
    ("voices_relayed_in", "RTP packets relayed by other workers, for rooms that span workers", |worker| {
        worker.voices_relayed_in
    }),
    ("stun_answered", "STUN Binding requests answered", |worker| worker.stun_answered),
    ("wakeups", "Wake-ups of the media loop", |worker| worker.wakeups),
    ("ring_enters", "System calls that receive, send or wait", |worker| worker.enters),
    ("sends", "Sends handed to the kernel, each of one or several datagrams", |worker| worker.sends),
    ("segmentation_refused", "Sends of several datagrams that the kernel refused as such", |worker| {
        worker.segmentation_refused
    }),
    ("receive_starved", "Times the receive buffers ran out", |worker| worker.receive_starved),
    ("receive_errors", "Errors that a receive ended with", |worker| worker.receive_errors),
    ("receive_overflows", "Datagrams that the kernel dropped because a socket's buffer was full", |worker| {
        worker.receive_overflows
    }),
    ("completions_held_back", "Times the kernel kept a completion back for want of room", |worker| {
        worker.completions_held_back
    }),
];

const WORKER_GAUGES: &[(&str, &str, Field)] = &[
    ("transports_active", "Transports of peers", |worker| worker.transports),
    ("worker_rooms_active", "Rooms on a worker", |worker| worker.rooms),
    ("tracks_active", "Published tracks", |worker| worker.tracks),
    ("slots_active", "Slots of receivers", |worker| worker.slots),
];

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut out = Output(encoder);
        out.info("build_info", "What is running", &[("version", env!("CARGO_PKG_VERSION"))])?;
        self.encode_control(&mut out)?;
        self.encode_http(&mut out)?;
        self.encode_workers(&mut out)
    }
}

impl Snapshot {
    fn encode_control(&self, out: &mut Output<'_>) -> fmt::Result {
        let control = &self.control;
        out.gauge("start_time_seconds", "When the server began, in Unix time", control.started_at)?;
        out.gauge("rooms_active", "Rooms with somebody in them", control.rooms)?;
        out.gauge("peers_active", "Participants", control.participants)?;
        let help = "Participants whose WebSocket is lost and who may still come back (RESUME_WINDOW)";
        out.gauge("peers_lost", help, control.participants_lost)?;
        let help = "Orders to workers that wait for room in a queue: not 0 for long unless a worker hangs";
        out.gauge("orders_waiting", help, control.commands_waiting)?;
        let help = "DTLS datagrams to peers that were dropped because a worker's queue of orders was full";
        out.counter("orders_dropped", help, control.datagrams_dropped)?;
        out.counter("joins", "Joins that succeeded", control.joins)?;
        let help = "Joins that took a session over with its token after a lost WebSocket";
        out.counter("joins_resumed", help, control.resumes)?;
        out.counter("joins_refused", "Joins that were refused, for whatever reason", control.joins_refused)?;
        let help = "Joins that were refused for want of a valid token (JWT)";
        out.counter("joins_unauthorized", help, control.joins_unauthorized)?;
        let help = "Joins that were refused because the member had changed too much (rate-limited: too many changes)";
        out.counter("joins_rate_limited", help, control.joins_rate_limited)?;
        let help =
            "Members whose media ended by a fault: no agreement on SDP, or no sign of life over ICE or DTLS";
        out.counter("media_failed", help, control.media_failed)?;
        let help = "Members who came to no media: no agreement on SDP, or no ICE and DTLS in time";
        out.counter("joins_without_media", help, control.media_unreached)?;
        out.gauge("dtls_handshakes_active", "Transports without keys yet", control.handshakes)?;
        out.counter(
            "dtls_handshakes_completed",
            "DTLS handshakes that gave keys",
            control.handshakes_completed,
        )?;
        let help = "Attempts at a DTLS handshake that failed";
        out.counter("dtls_handshakes_failed", help, control.handshakes_failed)?;
        out.counter("messages_bad", "Messages from clients that could not be read", control.messages_bad)?;
        let help = "Messages from clients of a kind that this version does not know, and ignores";
        out.counter("messages_unknown", help, control.messages_unknown)?;
        let help = "Clients let go because they did not read what they were told";
        out.counter("clients_slow", help, control.clients_slow)?;
        let help = "Panics: faults of the server, each of which ended a session, a room, a connection or a handshake";
        out.counter("panics", help, control.panics)?;
        let help = "Lines of the log that could not be written: its reader or the disk does not keep up";
        out.counter("log_lines_lost", help, control.log_lines_lost)?;
        let help = "From a DTLS handshake's first datagram to its keys";
        out.seconds("dtls_handshake_duration", help, &control.handshake_time)?;
        let help =
            "From the first offer after a join, of either side, to a transport that media can flow over";
        out.seconds("join_to_media", help, &control.join_to_media)
    }

    fn encode_http(&self, out: &mut Output<'_>) -> fmt::Result {
        let http = &self.http;
        out.gauge("websocket_connections_active", "WebSockets", http.websockets_open)?;
        out.gauge("http_connections_active", "TCP connections that are no WebSocket", http.requests_open)?;
        out.counter("tcp_connections_accepted", "TCP connections accepted", http.connections_accepted)?;
        out.counter(
            "tcp_connections_evicted",
            "TCP connections ended to make room",
            http.connections_evicted,
        )?;
        out.counter("tcp_accept_errors", "Errors of accept", http.accept_errors)?;
        out.counter("http_requests", "HTTP requests, upgrades included", http.requests)?;
        out.counter("http_requests_limited", "Requests answered with 429", http.requests_limited)?;
        let help = "Requests for /debug and /metrics with a wrong token or none where one is needed";
        out.counter("http_tokens_refused", help, http.tokens_refused)?;
        out.counter("tls_handshakes_failed", "Connections that came to no TLS", http.tls_failed)?;
        if let Some(expires) = http.certificate_expires {
            let name = "tls_certificate_expiry_timestamp_seconds";
            out.0
                .encode_descriptor(name, "When the certificate of TLS_CERT expires", None, MetricType::Gauge)?
                .encode_gauge(&expires)?;
        }
        out.counter("websocket_origins_refused", "Upgrades from foreign pages", http.origins_refused)?;
        out.counter("websocket_refused", "Upgrades refused for want of room", http.websockets_refused)?;
        out.counter("websocket_upgrades", "WebSockets that were opened", http.websockets_admitted)?;
        let help = "WebSockets of no member, ended to make room for others";
        out.counter("websocket_evicted", help, http.websockets_evicted)?;
        out.counter("websocket_ping_timeouts", "WebSockets whose peer fell silent", http.websockets_silent)?;
        out.counter("websocket_write_timeouts", "WebSockets whose peer did not read", http.websockets_stuck)?;
        out.counter(
            "websocket_violations",
            "WebSockets whose peer broke the protocol",
            http.websockets_violated,
        )?;
        out.counter(
            "websocket_rate_limited",
            "WebSockets whose peer sent too many messages",
            http.websockets_limited,
        )?;
        out.counter("websocket_messages_in", "Text messages from clients", http.messages_in)?;
        out.counter("websocket_messages_out", "Text messages to clients", http.messages_out)?;
        out.counter("websocket_writes", "Writes to clients, each of one frame or several", http.writes)
    }

    fn encode_workers(&self, out: &mut Output<'_>) -> fmt::Result {
        for &(name, help, field) in WORKER_COUNTERS {
            out.counter_by_worker(name, help, &self.workers, field)?;
        }
        for &(name, help, field) in WORKER_GAUGES {
            out.gauge_by_worker(name, help, &self.workers, field)?;
        }
        out.backends(&self.workers)?;
        let help = "Time between wake-up and the next wait";
        out.seconds_by_worker("busy", help, &self.workers, |worker| worker.busy_ns)?;
        let help = "CPU time of a worker's thread, by which rooms and their members are placed";
        out.seconds_by_worker("worker_cpu", help, &self.workers, |worker| worker.cpu_ns)?;
        let help = "Time that a worker's thread waited for a CPU while others had it";
        out.seconds_by_worker("worker_cpu_wait", help, &self.workers, |worker| worker.cpu_wait_ns)?;
        let help =
            "Time that a worker's CPU was nearly used up and packets waited for others (OVERLOAD_TICK_MS)";
        out.seconds_by_worker("overload", help, &self.workers, |worker| worker.overload_ns)?;
        let help = "From the kernel's receive timestamp of a voice packet to the worker's wake-up, less what it slept on purpose";
        out.by_worker("receive_queue", help, Some(&Unit::Seconds), &self.workers, |w| &w.receive_queue)?;
        let help =
            "From the kernel's receive timestamp of a voice packet to the submission of what it became";
        out.by_worker("forwarding_latency", help, Some(&Unit::Seconds), &self.workers, |w| {
            &w.forwarding_latency
        })?;
        let help = "Datagrams that a wake-up found, where there were any";
        out.by_worker("batch_datagrams", help, None, &self.workers, |w| &w.batches)?;
        let help = "Datagrams that left in one send (UDP segmentation offload)";
        out.by_worker("send_datagrams", help, None, &self.workers, |w| &w.trains)?;
        out.drops(&self.workers)
    }
}

/// What is counted in nanoseconds is shown in seconds.
const NANOS_PER_SECOND: f64 = 1e9;

fn encode_histogram<const N: usize>(
    mut metric: MetricEncoder<'_>,
    values: &Histogram<N>,
    scale: f64,
) -> fmt::Result {
    let bound = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / scale);
    let buckets: Vec<(f64, u64)> = values.buckets().map(|(upper, count)| (bound(upper), count)).collect();
    metric.encode_histogram::<[(&str, &str); 0]>(values.sum() as f64 / scale, values.count(), &buckets, None)
}

/// Writes families of metrics.
struct Output<'a>(DescriptorEncoder<'a>);

impl Output<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Labels that tell something, of a gauge that is 1: the older format has no type `info`.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str); 1]) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        family.encode_family(labels)?.encode_gauge(&1_u64)
    }

    fn counter_by_worker(
        &mut self,
        name: &str,
        help: &str,
        workers: &[WorkerCounters],
        field: Field,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (index, worker) in workers.iter().enumerate() {
            let labels = [("worker", index)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<[(&str, &str); 0], _, u64>(&field(worker), None)?;
        }
        Ok(())
    }

    fn gauge_by_worker(
        &mut self,
        name: &str,
        help: &str,
        workers: &[WorkerCounters],
        field: Field,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (index, worker) in workers.iter().enumerate() {
            family.encode_family(&[("worker", index)])?.encode_gauge(&field(worker))?;
        }
        Ok(())
    }

    fn backends(&mut self, workers: &[WorkerCounters]) -> fmt::Result {
        let help = "How a worker speaks to the kernel";
        let mut family = self.0.encode_descriptor("worker_info", help, None, MetricType::Gauge)?;
        for (index, backend) in workers.iter().enumerate().filter_map(|(i, it)| Some((i, it.backend?))) {
            let labels = [("worker", index.to_string()), ("backend", backend.to_owned())];
            family.encode_family(&labels)?.encode_gauge(&1_u64)?;
        }
        Ok(())
    }

    /// A total of nanoseconds.
    fn seconds_by_worker(
        &mut self,
        name: &str,
        help: &str,
        workers: &[WorkerCounters],
        field: Field,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        for (index, worker) in workers.iter().enumerate() {
            let seconds = field(worker) as f64 / NANOS_PER_SECOND;
            let labels = [("worker", index)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<[(&str, &str); 0], _, u64>(&seconds, None)?;
        }
        Ok(())
    }

    /// A distribution of times.
    fn seconds<const N: usize>(&mut self, name: &str, help: &str, values: &Histogram<N>) -> fmt::Result {
        let metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        encode_histogram(metric, values, NANOS_PER_SECOND)
    }

    fn by_worker<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        workers: &[WorkerCounters],
        field: impl Fn(&WorkerCounters) -> &Histogram<N>,
    ) -> fmt::Result {
        let scale = if unit.is_some() { NANOS_PER_SECOND } else { 1.0 };
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (index, worker) in workers.iter().enumerate() {
            encode_histogram(family.encode_family(&[("worker", index)])?, field(worker), scale)?;
        }
        Ok(())
    }

    fn drops(&mut self, workers: &[WorkerCounters]) -> fmt::Result {
        let help = "Datagrams and packets that went no further, by reason: replayed and bad_auth_tag are SRTP replays \
                    and authentication failures, stun_unauthenticated and stun_unknown_user STUN integrity failures";
        let mut family = self.0.encode_descriptor("drops", help, None, MetricType::Counter)?;
        for (index, worker) in workers.iter().enumerate() {
            for &reason in DropReason::ALL {
                let labels = [("worker", index.to_string()), ("reason", reason.label().to_owned())];
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<[(&str, &str); 0], _, u64>(&worker.drops(reason), None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_shows_what_was_counted() {
        let mut second = WorkerCounters::default();
        second.backend = Some("mmsg");
        second.rtp_in = 7;
        second.transports = 3;
        second.busy_ns = 1_500_000_000;
        second.cpu_ns = 250_000_000;
        second.cpu_wait_ns = 125_000_000;
        second.padding_out = 31;
        second.voices_relayed_out = 9;
        second.drop_one(DropReason::BadAuthTag);
        second.receive_queue.record(60_000);
        second.forwarding_latency.record(90_000);
        second.trains.record_many(4, 3);
        let mut snapshot =
            Snapshot { workers: vec![WorkerCounters::default(), second], ..Default::default() };
        snapshot.control.started_at = 1_800_000_000;
        snapshot.control.participants = 5;
        snapshot.control.commands_waiting = 6;
        snapshot.control.clients_slow = 8;
        snapshot.http.websockets_silent = 2;
        let rendered = snapshot.render(Format::OpenMetrics);
        let version = concat!("gryt_sfu_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1");
        for line in [
            version,
            "gryt_sfu_worker_info{worker=\"1\",backend=\"mmsg\"} 1",
            "gryt_sfu_rtp_in_total{worker=\"0\"} 0",
            "gryt_sfu_rtp_in_total{worker=\"1\"} 7",
            "gryt_sfu_transports_active{worker=\"1\"} 3",
            "gryt_sfu_busy_seconds_total{worker=\"1\"} 1.5",
            "gryt_sfu_worker_cpu_seconds_total{worker=\"1\"} 0.25",
            "gryt_sfu_worker_cpu_wait_seconds_total{worker=\"1\"} 0.125",
            "gryt_sfu_padding_out_bytes_total{worker=\"1\"} 31",
            "gryt_sfu_voices_relayed_out_total{worker=\"1\"} 9",
            "gryt_sfu_drops_total{worker=\"1\",reason=\"bad_auth_tag\"} 1",
            "gryt_sfu_drops_total{worker=\"0\",reason=\"bad_auth_tag\"} 0",
            "gryt_sfu_start_time_seconds 1800000000",
            "gryt_sfu_peers_active 5",
            "gryt_sfu_orders_waiting 6",
            "gryt_sfu_clients_slow_total 8",
            "gryt_sfu_receive_queue_seconds_bucket{le=\"0.0001\",worker=\"1\"} 1",
            "gryt_sfu_receive_queue_seconds_sum{worker=\"1\"} 0.00006",
            "gryt_sfu_forwarding_latency_seconds_bucket{le=\"0.00005\",worker=\"1\"} 0",
            "gryt_sfu_forwarding_latency_seconds_bucket{le=\"0.0001\",worker=\"1\"} 1",
            "gryt_sfu_forwarding_latency_seconds_bucket{le=\"+Inf\",worker=\"1\"} 1",
            "gryt_sfu_forwarding_latency_seconds_sum{worker=\"1\"} 0.00009",
            "gryt_sfu_send_datagrams_bucket{le=\"4.0\",worker=\"1\"} 3",
            "gryt_sfu_send_datagrams_sum{worker=\"1\"} 12.0",
            "gryt_sfu_join_to_media_seconds_count 0",
            "gryt_sfu_websocket_ping_timeouts_total 2",
        ] {
            assert!(rendered.lines().any(|l| l == line), "{line} is missing in\n{rendered}");
        }
        assert!(rendered.ends_with("# EOF\n"));
    }

    #[test]
    fn each_family_is_described_once() {
        let snapshot = Snapshot { workers: vec![WorkerCounters::default(); 2], ..Default::default() };
        let rendered = snapshot.render(Format::OpenMetrics);
        let mut families: Vec<_> = rendered.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let count = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), count);
    }

    #[test]
    fn readers_of_the_older_format_find_each_type_under_its_samples_name() {
        let mut worker = WorkerCounters::default();
        worker.backend = Some("mmsg");
        let snapshot = Snapshot { workers: vec![worker], ..Default::default() };
        let [newer, older] =
            [Format::OpenMetrics, Format::Text].map(|format| snapshot.clone().render(format));
        let samples = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(samples(&newer), samples(&older));
        assert!(newer.contains("# TYPE gryt_sfu_joins counter\n"), "{newer}");
        for kind in older.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (family, kind) = kind.split_once(' ').expect("a name and a type");
            let suffix = match kind {
                "counter" | "gauge" => "",
                "histogram" => "_count",
                _ => panic!("the older format has no type {kind}, which {family} is of"),
            };
            let name = format!("{family}{suffix}");
            let is_it =
                |sample: &String| sample.strip_prefix(&name).is_some_and(|it| it.starts_with(['{', ' ']));
            assert!(samples(&older).iter().any(is_it), "{family} has no sample in\n{older}");
            assert!(older.contains(&format!("# HELP {family} ")), "{family} has no words in\n{older}");
            assert_eq!(family.ends_with("_total"), kind == "counter", "{family}");
        }
    }
}
