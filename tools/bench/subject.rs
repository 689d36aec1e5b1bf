//! What is measured, and the load it is put under.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gryt_sfu::time::Now;

use super::janus;
use super::network::{Killed, Network, SERVER};
use super::steering;

const START_MAX: Duration = Duration::from_secs(10);
const PORT: u16 = 5005;
const FLOOR_PORT: u16 = 5006;
const JANUS_PORT: u16 = 8188;

/// Who carries the packets.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// The bare fan-out.
    Floor,
    /// The server with its media on one address, as the bare fan-out is, and with these variables set.
    Server(Vec<(&'static str, &'static str)>),
    /// The same where the kernel steers nothing to the workers of a shared port.
    Unsteered(Vec<(&'static str, &'static str)>),
    /// Janus: speakers publish, listeners subscribe.
    Janus,
}

/// Who is there, and what they say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) rooms: u32,
    pub(crate) speakers: u32,
    pub(crate) listeners: u32,
    pub(crate) voice: Voice,
    /// Of so many listeners one takes what it is sent.
    pub(crate) hear_every: u32,
    /// Speakers are sent nothing, as Janus's are.
    pub(crate) deaf_speakers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// 120 B a packet.
    Constant,
    /// What an Opus encoder made of speech, at a variable bit rate.
    Opus,
}

impl Load {
    pub(crate) fn members(&self) -> u32 {
        self.rooms * (self.speakers + self.listeners)
    }

    /// Packets that are sent for each that is heard. Else than deaf ones, speakers hear each other, too.
    pub(crate) fn sent_for_heard(&self) -> f64 {
        let others = if self.deaf_speakers { 0 } else { self.speakers.saturating_sub(1) };
        let hearing = self.listeners.div_ceil(self.hear_every) + others;
        f64::from(self.listeners + others) / f64::from(hearing.max(1))
    }
}

/// A subject that runs; killed with the value.
pub(crate) struct Running {
    child: Killed,
    url: String,
    is_spread: bool,
    is_ours: bool,
}

impl Running {
    pub(crate) fn start(subject: &Subject, network: &Network, is_spread: bool) -> Result<Running> {
        match subject {
            Subject::Floor => {
                let bind = format!("{SERVER}:{FLOOR_PORT}");
                let mut command = network.at_server(&program("sfu-load")?, is_spread);
                let mut child = command
                    .args(["fan-out", "--bind", &bind])
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()?;
                let mut line = String::new();
                BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line)?;
                let running = Running { child: Killed(child), url: bind, is_spread, is_ours: false };
                if line.is_empty() { bail!("the bare fan-out did not start") } else { Ok(running) }
            }
            Subject::Server(variables) | Subject::Unsteered(variables) => {
                let port = PORT.to_string();
                let sfu = program("sfu")?;
                let mut command = network.at_server(&sfu, is_spread);
                command
                    .env_clear()
                    .envs([("PORT", port.as_str()), ("WORKERS", "1"), ("MAX_CONNECTIONS", "8000")])
                    .envs([("LOG_LEVEL", "error"), ("ICE_BIND_IP", SERVER), ("PATH", env!("PATH"))])
                    .envs(variables.iter().copied())
                    .stdin(Stdio::null())
                    .stdout(Stdio::null());
                if matches!(subject, Subject::Unsteered(_)) {
                    steering::refuse(&mut command);
                }
                let url = format!("ws://{SERVER}:{PORT}/");
                let running = Running { child: Killed(command.spawn()?), url, is_spread, is_ours: true };
                let mut probe = network.at_server(&sfu, is_spread);
                probe.arg("--health").env("PORT", &port);
                running.once_there(probe).context("the server")
            }
            Subject::Janus => {
                let folder = std::env::temp_dir().join(format!("sfu-bench-{}-janus", std::process::id()));
                janus::configure(&folder, SERVER, JANUS_PORT)?;
                let mut command = network.at_server("janus", is_spread);
                command.args(["--disable-stdout", "--configs-folder"]).arg(&folder);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                let url = format!("ws://{SERVER}:{JANUS_PORT}/");
                let running = Running { child: Killed(command.spawn()?), url, is_spread, is_ours: false };
                let mut probe = network.at_server("bash", is_spread);
                probe.args(["-c", &format!("</dev/tcp/{SERVER}/{JANUS_PORT}")]);
                let running = running.once_there(probe).context("Janus");
                std::fs::remove_dir_all(folder)?;
                running
            }
        }
    }

    /// Waits until the probe succeeds.
    fn once_there(mut self, mut probe: Command) -> Result<Running> {
        let began = Now::read().instant;
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        while !probe.status()?.success() {
            self.child.check()?;
            if began.elapsed() > START_MAX {
                bail!("it does not answer");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(self)
    }

    /// What it tells on `/metrics`; nothing of who has none. A page for this machine only.
    pub(crate) fn metrics(&self, network: &Network) -> Result<String> {
        if !self.is_ours {
            return Ok(String::new());
        }
        let script = format!(
            r"exec 3<>/dev/tcp/127.0.0.1/{PORT}; printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3; cat <&3"
        );
        let mut command = network.asking_server("bash", self.is_spread);
        let output = command.args(["-c", &script]).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// For how long its workers have been overloaded.
    pub(crate) fn overload_seconds(&self, network: &Network) -> Result<f64> {
        let page = self.metrics(network)?;
        let lines = page.lines().filter_map(|line| line.strip_prefix("gryt_sfu_overload_seconds_total{"));
        let seconds = lines.map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        let seconds: Vec<f64> = seconds.collect::<Option<_>>().context("numbers in /metrics")?;
        ensure!(!seconds.is_empty() || !self.is_ours, "/metrics tells nothing of overload");
        Ok(seconds.iter().sum::<f64>().max(0.0)) // The sum of none is -0.
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The command that puts it under load, and writes what it found to `json`.
    pub(crate) fn load(
        &self,
        subject: &Subject,
        network: &Network,
        load: &Load,
        seconds: u32,
        json: &str,
    ) -> Result<Command> {
        let mut command = network.at_load(&program("sfu-load")?, self.is_spread);
        if matches!(subject, Subject::Floor) {
            command.arg("bare");
        }
        command.args([self.url.as_str(), "--json", json, "--pid", &self.pid().to_string()]);
        for (option, value) in [
            ("--rooms", load.rooms),
            ("--speakers", load.speakers),
            ("--listeners", load.listeners),
            ("--seconds", seconds),
            ("--hear-every", load.hear_every),
        ] {
            command.args([option, &value.to_string()]);
        }
        if !self.is_spread {
            command.arg("--realtime");
        }
        if !matches!(subject, Subject::Floor) {
            command.args(["--light", "--join-rate", "150", "--joins-at-once", "50", "--join-timeout", "120"]);
        }
        if matches!(subject, Subject::Janus) {
            command.arg("--janus");
        } else if load.deaf_speakers {
            command.arg("--deaf-speakers");
        }
        if load.voice == Voice::Opus {
            command.args(["--input", "benches/voice.opus"]);
        }
        Ok(command)
    }
}

/// A program that was built with this one.
fn program(name: &str) -> Result<String> {
    let path: PathBuf = std::env::current_exe()?.with_file_name(name);
    let path = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
    Ok(path.to_owned())
}
