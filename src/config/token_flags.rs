//! What `sfu token` is asked for.

use std::path::PathBuf;
use std::time::Duration;

use super::{Limits, duration};
use crate::ids::{NAME_LEN_MAX, RoomName};

/// A command besides running the server.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Order {
    /// Make a token for one user and one room, signed with AUTH_SECRET, and print it
    Token(TokenFlags),
}

/// Whom the token is for and what it allows.
#[derive(clap::Args, Clone, Debug)]
pub struct TokenFlags {
    /// Room that the token is for: the `roomId` of `join`
    #[arg(long, value_parser = name)]
    pub room: String,
    /// User that the token is for: the `userId` of `join`
    #[arg(long, value_parser = name)]
    pub user: String,
    /// How long it lets its user in, such as 60s, 2m or 1h; at most 8760h
    #[arg(long, value_parser = ttl, default_value = "1h")]
    pub ttl: Duration,
    /// Allow to mute and kick others
    #[arg(long)]
    pub moderate: bool,
    /// Do not allow to be heard
    #[arg(long)]
    pub no_publish: bool,
    /// Do not allow to hear
    #[arg(long)]
    pub no_subscribe: bool,
    /// Sign with this private key (PKCS#8 in PEM; Ed25519 or P-256) instead of AUTH_SECRET
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

fn name(text: &str) -> Result<String, String> {
    match RoomName::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("accepted: 1 to {NAME_LEN_MAX} bytes without control characters")),
    }
}

fn ttl(text: &str) -> Result<Duration, &'static str> {
    let is_accepted = |ttl: &Duration| (Duration::from_secs(1)..=Limits::TOKEN_TTL_MAX).contains(ttl);
    duration(text).filter(is_accepted).ok_or("accepted: 1s to 8760h, such as 60s, 2m or 1h")
}
