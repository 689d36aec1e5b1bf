//! Two network namespaces and the wire between them, for as long as the value lives.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The server's end.
pub(crate) const SERVER: &str = "10.77.0.1";
const LOAD: &str = "10.77.0.2";

/// The namespaces, and the CPU of each.
pub(crate) struct Network {
    server: String,
    load: String,
    pub(crate) server_cpu: usize,
    load_cpu: usize,
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

    /// A command in the server's namespace, on its CPU or on any.
    pub(crate) fn at_server(&self, program: &str, is_spread: bool) -> Command {
        inside(&self.server, (!is_spread).then_some(self.server_cpu), program)
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

/// The CPUs this process may run on.
fn allowed_cpus() -> Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cpus = Vec::new();
    for part in list.context("a list of CPUs")?.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cpus.extend(first.parse()?..=last.parse::<usize>()?);
    }
    Ok(cpus)
}
