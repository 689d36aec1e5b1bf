//! `sfu-load`: rooms full of WebRTC clients against a running server, and the bare fan-out to put beside it.

#[path = "load/alarm.rs"]
mod alarm;
#[path = "load/arguments.rs"]
mod arguments;
#[path = "load/bare.rs"]
mod bare;
#[path = "load/director.rs"]
mod director;
#[path = "load/fan_out.rs"]
mod fan_out;
#[path = "load/histogram.rs"]
mod histogram;
#[path = "load/janus.rs"]
mod janus;
#[path = "load/line.rs"]
mod line;
#[path = "load/member.rs"]
mod member;
#[path = "load/opus.rs"]
mod opus;
#[path = "load/outcome.rs"]
mod outcome;
#[path = "load/plot.rs"]
mod plot;
#[path = "load/process.rs"]
mod process;
#[path = "load/random.rs"]
mod random;
#[path = "load/report.rs"]
mod report;
#[path = "load/sent_times.rs"]
mod sent_times;
#[path = "load/settling.rs"]
mod settling;
#[path = "load/signalling.rs"]
mod signalling;
#[path = "load/speech.rs"]
mod speech;
#[path = "load/stamp.rs"]
mod stamp;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "load/tally.rs"]
mod tally;
#[path = "load/trust.rs"]
mod trust;
#[path = "load/udp.rs"]
mod udp;
#[path = "load/voice.rs"]
mod voice;
#[path = "load/voice_file.rs"]
mod voice_file;
#[path = "load/wire.rs"]
mod wire;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use arguments::{Arguments, Command, Load};
use clap::Parser;
use outcome::Outcome;

/// A threshold is broken.
const BROKEN: u8 = 1;
/// Bad usage, or nothing to measure.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        None => load(&arguments.load),
        Some(Command::FanOut { bind }) => fan_out::run(*bind).map(|()| ExitCode::SUCCESS),
        Some(Command::Bare(settings)) => bare(settings),
    };
    result.unwrap_or_else(|error| {
        eprintln!("sfu-load: {error:#}");
        ExitCode::from(UNUSABLE)
    })
}

fn load(load: &Load) -> Result<ExitCode> {
    // Better now than after an hour.
    for path in [&load.json, &load.report].into_iter().flatten() {
        write(path, "")?;
    }
    let outcome = director::run(load)?;
    print!("{}{}", heading(&outcome), outcome.table());
    if let Some(path) = &load.json {
        write(path, &(serde_json::to_string_pretty(&outcome)? + "\n"))?;
    }
    if let Some(path) = &load.report {
        write(path, &report::page(&outcome))?;
        println!("  report           {}", path.display());
    }
    Ok(if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) })
}

fn bare(settings: &bare::Settings) -> Result<ExitCode> {
    write(&settings.json, "")?;
    let outcome = bare::run(settings, &director::voice(&settings.voice)?)?;
    print!("{}{}", heading(&outcome), outcome.table());
    write(&settings.json, &(serde_json::to_string_pretty(&outcome)? + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn heading(outcome: &Outcome) -> String {
    let seconds = outcome.duration_seconds;
    let interrupted = if outcome.interrupted { ", interrupted" } else { "" };
    format!("\n{}, {}, {seconds:.0} s{interrupted}\n", outcome.setting.url, report::who(&outcome.setting))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
