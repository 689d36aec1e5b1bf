//! What delivering a voice packet costs a whole server process, and what it would cost the kernel alone.
//!
//! `sfu-load sfu` starts the server beside it, lets real WebRTC clients join one room, and reads the server's CPU time
//! from `/proc`. `sfu-load floor` puts a bare fan-out (`recv`, then one `sendmmsg` to all, no protocol at all) in the
//! server's place, with datagrams of the same size at the same pace: nothing that sends datagrams one by one can be
//! cheaper. Both print one line of `key=value`; `tools/bench.sh` alternates them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::fan_out;
use super::process::cpu_time;
use super::support::frame::nanos;
use super::support::{Client, Options, Server, State, now};

/// One room of speakers and listeners.
#[derive(Args)]
pub(crate) struct Settings {
    #[arg(long, default_value_t = 4, value_name = "COUNT")]
    speakers: u32,
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    listeners: u32,
    /// Length of the measurement
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Packets a second of each speaker
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
}

/// A voice packet of 120 bytes on the wire: RTP header, extensions, payload, tag of AES-GCM.
const DATAGRAM_LEN: usize = 12 + 16 + 120 + 16;

/// Before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// Until what is on its way has arrived.
const SETTLING: Duration = Duration::from_millis(500);

/// Prints what the server's process needs.
pub(crate) fn of_the_server(settings: &Settings) -> Result<()> {
    print(measure_server(settings), settings)
}

/// Prints what the bare fan-out needs.
pub(crate) fn of_the_kernel(settings: &Settings) -> Result<()> {
    print(measure_floor(settings), settings)
}

fn print(measurement: impl Future<Output = Result<Outcome>>, settings: &Settings) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", runtime.block_on(measurement)?.line(settings));
    Ok(())
}

/// What one run found.
struct Outcome {
    kind: &'static str,
    /// Packets of each pair of listener and speaker.
    pairs: Vec<u64>,
    sent: u64,
    latencies: Vec<u32>,
    cpu: Duration,
}

impl Outcome {
    fn line(mut self, settings: &Settings) -> String {
        self.latencies.sort_unstable();
        let at = |permille: usize| {
            let last = self.latencies.len().saturating_sub(1);
            self.latencies.get(last * permille / 1000).copied().unwrap_or(0)
        };
        let delivered: u64 = self.pairs.iter().sum();
        let expected = self.sent * u64::from(settings.listeners);
        let lost = 100.0 * (1.0 - delivered as f64 / expected.max(1) as f64);
        let served = self.pairs.iter().filter(|&&count| count > 0).count();
        format!(
            "kind={} speakers={} listeners={} seconds={} delivered={delivered} expected={expected} lost_percent={lost:.3} \
             pairs={served}/{} cpu_percent={:.2} cpu_us_per_packet={:.3} latency_us_p50={} latency_us_p99={} \
             latency_us_max={}",
            self.kind,
            settings.speakers,
            settings.listeners,
            settings.seconds,
            self.pairs.len(),
            100.0 * self.cpu.as_secs_f64() / settings.seconds as f64,
            self.cpu.as_secs_f64() * 1e6 / delivered.max(1) as f64,
            at(500),
            at(990),
            at(1000),
        )
    }
}

fn cpu_of(pid: u32) -> Result<Duration> {
    cpu_time(&format!("/proc/{pid}"))
}

async fn measure_server(settings: &Settings) -> Result<Outcome> {
    let binary = std::env::current_exe()?.with_file_name("sfu");
    let server = Server::spawn_binary(&binary, &[("WORKERS", "1")]);
    let options = |publish| Options { publish, keeps: false, ..Options::default() };
    let (mut speakers, mut listeners) = (Vec::new(), Vec::new());
    for i in 0..settings.speakers {
        speakers.push(Client::join(&server, "load", &format!("s{i}"), options(true)).await);
    }
    for i in 0..settings.listeners {
        listeners.push(Client::join(&server, "load", &format!("l{i}"), options(false)).await);
    }
    let everybody = settings.speakers as usize;
    for listener in &listeners {
        let named = |state: &State| state.lines.values().filter(|line| line.stream_id.is_some()).count();
        listener.until("all voices", |state| (named(state) >= everybody).then_some(())).await;
    }
    let counts = || -> Vec<u64> {
        let of = |listener: &Client| {
            let state = listener.state();
            speakers.iter().map(|speaker| state.count(speaker.id)).collect::<Vec<_>>()
        };
        listeners.iter().flat_map(of).collect()
    };
    let sent = || speakers.iter().map(|speaker| u64::from(speaker.state().sent)).sum::<u64>();

    speak_for(&speakers, settings, WARM_UP).await;
    for listener in &listeners {
        listener.state().latencies.clear();
    }
    let (cpu, sent_before, before) = (cpu_of(server.pid())?, sent(), counts());
    speak_for(&speakers, settings, Duration::from_secs(settings.seconds)).await;
    let (cpu, sent, after) = (cpu_of(server.pid())? - cpu, sent() - sent_before, counts());
    let latencies = listeners.iter().flat_map(|listener| listener.state().latencies.clone()).collect();
    let pairs = after.iter().zip(before).map(|(after, before)| after - before).collect();
    Ok(Outcome { kind: "sfu", pairs, sent, latencies, cpu })
}

