//! Who may look: with a token whoever shows it, without one only who sits at this machine. A reverse proxy makes
//! everybody look local, and so does a web page in a local browser, so both are told apart by what they send along. A proxy
//! may send nothing of the kind, but then members come through it whose pages are of another site.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use hyper::header::{FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA};
use hyper::{Request, StatusCode, Uri};

use crate::config::Hidden;
use crate::http::bearer::{NotShown, Token};

pub(super) struct Guard {
    token: Option<Token>,
    /// Somebody came through a proxy on this machine.
    is_proxied: Cell<bool>,
}

/// Why not, in words for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) words: &'static str,
}

const fn forbidden(words: &'static str) -> Refused {
    Refused { status: StatusCode::FORBIDDEN, words }
}

const NO_TOKEN: Refused = Refused {
    status: StatusCode::UNAUTHORIZED,
    words: "The debug token is needed: Authorization: Bearer followed by DEBUG_TOKEN.\n",
};
const WRONG_TOKEN: Refused =
    Refused { status: StatusCode::UNAUTHORIZED, words: "This is not the debug token.\n" };
const NOT_LOCAL: Refused = forbidden("Only from this machine; set DEBUG_TOKEN to look from elsewhere.\n");
const PROXIED: Refused = forbidden("Not through a proxy; set DEBUG_TOKEN to look from elsewhere.\n");
const FOREIGN_HOST: Refused = forbidden("Only as localhost; set DEBUG_TOKEN to use another name.\n");
const FOREIGN_ORIGIN: Refused = forbidden("Not for another site's page.\n");

impl Refused {
    /// A token was shown, and it is another.
    pub(super) fn is_forged(self) -> bool {
        self == WRONG_TOKEN
    }
}

impl Guard {
    pub(super) fn new(token: Option<Hidden>) -> Guard {
        Guard { token: token.as_ref().map(Token::new), is_proxied: Cell::new(false) }
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Somebody opens a WebSocket. From this machine, with a page that is not: then whoever seems to be local is from
    /// anywhere.
    pub(super) fn see_upgrade(&self, headers: &HeaderMap, remote: SocketAddr) {
        if self.token.is_some() || self.is_proxied.get() || !remote.ip().to_canonical().is_loopback() {
            return;
        }
        let is_foreign = |host: &str| !is_this_machine(host);
        let host = only(headers, &HOST).ok().flatten();
        let page = only(headers, &ORIGIN).ok().flatten().and_then(host_of);
        if headers.keys().any(is_by_proxy) || host.is_some_and(is_foreign) || page.is_some_and(is_foreign) {
            self.is_proxied.set(true);
            tracing::warn!(
                "WebSockets come through a proxy on this machine: /debug is closed until DEBUG_TOKEN is set"
            );
        }
    }

    pub(super) fn admit<B>(&self, request: &Request<B>, remote: SocketAddr) -> Result<(), Refused> {
        match &self.token {
            Some(token) => token.check(request.headers()).map_err(|not_shown| match not_shown {
                NotShown::Missing => NO_TOKEN,
                NotShown::Wrong => WRONG_TOKEN,
            }),
            None if self.is_proxied.get() => Err(PROXIED),
            None => is_local(request.uri(), request.headers(), remote),
        }
    }
}

fn is_local(uri: &Uri, headers: &HeaderMap, remote: SocketAddr) -> Result<(), Refused> {
    if !remote.ip().to_canonical().is_loopback() {
        return Err(NOT_LOCAL);
    }
    if headers.keys().any(is_by_proxy) {
        return Err(PROXIED);
    }
    // A name of a stranger's that leads here (DNS rebinding) is not ours.
    let host = only(headers, &HOST).ok().flatten().ok_or(FOREIGN_HOST)?;
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    if !is_this_machine(host) || authority != host {
        return Err(FOREIGN_HOST);
    }
    match only(headers, &ORIGIN) {
        Ok(None) => Ok(()),
        Ok(Some(origin)) => {
            if host_of(origin) == Some(host) {
                Ok(())
            } else {
                Err(FOREIGN_ORIGIN)
            }
        }
        Err(Several) => Err(FOREIGN_ORIGIN),
    }
}

fn is_by_proxy(name: &HeaderName) -> bool {
    *name == FORWARDED || *name == VIA || name == "x-real-ip" || name.as_str().starts_with("x-forwarded")
}

/// Of a page of the web; programs have other origins, or none.
fn host_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
}

/// More than one, or none that is text.
struct Several;

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Several> {
    let mut all = headers.get_all(name).iter();
    let first = all.next();
    match (first.map(|value| value.to_str()), all.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(Several),
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_this_machine(host: &str) -> bool {
    let has_port = |rest: &str| {
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        return address.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback()) && has_port(rest);
    }
    let (name, rest) = host.split_at(host.find(':').unwrap_or(host.len()));
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (name.eq_ignore_ascii_case("localhost") || is_loopback) && has_port(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine() {
        for host in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.1.2.3:5005", "[::1]", "[::1]:5005"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            ":80",
            "localhost.",
            "localhost.evil.example",
            "evil.example:80",
            "localhost:80:80",
            "localhost:99999",
            "[::1",
            "[::2]",
            "[localhost]",
            "[::1]x",
            "127.0.0.1.nip.example",
            "0.0.0.0",
            "10.0.0.1",
            "localhost:http",
            "localhost@evil",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
