//! Who is let in at the front door, and how: origins, TLS, proxies, rates.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{Error, Limits, Origin, Source, Variable, boolean, duration, number};

/// The variables of this group.
pub(super) const VARIABLES: &[Variable] = &[
    CORS_ORIGINS,
    TLS_CERT,
    TLS_KEY,
    TRUSTED_PROXIES,
    RATE_LIMIT_ENABLED,
    RATE_LIMIT_REQUESTS,
    RATE_LIMIT_WINDOW,
];

const CORS_ORIGINS: Variable = Variable {
    name: "CORS_ORIGINS",
    default: "",
    accepted: "up to 32 with commas between, as https://app.example or https://app.example:8443, without a path",
    meaning: "Sites whose pages may open a WebSocket here and read what HTTP answers, besides the demo page; that one \
              too where it is at plain http and neither at an address nor at localhost. Unset: pages of every site may \
              open one, and read /health. What is no browser is not asked.",
};
const TLS_CERT: Variable = Variable {
    name: "TLS_CERT",
    default: "",
    accepted: "the path of a PEM file, together with TLS_KEY",
    meaning: "Certificate chain, the server's own first: with it PORT speaks https and wss, and nothing else. Read \
              anew when the files change, and on SIGHUP, for connections from then on.",
};
const TLS_KEY: Variable = Variable {
    name: "TLS_KEY",
    default: "",
    accepted: "the path of a PEM file, together with TLS_CERT",
    meaning: "The certificate's private key.",
};
const TRUSTED_PROXIES: Variable = Variable {
    name: "TRUSTED_PROXIES",
    default: "",
    accepted: "up to 64 addresses or networks with commas between: 127.0.0.1, 10.0.0.0/8, 2001:db8::/32",
    meaning: "Reverse proxies whose X-Forwarded-For is believed: a client's address is then the rightmost there that \
              is not one of these. Of everybody else the header is ignored.",
};
const RATE_LIMIT_ENABLED: Variable = Variable {
    name: "RATE_LIMIT_ENABLED",
    default: "false",
    accepted: "true or false",
    meaning: "Limits what one client may ask for: requests and WebSockets by address (IPv6 by /64), answered with \
              429 beyond, and messages of one WebSocket, which is closed with 1008. Not /health, /ready, \
              /metrics and /debug.",
};
const RATE_LIMIT_REQUESTS: Variable = Variable {
    name: "RATE_LIMIT_REQUESTS",
    default: "100",
    accepted: "1 to 1000000",
    meaning: "How many in RATE_LIMIT_WINDOW; so many may come at once, and come back evenly over the window.",
};
const RATE_LIMIT_WINDOW: Variable = Variable {
    name: "RATE_LIMIT_WINDOW",
    default: "60s",
    accepted: "1ms to 24h, such as 500ms, 60s or 2m",
    meaning: "The time that RATE_LIMIT_REQUESTS is for.",
};

/// Who is let in at the front door, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Sites whose pages may come; empty: all.
    pub cors_origins: Vec<Origin>,
    /// Speak TLS, with these.
    pub tls: Option<TlsFiles>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// Hold clients to [`Door::rate`].
    pub is_rate_limited: bool,
    /// What one client may ask for.
    pub rate: Rate,
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

/// So many in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In this time, 1 ms to [`Limits::RATE_WINDOW_MAX`].
    pub window: Duration,
}

