//! `sfu-load`: what delivering a voice packet costs a whole server process, and what it would cost the kernel alone.
//!
//! `sfu-load sfu` starts the server beside it, lets real WebRTC clients join one room, and reads the server's CPU time
//! from `/proc`. `sfu-load floor` puts a bare fan-out (`recv`, then one `sendmmsg` to all, no protocol at all) in the
//! server's place, with datagrams of the same size at the same pace: nothing that sends datagrams one by one can be
//! cheaper. Both print one line of `key=value`; `tools/bench.sh` alternates them.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use support::frame::nanos;
use support::{Client, Options, Server, State, now};

/// What stands between speakers and listeners.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The server.
    Sfu,
    /// A bare fan-out.
    Floor,
    /// The bare fan-out itself; `floor` starts it.
    FanOut,
}

#[derive(Parser)]
struct Arguments {
    kind: Kind,
    #[arg(long, default_value_t = 4)]
    speakers: u32,
    #[arg(long, default_value_t = 100)]
    listeners: u32,
    /// Length of the measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Packets a second of each speaker.
    #[arg(long, default_value_t = 50)]
    rate: u32,
}

/// A voice packet of 120 bytes on the wire: RTP header, extensions, payload, tag of AES-GCM.
const DATAGRAM_LEN: usize = 12 + 16 + 120 + 16;

/// Before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// Until what is on its way has arrived.
const SETTLING: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.kind == Kind::FanOut {
        return fan_out::run();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match arguments.kind {
            Kind::Sfu => measure_server(&arguments).await,
            _ => measure_floor(&arguments).await,
        }
    })?;
    println!("{}", result.line(&arguments));
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
    fn line(mut self, arguments: &Arguments) -> String {
        self.latencies.sort_unstable();
        let at = |permille: usize| {
            let last = self.latencies.len().saturating_sub(1);
            self.latencies.get(last * permille / 1000).copied().unwrap_or(0)
        };
        let delivered: u64 = self.pairs.iter().sum();
        let expected = self.sent * u64::from(arguments.listeners);
        let lost = 100.0 * (1.0 - delivered as f64 / expected.max(1) as f64);
        let served = self.pairs.iter().filter(|&&count| count > 0).count();
        format!(
            "kind={} speakers={} listeners={} seconds={} delivered={delivered} expected={expected} lost_percent={lost:.3} \
             pairs={served}/{} cpu_percent={:.2} cpu_us_per_packet={:.3} latency_us_p50={} latency_us_p99={} \
             latency_us_max={}",
            self.kind,
            arguments.speakers,
            arguments.listeners,
            arguments.seconds,
            self.pairs.len(),
            100.0 * self.cpu.as_secs_f64() / arguments.seconds as f64,
            self.cpu.as_secs_f64() * 1e6 / delivered.max(1) as f64,
            at(500),
            at(990),
            at(1000),
        )
    }
}

/// User and system time of a process so far, all threads.
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses; utime and stime are the 14th and 15th.
    let (_, rest) = stat.rsplit_once(") ").context("a stat line")?;
    let ticks: u64 = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 10)) // USER_HZ is 100 on every Linux.
}

async fn measure_server(arguments: &Arguments) -> Result<Outcome> {
    let binary = std::env::current_exe()?.with_file_name("sfu");
    let server = Server::spawn_binary(&binary, &[("WORKERS", "1")]);
    let options = |publish| Options { publish, keeps: false, ..Options::default() };
    let (mut speakers, mut listeners) = (Vec::new(), Vec::new());
    for i in 0..arguments.speakers {
        speakers.push(Client::join(&server, "load", &format!("s{i}"), options(true)).await);
    }
    for i in 0..arguments.listeners {
        listeners.push(Client::join(&server, "load", &format!("l{i}"), options(false)).await);
    }
    let everybody = arguments.speakers as usize;
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

    speak_for(&speakers, arguments, WARM_UP).await;
    for listener in &listeners {
        listener.state().latencies.clear();
    }
    let (cpu, sent_before, before) = (cpu_time(server.pid())?, sent(), counts());
    speak_for(&speakers, arguments, Duration::from_secs(arguments.seconds)).await;
    let (cpu, sent, after) = (cpu_time(server.pid())? - cpu, sent() - sent_before, counts());
    let latencies = listeners.iter().flat_map(|listener| listener.state().latencies.clone()).collect();
    let pairs = after.iter().zip(before).map(|(after, before)| after - before).collect();
    Ok(Outcome { kind: "sfu", pairs, sent, latencies, cpu })
}

