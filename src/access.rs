//! Access control: who may do what, and at which rate. Callers authenticate with a token or a
//! certificate, and the access file grants them verbs on topics. Without an access file everything
//! is allowed, except calls to a foreign host name on a loopback address (DNS-rebinding
//! protection).

use std::{future::pending, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::event::Name;

pub(crate) use self::token::Token;
pub use self::{
    caller::{Caller, CallerKey},
    file::AccessFile,
    policy::Verb,
};
use self::{
    policy::{Holder, Policy},
    rate::Rate,
    token::Digest,
};

mod caller;
pub(crate) mod exposure;
pub(crate) mod file;
mod host;
mod policy;
mod rate;
mod token;

/// Why a call is rejected. Reveals nothing about stored events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Missing or unknown token or certificate.
    #[error("missing or invalid credentials: send `Authorization: Bearer <token>`")]
    Unauthenticated,
    /// The identity has no grant for this.
    #[error("{}", describe(*.verb, .topic.as_ref()))]
    Denied {
        /// The requested verb.
        verb: Verb,
        /// The topic; `None` for all topics, and for an invalid name, which is not echoed.
        topic: Option<Name>,
    },
    /// Callers are not authenticated, and the call names a foreign host (DNS-rebinding protection).
    #[error(
        "Host is not a local name (DNS-rebinding protection): use localhost or the IP address, or \
         start the service with --access FILE, or with --insecure to accept any host"
    )]
    Misaddressed,
    /// The identity exceeded its rate limit.
    #[error(
        "rate limit exceeded: too many events per second for this identity; nothing from this \
         request was stored"
    )]
    TooFast {
        /// Time to wait before a retry.
        wait: Duration,
    },
}

fn describe(verb: Verb, topic: Option<&Name>) -> String {
    match topic {
        Some(topic) => format!("permission denied: no grant to {verb} topic {topic}"),
        None => format!("permission denied: no grant to {verb} all topics"),
    }
}

/// Authenticates callers. Clones share one policy.
#[derive(Debug, Clone, Default)]
pub struct Access(Rule);

#[derive(Debug, Clone, Default)]
enum Rule {
    /// No authentication: everything is allowed.
    #[default]
    Anybody,
    /// No authentication, but calls must name a local host.
    ThisMachine,
    /// Identities and grants of an access file.
    Named(watch::Receiver<Arc<Policy>>),
}

impl Access {
    /// Allows everything to callers that name a local host.
    pub fn of_this_machine() -> Self {
        Self(Rule::ThisMachine)
    }

    /// Whether callers are not authenticated, because there is no access file.
    pub fn is_open(&self) -> bool {
        !matches!(self.0, Rule::Named(_))
    }

    /// Rejects calls that a web page of another origin may have sent, if callers are not
    /// authenticated. `hosts` are the hosts that the call names: browsers always send one, other
    /// clients need not.
    pub fn admit<'a>(&self, hosts: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Error> {
        match self.0 {
            Rule::ThisMachine if !hosts.into_iter().all(host::is_here) => Err(Error::Misaddressed),
            _ => Ok(()),
        }
    }

    /// Authenticates a caller by its token, or else by its certificate. `authorization` is the
    /// header of that name, `names` are the DNS names of the certificate in lower case. All
    /// failures are alike.
    pub fn authenticate(
        &self,
        authorization: Option<&[u8]>,
        names: Option<&Arc<[String]>>,
    ) -> Result<Identity, Error> {
        let Rule::Named(policies) = &self.0 else { return Ok(Identity::ANYBODY) };
        let credential = match (authorization, names) {
            (Some(header), _) => {
                Credential::Token(Digest::of_bearer(header).ok_or(Error::Unauthenticated)?)
            }
            (None, Some(names)) => Credential::Certificate(Arc::clone(names)),
            (None, None) => return Err(Error::Unauthenticated),
        };
        let (policies, holder) = (policies.clone(), Arc::default());
        let mut known = Known { policies, credential, holder };
        known.renew()?;
        Ok(Identity(Some(known)))
    }
}

/// What a caller authenticates with.
#[derive(Debug, Clone)]
enum Credential {
    Token(Digest),
    Certificate(Arc<[String]>),
}