/// Everybody speaks, evenly over the interval as voices that know nothing of each other; returns when the last packet has
/// arrived or is lost.
async fn speak_for(speakers: &[Client], settings: &Settings, time: Duration) {
    let every = Duration::from_secs(1) / settings.rate;
    for (i, speaker) in speakers.iter().enumerate() {
        speaker.speak_from(20, every, now() + every * i as u32 / settings.speakers);
    }
    tokio::time::sleep(time).await;
    speakers.iter().for_each(Client::hush);
    tokio::time::sleep(SETTLING).await;
}

async fn measure_floor(settings: &Settings) -> Result<Outcome> {
    let (mut child, target) = start_fan_out()?;
    let outcome = floor_calls(settings, child.id(), target).await;
    child.kill()?;
    child.wait()?;
    outcome
}

fn start_fan_out() -> Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    let mut child = command.arg("fan-out").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
    let target = line.trim().parse().with_context(|| format!("an address, not {line:?}"))?;
    Ok((child, target))
}

async fn floor_calls(settings: &Settings, pid: u32, target: SocketAddr) -> Result<Outcome> {
    let mut listeners = Vec::new();
    for _ in 0..settings.listeners {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.send_to(&[fan_out::REGISTER], target).await?;
        listeners.push(socket);
    }
    let started = now();
    let measured = started + WARM_UP..started + WARM_UP + Duration::from_secs(settings.seconds);
    let ends = measured.end + Duration::from_millis(200);
    let mut tasks = Vec::new();
    for socket in listeners {
        let measured = measured.clone();
        tasks.push(tokio::spawn(async move {
            let (mut counts, mut latencies) = (HashMap::<u32, u64>::new(), Vec::new());
            let mut buffer = [0; 2000];
            let until = ends.into();
            while let Ok(Ok(len)) = tokio::time::timeout_at(until, socket.recv(&mut buffer)).await {
                let (Some(speaker), Some(sent_at)) = (buffer.get(1..5), buffer.get(5..13)) else { continue };
                let sent_at = u64::from_be_bytes(sent_at.try_into().unwrap_or_default());
                if len == DATAGRAM_LEN && measured.contains(&now()) {
                    *counts.entry(u32::from_be_bytes(speaker.try_into().unwrap_or_default())).or_default() +=
                        1;
                    latencies.push((nanos().saturating_sub(sent_at) / 1000) as u32);
                }
            }
            (counts, latencies)
        }));
    }
    let every = Duration::from_secs(1) / settings.rate;
    let mut speakers = Vec::new();
    for i in 0..settings.speakers {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let measured = measured.clone();
        let mut next_at = now() + every * i / settings.speakers;
        speakers.push(tokio::spawn(async move {
            let mut sent = 0;
            while next_at < measured.end {
                tokio::time::sleep_until(next_at.into()).await;
                next_at += every;
                let mut datagram = [0; DATAGRAM_LEN];
                datagram[0] = 0x90;
                datagram[1..5].copy_from_slice(&i.to_be_bytes());
                datagram[5..13].copy_from_slice(&nanos().to_be_bytes());
                let _ = socket.send_to(&datagram, target).await; // A loss counts as one.
                sent += u64::from(measured.contains(&now()));
            }
            sent
        }));
    }
    tokio::time::sleep_until(measured.start.into()).await;
    let before = cpu_of(pid)?;
    tokio::time::sleep_until(measured.end.into()).await;
    let cpu = cpu_of(pid)? - before;
    let mut sent = 0;
    for speaker in speakers {
        sent += speaker.await?;
    }
    let (mut pairs, mut latencies) = (Vec::new(), Vec::new());
    for task in tasks {
        let (counts, mut times) = task.await?;
        pairs.extend((0..settings.speakers).map(|speaker| counts.get(&speaker).copied().unwrap_or(0)));
        latencies.append(&mut times);
    }
    Ok(Outcome { kind: "floor", pairs, sent, latencies, cpu })
}
