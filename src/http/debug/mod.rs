//! `/debug`: how rooms, peers, tracks and workers are, as JSON and as a page. For operators: see `guard`. What it
//! says names users and addresses, so it is never shared across origins and never kept.

mod capture;
mod guard;
mod json;
mod page;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastwebsockets::upgrade::is_upgrade_request;
use hyper::header::{
    ALLOW, CACHE_CONTROL, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

pub use self::capture::{CaptureRefused, Capturing};
use self::guard::{Guard, Refused};
use super::health::JSON;
use super::routes::{Body, respond, text};
use super::{App, FRESH, Service};
use crate::config::Hidden;
use crate::ids::WorkerId;
use crate::metrics::exposition::Snapshot;
use crate::signalling::{Member, RoomView};
use crate::throttle::throttled;
use crate::time::Now;
use crate::worker::snapshot::PeerSnapshot;

/// Answers that are kept.
const ANSWER_COUNT_MAX: usize = 8;
/// Longest path and query that is looked at.
const URI_LEN_MAX: usize = 1024;

/// Everything that is to be seen, at one moment.
pub struct View {
    /// The moment.
    pub now: Now,
    /// In the order of their making.
    pub rooms: Vec<RoomView>,
    /// In the order of joining.
    pub members: Vec<Member>,
    /// By worker.
    pub peers: Vec<Rc<[PeerSnapshot]>>,
    /// Each worker's UDP port.
    pub ports: Vec<u16>,
    /// What is counted.
    pub counters: Snapshot,
}

/// A worker did not say in time how its peers are: it is dead, or has no time at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} does not answer")]
pub struct WorkerSilent(pub WorkerId);

/// Who can look.
pub trait Inspect: 'static {
    /// Looks at everything; takes a bounded time.
    fn look(&self) -> Pin<Box<dyn Future<Output = Result<View, WorkerSilent>>>>;

    /// Begins to write down what this peer says and is sent, or says why not; takes as long as the disk does.
    fn capture(
        &self,
        peer: u64,
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = Result<Capturing, CaptureRefused>>>>;
}

/// What is behind `/debug`.
pub struct Debug {
    guard: Guard,
    inspect: Box<dyn Inspect>,
    answers: RefCell<VecDeque<(String, Instant, Bytes)>>,
}

impl Debug {
    /// With a token, only for who shows it; without, for this machine.
    pub fn new(token: Option<Hidden>, inspect: impl Inspect) -> Debug {
        Debug { guard: Guard::new(token), inspect: Box::new(inspect), answers: RefCell::default() }
    }

    /// A WebSocket is opened to this peer, by a request with these headers.
    pub(super) fn see_upgrade(&self, headers: &HeaderMap, peer: SocketAddr) {
        self.guard.see_upgrade(headers, peer);
    }

    /// The lists are made once for all who ask within a moment.
    async fn list(&self, asked: &str, what: json::What) -> Response<Body> {
        let now = Now::read().instant;
        self.answers.borrow_mut().retain(|(_, at, _)| now.duration_since(*at) < FRESH);
        let kept = self.answers.borrow().iter().find(|(of, ..)| of == asked).map(|(.., body)| body.clone());
        if let Some(body) = kept {
            return respond(StatusCode::OK, JSON, body);
        }
        let view = match self.inspect.look().await {
            Ok(view) => view,
            Err(silent) => {
                let words = format!("{{\"error\":\"{silent}; it is stuck or overloaded\"}}\n");
                let mut response = respond(StatusCode::SERVICE_UNAVAILABLE, JSON, words);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
                return response;
            }
        };
        let Some(value) = json::list(&view, what) else {
            return respond(StatusCode::NOT_FOUND, JSON, "{\"error\":\"no such peer\"}\n");
        };
        let body = Bytes::from(value.to_string());
        let mut answers = self.answers.borrow_mut();
        if answers.len() == ANSWER_COUNT_MAX {
            answers.pop_front();
        }
        answers.push_back((asked.to_owned(), view.now.instant, body.clone()));
        respond(StatusCode::OK, JSON, body)
    }
}

/// `None` where the path is none of ours.
pub(super) async fn answer<S: Service, B>(
    app: &App<S>,
    request: &Request<B>,
    remote: SocketAddr,
) -> Option<Response<Body>> {
    let path = request.uri().path();
    let debug = app.debug.get()?;
    if !(path == "/debug" || path.starts_with("/debug/")) || is_upgrade_request(request) {
        return None;
    }
    app.count(|counters| counters.requests += 1);
    let mut response = debug.answer(request, remote).await;
    if response.status() == StatusCode::UNAUTHORIZED {
        app.count(|counters| counters.tokens_refused += 1);
    }
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

impl Debug {
    async fn answer<B>(&self, request: &Request<B>, remote: SocketAddr) -> Response<Body> {
        let path = request.uri().path();
        let file = page::file(path);
        // The page itself says nothing of anybody; with a token it is where the token is typed in.
        let is_open = file.is_some() && self.guard.has_token();
        if !is_open && let Err(refused) = self.guard.admit(request, remote) {
            if refused.is_forged() {
                tracing::debug!(%remote, "a wrong debug token");
                throttled!(warn, "somebody shows /debug a token that is not DEBUG_TOKEN");
            }
            return refuse(refused);
        }
        if let Some(peer) = capture::peer(path) {
            if *request.method() != Method::POST {
                return method_not_allowed("POST only.\n", "POST");
            }
            if !self.guard.has_token() {
                return text(StatusCode::FORBIDDEN, "Captures need DEBUG_TOKEN to be set.\n");
            }
            let query = request.uri().query().unwrap_or_default();
            return capture::begin(&*self.inspect, peer, query).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return method_not_allowed("GET only.\n", "GET, HEAD");
        }
        if let Some(file) = file {
            return file.response();
        }
        let asked = request.uri().path_and_query().map_or(path, |asked| asked.as_str());
        if asked.len() > URI_LEN_MAX {
            return text(StatusCode::URI_TOO_LONG, "Too long.\n");
        }
        let query = request.uri().query().unwrap_or_default();
        let what = match path {
            "/debug/rooms" => Ok(json::What::Rooms),
            "/debug/peers" => json::Page::parse(query).map(json::What::Peers),
            "/debug/tracks" => json::Page::parse(query).map(json::What::Tracks),
            "/debug/workers" => Ok(json::What::Workers),
            _ => match path.strip_prefix("/debug/peers/").map(str::parse) {
                Some(Ok(id)) => Ok(json::What::Peer(id)),
                _ => return text(StatusCode::NOT_FOUND, "Not found.\n"),
            },
        };
        match what {
            Ok(what) => self.list(asked, what).await,
            Err(json::BadQuery) => {
                text(StatusCode::BAD_REQUEST, "Accepted: limit=1 to 1000, after=an id, room=a room's id.\n")
            }
        }
    }
}

fn refuse(refused: Refused) -> Response<Body> {
    let Refused { status, words } = refused;
    let mut response = text(status, words);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"debug\""));
    }
    response
}

fn method_not_allowed(words: &'static str, allowed: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, words);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
