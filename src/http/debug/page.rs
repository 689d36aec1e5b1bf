//! The page that shows the same, live: its files, compiled in.

use bytes::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use hyper::{Response, StatusCode};

use super::super::routes::{Body, respond};

/// As the demo page's, and no image but its own icon: nothing leaves, nothing comes in.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const PERMISSIONS: &str = "microphone=(), camera=(), geolocation=(), usb=()";

/// One file of the page.
pub(super) struct File {
    content_type: &'static str,
    bytes: &'static [u8],
}

/// `None` for a path that is no file of the page.
pub(super) fn file(path: &str) -> Option<File> {
    let (content_type, bytes): (_, &'static [u8]) = match path {
        "/debug" => ("text/html; charset=utf-8", include_bytes!("page/index.html")),
        "/debug/style.css" => ("text/css; charset=utf-8", include_bytes!("page/style.css")),
        "/debug/app.js" => ("text/javascript; charset=utf-8", include_bytes!("page/app.js")),
        "/debug/plot.js" => ("text/javascript; charset=utf-8", include_bytes!("page/plot.js")),
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
