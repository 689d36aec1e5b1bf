//! The few lines of an SDP that tests look at, read by hand.

use std::net::SocketAddr;

/// An m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// `a=mid`
    pub mid: String,
    /// `sendrecv`, `sendonly`, `recvonly` or `inactive`, as the SDP's author sees it.
    pub direction: String,
    /// First half of `a=msid`.
    pub stream_id: Option<String>,
    /// Port of the m-line.
    pub port: u16,
}

/// A description.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// In order.
    pub lines: Vec<Line>,
    /// `a=ice-ufrag`
    pub ufrag: String,
    /// `a=ice-pwd`
    pub pwd: String,
    /// Addresses of `a=candidate`.
    pub candidates: Vec<SocketAddr>,
}

impl Description {
    /// Unknown lines are skipped.
    pub fn parse(sdp: &str) -> Description {
        let mut description = Description::default();
        for line in sdp.lines() {
            if let Some(media) = line.strip_prefix("m=") {
                let port = media.split(' ').nth(1).and_then(|port| port.parse().ok()).unwrap_or(0);
                let direction = "sendrecv".to_owned();
                description.lines.push(Line { direction, port, ..Line::default() });
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else { continue };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-ufrag" => description.ufrag = value.into(),
                "ice-pwd" => description.pwd = value.into(),
                "candidate" => description.candidates.extend(candidate_address(value)),
                _ => {}
            }
            let Some(media) = description.lines.last_mut() else { continue };
            match name {
                "mid" => media.mid = value.into(),
                "sendrecv" | "sendonly" | "recvonly" | "inactive" => media.direction = name.into(),
                "msid" => {
                    let stream = value.split(' ').next().filter(|stream| *stream != "-");
                    media.stream_id = stream.map(str::to_owned);
                }
                _ => {}
            }
        }
        description
    }
}

/// The transport address of a candidate (RFC 8839 §5.1), without the `candidate:` in front.
pub fn candidate_address(candidate: &str) -> Option<SocketAddr> {
    let mut words = candidate.split(' ').skip(4);
    let ip = words.next()?.parse().ok()?;
    Some(SocketAddr::new(ip, words.next()?.parse().ok()?))
}
