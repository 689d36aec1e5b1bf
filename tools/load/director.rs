//! A run from the first join to the last count: who joins when, who leaves and comes back, and what each second saw.

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::http::Uri;

use super::arguments::{Load, Voice};
use super::histogram::Histogram;
use super::member::{self, House, News, Order, Plan, Target};
use super::outcome::{Latency, Outcome, Own, Packets, Second, Server, Setting, Thresholds, curve};
use super::process::{self, Usage};
use super::random::Random;
use super::sent_times::Speakers;
use super::settling::Settling;
use super::signalling::Dialect;
use super::speech;
use super::support::now;
use super::tally::{Counts, Tally};
use super::trust::Trust;
use super::voice;
use super::voice_file::{self, VoicePacket};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Members that must count or leave, and do not.
const ENDING_MAX: Duration = Duration::from_secs(10);
const MEMBER_COUNT_MAX: u64 = 50_000;
/// So many members fail, and none connects: the rest need not try.
const HOPELESS: u64 = 20;
/// A thread that is this busy cannot be trusted to receive in time.
const BUSY_PERCENT: f64 = 90.0;
/// Lines on progress where there is no terminal.
const PLAIN_EVERY: u64 = 5;

/// Runs it all. An error means that there is nothing to measure.
pub(crate) fn run(load: &Load) -> Result<Outcome> {
    let members = u64::from(load.rooms) * u64::from(load.speakers + load.listeners);
    ensure!(
        (1..=MEMBER_COUNT_MAX).contains(&members),
        "{members} members: from 1 to {MEMBER_COUNT_MAX} can join"
    );
    process::raise_descriptors(members)?;
    let target = Arc::new(find(load.url.as_deref().unwrap_or_default(), trust(load))?);
    let packets = voice(&load.voice)?;
    if let Some(pid) = load.pid {
        Usage::of(pid)
            .with_context(|| format!("--pid {pid}: there is no such process, or it may not be looked at"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (news, received) = mpsc::unbounded_channel();
        let speakers = Arc::new(Speakers::default());
        let epoch = now();
        let crew: Vec<Crew> = (0..load.threads)
            .flat_map(|_| [Role::Speakers, Role::Listeners])
            .map(|role| {
                let house = House {
                    tally: Tally::default(),
                    speakers: Arc::clone(&speakers),
                    news: news.clone(),
                    epoch,
                };
                Crew::start(Arc::new(house), role, load.realtime)
            })
            .collect::<Result<_>>()?;
        let outcome = Run::new(load, target, packets, &crew, received)?.until_the_end().await;
        crew.into_iter().try_for_each(Crew::stop)?;
        outcome
    })
}

/// Resolves the URL, and sees whether somebody listens there.
fn find(url: &str, trust: Trust<'_>) -> Result<Target> {
    let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
    let (default_port, tls) = match uri.scheme_str() {
        Some("wss") => (443, Some(trust.client()?)),
        Some("ws") if trust == Trust::Machine => (80, None),
        Some("ws") => bail!("{url} is spoken to without TLS: --ca and --insecure are for wss://"),
        _ => bail!("{url} is no ws:// or wss:// URL, as in ws://localhost:5005/"),
    };
    let host = uri.host().with_context(|| format!("{url} names no host"))?;
    let port = uri.port_u16().unwrap_or(default_port);
    let bare = host.trim_matches(['[', ']']);
    let mut addresses: Vec<SocketAddr> =
        (bare, port).to_socket_addrs().with_context(|| format!("{host} cannot be resolved"))?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6); // Servers without IPv6 are more than those without IPv4.
    let mut why = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(Target { url: url.to_owned(), address, tls }),
            Err(error) => why = Some(format!("{address}: {error}")),
        }
    }
    let Some(why) = why else { bail!("{host} has no address") };
    bail!("no server at {url} ({why}); is it running, and is this its port?")
}

