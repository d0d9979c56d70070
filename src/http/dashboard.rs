//! `GET /`: the dashboard. Its files are embedded in the program, and it loads nothing from other
//! origins. It reads its data from the other HTTP routes.

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

/// The content security policy. Event data is untrusted: even if a bug rendered it as HTML, it must
/// not run as a script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! asset {
    ($path:literal, $media_type:expr, $file:literal) => {
        ($path, $media_type, include_str!(concat!("dashboard/", $file)))
    };
}

/// Path, media type and content of each asset.
const ASSETS: &[(&str, &str, &str)] = &[
    asset!("/", HTML, "index.html"),
    asset!("/dashboard/access.js", JAVASCRIPT, "access.js"),
    asset!("/dashboard/dashboard.css", CSS, "dashboard.css"),
    asset!("/dashboard/dashboard.js", JAVASCRIPT, "dashboard.js"),
    asset!("/dashboard/event.js", JAVASCRIPT, "event.js"),
    asset!("/dashboard/lookup.js", JAVASCRIPT, "lookup.js"),
    asset!("/dashboard/rates.js", JAVASCRIPT, "rates.js"),
    asset!("/dashboard/tail.js", JAVASCRIPT, "tail.js"),
    asset!("/dashboard/uPlot.iife.min.js", JAVASCRIPT, "uPlot.iife.min.js"),
    asset!("/dashboard/uPlot.min.css", CSS, "uPlot.min.css"),
    asset!("/dashboard/uPlot.LICENSE", TEXT, "uPlot.LICENSE"),
];

/// The routes of all assets.
pub(super) fn router() -> Router<Api> {
    ASSETS.iter().fold(Router::new(), |router, &(path, media_type, text)| {
        let tag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
        let handler = async move |headers: HeaderMap| respond(&headers, media_type, text, &tag);
        router.route(path, get(handler))
    })
}

fn respond(headers: &HeaderMap, media_type: &str, text: &'static str, tag: &str) -> Response {
    let common = [
        (ETAG, tag),
        // Cached, but revalidated on each use, because an upgrade changes the files.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if is_cached(headers, tag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, media_type)], text).into_response()
}

/// Whether the client has the asset with this entity tag.
fn is_cached(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag)
}
