//! The STUN and TURN servers that clients are told of, and the credentials for the latter.
//!
//! With a secret every client has a credential of its own: the name says when it ends and whose it is, the
//! password is `base64(HMAC-SHA1(secret, name))`. Servers that know the secret check it without asking
//! (draft-uberti-behave-turn-rest-00 §2.2; `use-auth-secret` of coturn).

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;

use super::message::{CredentialText, IceServer};
use crate::config::{Config, Hidden, IceUrl};

/// How long a credential of a client's own is good.
pub const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);

/// When a client gets the next one. The rest is for clocks that differ and for a client that is away.
pub const CREDENTIAL_REFRESH: Duration = Duration::from_secs(11 * 60 * 60);

const _: () = assert!(CREDENTIAL_REFRESH.as_secs() < CREDENTIAL_LIFETIME.as_secs());

/// What clients are told of STUN and TURN.
#[derive(Default)]
pub struct IceServers {
    stun: Vec<String>,
    turn: Vec<String>,
    credentials: Credentials,
}

#[derive(Default)]
enum Credentials {
    #[default]
    None,
    /// The same for all.
    Shared { username: String, password: Hidden },
    /// One for each.
    Own { secret: Hidden, unix_time: UnixTime },
}

/// Seconds since 1970 at an instant that has just been read: servers compare with their own wall clock, and
/// ours may be set while we run.
pub type UnixTime = Box<dyn Fn(Instant) -> u64>;

impl IceServers {
    /// As configured. A secret goes before a shared password.
    pub fn new(config: &Config, unix_time: impl Fn(Instant) -> u64 + 'static) -> IceServers {
        let texts = |urls: &[IceUrl]| urls.iter().map(IceUrl::to_string).collect();
        let credentials = match (&config.turn_secret, &config.turn_username, &config.turn_password) {
            (Some(secret), ..) => Credentials::Own { secret: secret.clone(), unix_time: Box::new(unix_time) },
            (None, Some(username), Some(password)) => {
                Credentials::Shared { username: username.clone(), password: password.clone() }
            }
            _ => Credentials::None,
        };
        IceServers { stun: texts(&config.stun_servers), turn: texts(&config.turn_servers), credentials }
    }

    /// For one client. `name` stands for it in its credential, and with it in the TURN server's log and quota.
    pub(super) fn for_client(&self, now: Instant, name: &str) -> Vec<IceServer> {
        let mut servers = vec![];
        if !self.stun.is_empty() {
            servers.push(IceServer { urls: self.stun.clone(), username: None, credential: None });
        }
        if !self.turn.is_empty() {
            let (username, credential) = match &self.credentials {
                Credentials::None => return servers,
                Credentials::Shared { username, password } => {
                    (username.clone(), password.reveal().to_owned())
                }
                Credentials::Own { secret, unix_time } => {
                    let username = format!("{}:{name}", unix_time(now) + CREDENTIAL_LIFETIME.as_secs());
                    let password = sign(secret.reveal(), &username);
                    (username, password)
                }
            };
            servers.push(IceServer {
                urls: self.turn.clone(),
                username: Some(username),
                credential: Some(CredentialText(credential)),
            });
        }
        servers
    }

    /// After how long what a client was told has to be told anew.
    pub(super) fn refresh_after(&self) -> Option<Duration> {
        let ends = !self.turn.is_empty() && matches!(self.credentials, Credentials::Own { .. });
        ends.then_some(CREDENTIAL_REFRESH)
    }
}

fn sign(secret: &str, username: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    mac.update(username.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_what_openssl_says() {
        // printf %s 1800043200:ada | openssl dgst -sha1 -hmac 'a secret of the house' -binary | base64
        assert_eq!(sign("a secret of the house", "1800043200:ada"), "Q/ueSIF26W1M5lIYtbkLQ0devjI=");
    }
}
