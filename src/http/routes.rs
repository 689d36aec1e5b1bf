//! Which path answers what. No route reads a request's body.

use std::net::SocketAddr;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fastwebsockets::upgrade::is_upgrade_request;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::{App, Service, demo, health, websocket};
use crate::time::Now;

pub(super) type Body = Full<Bytes>;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn route<S: Service, B>(
    app: &Rc<App<S>>,
    request: Request<B>,
    remote: SocketAddr,
) -> Response<Body> {
    app.count(|counters| counters.requests += 1);
    let mut response =
        if is_upgrade_request(&request) { upgrade(app, request, remote) } else { page(app, &request) };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn page<S: Service, B>(app: &App<S>, request: &Request<B>) -> Response<Body> {
    let answer: fn(&App<S>, &Request<B>) -> Response<Body> = match request.uri().path() {
        "/health" => |_, _| health::health(Now::read().ntp),
        "/ready" => |app, _| health::ready(app.status.ready()),
        "/metrics" => metrics,
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
    let mut snapshot = app.status.snapshot();
    snapshot.http = app.counters();
    // The older format's readers take the newer text too, but insist on the older name.
    let takes_openmetrics =
        request.headers().get_all(ACCEPT).iter().any(|accept| {
            accept.to_str().is_ok_and(|accept| accept.contains("application/openmetrics-text"))
        });
    let content_type = if takes_openmetrics { OPENMETRICS } else { PROMETHEUS };
    respond(StatusCode::OK, content_type, snapshot.render())
}

/// The opening handshake (RFC 6455 §4.2). Any path but the control channel's is a client.
fn upgrade<S: Service, B>(app: &Rc<App<S>>, mut request: Request<B>, remote: SocketAddr) -> Response<Body> {
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
    let Some(open) = websocket::OpenWebSocket::admit(app) else {
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "The server is full.\n");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    match fastwebsockets::upgrade::upgrade(&mut request) {
        Ok((response, upgraded)) => {
            tokio::task::spawn_local(websocket::serve(upgraded, open, remote));
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
