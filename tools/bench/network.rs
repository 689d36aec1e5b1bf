//! Two network namespaces and the wire between them, for as long as the value lives.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use gryt_sfu::net::thread::allowed_cpus;

/// The server's end.
pub(crate) const SERVER: &str = "10.77.0.1";
const LOAD: &str = "10.77.0.2";

/// Who takes a packet in, from the wire to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Receive {
    /// The CPU of whom it is for, as with two machines
    Receiver,
    /// The CPU of whoever sent it, as veth does by itself: each send pays for its reception, too
    Sender,
}

/// Who cuts a train of datagrams into those that are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Segment {
    /// The other end, as a network card would that segments UDP
    Receiver,
    /// The sender's CPU, as without such a card
    Sender,
}

/// What the load's CPU does while it waits for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadCpu {
    /// It sleeps, and whoever sends to it pays for waking it
    Asleep,
    /// It spins at idle priority: each subject interrupts it as often
    Awake,
}

/// A process that ends with the value.
pub(crate) struct Killed(pub(crate) Child);

impl Killed {
    /// # Errors
    /// When it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.0.try_wait()?.map_or(Ok(()), |status| bail!("it ended by itself: {status}"))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Dead already, perhaps.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The namespaces, and the CPU of each.
pub(crate) struct Network {
    server: String,
    load: String,
    pub(crate) server_cpu: usize,
    pub(crate) load_cpu: usize,
}

impl Network {
    pub(crate) fn new() -> Result<Network> {
        let cpus = allowed_cpus()?;
        ensure!(cpus.len() >= 2, "server and load need a CPU each, and there is one");
        let name = |end: &str| format!("sfu-bench-{}-{end}", std::process::id());
        let network =
            Network { server: name("server"), load: name("load"), server_cpu: cpus[0], load_cpu: cpus[1] };
        let (server, load) = (&network.server, &network.load);
        for line in [
            format!("netns add {server}"),
            format!("netns add {load}"),
            format!("link add veth0 netns {server} type veth peer name veth0 netns {load}"),
        ] {
            ip(&line)?;
        }
        for (end, address) in [(server, SERVER), (load, LOAD)] {
            ip(&format!("-n {end} addr add {address}/24 dev veth0"))?;
            ip(&format!("-n {end} link set veth0 up"))?;
            ip(&format!("-n {end} link set lo up"))?;
        }
        Ok(network)
    }

    /// Says where packets are taken in, at both ends: by receive packet steering to one CPU, or by none.
    pub(crate) fn take_in(&self, receive: Receive) -> Result<()> {
        for (end, cpu) in [(&self.server, self.server_cpu), (&self.load, self.load_cpu)] {
            let mask = match receive {
                Receive::Receiver => cpu_mask(cpu),
                Receive::Sender => "0".to_owned(),
            };
            // sysfs shows the devices of whoever mounted it; `ip netns exec` mounts it anew.
            let write = format!("echo {mask} > /sys/class/net/veth0/queues/rx-0/rps_cpus");
            let status = inside(end, None, "sh").args(["-c", &write]).stdin(Stdio::null()).status()?;
            ensure!(status.success(), "packets cannot be steered to CPU {cpu}: no CONFIG_RPS?");
        }
        Ok(())
    }

    /// Says who cuts trains, at the server's end.
    pub(crate) fn segment(&self, by: Segment) -> Result<()> {
        let count = match by {
            Segment::Receiver => 65_535,
            Segment::Sender => 1,
        };
        ip(&format!("-n {} link set veth0 gso_max_segs {count}", self.server))
    }

    /// A command in the server's namespace, on its CPU or on any.
    pub(crate) fn at_server(&self, program: &str, is_spread: bool) -> Command {
        inside(&self.server, (!is_spread).then_some(self.server_cpu), program)
    }

    /// A command that asks the server something, where it is, but on the load's CPU or on any.
    pub(crate) fn asking_server(&self, program: &str, is_spread: bool) -> Command {
        inside(&self.server, (!is_spread).then_some(self.load_cpu), program)
    }

    /// Gives the load's CPU something to do that gives way to everything else.
    pub(crate) fn keep_awake(&self) -> Result<Killed> {
        let mut command = inside(&self.load, Some(self.load_cpu), "chrt");
        let child =
            command.args(["--idle", "0", "sh", "-c", "while :; do :; done"]).stdin(Stdio::null()).spawn();
        Ok(Killed(child?))
    }

    /// A command in the load's namespace, on its CPU or on any.
    pub(crate) fn at_load(&self, program: &str, is_spread: bool) -> Command {
        inside(&self.load, (!is_spread).then_some(self.load_cpu), program)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for end in [&self.server, &self.load] {
            // It may not have come so far.
            let _ = Command::new("ip").args(["netns", "del", end]).output();
        }
    }
}

/// As sysfs takes it: groups of 32 bits in hexadecimal, the highest first.
fn cpu_mask(cpu: usize) -> String {
    format!("{:x}{}", 1u32 << (cpu % 32), ",00000000".repeat(cpu / 32))
}

/// Each program replaces the one before, so that the child's pid is the program's.
fn inside(namespace: &str, cpu: Option<usize>, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]);
    if let Some(cpu) = cpu {
        command.args(["taskset", "-c", &cpu.to_string()]);
    }
    command.arg(program);
    command
}

fn ip(line: &str) -> Result<()> {
    let output = Command::new("ip").args(line.split(' ')).output().context("ip cannot be run")?;
    ensure!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[test]
fn a_mask_names_one_cpu() {
    assert_eq!([0, 1, 31].map(cpu_mask), ["1", "2", "80000000"]);
    assert_eq!([32, 70].map(cpu_mask), ["1,00000000", "40,00000000,00000000"]);
}
