//! Addresses of STUN and TURN servers as browsers take them (RFC 7064 §3.1, RFC 7065 §3.1).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest name of a host (RFC 1035 §2.3.4, without the final dot).
const NAME_LEN_MAX: usize = 253;
/// Longest part of one.
const LABEL_LEN_MAX: usize = 63;

/// `stun:host`, `turns:host:port?transport=tcp` and the like. Written in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceUrl {
    scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without its brackets.
    host: String,
    port: Option<u16>,
    transport: Option<Transport>,
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// STUN.
    Stun,
    /// STUN over TLS.
    Stuns,
    /// TURN.
    Turn,
    /// TURN over TLS.
    Turns,
}

/// What TURN is spoken over. Browsers take UDP for `turn:` and TCP for `turns:` where it is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl IceUrl {
    /// What is spoken there.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// For STUN servers, not for relays.
    pub const fn is_stun(&self) -> bool {
        matches!(self.scheme, Scheme::Stun | Scheme::Stuns)
    }

    /// A name or an address, the latter without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// As given, or the scheme's own (RFC 7064 §3.2, RFC 7065 §3.2).
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.scheme {
            Scheme::Stun | Scheme::Turn => 3478,
            Scheme::Stuns | Scheme::Turns => 5349,
        })
    }
}

impl FromStr for IceUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<IceUrl, ()> {
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once(':').ok_or(())?;
        let scheme = match scheme {
            "stun" => Scheme::Stun,
            "stuns" => Scheme::Stuns,
            "turn" => Scheme::Turn,
            "turns" => Scheme::Turns,
            _ => return Err(()),
        };
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let transport = match query {
            None => None,
            // RFC 7064 knows no query, and browsers refuse the whole list for one.
            Some(_) if matches!(scheme, Scheme::Stun | Scheme::Stuns) => return Err(()),
            Some("transport=udp") => Some(Transport::Udp),
            Some("transport=tcp") => Some(Transport::Tcp),
            Some(_) => return Err(()),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(())?;
                host.parse::<Ipv6Addr>().map_err(|_| ())?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(())?) })
            }
            None => {
                let (host, port) = match place.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (place, None),
                };
                (is_host(host).then_some(host).ok_or(())?, port)
            }
        };
        let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            None => None,
            Some(text) => {
                let port = Some(text).filter(is_number).and_then(|text| text.parse().ok());
                Some(port.filter(|&port| port > 0).ok_or(())?)
            }
        };
        Ok(IceUrl { scheme, host: host.to_owned(), port, transport })
    }
}

/// An IPv4 address or a name that cannot be mistaken for one.
pub(super) fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_LEN_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let is_numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_name = name.len() <= NAME_LEN_MAX
        && name.split('.').all(is_label)
        && name.rsplit('.').next().is_some_and(|last| !is_numeric(last));
    is_name || text.parse::<Ipv4Addr>().is_ok()
}

impl fmt::Display for IceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Stun => "stun",
            Scheme::Stuns => "stuns",
            Scheme::Turn => "turn",
            Scheme::Turns => "turns",
        };
        let host = &self.host;
        if host.contains(':') {
            write!(f, "{scheme}:[{host}]")?;
        } else {
            write!(f, "{scheme}:{host}")?;
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match self.transport {
            None => Ok(()),
            Some(Transport::Udp) => f.write_str("?transport=udp"),
            Some(Transport::Tcp) => f.write_str("?transport=tcp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_take_is_taken_and_nothing_else() {
        for (text, host, port) in [
            ("stun:stun.example", "stun.example", 3478),
            ("stuns:stun.example", "stun.example", 5349),
            ("stun:192.0.2.1:19302", "192.0.2.1", 19302),
            ("turn:[2001:db8::1]", "2001:db8::1", 3478),
            ("turn:[2001:db8::1]:99?transport=udp", "2001:db8::1", 99),
            ("turn:turn_1.example.:3479?transport=tcp", "turn_1.example.", 3479),
            ("turns:xn--bcher-kva.example?transport=tcp", "xn--bcher-kva.example", 5349),
        ] {
            let url: IceUrl = text.parse().expect(text);
            assert_eq!((url.host(), url.port(), url.to_string().as_str()), (host, port, text));
        }
        assert_eq!(
            "TURN:Turn.Example?transport=TCP".parse(),
            "turn:turn.example?transport=tcp".parse::<IceUrl>()
        );
        for text in [
            "",
            "stun",
            "stun:",
            "stun.example:3478",
            "http://stun.example",
            "stun://stun.example",
            "stun:stun.example?transport=udp",
            "turn:turn.example?transport=sctp",
            "turn:turn.example?transport=tcp&x=y",
            "turn:turn.example?",
            "turn:user@turn.example",
            "turn:turn.example:0",
            "turn:turn.example:",
            "turn:turn.example:+1",
            "turn:turn.example:65536",
            "turn:turn example",
            "turn:a..b",
            "turn:bücher.example",
            "turn:1.2.3",
            "turn:1.2.3.400",
            "turn:2001:db8::1",
            "turn:[2001:db8::1",
            "turn:[192.0.2.1]",
            "turn:[2001:db8::1]99",
        ] {
            assert_eq!(text.parse::<IceUrl>(), Err(()), "{text}");
        }
        let long = format!("turn:{}", ["a".repeat(63).as_str(); 4].join("."));
        assert_eq!(long.parse::<IceUrl>(), Err(()));
    }
}