/// A caller and its current grants.
#[derive(Debug, Clone)]
pub struct Identity(Option<Known>);

/// An identity of the access file.
#[derive(Debug, Clone)]
struct Known {
    policies: watch::Receiver<Arc<Policy>>,
    credential: Credential,
    holder: Arc<Holder>,
}

impl Known {
    /// Applies the current policy. An identity that is no longer in it loses all grants.
    fn renew(&mut self) -> Result<(), Error> {
        let holder = self.policies.borrow_and_update().holder(&self.credential);
        let known = holder.is_some();
        self.holder = holder.unwrap_or_default();
        if known { Ok(()) } else { Err(Error::Unauthenticated) }
    }
}

impl Identity {
    /// A caller without authentication, which may do everything.
    pub const ANYBODY: Self = Self(None);

    /// Name in the access file, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|known| known.holder.name())
    }

    /// Whether the verb is granted on a topic.
    pub fn may(&self, verb: Verb, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|known| known.holder.may(verb, topic))
    }

    /// Whether the verb is granted on all topics.
    pub fn may_all(&self, verb: Verb) -> bool {
        self.0.as_ref().is_none_or(|known| known.holder.may_all(verb))
    }

    /// Fails unless the verb is granted on all topics.
    pub fn demand_all(&self, verb: Verb) -> Result<(), Error> {
        if self.may_all(verb) { Ok(()) } else { Err(Error::Denied { verb, topic: None }) }
    }

    /// Fails unless the verb is granted on each of these topics.
    pub fn demand<T: AsRef<str>>(
        &self,
        verb: Verb,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), Error> {
        match topics.into_iter().find(|topic| !self.may(verb, topic.as_ref())) {
            Some(topic) => Err(denied(verb, topic.as_ref())),
            None => Ok(()),
        }
    }

    /// Fails unless the verb is granted on the topics of a filter. An empty filter means all
    /// topics.
    pub fn demand_filtered<T: AsRef<str>>(
        &self,
        verb: Verb,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<(), Error> {
        let mut topics = topics.into_iter().peekable();
        match topics.peek() {
            Some(_) => self.demand(verb, topics),
            None => self.demand_all(verb),
        }
    }

    /// Takes events from the rate limit. If it is exceeded, takes none and fails.
    pub fn spend(&self, events: usize) -> Result<(), Error> {
        let rate = self.0.as_ref().and_then(|known| known.holder.rate());
        rate.map_or(Ok(()), |rate| rate.spend(events).map_err(|wait| Error::TooFast { wait }))
    }

    /// The account that is charged for the processing of its events.
    pub fn account(&self, caller: CallerKey) -> Account {
        let rate = self.0.as_ref().and_then(|known| known.holder.rate().cloned());
        Account { caller, rate }
    }

    /// Applies a changed access file, and costs almost nothing if it did not change. Fails if the
    /// identity no longer exists.
    pub fn refresh(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Some(known) if known.policies.has_changed().unwrap_or(false) => known.renew(),
            _ => Ok(()),
        }
    }

    /// Waits until the access file changes, and applies it.
    pub async fn changed(&mut self) -> Result<(), Error> {
        if let Some(known) = &mut self.0
            && known.policies.changed().await.is_ok()
        {
            return known.renew();
        }
        // The policy never changes.
        pending().await
    }
}

/// Who is charged for events after their admission.
#[derive(Debug, Clone)]
pub struct Account {
    caller: CallerKey,
    /// The rate limit to charge, if the identity has one.
    rate: Option<Arc<Rate>>,
}

impl Account {
    /// The caller that limits are counted for.
    pub fn caller(&self) -> &CallerKey {
        &self.caller
    }

    /// Charges a comparison with `bytes` of stored payloads. The debt is paid from the rate limit
    /// before later events are admitted.
    pub fn charge(&self, bytes: usize) {
        if let Some(rate) = &self.rate
            && bytes > 0
        {
            rate.charge(bytes);
        }
    }
}

/// The error for a verb that is not granted on a topic.
pub(crate) fn denied(verb: Verb, topic: &str) -> Error {
    Error::Denied { verb, topic: Name::new("topic", topic.to_owned()).ok() }
}
