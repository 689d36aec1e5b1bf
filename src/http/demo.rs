//! The demo page: its files, compiled in, and the headers that keep the page to itself.

use bytes::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use hyper::{Response, StatusCode};

use super::routes::{Body, respond};

/// Nothing but the page's own files and its own server; names are text, so scripts may not even try to
/// write markup (`require-trusted-types-for`).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

const PERMISSIONS: &str =
    "microphone=(self), autoplay=(self), speaker-selection=(self), camera=(), geolocation=(), usb=()";

/// One file of the page.
pub(super) struct File {
    content_type: &'static str,
    bytes: &'static [u8],
}

/// Returns `None` for a path that is no file of the page.
pub(super) fn file(path: &str) -> Option<File> {
    let (content_type, bytes): (_, &'static [u8]) = match path {
        "/" => ("text/html; charset=utf-8", include_bytes!("demo/index.html")),
        "/style.css" => ("text/css; charset=utf-8", include_bytes!("demo/style.css")),
        "/app.js" => (JAVASCRIPT, include_bytes!("demo/app.js")),
        "/session.js" => (JAVASCRIPT, include_bytes!("demo/session.js")),
        "/sound.js" => (JAVASCRIPT, include_bytes!("demo/sound.js")),
        "/stats.js" => (JAVASCRIPT, include_bytes!("demo/stats.js")),
        "/view.js" => (JAVASCRIPT, include_bytes!("demo/view.js")),
        "/icon.svg" => ("image/svg+xml", include_bytes!("demo/icon.svg")),
        _ => return None,
    };
    Some(File { content_type, bytes })
}

impl File {
    pub(super) fn response(self) -> Response<Body> {
        let mut response = respond(StatusCode::OK, self.content_type, Bytes::from_static(self.bytes));
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS));
        response
    }
}
