//! Who may do what, and how much. Callers prove who they are by a token or a certificate; an access file
//! says what each of them may do. Without one everybody may do everything, except pages from elsewhere
//! where the service is for its own machine; asking costs next to nothing then.

use std::{future::pending, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::event::Name;

pub use self::{caller::CallerKey, file::AccessFile, policy::Verb, token::Token};
use self::{
    policy::{Holder, Policy},
    rate::Rate,
    token::Digest,
};

mod caller;
pub mod exposure;
pub mod file;
mod host;
mod policy;
mod rate;
mod token;

/// Why a caller is refused. Says nothing about what is stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not known who calls: no token, or none that is known, and no certificate that is.
    #[error("missing or invalid credentials: send `Authorization: Bearer <token>`")]
    Unauthenticated,
    /// Who calls may not do this.
    #[error("{}", describe(*.verb, .topic.as_ref()))]
    Denied {
        /// What was asked for.
        verb: Verb,
        /// On which topic; none means on all. One that is no name at all is not repeated, either.
        topic: Option<Name>,
    },
    /// Nobody needs to say who calls, and the call may come from a page from elsewhere.
    #[error(
        "Host is not a local name (DNS-rebinding protection): use localhost or the IP address, or start \
         the service with --access FILE, or with --insecure to accept any host"
    )]
    Misaddressed,
    /// Who calls may do this, but not so often.
    #[error(
        "rate limit exceeded: too many events per second for this identity; nothing from this request \
         was stored"
    )]
    TooFast {
        /// When to try again.
        wait: Duration,
    },
}

fn describe(verb: Verb, topic: Option<&Name>) -> String {
    match topic {
        Some(topic) => format!("permission denied: no grant to {verb} topic {topic}"),
        None => format!("permission denied: no grant to {verb} all topics"),
    }
}

/// What callers are asked who they are by. Clones are handles to the same one.
#[derive(Debug, Clone, Default)]
pub struct Access(Rule);

#[derive(Debug, Clone, Default)]
enum Rule {
    /// Everybody may do everything.
    #[default]
    Anybody,
    /// Everybody on this machine may do everything; pages that its browsers show may not.
    ThisMachine,
    /// An access file says who may do what.
    Named(watch::Receiver<Arc<Policy>>),
}

impl Access {
    /// Everybody who calls this machine by a name of its own may do everything.
    pub fn of_this_machine() -> Self {
        Self(Rule::ThisMachine)
    }

    /// Whether nobody is asked who they are, because there is no access file.
    pub fn is_open(&self) -> bool {
        !matches!(self.0, Rule::Named(_))
    }

    /// Fails for what a page from elsewhere may have sent, where nobody is asked who they are. `hosts` is
    /// what the call says that it goes to: browsers always say it, and other programs need not.
    pub fn admit<'a>(&self, hosts: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Error> {
        match self.0 {
            Rule::ThisMachine if !hosts.into_iter().all(host::is_here) => Err(Error::Misaddressed),
            _ => Ok(()),
        }
    }

    /// Who calls. A token decides if there is one: `authorization` is the header of that name, and `names`
    /// are those of the caller's certificate, in lower case. Whatever is wrong, the answer is the same.
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

/// What a caller proved who it is by.
#[derive(Debug, Clone)]
enum Credential {
    Token(Digest),
    Certificate(Arc<[String]>),
}

/// Who calls, and what they may do by now.
#[derive(Debug, Clone)]
pub struct Identity(Option<Known>);

/// One that the access file names.
#[derive(Debug, Clone)]
struct Known {
    policies: watch::Receiver<Arc<Policy>>,
    credential: Credential,
    holder: Arc<Holder>,
}

impl Known {
    /// Asks the present policy. Whom it does not know may do nothing any more.
    fn renew(&mut self) -> Result<(), Error> {
        let holder = self.policies.borrow_and_update().holder(&self.credential);
        let known = holder.is_some();
        self.holder = holder.unwrap_or_default();
        if known { Ok(()) } else { Err(Error::Unauthenticated) }
    }
}

impl Identity {
    /// Anybody, where everybody may do everything.
    pub const ANYBODY: Self = Self(None);

    /// How the access file calls it.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|known| known.holder.name())
    }

    /// Whether it may do this to a topic.
    pub fn may(&self, verb: Verb, topic: &str) -> bool {
        self.0.as_ref().is_none_or(|known| known.holder.may(verb, topic))
    }

    /// Whether it may do this to all topics.
    pub fn may_all(&self, verb: Verb) -> bool {
        self.0.as_ref().is_none_or(|known| known.holder.may_all(verb))
    }

    /// Fails unless it may do this to all topics.
    pub fn demand_all(&self, verb: Verb) -> Result<(), Error> {
        if self.may_all(verb) { Ok(()) } else { Err(Error::Denied { verb, topic: None }) }
    }

    /// Fails unless it may do this to each of these topics.
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

    /// Fails unless it may do this to what a filter lets through: these topics, or without any, all.
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

    /// Takes so many events off its rate. Fails if they come too fast; then none are taken off.
    pub fn spend(&self, events: usize) -> Result<(), Error> {
        let rate = self.0.as_ref().and_then(|known| known.holder.rate());
        rate.map_or(Ok(()), |rate| rate.spend(events).map_err(|wait| Error::TooFast { wait }))
    }

    /// What is charged for work that its events cause, when they come from this caller.
    pub fn account(&self, caller: CallerKey) -> Account {
        let rate = self.0.as_ref().and_then(|known| known.holder.rate().cloned());
        Account { caller, rate }
    }

    /// Follows what the access file says by now. Costs next to nothing while it says the same. Fails if
    /// whoever this was is not known any more.
    pub fn refresh(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Some(known) if known.policies.has_changed().unwrap_or(false) => known.renew(),
            _ => Ok(()),
        }
    }

    /// Waits until the access file says something else, and follows it.
    pub async fn changed(&mut self) -> Result<(), Error> {
        if let Some(known) = &mut self.0
            && known.policies.changed().await.is_ok()
        {
            return known.renew();
        }
        // Nothing will ever change.
        pending().await
    }
}

/// Whose events they are once they are on their way.
#[derive(Debug, Clone)]
pub struct Account {
    caller: CallerKey,
    /// Charged for the work that they cause, if it is an identity with a rate.
    rate: Option<Arc<Rate>>,
}

impl Account {
    /// The caller that bounds are counted for.
    pub fn caller(&self) -> &CallerKey {
        &self.caller
    }

    /// Charges for comparing events with so many bytes of stored payloads. What is owed is paid with the
    /// rate before later events are taken.
    pub fn charge(&self, bytes: usize) {
        if let Some(rate) = &self.rate
            && bytes > 0
        {
            rate.charge(bytes);
        }
    }
}

/// That something may not be done to a topic.
pub fn denied(verb: Verb, topic: &str) -> Error {
    Error::Denied { verb, topic: Name::new("topic", topic.to_owned()).ok() }
}
