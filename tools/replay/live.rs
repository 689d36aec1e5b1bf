//! RTP of a decrypted capture into a live server: each stream is a member of the room, a real WebRTC client with
//! ICE, DTLS and SRTP of its own, who speaks when the capture says.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gryt_sfu::demux::Protocol;
use gryt_sfu::rtp::extension::ExtensionIds;
use gryt_sfu::rtp::header::Header;

use super::streams::{Filter, StreamKey};
use super::support::{Client, Options, Played, now};

/// Members of one replay; packets of further streams are counted.
const MEMBER_COUNT_MAX: usize = 32;
/// Joining and connecting takes no longer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause of the capture is cut to this.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where to, and how fast.
pub(crate) struct Settings {
    pub(crate) server: SocketAddr,
    pub(crate) room: String,
    /// Times the capture's own speed.
    pub(crate) speed: f64,
    pub(crate) audio_level_id: u8,
}

/// Takes `ws://host:port/` or `http://host:port/`.
pub(crate) fn server_of(url: &str) -> Result<SocketAddr> {
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { bail!("{url} is no ws:// URL (wss is not spoken here)") };
    let host = rest.split('/').next().unwrap_or_default();
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    host.to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))
}

/// One member, and where its stream stands.
struct Member {
    client: Client,
    /// Sequence number and timestamp of the packet before.
    last: Option<(u16, u32)>,
}

/// A replay under way.
pub(crate) struct Live {
    settings: Settings,
    runtime: tokio::runtime::Runtime,
    members: HashMap<StreamKey, Member>,
    /// Time of the packet before in the capture, and when it was sent.
    last: Option<(Duration, std::time::Instant)>,
    sent: u64,
    twice: u64,
    beyond_limit: u64,
}

impl Live {
    pub(crate) fn new(settings: Settings) -> Result<Live> {
        ensure!(settings.speed > 0.0 && settings.speed <= 1_000.0, "--speed is above 0, and 1000 at most");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Live {
            settings,
            runtime,
            members: HashMap::new(),
            last: None,
            sent: 0,
            twice: 0,
            beyond_limit: 0,
        })
    }

    /// Sends a packet when its time has come; what is no RTP is passed over.
    pub(crate) fn take(
        &mut self,
        time: Duration,
        (source, destination): (SocketAddr, SocketAddr),
        payload: &[u8],
        filter: &Filter,
    ) -> Result<()> {
        if Protocol::of(payload) != Ok(Protocol::Rtp) || !filter.takes_path(source, destination) {
            return Ok(());
        }
        let Ok(header) = Header::parse(payload) else { return Ok(()) };
        let Some(voice) = header.payload(payload).ok().filter(|voice| !voice.is_empty()) else {
            return Ok(());
        };
        if !filter.takes_stream(&header) {
            return Ok(());
        }
        let key = StreamKey { source, destination, ssrc: header.ssrc };
        if !self.members.contains_key(&key) {
            if self.members.len() == MEMBER_COUNT_MAX {
                self.beyond_limit += 1;
                return Ok(());
            }
            self.join(key)?;
        }
        self.wait_for(time);
        let ids = ExtensionIds { audio_level: Some(self.settings.audio_level_id), ..ExtensionIds::default() };
        let Some(member) = self.members.get_mut(&key) else { return Ok(()) };
        let place = (header.sequence_number, header.timestamp.0);
        let (seq, timestamp) = member.last.unwrap_or((place.0.wrapping_sub(1), place.1));
        if seq == place.0 {
            self.twice += 1; // A client never seals two packets under one index.
            return Ok(());
        }
        member.client.play(Played {
            seq_step: place.0.wrapping_sub(seq) as i16,
            ticks: place.1.wrapping_sub(timestamp),
            marker: header.marker,
            level: header.extensions(payload, &ids).audio_level(),
            payload: voice.to_vec(),
        });
        member.last = Some(place);
        self.sent += 1;
        Ok(())
    }

    fn join(&mut self, key: StreamKey) -> Result<()> {
        let user = format!("replay {:08x} {}", key.ssrc.0, key.source);
        let (server, room) = (self.settings.server, self.settings.room.clone());
        std::net::TcpStream::connect_timeout(&server, JOIN_TIMEOUT)
            .with_context(|| format!("no server at {server}"))?;
        let client = self.runtime.block_on(async {
            let client = Client::start(server, &room, &user, Options::default()).await;
            let connected = async {
                client.joined().await;
                client.until("a connection", |state| state.connected.then_some(())).await;
            };
            let joined = tokio::time::timeout(JOIN_TIMEOUT, connected).await;
            joined
                .with_context(|| format!("{server} let {user} not join and connect in {JOIN_TIMEOUT:?}"))?;
            Ok::<_, anyhow::Error>(client)
        })?;
        self.members.insert(key, Member { client, last: None });
        // Who joins late does not make the others late: the clock goes on from here.
        if let Some((_, sent_at)) = &mut self.last {
            *sent_at = now();
        }
        Ok(())
    }

    /// Waits as long after the packet before as the capture says.
    fn wait_for(&mut self, time: Duration) {
        let due = match self.last {
            Some((last, sent_at)) => {
                let pause = time.saturating_sub(last).min(PAUSE_MAX);
                sent_at + pause.div_f64(self.settings.speed)
            }
            None => now(),
        };
        self.runtime.block_on(async {
            tokio::time::sleep_until(due.into()).await;
            // Orders given before are carried out although nothing has to be waited for.
            tokio::task::yield_now().await;
        });
        self.last = Some((time, due));
    }

    /// Says goodbye, and what was done.
    pub(crate) fn finish(self, out: &mut impl Write) -> Result<()> {
        let Live { runtime, members, sent, twice, beyond_limit, settings, .. } = self;
        let count = members.len();
        runtime.block_on(async {
            // What was sent last is on its way.
            tokio::time::sleep(Duration::from_millis(100)).await;
            for member in members.values() {
                member.client.leave();
                let _ = tokio::time::timeout(Duration::from_secs(2), member.client.closed()).await;
            }
        });
        writeln!(
            out,
            "{sent} packets of {count} streams sent to room {:?} of {}",
            settings.room, settings.server
        )?;
        if twice > 0 {
            writeln!(out, "{twice} packets came twice in a row in the capture and were sent once")?;
        }
        if beyond_limit > 0 {
            writeln!(
                out,
                "{beyond_limit} packets of streams beyond the first {MEMBER_COUNT_MAX} were left out"
            )?;
        }
        Ok(())
    }
}
