//! `sfu-bench`: what a delivered voice packet costs the server, beside what it costs the kernel alone.
//!
//! Server and load live in two network namespaces joined by a veth pair, each on a CPU of its own. The load is
//! `sfu-load --light`; the floor is `sfu-load fan-out`, a bare `recvmmsg` to `sendmmsg` relay of the same datagrams at
//! the same pace. Each end takes in what is for it on its own CPU, as two machines would. Subjects take turns, and
//! medians are kept. Before each turn both CPUs spin, to see what the host takes of them. Where several workers are
//! compared, both ends share all CPUs, and only the server's own CPU time says something.

#[path = "bench/books.rs"]
mod books;
#[path = "bench/host.rs"]
mod host;
#[path = "bench/janus.rs"]
mod janus;
#[path = "bench/measurement.rs"]
mod measurement;
#[path = "bench/network.rs"]
mod network;
#[path = "bench/plan.rs"]
mod plan;
#[path = "load/plot.rs"]
mod plot;
#[path = "bench/queue.rs"]
mod queue;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/steering.rs"]
#[allow(unsafe_code, reason = "a filter of system calls, set between fork and exec")]
mod steering;
#[path = "bench/subject.rs"]
mod subject;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use measurement::{Row, measure};
use network::{LoadCpu, Network, Receive, Segment};

/// Measures the server beside a bare fan-out, and writes what it found as Markdown and as a page.
#[derive(Parser)]
#[command(name = "sfu-bench", version)]
struct Arguments {
    /// Runs of each subject in each row; medians are kept
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Length of a run, after all have joined
    #[arg(long, default_value_t = 6, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(3..=600))]
    seconds: u32,
    /// Only these tables, by name; --list names them
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these rows of them, by the number of what the table varies (--only saturation --at 12,28)
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',')]
    at: Vec<u32>,
    /// On whose CPU the kernel takes a packet in
    #[arg(long, value_enum, default_value_t = Receive::Receiver, value_name = "CPU")]
    receive: Receive,
    /// Who cuts what leaves as one send of several datagrams
    #[arg(long, value_enum, default_value_t = Segment::Receiver, value_name = "WHO")]
    segment: Segment,
    /// What the load's CPU does while it waits
    #[arg(long, value_enum, default_value_t = LoadCpu::Asleep, value_name = "STATE")]
    load_cpu: LoadCpu,
    /// Names the tables and what is in them, and measures nothing
    #[arg(long)]
    list: bool,
    /// Where bench.md and bench.html go
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let tables = plan::tables();
    if arguments.list {
        for table in &tables {
            println!("{:<10} {}", table.name, table.title);
        }
        return Ok(());
    }
    for name in &arguments.only {
        ensure!(tables.iter().any(|table| table.name == name), "there is no table {name}; see --list");
    }
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    for number in &arguments.at {
        let has_row =
            |table: &plan::Table| wanted(table.name) && table.cases.iter().any(|case| case.x == *number);
        ensure!(tables.iter().any(has_row), "no table of those has a row {number}");
    }
    std::fs::create_dir_all(&arguments.out)
        .with_context(|| format!("{} cannot be made", arguments.out.display()))?;
    let network = Network::new().context("two network namespaces (as root, with iproute2)")?;
    network.segment(arguments.segment)?;
    let mut found = Vec::new();
    let (mut missing, mut is_whole) = (Vec::new(), true);
    for table in tables.iter().filter(|table| wanted(table.name)) {
        println!("{}", table.title);
        if table.has_janus() && !janus::is_installed() {
            println!("  not measured: Janus is not installed (Debian: apt-get install janus)");
            missing.push("Janus was not there to be measured.".to_owned());
            continue;
        }
        network.take_in(if table.is_spread { Receive::Sender } else { arguments.receive })?;
        let is_kept_awake = arguments.load_cpu == LoadCpu::Awake && !table.is_spread;
        let mut awake = is_kept_awake.then(|| network.keep_awake()).transpose()?;
        let mut rows: Vec<Row> = Vec::new();
        for case in &table.cases {
            if !arguments.at.is_empty() && !arguments.at.contains(&case.x) {
                continue;
            }
            match measure(&network, table, case, arguments.runs, arguments.seconds) {
                Ok(row) => rows.push(row),
                // Loads grow: what is too much now is so for those that follow.
                Err(error) => {
                    is_whole = false;
                    eprintln!("  {}: not measured, nor what follows: {error:#}", case.label);
                    missing.push(format!(
                        "{}, {} and what follows could not be measured.",
                        table.name, case.label
                    ));
                    break;
                }
            }
        }
        if rows.is_empty() {
            continue;
        }
        if let Some(awake) = &mut awake {
            awake.check().context("what keeps the load's CPU awake (chrt, of util-linux)")?;
        }
        found.push((table, rows));
        // After each table, so that an hour is not lost with the last minute.
        write(&arguments, &found, &missing)?;
    }
    ensure!(!found.is_empty(), "nothing was measured");
    write(&arguments, &found, &missing)?; // What is missing may have come last.
    println!("{0}/bench.md and {0}/bench.html", arguments.out.display());
    ensure!(is_whole, "not all was measured: {}", missing.join(" "));
    Ok(())
}

fn write(arguments: &Arguments, found: &[(&plan::Table, Vec<Row>)], missing: &[String]) -> Result<()> {
    let Arguments { runs, seconds, receive, segment, load_cpu, .. } = *arguments;
    let mut about = report::About::read(runs, seconds, receive, segment, load_cpu);
    about.missing = missing.to_vec();
    for (file, text) in
        [("bench.md", report::markdown(&about, found)), ("bench.html", report::page(&about, found))]
    {
        let path = arguments.out.join(file);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
