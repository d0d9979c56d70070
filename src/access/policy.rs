//! The policy of an access file: identities, their credentials and their grants.

use std::{fmt, sync::Arc};

use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{Credential, rate::Rate, token::Digest};
use crate::event::Name;

/// What can be granted on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Publish events.
    Publish,
    /// Read events and counters.
    Read,
    /// Read the state of the service, such as its metrics. Granted on all topics only.
    Admin,
}

impl Verb {
    /// All verbs by name.
    pub(super) const ALL: [(&str, Self); 3] =
        [("publish", Self::Publish), ("read", Self::Read), ("admin", Self::Admin)];
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Admin => "admin",
        })
    }
}

/// Why a pattern without any valid topic is rejected.
const NO_NAME: &str = "must match a valid topic: names have at most 255 bytes, no control \
                       characters, and no whitespace at either end";

fn is_name(text: &str) -> bool {
    Name::new("topic", text.to_owned()).is_ok()
}

/// A topic, or all topics with a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Topic(String),
    Prefix(String),
}

impl Pattern {
    /// Parses `topic`, `prefix*` or `*`.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        match text.strip_suffix('*') {
            Some(prefix) if prefix.contains('*') => Err("may contain * only at the end"),
            Some("") => Ok(Self::Prefix(String::new())),
            // The prefix may be a complete name, or end in a character that must not end a name.
            Some(prefix) if !is_name(prefix) && !is_name(&format!("{prefix}.")) => Err(NO_NAME),
            Some(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            None if text.contains('*') => Err("may contain * only at the end"),
            None if text.is_empty() => Err("must not be empty; use * for all topics"),
            None if !is_name(text) => Err(NO_NAME),
            None => Ok(Self::Topic(text.to_owned())),
        }
    }

    fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Topic(one) => one == topic,
            Self::Prefix(prefix) => topic.starts_with(&**prefix),
        }
    }

    pub(super) fn covers_all(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }
}

/// Verbs granted on topics.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) verbs: Vec<Verb>,
    pub(super) topics: Vec<Pattern>,
}

/// An identity with its grants. The default has none.
#[derive(Debug, Default)]
pub(super) struct Holder {
    pub(super) name: String,
    pub(super) tokens: Vec<Digest>,
    pub(super) certificate: Option<String>,
    pub(super) grants: Vec<Grant>,
    pub(super) rate: Option<Arc<Rate>>,
}

impl Holder {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn rate(&self) -> Option<&Arc<Rate>> {
        self.rate.as_ref()
    }

    pub(super) fn may(&self, verb: Verb, topic: &str) -> bool {
        self.patterns(verb).any(|pattern| pattern.covers(topic))
    }

    pub(super) fn may_all(&self, verb: Verb) -> bool {
        self.patterns(verb).any(Pattern::covers_all)
    }

    fn patterns(&self, verb: Verb) -> impl Iterator<Item = &Pattern> {
        let grants = self.grants.iter().filter(move |grant| grant.verbs.contains(&verb));
        grants.flat_map(|grant| &grant.topics)
    }
}

/// All identities.
#[derive(Debug)]
pub(super) struct Policy(Vec<Arc<Holder>>);

impl Policy {
    /// A policy. Identities whose rate limit did not change keep its state.
    pub(super) fn new(mut holders: Vec<Holder>, before: Option<&Self>) -> Self {
        for holder in &mut holders {
            let mut others = before.iter().flat_map(|before| &before.0);
            let same = others.find(|other| other.name == holder.name && other.rate == holder.rate);
            if let Some(same) = same {
                holder.rate.clone_from(&same.rate);
            }
        }
        Self(holders.into_iter().map(Arc::new).collect())
    }

    /// Whether any identity has a certificate.
    pub(super) fn names_certificates(&self) -> bool {
        self.0.iter().any(|holder| holder.certificate.is_some())
    }

    /// The identity with this credential. A token is compared with all digests in constant time.
    pub(super) fn holder(&self, credential: &Credential) -> Option<Arc<Holder>> {
        let is_of = match credential {
            Credential::Certificate(names) => {
                let is_named = |name: &String| names.contains(name);
                let mut holders = self.0.iter();
                let found =
                    holders.find(|holder| holder.certificate.as_ref().is_some_and(is_named));
                return found.cloned();
            }
            Credential::Token(token) => token,
        };
        let mut found = u64::MAX;
        for (index, holder) in (0_u64..).zip(&self.0) {
            for token in &holder.tokens {
                found.conditional_assign(&index, token.ct_eq(is_of));
            }
        }
        self.0.get(usize::try_from(found).ok()?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_topics() {
        let covers = |pattern, topic| Pattern::new(pattern).expect("a pattern").covers(topic);
        assert!(covers("a", "a") && !covers("a", "ab") && !covers("a", ""));
        assert!(covers("a*", "a") && covers("a*", "ab") && !covers("a*", "b"));
        assert!(covers("*", "a") && covers("*", "*"));
        assert!(covers("a *", "a b"));
        for pattern in ["", "a*b", "**", "*a", " a", "a ", " a*", "a\n*", "a\u{7f}"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::new("*").expect("all").covers_all());
        assert!(!Pattern::new("a*").expect("some").covers_all());
    }
}
