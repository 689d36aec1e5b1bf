//! `POST /debug/peers/{id}/capture`.

use std::time::Duration;

use hyper::{Response, StatusCode};
use serde_json::json;

use super::super::health::JSON;
use super::super::routes::{Body, respond, text};
use super::Inspect;

/// Where nothing is said.
const SECONDS: u64 = 10;
const SECONDS_MAX: u64 = 300;

/// A capture that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capturing {
    /// The file's name in `CAPTURE_DIR`.
    pub file: String,
}

/// Why there is no capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureRefused {
    /// Not set up.
    #[error("captures are off: set CAPTURE_DIR")]
    NoFolder,
    /// Nobody has this id.
    #[error("no such peer")]
    NoPeer,
    /// It has no media connection.
    #[error("this peer has no transport")]
    NoTransport,
    /// As many as may be are under way.
    #[error("too many captures are under way; wait for one to end")]
    Busy,
    /// As many files as may be are there.
    #[error("CAPTURE_DIR holds as many captures as it may; take some away")]
    Full,
    /// The folder or the file is not to be had.
    #[error("the file cannot be made; the log says why")]
    Disk,
}

impl CaptureRefused {
    fn status(self) -> StatusCode {
        match self {
            CaptureRefused::NoFolder | CaptureRefused::NoPeer => StatusCode::NOT_FOUND,
            CaptureRefused::NoTransport | CaptureRefused::Busy | CaptureRefused::Full => StatusCode::CONFLICT,
            CaptureRefused::Disk => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Whose, if the path is of a capture.
pub(super) fn peer(path: &str) -> Option<u64> {
    path.strip_prefix("/debug/peers/")?.strip_suffix("/capture")?.parse().ok()
}

pub(super) async fn begin(inspect: &dyn Inspect, peer: u64, query: &str) -> Response<Body> {
    let seconds = match query {
        "" => Some(SECONDS),
        query => query.strip_prefix("seconds=").and_then(|seconds| seconds.parse().ok()),
    };
    let Some(seconds) = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds)) else {
        return text(StatusCode::BAD_REQUEST, "Accepted: seconds=1 to 300.\n");
    };
    match inspect.capture(peer, Duration::from_secs(seconds)).await {
        Ok(Capturing { file }) => {
            let body = json!({ "file": file, "seconds": seconds });
            respond(StatusCode::CREATED, JSON, body.to_string())
        }
        Err(refused) => respond(refused.status(), JSON, json!({ "error": refused.to_string() }).to_string()),
    }
}
