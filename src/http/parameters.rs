//! Query parameters. One that is not UTF-8 is invalid, as in a path.

use axum::{extract::FromRequestParts, http::request::Parts};
use percent_encoding::percent_decode_str;

use crate::{
    api::Error,
    event::{Violation, Violations},
};

/// Names and values, in the order of the query.
pub(super) struct Parameters(pub(super) Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let query = parts.uri.query().unwrap_or_default();
        let mut parameters = Vec::new();
        let mut violations = Violations::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let Some(name) = decoded(name) else {
                violations.push(not_utf8("query"));
                continue;
            };
            match decoded(value) {
                Some(value) => parameters.push((name, value)),
                None => violations.push(not_utf8(&name)),
            }
        }
        Error::check(violations)?;
        Ok(Self(parameters))
    }
}

fn decoded(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
}

fn not_utf8(field: &str) -> Violation {
    Violation::new(field, "must be UTF-8")
}
