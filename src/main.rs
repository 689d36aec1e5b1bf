//! The server's binary: configuration, start, signal, end.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use gryt_sfu::auth;
use gryt_sfu::config::{self, Config, Flags, Order, TokenFlags};
use gryt_sfu::http;
use gryt_sfu::net::thread::cpu_count;
use gryt_sfu::net::uring;
use gryt_sfu::server::Server;
use gryt_sfu::time::Now;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

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
    if flags.check {
        print!("{config}");
        return ExitCode::SUCCESS;
    }
    start_logging(&config);
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sfu: {error:#}");
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
    match http::probe(config.port) {
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

fn start_logging(config: &Config) {
    // Our own lines only: what the crates below say is for those who work on them.
    let filter = EnvFilter::new(format!("off,gryt_sfu={}", config.log_level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

fn run(config: &Config) -> anyhow::Result<()> {
    // The control runtime is a ring too, and panics where there is none.
    uring::probe()?;
    tokio_uring::start(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::start(config).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("closing all sessions");
        server.stop().await;
        Ok(())
    })
}
