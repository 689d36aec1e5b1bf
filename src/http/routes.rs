//! Which path answers what. No route reads a request's body.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastwebsockets::upgrade::is_upgrade_request;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::bearer::NotShown;
use super::{App, FRESH, Policy, Service, client, demo, health, origin, websocket};
use crate::metrics::exposition::Format;
use crate::throttle::throttled;
use crate::time::Now;

pub(super) type Body = Full<Bytes>;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn route<S: Service, B>(
    app: &Rc<App<S>>,
    request: Request<B>,
    peer: SocketAddr,
) -> Response<Body> {
    app.count(|counters| counters.requests += 1);
    let client = client::address(peer, request.headers(), &app.policy.trusted_proxies);
    let (path, page_origin) = (request.uri().path().to_owned(), request.headers().get(ORIGIN).cloned());
    let mut response = match refusal(app, &request, client) {
        Some(refusal) => refusal,
        None if is_upgrade_request(&request) => upgrade(app, request, peer, client),
        None => page(app, &request),
    };
    origin::share(&app.policy.origins, &path, page_origin.as_ref(), &mut response);
    never_kept(response)
}

/// At the port that has `/metrics` and nothing else, for no page and without upgrades.
pub(super) fn metrics_alone<S: Service, B>(app: &App<S>, request: &Request<B>) -> Response<Body> {
    app.count(|counters| counters.requests += 1);
    never_kept(match request.uri().path() {
        "/metrics" if is_read(request) => metrics(app, request),
        "/metrics" => method_not_allowed(),
        _ => text(StatusCode::NOT_FOUND, "Only /metrics is here.\n"),
    })
}

fn never_kept(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Before anything is done for anybody: not from a foreign page, which costs those behind the same NAT nothing, and not
/// too often.
fn refusal<S: Service, B>(app: &App<S>, request: &Request<B>, client: SocketAddr) -> Option<Response<Body>> {
    let is_upgrade = is_upgrade_request(request);
    let Policy { origins, tls, .. } = &app.policy;
    if is_upgrade && !origin::may_enter(origins, tls.is_some(), request.headers()) {
        app.count(|counters| counters.origins_refused += 1);
        let origin = origin::written(request.headers());
        tracing::debug!(%client, origin, "a page of a foreign site");
        throttled!(info, origin, "a page of a site that is not among CORS_ORIGINS wants to connect");
        return Some(text(
            StatusCode::FORBIDDEN,
            "Pages of this origin may not connect here (CORS_ORIGINS).\n",
        ));
    }
    // Who watches over the server is never turned away.
    let is_free = !is_upgrade && matches!(request.uri().path(), "/health" | "/ready" | "/metrics");
    let rates = if is_upgrade { &app.upgrade_rates } else { &app.rates };
    if let Some(rates) = rates
        && !is_free
        && let Err(wait) = rates.take(Now::read().instant, client.ip())
    {
        app.count(|counters| counters.requests_limited += 1);
        tracing::debug!(%client, ?wait, "too many requests");
        throttled!(info, "a client asks more often than RATE_LIMIT_REQUESTS allows");
        return Some(too_many_requests(wait));
    }
    None
}

fn too_many_requests(wait: Duration) -> Response<Body> {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests.\n");
    // Whole seconds (RFC 9110 §10.2.3), and never too early.
    let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn page<S: Service, B>(app: &App<S>, request: &Request<B>) -> Response<Body> {
    if origin::is_preflight(&app.policy.origins, request) {
        return origin::preflight(text(StatusCode::NO_CONTENT, ""));
    }
    let answer: fn(&App<S>, &Request<B>) -> Response<Body> = match request.uri().path() {
        "/health" => |app, _| health::health(Now::read().ntp, app.status.alive(), app.status.is_draining()),
        "/ready" => |app, _| health::ready(app.status.ready()),
        "/metrics" if !app.policy.metrics_are_apart => metrics,
        path => match demo::file(path) {
            Some(file) => return if is_read(request) { file.response() } else { method_not_allowed() },
            None => return text(StatusCode::NOT_FOUND, "Not found.\n"),
        },
    };
    if is_read(request) { answer(app, request) } else { method_not_allowed() }
}

/// hyper leaves the body out of the answer to HEAD.
fn is_read<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

fn metrics<S: Service, B>(app: &App<S>, request: &Request<B>) -> Response<Body> {
    if let Some(token) = &app.metrics_token
        && let Err(not_shown) = token.check(request.headers())
    {
        app.count(|counters| counters.tokens_refused += 1);
        if not_shown == NotShown::Wrong {
            throttled!(warn, "somebody shows /metrics a token that is not METRICS_TOKEN");
        }
        let words = "The metrics token is needed: Authorization: Bearer followed by METRICS_TOKEN.\n";
        let mut response = text(StatusCode::UNAUTHORIZED, words);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    let takes_openmetrics =
        request.headers().get_all(ACCEPT).iter().any(|accept| {
            accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text"))
        });
    let (content_type, format) =
        if takes_openmetrics { (OPENMETRICS, Format::OpenMetrics) } else { (PROMETHEUS, Format::Text) };
    respond(StatusCode::OK, content_type, metrics_page(app, format))
}

/// Made once for all who ask within a moment.
fn metrics_page<S>(app: &App<S>, format: Format) -> Bytes {
    let now = Now::read().instant;
    let kept = &mut app.metrics.borrow_mut()[format as usize];
    if let Some((made_at, page)) = kept
        && now.duration_since(*made_at) < FRESH
    {
        return page.clone();
    }
    let mut snapshot = app.status.snapshot();
    snapshot.http = app.counters.borrow().clone();
    snapshot.http.certificate_expires = app.policy.tls.as_ref().and_then(|tls| tls.expires_at());
    let page = Bytes::from(snapshot.render(format));
    *kept = Some((now, page.clone()));
    page
}

/// The opening handshake (RFC 6455 §4.2). Any path but the control channel's is a client.
fn upgrade<S: Service, B>(
    app: &Rc<App<S>>,
    mut request: Request<B>,
    peer: SocketAddr,
    client: SocketAddr,
) -> Response<Body> {
    if request.uri().path() == "/server" {
        return text(StatusCode::NOT_FOUND, "Not found.\n");
    }
    if request.method() != Method::GET || request.version() != Version::HTTP_11 || !has_valid_key(&request) {
        return text(StatusCode::BAD_REQUEST, "Not a WebSocket handshake.\n");
    }
    if request.headers().get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = text(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 only.\n");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let Some(open) = websocket::OpenWebSocket::admit(app, client.ip()) else {
        let open = app.limits.websockets_max;
        throttled!(warn, open, "no room for another WebSocket: twice MAX_CONNECTIONS are members'");
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "The server is full.\n");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    match fastwebsockets::upgrade::upgrade(&mut request) {
        Ok((response, upgraded)) => {
            if let Some(debug) = app.debug.get() {
                debug.see_upgrade(request.headers(), peer);
            }
            open.begin(upgraded, client);
            response.map(|_| Full::default())
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "Not a WebSocket handshake.\n"),
    }
}

fn has_valid_key<B>(request: &Request<B>) -> bool {
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    key.is_some_and(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16))
}

fn method_not_allowed() -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET only.\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", body)
}

pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
