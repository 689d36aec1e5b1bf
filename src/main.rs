//! The server's binary: configuration, start, signal, end.

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use gryt_sfu::auth;
use gryt_sfu::config::{self, Config, Flags, Order, TokenFlags};
use gryt_sfu::http::{self, Certificate, Tls};
use gryt_sfu::net::thread::{allowed_cpus, cpu_count};
use gryt_sfu::server::{Io, Server, logging, self_check};
use gryt_sfu::time::Now;
use tokio::signal::unix::{SignalKind, signal};

/// The configuration is at fault, not the machine.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let command = Flags::command().after_help(config::help());
    let flags = match Flags::from_arg_matches(&command.get_matches()) {
        Ok(flags) => flags,
        Err(error) => error.exit(),
    };
    let config = match Config::load(cpu_count()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("sfu: {error}");
            // Of a health check, engines take 0 and 1 only.
            return if flags.health { ExitCode::FAILURE } else { ExitCode::from(BAD_CONFIGURATION) };
        }
    };
    if let Some(Order::Token(flags)) = &flags.order {
        return token(flags, &config);
    }
    if flags.health {
        return health(&config);
    }
    let tls = match config.door.tls.as_ref().map(Certificate::read).transpose() {
        Ok(certificate) => certificate.map(Tls::new),
        Err(error) => {
            eprintln!("sfu: {error}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    // Not of a health check, which somebody else may start on other CPUs.
    if let Err(error) = allowed_cpus().map_or(Ok(()), |allowed| config.check_cpus(&allowed)) {
        eprintln!("sfu: {error}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    if flags.check {
        print!("{config}");
        match Io::choose(config.io_backend) {
            Ok(io) => println!("# media passes by {io}"),
            Err(error) => {
                eprintln!("sfu: {}", self_check::no_ring(&error));
                return ExitCode::FAILURE;
            }
        }
        if let Err(error) = self_check::look_for_files(&config) {
            eprintln!("sfu: {error:#}");
            return ExitCode::FAILURE;
        }
        if let Some(warning) = tls.and_then(|tls| tls.warning(Now::read().ntp.unix_seconds())) {
            eprintln!("sfu: warning: {warning}");
        }
        return ExitCode::SUCCESS;
    }
    match logging::start(&config).and_then(|_logging| run(&config, tls)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::last_words(&format!("sfu: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn token(flags: &TokenFlags, config: &Config) -> ExitCode {
    match auth::mint(flags, config.auth.as_ref(), Now::read()) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sfu: {error}");
            ExitCode::from(BAD_CONFIGURATION)
        }
    }
}

fn health(config: &Config) -> ExitCode {
    match http::probe(config.port, config.door.tls.is_some()) {
        Ok(()) => {
            println!("healthy");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sfu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config, tls: Option<Tls>) -> anyhow::Result<()> {
    std::panic::set_hook(Box::new(logging::note_panic));
    let io = Io::choose(config.io_backend).map_err(|error| anyhow::anyhow!(self_check::no_ring(&error)))?;
    io.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::start(config, tls, &io).await?;
        let mut told = async || {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    _ = hangup.recv() => server.reload(),
                }
            }
        };
        told().await;
        if !config.drain_timeout.is_zero() {
            tracing::info!(timeout = ?config.drain_timeout, "draining: nobody new is let in; once more to end at once");
            tokio::select! {
                () = server.drain(config.drain_timeout) => {}
                () = told() => {}
            }
        }
        tracing::info!("closing all sessions");
        server.stop().await;
        Ok(())
    })?
}