fn trust(load: &Load) -> Trust<'_> {
    match &load.ca {
        Some(path) => Trust::File(path),
        None if load.insecure => Trust::Anybody,
        None => Trust::Machine,
    }
}

pub(crate) fn voice(voice: &Voice) -> Result<Arc<[VoicePacket]>> {
    let packets = match &voice.input {
        None => speech::synthetic(voice.payload),
        Some(path) => {
            voice_file::read(path).with_context(|| format!("{} cannot be played", path.display()))?
        }
    };
    Ok(packets.into())
}

/// Speakers come first on their CPU: what a server is to send then comes when it is due, and not in bunches after what
/// listeners have to do.
#[derive(Clone, Copy)]
enum Role {
    Speakers,
    Listeners,
}

impl Role {
    const COUNT: usize = 2;
}

/// A thread that members of one role live on; as many for each role as threads are asked for.
struct Crew {
    house: Arc<House>,
    handle: Handle,
    /// Where the kernel tells of the thread.
    folder: String,
    ends: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Crew {
    fn start(house: Arc<House>, role: Role, is_realtime: bool) -> Result<Crew> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (ends, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let name = match role {
            Role::Speakers => "speakers",
            Role::Listeners => "listeners",
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let is_first = match role {
                Role::Speakers => process::come_first(is_realtime),
                Role::Listeners => Ok(()),
            };
            let _ = tell.send(is_first.and_then(|()| process::this_thread())); // The other end waits for it.
            let _ = runtime.block_on(ended); // Sent or dropped: the end either way.
        })?;
        let folder = told.recv().context("the thread runs")??;
        Ok(Crew { house, handle, folder, ends, thread })
    }

