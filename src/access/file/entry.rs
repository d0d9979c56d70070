//! Parses an access file. An error in its syntax or structure is reported alone, all errors in
//! values together, each with its line and cure.

use std::{collections::HashSet, fmt::Display, ops::Range, sync::Arc};

use rustls::pki_types::DnsName;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::Fault;
use crate::{
    access::{
        policy::{Grant, Holder, Pattern, Verb},
        rate::Rate,
        token::Digest,
    },
    event::Name,
    limits::{MAX_IDENTITIES, MAX_IDENTITY_TOKENS, MAX_RATE_EVENTS, MIN_RATE_BURST},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    identity: Option<Spanned<Vec<Spanned<Entry>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an array of tables: [[identity]]")]
struct Entry {
    name: Item<String>,
    token_sha256: Option<Item<Vec<Item<String>>>>,
    certificate: Option<Item<String>>,
    grants: Option<Vec<Spanned<GrantEntry>>>,
    events_per_second: Option<Item<u32>>,
    burst: Option<Item<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a grant as a table { verbs, topics }")]
struct GrantEntry {
    verbs: Item<Vec<Item<String>>>,
    topics: Item<Vec<Item<String>>>,
}

/// A value with its place, or `None` if it has another type, which is not an error of serde so that
/// it is reported together with all others.
type Item<T> = Spanned<Typed<T>>;

struct Typed<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Typed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(T::deserialize(deserializer).ok()))
    }
}

/// Parses the text of a file.
pub(super) fn read(text: &str) -> Result<Vec<Holder>, Vec<Fault>> {
    let mut faults = Faults { text, owner: String::new(), all: Vec::new() };
    let parsed = toml::Deserializer::parse(text).map_err(|error| {
        (error.span(), format!("invalid TOML: {}", error.message().replace('\n', ", ")))
    });
    let file = parsed.and_then(|parsed| {
        File::deserialize(parsed).map_err(|error| (error.span(), structural(error.message())))
    });
    let holders = match file {
        Ok(file) => file.holders(&mut faults),
        Err((span, fault)) => {
            faults.add(&span.unwrap_or_default(), fault);
            Vec::new()
        }
    };
    if faults.all.is_empty() { Ok(holders) } else { Err(faults.all) }
}

/// Describes an error of serde without the key or value that it names, which may be a token.
fn structural(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((fault, expected)) if fault.starts_with("unknown field") => {
            format!("unknown field; expected {expected}")
        }
        Some((_, "a sequence")) => "expected an array of tables".to_owned(),
        Some((_, expected)) => format!("expected {expected}"),
        None if message.starts_with("missing field") => format!("{message}; add it"),
        None => "wrong type".to_owned(),
    }
}

/// Values that must be unique.
#[derive(Default)]
struct Seen {
    names: HashSet<String>,
    tokens: HashSet<Digest>,
    certificates: HashSet<String>,
}

impl File {
    fn holders(self, faults: &mut Faults<'_>) -> Vec<Holder> {
        let Some(entries) = self.identity else {
            faults
                .add(&(0..0), "no identities; create an entry with `event-aggregator token NAME`");
            return Vec::new();
        };
        if entries.as_ref().len() > MAX_IDENTITIES {
            faults.add(&entries.span(), format!("more than {MAX_IDENTITIES} identities"));
            return Vec::new();
        }
        let mut seen = Seen::default();
        let entries = entries.into_inner().into_iter();
        entries.filter_map(|entry| holder(entry, faults, &mut seen)).collect()
    }
}