/// Everybody speaks, evenly over the interval as voices that know nothing of each other; returns when the last packet has
/// arrived or is lost.
async fn speak_for(speakers: &[Client], arguments: &Arguments, time: Duration) {
    let every = Duration::from_secs(1) / arguments.rate;
    for (i, speaker) in speakers.iter().enumerate() {
        speaker.speak_from(20, every, now() + every * i as u32 / arguments.speakers);
    }
    tokio::time::sleep(time).await;
    speakers.iter().for_each(Client::hush);
    tokio::time::sleep(SETTLING).await;
}

async fn measure_floor(arguments: &Arguments) -> Result<Outcome> {
    let (mut child, target) = start_fan_out()?;
    let outcome = floor_calls(arguments, child.id(), target).await;
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

async fn floor_calls(arguments: &Arguments, pid: u32, target: SocketAddr) -> Result<Outcome> {
    let mut listeners = Vec::new();
    for _ in 0..arguments.listeners {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        socket.send_to(&[fan_out::REGISTER], target).await?;
        listeners.push(socket);
    }
    let started = now();
    let measured = started + WARM_UP..started + WARM_UP + Duration::from_secs(arguments.seconds);
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
    let every = Duration::from_secs(1) / arguments.rate;
    let mut speakers = Vec::new();
    for i in 0..arguments.speakers {
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let measured = measured.clone();
        let mut next_at = now() + every * i / arguments.speakers;
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
    let before = cpu_time(pid)?;
    tokio::time::sleep_until(measured.end.into()).await;
    let cpu = cpu_time(pid)? - before;
    let mut sent = 0;
    for speaker in speakers {
        sent += speaker.await?;
    }
    let (mut pairs, mut latencies) = (Vec::new(), Vec::new());
    for task in tasks {
        let (counts, mut times) = task.await?;
        pairs.extend((0..arguments.speakers).map(|speaker| counts.get(&speaker).copied().unwrap_or(0)));
        latencies.append(&mut times);
    }
    Ok(Outcome { kind: "floor", pairs, sent, latencies, cpu })
}

/// The least that a server on this kernel could do.
mod fan_out {
    use super::{Context, Ipv4Addr, Result, SocketAddr, UdpSocket, Write, bail};
    use std::os::fd::AsRawFd;

    /// A datagram of this one byte makes its sender a listener.
    pub(super) const REGISTER: u8 = 0x4C;

    /// Datagrams a call.
    const BATCH: usize = 64;

    pub(super) fn run() -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        println!("{}", socket.local_addr()?);
        std::io::stdout().flush()?;
        let mut listeners: Vec<libc::sockaddr_in> = Vec::new();
        let mut buffer = [0; 2000];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).context("the floor receives")?;
            if buffer[..len] == [REGISTER] {
                listeners.push(raw_address(from)?);
                continue;
            }
            for batch in listeners.chunks_mut(BATCH) {
                send(&socket, &mut buffer[..len], batch);
            }
        }
    }

    fn raw_address(address: SocketAddr) -> Result<libc::sockaddr_in> {
        let SocketAddr::V4(address) = address else { bail!("loopback is IPv4 here") };
        Ok(libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: address.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
            sin_zero: [0; 8],
        })
    }

    /// One datagram to each of at most [`BATCH`]; what the kernel does not take is lost.
    fn send(socket: &UdpSocket, datagram: &mut [u8], to: &mut [libc::sockaddr_in]) {
        assert!(to.len() <= BATCH);
        let mut part = libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: datagram.len() };
        let mut messages: Vec<libc::mmsghdr> = to
            .iter_mut()
            .map(|address| {
                // SAFETY: all zeros is a valid `mmsghdr`: null pointers with zero lengths.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
                message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                message.msg_hdr.msg_iov = &raw mut part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: every pointer is to a local or a borrowed value that outlives the call; the count is the vector's.
        unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
    }
}
