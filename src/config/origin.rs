//! Where a web page is from (RFC 6454).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::ice_url::is_host;

/// Longest scheme: `chrome-extension` and the like.
const SCHEME_LEN_MAX: usize = 32;

/// As browsers write it in `Origin`: in lower case, without the scheme's own port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// As in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a page of this origin came from a server that is known by this `Host` (RFC 9110 §7.2): the same
    /// name or address, and the same port.
    pub fn is_of_host(&self, host: &str) -> bool {
        let Some((scheme, place)) = self.0.split_once("://") else { return false };
        place == without_default_port(scheme, &host.to_ascii_lowercase())
    }

    /// Whether whoever is at this origin is who it says, whatever a stranger lets his names resolve to (DNS rebinding):
    /// for https there was a certificate, an address is no name, and browsers ask nobody for `localhost`.
    pub fn is_proof_against_rebinding(&self) -> bool {
        let Some((scheme, place)) = self.0.split_once("://") else { return false };
        let host = place.split_once(':').map_or(place, |(host, _)| host);
        scheme == "https" || host == "localhost" || place.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()
    }
}

impl FromStr for Origin {
    type Err = ();

    fn from_str(text: &str) -> Result<Origin, ()> {
        let text = text.to_ascii_lowercase();
        let (scheme, place) = text.split_once("://").ok_or(())?;
        // Not only http and https: packaged applications have schemes of their own.
        let is_scheme = scheme.len() <= SCHEME_LEN_MAX
            && scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let place = without_default_port(scheme, place);
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (ip, port) = rest.split_once(']').ok_or(())?;
                ip.parse::<Ipv6Addr>().map_err(|_| ())?;
                (None, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(())?) })
            }
            None => match place.split_once(':') {
                Some((host, port)) => (Some(host), Some(port)),
                None => (Some(place), None),
            },
        };
        let is_port = |port: &str| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if is_scheme && host.is_none_or(is_host) && port.is_none_or(is_port) {
            Ok(Origin(format!("{scheme}://{place}")))
        } else {
            Err(())
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn without_default_port<'a>(scheme: &str, place: &'a str) -> &'a str {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return place,
    };
    place.strip_suffix(port).unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        text.parse().expect(text)
    }

    #[test]
    fn an_origin_is_a_scheme_a_host_and_perhaps_a_port() {
        for (text, written) in [
            ("https://App.example", "https://app.example"),
            ("https://app.example:443", "https://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://[2001:DB8::1]:8080", "http://[2001:db8::1]:8080"),
            ("http://192.0.2.1", "http://192.0.2.1"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            assert_eq!(origin(text).as_str(), written);
        }
        for text in [
            "",
            "null",
            "*",
            "app.example",
            "://app.example",
            "https://",
            "https://app.example/",
            "https://app.example/path",
            "https://*.example",
            "https://user@app.example",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:65536",
            "https://app.example:+1",
            "https://[::1",
            "https://[::1]x",
            "https://a b",
            "1https://app.example",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_page_of_our_own_is_known_by_the_host_that_it_asks() {
        assert!(origin("http://localhost:5005").is_of_host("localhost:5005"));
        assert!(origin("https://sfu.example").is_of_host("SFU.example"));
        assert!(origin("https://sfu.example").is_of_host("sfu.example:443"));
        assert!(origin("http://[::1]:5005").is_of_host("[::1]:5005"));
        for host in ["localhost", "localhost:5006", "localhost:50055", "", "xlocalhost:5005"] {
            assert!(!origin("http://localhost:5005").is_of_host(host), "{host}");
        }
        assert!(!origin("https://sfu.example").is_of_host("sfu.example:80"));
    }

    #[test]
    fn a_name_at_plain_http_may_be_anybodys() {
        for text in [
            "https://sfu.example",
            "https://sfu.example:8443",
            "http://localhost",
            "http://localhost:5005",
            "http://192.0.2.1",
            "http://192.0.2.1:5005",
            "http://[2001:db8::1]",
            "http://[2001:db8::1]:5005",
        ] {
            assert!(origin(text).is_proof_against_rebinding(), "{text}");
        }
        for text in [
            "http://sfu.example",
            "http://sfu.example:5005",
            "http://localhost.example",
            "http://192.0.2.1.example:5005",
            "capacitor://app.example",
        ] {
            assert!(!origin(text).is_proof_against_rebinding(), "{text}");
        }
    }
}