/// Addresses of reverse proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl Door {
    pub(super) fn parse(source: &Source<'_>) -> Result<Door, Error> {
        let path = |variable| source.given(variable, |text| Some(PathBuf::from(text)));
        let tls = match (path(&TLS_CERT)?, path(&TLS_KEY)?) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) => return Err(Error::Half(TLS_CERT.name, TLS_KEY.name)),
            (None, Some(_)) => return Err(Error::Half(TLS_KEY.name, TLS_CERT.name)),
        };
        Ok(Door {
            cors_origins: source.given(&CORS_ORIGINS, origins)?.unwrap_or_default(),
            tls,
            trusted_proxies: source.given(&TRUSTED_PROXIES, TrustedProxies::parse)?.unwrap_or_default(),
            is_rate_limited: source.with(&RATE_LIMIT_ENABLED, boolean)?,
            rate: Rate {
                requests: source.with(&RATE_LIMIT_REQUESTS, |text| {
                    number(text, 1..=Limits::RATE_REQUESTS_MAX).and_then(NonZeroU32::new)
                })?,
                window: source.with(&RATE_LIMIT_WINDOW, |text| {
                    let is_accepted = |window: &Duration| {
                        (Duration::from_millis(1)..=Limits::RATE_WINDOW_MAX).contains(window)
                    };
                    duration(text).filter(is_accepted)
                })?,
            },
        })
    }

    /// In the order of [`VARIABLES`].
    pub(super) fn values(&self) -> [(&'static str, String); 7] {
        let path = |path: fn(&TlsFiles) -> &PathBuf| {
            self.tls.as_ref().map(|files| path(files).display().to_string()).unwrap_or_default()
        };
        [
            (CORS_ORIGINS.name, joined(&self.cors_origins)),
            (TLS_CERT.name, path(|files| &files.certificate)),
            (TLS_KEY.name, path(|files| &files.key)),
            (TRUSTED_PROXIES.name, joined(&self.trusted_proxies.0)),
            (RATE_LIMIT_ENABLED.name, self.is_rate_limited.to_string()),
            (RATE_LIMIT_REQUESTS.name, self.rate.requests.to_string()),
            (RATE_LIMIT_WINDOW.name, format!("{}ms", self.rate.window.as_millis())),
        ]
    }
}

impl TrustedProxies {
    /// Addresses and networks, with commas between. `None` where one is neither, or there are too many.
    pub fn parse(text: &str) -> Option<TrustedProxies> {
        listed(text, Limits::TRUSTED_PROXY_COUNT_MAX, network).map(TrustedProxies)
    }

    /// Whether this is one. An IPv4-mapped address is the address that it maps.
    pub fn contain(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }
}

/// A network, or an address as a network of one.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(IpNet::from(ip.to_canonical())),
        Err(_) => text.parse::<IpNet>().ok().map(|network| canonical(network.trunc())),
    }
}

/// Of IPv4-mapped addresses, the network that those map.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network.addr() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    mapped
        .zip(network.prefix_len().checked_sub(96))
        .and_then(|(ip, len)| IpNet::new(ip.into(), len).ok())
        .unwrap_or(network)
}

fn origins(text: &str) -> Option<Vec<Origin>> {
    listed(text, Limits::ORIGIN_COUNT_MAX, |item| item.parse().ok())
}

/// What stands between commas, each once.
fn listed<T: PartialEq>(text: &str, count_max: usize, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let mut list = Vec::new();
    for item in text.split(',') {
        let item = parse(item.trim())?;
        if !list.contains(&item) {
            list.push(item);
        }
        if list.len() > count_max {
            return None;
        }
    }
    Some(list)
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_known_by_its_address_or_its_network() {
        let proxies = TrustedProxies::parse(
            "127.0.0.1, 10.1.2.3/8,2001:db8::/32 ,::ffff:192.0.2.1,::ffff:172.16.0.0/108",
        )
        .unwrap();
        for ip in ["127.0.0.1", "10.255.0.1", "::ffff:10.0.0.1", "2001:db8:1::1", "192.0.2.1", "172.31.0.1"] {
            assert!(proxies.contain(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["127.0.0.2", "11.0.0.1", "2001:db9::1", "::1", "192.0.2.2"] {
            assert!(!proxies.contain(ip.parse().unwrap()), "{ip}");
        }
        assert!(!TrustedProxies::default().contain("127.0.0.1".parse().unwrap()));
    }
}
