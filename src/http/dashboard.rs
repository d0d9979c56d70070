//! `GET /`: the dashboard. Its files are embedded in the program, and it loads nothing from other origins.
//! Its data comes from the other HTTP routes.

use axum::{
    Router,
    http::{
        HeaderMap, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
            REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::api::Api;

/// The content security policy. Event data comes from producers, so even a bug that renders it as HTML
/// must not run it as a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! part {
    ($path:literal, $media_type:expr, $file:literal) => {
        ($path, $media_type, include_str!(concat!("dashboard/", $file)))
    };
}

/// The path, media type and text of each file.
const PARTS: &[(&str, &str, &str)] = &[
    part!("/", HTML, "index.html"),
    part!("/dashboard/access.js", JAVASCRIPT, "access.js"),
    part!("/dashboard/dashboard.css", CSS, "dashboard.css"),
    part!("/dashboard/dashboard.js", JAVASCRIPT, "dashboard.js"),
    part!("/dashboard/event.js", JAVASCRIPT, "event.js"),
    part!("/dashboard/lookup.js", JAVASCRIPT, "lookup.js"),
    part!("/dashboard/rates.js", JAVASCRIPT, "rates.js"),
    part!("/dashboard/tail.js", JAVASCRIPT, "tail.js"),
    part!("/dashboard/uPlot.iife.min.js", JAVASCRIPT, "uPlot.iife.min.js"),
    part!("/dashboard/uPlot.min.css", CSS, "uPlot.min.css"),
    part!("/dashboard/uPlot.LICENSE", TEXT, "uPlot.LICENSE"),
];

/// The routes of all files.
pub(super) fn router() -> Router<Api> {
    PARTS.iter().fold(Router::new(), |router, &(path, media_type, text)| {
        let tag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
        let answer = async move |headers: HeaderMap| answer(&headers, media_type, text, &tag);
        router.route(path, get(answer))
    })
}

fn answer(headers: &HeaderMap, media_type: &str, text: &'static str, tag: &str) -> Response {
    let common = [
        (ETAG, tag),
        // Cached, but revalidated each time: the next version has other files.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if has(headers, tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, media_type)], text).into_response()
}

/// Whether the browser has the file with this entity tag.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag)
}