fn holder(entry: Spanned<Entry>, faults: &mut Faults<'_>, seen: &mut Seen) -> Option<Holder> {
    let (span, entry) = (entry.span(), entry.into_inner());
    faults.owner = "the entry".to_owned();
    let name = faults.text("name", entry.name, |text| Name::new("name", text))?.into_string();
    faults.owner.clone_from(&name);
    if !seen.names.insert(name.clone()) {
        faults.add(&span, "duplicate identity; merge the entries");
    }
    if entry.token_sha256.is_none() && entry.certificate.is_none() {
        faults.add(&span, "no credentials; add token_sha256 or certificate");
    }
    let tokens = entry.token_sha256.map_or_else(Vec::new, |list| {
        faults.texts("token_sha256", list, |text| match Digest::from_hex(&text) {
            Some(digest) if seen.tokens.insert(digest) => Ok(digest),
            Some(_) => Err("duplicate digest in token_sha256"),
            None => Err("token_sha256 must contain SHA-256 digests (64 hexadecimal digits), as \
                         printed by `event-aggregator token`"),
        })
    });
    if tokens.len() > MAX_IDENTITY_TOKENS {
        faults.add(&span, format!("more than {MAX_IDENTITY_TOKENS} digests in token_sha256"));
    }
    let certificate = entry.certificate.and_then(|certificate| {
        faults.text("certificate", certificate, |text| {
            let name = text.to_ascii_lowercase();
            match DnsName::try_from(name.trim_start_matches("*.")) {
                Ok(_) if seen.certificates.insert(name.clone()) => Ok(name),
                Ok(_) => Err("certificate is used by another identity"),
                Err(_) => Err("certificate must be a DNS name from the certificate"),
            }
        })
    });
    let rate = rate(entry.events_per_second, entry.burst, faults);
    let Some(grants) = entry.grants else {
        let example = r#"grants = [{ verbs = ["publish"], topics = ["orders", "shop.*"] }]"#;
        faults.add(&span, format!("missing grants; add {example}"));
        return None;
    };
    let grants = grants.into_iter().map(|entry| grant(entry, faults)).collect();
    Some(Holder { name, tokens, certificate, grants, rate })
}

fn rate(
    per_second: Option<Item<u32>>,
    burst: Option<Item<u32>>,
    faults: &mut Faults<'_>,
) -> Option<Arc<Rate>> {
    let span = per_second.as_ref().or(burst.as_ref())?.span();
    let rate = per_second.and_then(|per_second| {
        let per_second = per_second.into_inner().0?;
        let burst = match burst {
            Some(burst) => burst.into_inner().0?,
            None => per_second.max(MIN_RATE_BURST),
        };
        Rate::new(per_second, burst)
    });
    if rate.is_none() {
        let fault = format!(
            "events_per_second must be between 1 and {MAX_RATE_EVENTS}, and burst between \
             {MIN_RATE_BURST} and {MAX_RATE_EVENTS}"
        );
        faults.add(&span, fault);
    }
    rate.map(Arc::new)
}

fn grant(entry: Spanned<GrantEntry>, faults: &mut Faults<'_>) -> Grant {
    let (span, GrantEntry { verbs, topics }) = (entry.span(), entry.into_inner());
    for (field, list) in [("verbs", &verbs), ("topics", &topics)] {
        if list.as_ref().0.as_ref().is_some_and(Vec::is_empty) {
            faults.add(&list.span(), format!("{field} must not be empty"));
        }
    }
    let verbs = faults.texts("verbs", verbs, |text| {
        let verb = Verb::ALL.iter().find(|(name, _)| *name == text);
        verb.map(|(_, verb)| *verb).ok_or("verbs must be publish, read or admin")
    });
    let topics = faults.texts("topics", topics, |text| {
        Pattern::new(&text).map_err(|fault| format!("topics {fault}"))
    });
    if verbs.contains(&Verb::Admin) && !topics.iter().any(Pattern::covers_all) {
        faults.add(&span, "admin can only be granted on topic *");
    }
    Grant { verbs, topics }
}

struct Faults<'a> {
    text: &'a str,
    /// Whose fields are checked.
    owner: String,
    all: Vec<Fault>,
}

impl Faults<'_> {
    fn add(&mut self, span: &Range<usize>, fault: impl Display) {
        let before = self.text.as_bytes().iter().take(span.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        let description = match &*self.owner {
            "" => fault.to_string(),
            owner => format!("{owner}: {fault}"),
        };
        self.all.push(Fault { line, description });
    }

    /// Parses a text.
    fn text<T, E: Display>(
        &mut self,
        field: &str,
        item: Item<String>,
        parse: impl FnOnce(String) -> Result<T, E>,
    ) -> Option<T> {
        let span = item.span();
        match item.into_inner().0.filter(|text| !text.is_empty()).map(parse) {
            Some(Ok(parsed)) => return Some(parsed),
            Some(Err(fault)) => self.add(&span, fault),
            None => self.add(&span, format_args!("{field} must be a non-empty string")),
        }
        None
    }

    /// Parses each text of a list.
    fn texts<T, E: Display>(
        &mut self,
        field: &str,
        list: Item<Vec<Item<String>>>,
        mut parse: impl FnMut(String) -> Result<T, E>,
    ) -> Vec<T> {
        let span = list.span();
        let Some(items) = list.into_inner().0 else {
            self.add(&span, format_args!("{field} must be an array"));
            return Vec::new();
        };
        items.into_iter().filter_map(|item| self.text(field, item, &mut parse)).collect()
    }
}