    fn stop(self) -> Result<()> {
        drop(self.ends);
        self.thread.join().map_err(|_| anyhow::anyhow!("a thread of members panicked"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Joining,
    Connected,
    Out,
}

struct Member {
    orders: mpsc::UnboundedSender<Order>,
    state: State,
}

struct Run<'a> {
    load: &'a Load,
    target: Arc<Target>,
    packets: Arc<[VoicePacket]>,
    crew: &'a [Crew],
    news: mpsc::UnboundedReceiver<News>,
    members: Vec<Member>,
    outcome: Outcome,
    total: Counts,
    to_connected: Histogram,
    to_audio: Histogram,
    random: Random,
    started: Instant,
    last: Sample,
    first: Sample,
    is_terminal: bool,
}

/// What the kernel said at one time.
#[derive(Clone)]
struct Sample {
    at: Instant,
    server: Option<Usage>,
    crew: Vec<Duration>,
}

impl<'a> Run<'a> {
    fn new(
        load: &'a Load,
        target: Arc<Target>,
        packets: Arc<[VoicePacket]>,
        crew: &'a [Crew],
        news: mpsc::UnboundedReceiver<News>,
    ) -> Result<Run<'a>> {
        let voice = match &load.voice.input {
            Some(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => format!("made-up voices of {} bytes a packet", load.voice.payload),
        };
        let setting = Setting {
            url: target.url.clone(),
            rooms: load.rooms,
            speakers: load.speakers,
            listeners: load.listeners,
            seconds: load.seconds,
            join_rate: load.join_rate,
            churn: load.churn,
            light: load.light,
            deaf_speakers: load.deaf_speakers,
            hear_every: load.hear_every,
            voice: voice + if load.dtx { ", with pauses" } else { "" },
        };
        let sample = Sample::take(load.pid, crew)?;
        Ok(Run {
            load,
            target,
            packets,
            crew,
            news,
            members: Vec::new(),
            outcome: Outcome { setting, ..Outcome::default() },
            total: Counts::default(),
            to_connected: Histogram::default(),
            to_audio: Histogram::default(),
            random: Random::new(load.seed),
            started: sample.at,
            last: sample.clone(),
            first: sample,
            is_terminal: std::io::stderr().is_terminal(),
        })
    }

    async fn until_the_end(mut self) -> Result<Outcome> {
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        tokio::select! {
            result = self.play() => result?,
            _ = interrupt.recv() => self.outcome.interrupted = true,
        }
        let ending = self.end();
        tokio::select! {
            result = ending => result?,
            // Who asks twice does not want to wait.
            _ = interrupt.recv() => bail!("interrupted twice: no report"),
        }
        self.finished()
    }

    /// Everybody joins; then the time of the run passes.
    async fn play(&mut self) -> Result<()> {
        let count = (self.load.rooms * (self.load.speakers + self.load.listeners)) as usize;
        let between = Duration::from_secs(1) / self.load.join_rate;
        let mut next_join = self.started;
        let mut next_sample = self.started + Duration::from_secs(1);
        let churn = (self.load.churn > 0).then(|| Duration::from_secs(60) / self.load.churn);
        let mut next_churn: Option<Instant> = None;
        let mut ends_at: Option<Instant> = None;
        loop {
            let time = now();
            while self.members.len() < count && next_join <= time && self.may_join() {
                self.join();
                next_join += between;
            }
            if self.members.len() < count && !self.may_join() {
                // Who waits does not come in a burst afterwards.
                next_join = next_join.max(time);
            }
            if next_sample <= time {
                self.sample()?;
                next_sample = (next_sample + Duration::from_secs(1)).max(time);
            }
            if let (Some(at), Some(between)) = (next_churn.filter(|&at| at <= time), churn) {
                self.rejoin_somebody();
                next_churn = Some(at + between);
            }
            let all_came = self.members.len() == count
                && self.members.iter().all(|member| member.state != State::Joining);
            if all_came && ends_at.is_none() {
                ends_at = Some(time + Duration::from_secs(self.load.seconds.into()));
                next_churn = churn.map(|between| time + between);
            }
            let joins = &self.outcome.joins;
            let is_hopeless = joins.connected == 0 && joins.failed >= HOPELESS.min(count as u64);
            let is_empty = ends_at.is_some() && self.members.iter().all(|member| member.state == State::Out);
            if is_hopeless || is_empty || ends_at.is_some_and(|at| at <= time) {
                return Ok(());
            }
            let mut wake_at = next_sample;
            if self.members.len() < count && self.may_join() {
                wake_at = wake_at.min(next_join);
            }
            for at in [next_churn, ends_at].into_iter().flatten() {
                wake_at = wake_at.min(at);
            }
            tokio::select! {
                news = self.news.recv() => if let Some(news) = news { self.hear(news) },
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
        }
    }

    fn may_join(&self) -> bool {
        let joining = self.members.iter().filter(|member| member.state == State::Joining).count();
        joining < self.load.joins_at_once as usize
    }

    /// The next one: rooms by turns, speakers first.
    fn join(&mut self) {
        let index = self.members.len();
        let room_number = index as u32 % self.load.rooms;
        let place = index as u32 / self.load.rooms;
        let room = &self.load.room;
        let (kind, number) = match place.checked_sub(self.load.speakers) {
            None => ("speaker", place + 1),
            Some(listener) => ("listener", listener + 1),
        };
        let plan = Plan {
            index,
            target: Arc::clone(&self.target),
            room: if self.load.rooms == 1 { room.clone() } else { format!("{room}-{}", room_number + 1) },
            room_number,
            user: format!("{room}-{kind}-{number}"),
            dialect: if self.load.janus { Dialect::Janus } else { Dialect::Own },
            speakers: self.load.speakers as usize,
            voice: (kind == "speaker").then(|| Arc::clone(&self.packets)),
            phase: voice::phase(place, self.load.speakers.max(1), room_number, self.load.rooms),
            with_pauses: self.load.dtx,
            mute: self.load.mute,
            light: self.load.light,
            is_sent_voices: kind == "listener" || !(self.load.janus || self.load.deaf_speakers),
            hears: kind == "speaker" || (number - 1).is_multiple_of(self.load.hear_every),
            slots: self.load.slots as usize,
            patience: Duration::from_secs(self.load.join_timeout.into()),
            seed: self.random.next(),
        };
        let (orders, received) = mpsc::unbounded_channel();
        let role = if kind == "speaker" { Role::Speakers } else { Role::Listeners };
        let crew = &self.crew[(index * Role::COUNT + role as usize) % self.crew.len()];
        crew.handle.spawn(member::run(plan, Arc::clone(&crew.house), received));
        self.members.push(Member { orders, state: State::Joining });
        self.outcome.joins.started += 1;
    }

    fn rejoin_somebody(&mut self) {
        let index = self.random.below(self.members.len());
        // Who is just joining is left to it.
        if self.members[index].state == State::Joining {
            return;
        }
        self.members[index].state = State::Joining;
        self.outcome.joins.started += 1;
        self.outcome.joins.rejoined += 1;
        self.order(index, Order::Rejoin);
    }

    fn order(&self, index: usize, order: Order) {
        let _ = self.members[index].orders.send(order); // One that has ended needs no orders.
    }

    fn hear(&mut self, news: News) {
        let joins = &mut self.outcome.joins;
        match news {
            News::Connected { index, after } => {
                joins.connected += 1;
                self.to_connected.record(after.as_micros() as u64);
                self.members[index].state = State::Connected;
            }
            News::FirstAudio { after } => self.to_audio.record(after.as_micros() as u64),
            News::Failed { index, why } => {
                joins.failed += 1;
                self.members[index].state = State::Out;
                self.outcome.count_failure(why);
            }
            News::Lost { index, why } => {
                joins.lost += 1;
                self.members[index].state = State::Out;
                self.outcome.count_failure(why);
            }
            News::Counted | News::Ended => {}
        }
    }

    /// Takes what was counted since the last time.
    fn sample(&mut self) -> Result<()> {
        let sample = Sample::take(self.load.pid, self.crew)?;
        let mut counts = Counts::default();
        for crew in self.crew {
            crew.house.tally.change(|theirs| counts.absorb(theirs));
        }
        let passed = sample.at.saturating_duration_since(self.last.at).as_secs_f64().max(0.001);
        let percent =
            |after: Duration, before: Duration| 100.0 * after.saturating_sub(before).as_secs_f64() / passed;
        let own = sample.crew.iter().zip(&self.last.crew).map(|(&after, &before)| percent(after, before));
        let server_cpu =
            sample.server.zip(self.last.server).map(|(after, before)| percent(after.cpu, before.cpu));
        let second = Second {
            at: sample.at.saturating_duration_since(self.started).as_secs_f64(),
            connected: self.members.iter().filter(|member| member.state == State::Connected).count() as u64,
            received_per_second: counts.received as f64 / passed,
            loss_percent: Some(counts.loss_percent()),
            latency_ms: Latency::of(&counts.latency),
            latency_counts: counts.latency.counts(),
            server_cpu_percent: server_cpu,
            server_mib: sample.server.map(|server| server.resident_kib as f64 / 1024.0),
            own_cpu_percent: own.fold(0.0, f64::max),
            overflowed: counts.overflowed,
        };
        self.total.absorb(&mut counts);
        self.last = sample;
        self.show(&second);
        self.outcome.seconds.push(second);
        Ok(())
    }

    /// One line that is written over on a terminal; else one now and then.
    fn show(&self, second: &Second) {
        let p99 = second.latency_ms.map_or("-".into(), |latency| super::outcome::ms(latency.p99));
        let failures = self.outcome.joins.failed + self.outcome.joins.lost;
        let line = format!(
            "{:>4.0} s  {} of {} connected  {failures} failed  {:.0} packets/s  loss {:.2} %  p99 {p99}",
            second.at,
            second.connected,
            self.members.len(),
            second.received_per_second,
            second.loss_percent.unwrap_or_default(),
        );
        if self.is_terminal {
            eprint!("\r\x1b[K{line}");
        } else if (self.outcome.seconds.len() as u64).is_multiple_of(PLAIN_EVERY) {
            eprintln!("{line}");
        }
    }

    /// Packets of our own speakers that came since the last sample: others may talk on in these rooms.
    fn arrived(&self) -> u64 {
        self.crew.iter().map(|crew| crew.house.tally.change(|counts| counts.latency.len())).sum()
    }

    /// Silence, then everybody counts, then everybody leaves.
    async fn end(&mut self) -> Result<()> {
        let all = |run: &Run<'_>, order| (0..run.members.len()).for_each(|index| run.order(index, order));
        all(self, Order::Hush);
        let mut settling = Settling::new(now(), self.arrived());
        while !settling.is_over(now(), self.arrived()) {
            let until = now() + Settling::STEP;
            while let Ok(Some(news)) = tokio::time::timeout_at(until.into(), self.news.recv()).await {
                self.hear(news);
            }
        }
        for (order, is_done) in [(Order::Count, is_counted as fn(&News) -> bool), (Order::Finish, is_ended)] {
            all(self, order);
            let deadline = now() + ENDING_MAX;
            let mut left = self.members.len();
            while left > 0 {
                let Ok(Some(news)) = tokio::time::timeout_at(deadline.into(), self.news.recv()).await else {
                    break;
                };
                left -= usize::from(is_done(&news));
                if order == Order::Count {
                    self.hear(news);
                }
            }
            if order == Order::Count {
                self.sample()?;
            }
        }
        if self.is_terminal {
            eprintln!();
        }
        Ok(())
    }

    fn finished(mut self) -> Result<Outcome> {
        let total = &self.total;
        let outcome = &mut self.outcome;
        outcome.duration_seconds = self.last.at.saturating_duration_since(self.started).as_secs_f64();
        outcome.packets = Packets {
            sent: total.sent,
            received: total.received,
            missing: total.missing.max(0).cast_unsigned(),
            loss_percent: total.loss_percent(),
            doubles: total.doubles,
            unreadable: total.unreadable,
            pairs_heard: total.pairs_heard,
            pairs_unheard: total.pairs_unheard,
        };
        outcome.latency_ms = Latency::of(&total.latency);
        outcome.joins.to_connected_ms = Latency::of(&self.to_connected);
        outcome.joins.to_first_audio_ms = Latency::of(&self.to_audio);
        outcome.joins.connected_curve = curve(&self.to_connected);
        outcome.joins.audio_curve = curve(&self.to_audio);
        let passed = outcome.duration_seconds.max(0.001);
        let percent = |cpu: Duration| 100.0 * cpu.as_secs_f64() / passed;
        outcome.server = server(self.load.pid, &self.first, &outcome.seconds, &self.last, percent);
        let spent =
            self.last.crew.iter().zip(&self.first.crew).map(|(after, before)| after.saturating_sub(*before));
        let maximum = |of: fn(&Second) -> f64| outcome.seconds.iter().map(of).fold(0.0, f64::max);
        outcome.own = Own {
            cpu_percent_max: maximum(|second| second.own_cpu_percent),
            cpu_percent_mean: percent(spent.max().unwrap_or_default()),
            overflowed: total.overflowed,
            bottleneck: bottleneck(&outcome.seconds, total.overflowed),
        };
        let thresholds = Thresholds {
            loss_percent: self.load.max_loss,
            p99_ms: self.load.max_p99,
            failures: self.load.max_failures,
        };
        outcome.judge(thresholds);
        if outcome.joins.connected == 0 && !outcome.interrupted {
            let why = outcome.failures.iter().max_by_key(|(_, count)| **count).map(|(why, _)| why.as_str());
            bail!("nobody could join {}: {}", self.target.url, why.unwrap_or("nobody was given the time"));
        }
        Ok(self.outcome)
    }
}

fn is_counted(news: &News) -> bool {
    matches!(news, News::Counted)
}

fn is_ended(news: &News) -> bool {
    matches!(news, News::Ended)
}

fn server(
    pid: Option<u32>,
    first: &Sample,
    seconds: &[Second],
    last: &Sample,
    percent: impl Fn(Duration) -> f64,
) -> Option<Server> {
    let (begun, pid) = (first.server?, pid?);
    let mib = |kib: u64| kib as f64 / 1024.0;
    let series: Vec<f64> = seconds.iter().filter_map(|second| second.server_mib).collect();
    let greatest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    // One that died meanwhile has used what it had used when it was last seen.
    let ended = last.server.map_or(begun.cpu, |server| server.cpu);
    Some(Server {
        pid,
        cpu_percent_mean: percent(ended.saturating_sub(begun.cpu)),
        cpu_percent_max: greatest(&mut seconds.iter().filter_map(|second| second.server_cpu_percent)),
        mib_first: mib(begun.resident_kib),
        mib_last: series.last().copied().unwrap_or(mib(begun.resident_kib)),
        mib_max: greatest(&mut series.iter().copied()),
    })
}

/// Whether the figures say more about this program than about the server.
fn bottleneck(seconds: &[Second], overflowed: u64) -> Option<String> {
    let busy = seconds.iter().filter(|second| second.own_cpu_percent >= BUSY_PERCENT).count();
    let mut why = Vec::new();
    if overflowed > 0 {
        why.push(format!("{overflowed} datagrams reached this machine and were dropped because sfu-load did not read them in time"));
    }
    if busy * 10 > seconds.len() {
        why.push(format!("a thread of sfu-load was busy for {busy} of {} seconds", seconds.len()));
    }
    (!why.is_empty()).then(|| {
        format!(
            "the bottleneck was sfu-load, not the server: {}. Use --light, --threads, or another machine",
            why.join("; ")
        )
    })
}

impl Sample {
    fn take(pid: Option<u32>, crew: &[Crew]) -> Result<Sample> {
        // A server that ends meanwhile is seen by its members; its figures end with it.
        let server = pid.and_then(|pid| Usage::of(pid).ok());
        let crew = crew
            .chunks(Role::COUNT)
            .map(|thread| thread.iter().map(|crew| process::cpu_time(&crew.folder)).sum())
            .collect::<Result<_>>()?;
        Ok(Sample { at: now(), server, crew })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn it_says_when_it_was_the_bottleneck() {
        let second = |own_cpu_percent| Second { own_cpu_percent, ..Second::default() };
        let calm: Vec<Second> = (0..20).map(|_| second(60.0)).collect();
        assert_eq!(bottleneck(&calm, 0), None);
        assert!(bottleneck(&calm, 3).unwrap().contains("3 datagrams"));
        let mut busy = calm;
        busy.extend((0..3).map(|_| second(99.0)));
        assert!(bottleneck(&busy, 0).unwrap().contains("3 of 23 seconds"));
    }

    #[test]
    fn urls_are_refused_in_words() {
        for (url, expected) in [
            ("http://localhost/", "ws://"),
            ("localhost:5005", "ws://"),
            ("", "no URL"),
            ("ws://127.0.0.1:1/", "is it running"),
            ("wss://127.0.0.1:1/", "is it running"),
        ] {
            let said = format!("{:#}", find(url, Trust::Machine).err().unwrap());
            assert!(said.contains(expected), "{said:?}, not {expected:?}");
        }
        for (url, trust, expected) in [
            ("ws://127.0.0.1:1/", Trust::Anybody, "are for wss://"),
            ("wss://127.0.0.1:1/", Trust::Anybody, "is it running"),
            ("wss://127.0.0.1:1/", Trust::File(Path::new("/nowhere.pem")), "/nowhere.pem"),
            ("wss://127.0.0.1:1/", Trust::File(Path::new("/dev/null")), "holds no certificate"),
        ] {
            let said = format!("{:#}", find(url, trust).err().unwrap());
            assert!(said.contains(expected), "{said:?}, not {expected:?}");
        }
    }
}
