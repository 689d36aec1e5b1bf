//! Which sites' pages may come in: the `Origin` of upgrades (RFC 6455 §10.2), and CORS for everything else
//! (Fetch §3.2). Browsers alone send and heed these; other programs are for other measures.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderValue, ORIGIN, RETRY_AFTER, VARY,
};
use hyper::{HeaderMap, Method, Request, Response};

use super::routes::Body;
use crate::config::Origin;

/// Whether a page of this request's origin may open a WebSocket. `allowed` is empty where all may. Without TLS of our
/// own a page that calls this server by its own name may be a stranger's: he can point any name here.
pub(super) fn may_enter(allowed: &[Origin], has_tls: bool, headers: &HeaderMap) -> bool {
    if allowed.is_empty() {
        return true;
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true, // No browser.
        (Some(origin), None) => parsed(origin).is_some_and(|origin| {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let is_our_own = host.is_some_and(|host| origin.is_of_host(host));
            allowed.contains(&origin) || is_our_own && (has_tls || origin.is_proof_against_rebinding())
        }),
        (Some(_), Some(_)) => false,
    }
}

/// What it says of where it is from, for the log: the beginning, for anybody may write what he likes there.
pub(super) fn written(headers: &HeaderMap) -> String {
    const LEN_MAX: usize = 100;
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes).unwrap_or_default();
    origin[..origin.len().min(LEN_MAX)].escape_ascii().to_string()
}

/// What the answer says of it. What is below `/debug` is for no page at all; without a list only `/health` is for
/// all of them, by itself.
pub(super) fn share(
    allowed: &[Origin],
    path: &str,
    origin: Option<&HeaderValue>,
    answer: &mut Response<Body>,
) {
    if allowed.is_empty() || is_private(path) {
        return;
    }
    let headers = answer.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    if let Some(origin) = origin
        && parsed(origin).is_some_and(|origin| allowed.contains(&origin))
    {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // Of the headers a page is shown a few by default (Fetch §3.2.3), and when to come again is not among them.
        if headers.contains_key(RETRY_AFTER) {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
        }
    }
}

/// The question that browsers ask before a request that a form could not make (Fetch §3.2.2).
pub(super) fn is_preflight<B>(allowed: &[Origin], request: &Request<B>) -> bool {
    let headers = request.headers();
    !allowed.is_empty()
        && !is_private(request.uri().path())
        && request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Its answer, for [`share`] to complete.
pub(super) fn preflight(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    answer
}

fn is_private(path: &str) -> bool {
    path == "/debug" || path.starts_with("/debug/")
}

fn parsed(origin: &HeaderValue) -> Option<Origin> {
    origin.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_calls_us_by_a_name_at_plain_http_is_believed_where_a_certificate_or_the_list_says_so() {
        let enters = |listed: &str, has_tls, origin, host| {
            let headers =
                [(ORIGIN, HeaderValue::from_static(origin)), (HOST, HeaderValue::from_static(host))];
            may_enter(&[listed.parse().unwrap()], has_tls, &HeaderMap::from_iter(headers))
        };
        let (named, app) = ("http://sfu.example:5005", "https://app.example");
        assert!(!enters(app, false, named, "sfu.example:5005"));
        assert!(enters(named, false, named, "sfu.example:5005"));
        assert!(enters(app, true, named, "sfu.example:5005"));
        assert!(enters(app, false, "https://sfu.example", "sfu.example"));
        assert!(enters(app, false, "http://192.0.2.1:5005", "192.0.2.1:5005"));
        assert!(!enters(app, true, named, "sfu.example"), "another port");
    }
}
