//! Parses the entries of an access file. Reports all errors, not only the first, each with its
//! cure.

use std::{collections::HashSet, ops::Range, sync::Arc};

use rustls::pki_types::DnsName;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

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

type Value<'a> = Spanned<DeValue<'a>>;

/// Parses the text of a file.
pub(super) fn read(text: &str) -> Result<Vec<Holder>, Vec<Fault>> {
    let mut reader = Reader { text, faults: Vec::new() };
    let holders = match DeTable::parse(text) {
        Ok(file) => reader.file(file.get_ref()),
        Err(error) => {
            let place = error.span().unwrap_or_default();
            reader.fault(place, format!("invalid TOML: {}", error.message().replace('\n', ", ")));
            Vec::new()
        }
    };
    if reader.faults.is_empty() { Ok(holders) } else { Err(reader.faults) }
}

struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, place: Range<usize>, description: impl Into<String>) {
        let before = self.text.as_bytes().iter().take(place.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        self.faults.push(Fault { line, description: description.into() });
    }

    fn file(&mut self, file: &DeTable<'_>) -> Vec<Holder> {
        self.only(file, &["identity"], "the file");
        let Some(entries) = file.get("identity") else {
            self.fault(0..0, "no identities; create an entry with `event-aggregator token NAME`");
            return Vec::new();
        };
        let Some(array) = entries.get_ref().as_array() else {
            self.fault(entries.span(), "identity must be an array of tables: [[identity]]");
            return Vec::new();
        };
        if array.len() > MAX_IDENTITIES {
            self.fault(entries.span(), format!("more than {MAX_IDENTITIES} identities"));
            return Vec::new();
        }
        let mut seen = Seen::default();
        array.iter().filter_map(|entry| self.entry(entry, &mut seen)).collect()
    }

    fn entry(&mut self, entry: &Value<'_>, seen: &mut Seen) -> Option<Holder> {
        let Some(fields) = entry.get_ref().as_table() else {
            self.fault(entry.span(), "identity must be an array of tables: [[identity]]");
            return None;
        };
        let name = self.name(entry, fields)?;
        if !seen.names.insert(name.clone()) {
            self.fault(entry.span(), format!("duplicate identity {name}; merge the entries"));
        }
        let known = ["name", "token_sha256", "certificate", "grants", "events_per_second", "burst"];
        self.only(fields, &known, &name);
        let tokens = self.tokens(fields, &name, seen);
        let certificate = fields.get("certificate").and_then(|value| {
            let certificate = self.text(value, &name, "certificate")?.to_ascii_lowercase();
            if DnsName::try_from(certificate.trim_start_matches("*.")).is_err() {
                let advice = "must be a DNS name from the certificate";
                self.fault(value.span(), format!("{name}: certificate {advice}"));
            }
            if !seen.certificates.insert(certificate.clone()) {
                self.fault(
                    value.span(),
                    format!("{name}: certificate is used by another identity"),
                );
            }
            Some(certificate)
        });
        if !fields.contains_key("token_sha256") && certificate.is_none() {
            let advice = "no credentials; add token_sha256 or certificate";
            self.fault(entry.span(), format!("{name}: {advice}"));
        }
        let grants = self.grants(entry, fields, &name);
        let rate = self.rate(fields, &name);
        Some(Holder { name, tokens, certificate, grants, rate })
    }

    fn name(&mut self, entry: &Value<'_>, fields: &DeTable<'_>) -> Option<String> {
        let Some(value) = fields.get("name") else {
            self.fault(entry.span(), "missing name; add name = \"…\"");
            return None;
        };
        let name = self.text(value, "the entry", "name")?;
        match Name::new("name", name) {
            Ok(name) => Some(name.into_string()),
            Err(fault) => {
                self.fault(value.span(), fault.to_string());
                None
            }
        }
    }

    fn tokens(&mut self, fields: &DeTable<'_>, name: &str, seen: &mut Seen) -> Vec<Digest> {
        let Some(value) = fields.get("token_sha256") else { return Vec::new() };
        let Some(list) = self.list(value, name, "token_sha256") else { return Vec::new() };
        if list.len() > MAX_IDENTITY_TOKENS {
            let fault = format!("{name}: more than {MAX_IDENTITY_TOKENS} digests in token_sha256");
            self.fault(value.span(), fault);
        }
        let mut tokens = Vec::new();
        for item in list {
            let digest = item.get_ref().as_str().and_then(Digest::from_hex);
            match digest {
                Some(digest) if seen.tokens.insert(digest) => tokens.push(digest),
                Some(_) => {
                    let fault = format!("{name}: duplicate digest in token_sha256");
                    self.fault(item.span(), fault);
                }
                None => {
                    let advice = "must contain SHA-256 digests (64 hexadecimal digits), as printed \
                                  by `event-aggregator token`";
                    self.fault(item.span(), format!("{name}: token_sha256 {advice}"));
                }
            }
        }
        tokens
    }

    fn grants(&mut self, entry: &Value<'_>, fields: &DeTable<'_>, name: &str) -> Vec<Grant> {
        let Some(value) = fields.get("grants") else {
            let example = r#"grants = [{ verbs = ["publish"], topics = ["orders", "shop.*"] }]"#;
            self.fault(entry.span(), format!("{name}: missing grants; add {example}"));
            return Vec::new();
        };
        let Some(list) = self.list(value, name, "grants") else { return Vec::new() };
        let mut grants = Vec::new();
        for item in list {
            let Some(grant) = item.get_ref().as_table() else {
                self.fault(
                    item.span(),
                    format!("{name}: a grant must be a table {{ verbs, topics }}"),
                );
                continue;
            };
            self.only(grant, &["verbs", "topics"], name);
            let verbs = self.each(item, name, "verbs", |text| {
                let verb = Verb::ALL.iter().find(|(name, _)| *name == text);
                verb.map(|(_, verb)| *verb).ok_or("must be publish, read or admin")
            });
            let topics = self.each(item, name, "topics", Pattern::new);
            if verbs.contains(&Verb::Admin) && !topics.iter().any(Pattern::covers_all) {
                self.fault(item.span(), format!("{name}: admin can only be granted on topic *"));
            }
            grants.push(Grant { verbs, topics });
        }
        grants
    }

    /// Parses each item of a required list of a grant.
    fn each<T>(
        &mut self,
        grant: &Value<'_>,
        name: &str,
        field: &str,
        read: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Vec<T> {
        let Some(value) = grant.get_ref().get(field) else {
            self.fault(grant.span(), format!("{name}: missing {field} in grant"));
            return Vec::new();
        };
        let Some(list) = self.list(value, name, field) else { return Vec::new() };
        if list.is_empty() {
            self.fault(value.span(), format!("{name}: {field} must not be empty"));
        }
        let mut all = Vec::new();
        for item in list {
            let Some(text) = self.text(item, name, field) else { continue };
            match read(&text) {
                Ok(one) => all.push(one),
                Err(fault) => self.fault(item.span(), format!("{name}: {field} {fault}")),
            }
        }
        all
    }

    fn rate(&mut self, fields: &DeTable<'_>, name: &str) -> Option<Arc<Rate>> {
        let (per_second, burst) = (fields.get("events_per_second"), fields.get("burst"));
        let place = per_second.or(burst)?.span();
        let number = |value: &Value<'_>| value.get_ref().as_integer()?.as_str().parse::<u32>().ok();
        let numbers = per_second.and_then(number).and_then(|per_second| {
            let burst = burst.map_or(Some(per_second.max(MIN_RATE_BURST)), number)?;
            Rate::new(per_second, burst)
        });
        if numbers.is_none() {
            let fault = format!(
                "{name}: events_per_second must be between 1 and {MAX_RATE_EVENTS}, and burst \
                 between {MIN_RATE_BURST} and {MAX_RATE_EVENTS}"
            );
            self.fault(place, fault);
        }
        numbers.map(Arc::new)
    }

    fn only(&mut self, table: &DeTable<'_>, known: &[&str], whose: &str) {
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            self.fault(
                key.span(),
                format!("{whose}: unknown field; expected one of {}", known.join(", ")),
            );
        }
    }

    fn text(&mut self, value: &Value<'_>, whose: &str, field: &str) -> Option<String> {
        let text = value.get_ref().as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.fault(value.span(), format!("{whose}: {field} must be a non-empty string"));
        }
        text.map(str::to_owned)
    }

    fn list<'v, 'i>(
        &mut self,
        value: &'v Value<'i>,
        whose: &str,
        field: &str,
    ) -> Option<&'v [Value<'i>]> {
        let list = value.get_ref().as_array().map(|list| &**list);
        if list.is_none() {
            self.fault(value.span(), format!("{whose}: {field} must be an array"));
        }
        list
    }
}

/// Values that must be unique.
#[derive(Default)]
struct Seen {
    names: HashSet<String>,
    tokens: HashSet<Digest>,
    certificates: HashSet<String>,
}
