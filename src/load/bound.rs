//! A bound on what callers use at the same time: so much in all, of which each caller has at most a share.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, timeout_at},
};

use crate::access::CallerKey;

/// A bound. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Bound(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: usize,
    share: usize,
    all: Arc<Semaphore>,
    /// Callers that use any of it now, or wait for some.
    shares: Mutex<HashMap<CallerKey, Share>>,
}

#[derive(Debug)]
struct Share {
    semaphore: Arc<Semaphore>,
    users: usize,
}

/// What a caller uses of a bound, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    of_all: OwnedSemaphorePermit,
    of_share: OwnedSemaphorePermit,
    user: User,
}

impl Permit {
    /// Takes so many permits out of this one, or all if it has fewer.
    pub fn split(&mut self, permits: usize) -> Option<Self> {
        let permits = permits.min(self.of_all.num_permits());
        let (user, _) = self.user.bound.join(&self.user.caller);
        let of_all = self.of_all.split(permits)?;
        let of_share = self.of_share.split(permits)?;
        Some(Self { of_all, of_share, user })
    }
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The share of this caller. Others go on.
    Share,
    /// The bound of all callers together.
    All,
}

impl Full {
    /// What a caller reads when a call is refused.
    pub fn calls(self) -> &'static str {
        match self {
            Self::Share => {
                "this caller has its share of the calls in progress, which is half of all; nothing of \
                 this one was done; end some of them, or try again later"
            }
            Self::All => {
                "too many calls are in progress; nothing of this one was done; try again later"
            }
        }
    }

    /// What a producer reads when its events are refused.
    pub fn queue(self) -> &'static str {
        match self {
            Self::Share => {
                "this caller has its share of the events that wait to be stored, which is half of the \
                 queue; nothing of this request was stored; send it again later, or use \
                 PublishStream, which waits"
            }
            Self::All => {
                "too many events are waiting to be stored; nothing of this request was; send it again \
                 later, or use PublishStream, which waits"
            }
        }
    }

    /// What a caller reads when a subscription is refused.
    pub fn subscriptions(self) -> &'static str {
        match self {
            Self::Share => {
                "this caller has its share of the subscriptions, which is half of all; end some of \
                 them, or try again later"
            }
            Self::All => {
                "there are too many subscriptions; try again later, or at another instance"
            }
        }
    }

    /// What a caller reads when a large answer is refused.
    pub fn answers(self) -> &'static str {
        match self {
            Self::Share => {
                "the large answers that this caller waits for or has not read use its share, which is \
                 half of all; read them, or try again later"
            }
            Self::All => {
                "too many large answers are in progress or not read by their callers; try again later"
            }
        }
    }
}

/// Keeps the share of a caller in the map.
#[derive(Debug)]
struct User {
    bound: Bound,
    caller: CallerKey,
}

impl Bound {
    /// So many permits in all, and so many of them for one caller at most.
    pub fn new(size: usize, share: usize) -> Self {
        #[cfg(feature = "planted-bugs")]
        let share = match crate::planted::is(crate::planted::Bug::NoShare) {
            true => size,
            false => share,
        };
        let all = Arc::new(Semaphore::new(size));
        Self(Arc::new(Shared { size, share, all, shares: Mutex::default() }))
    }

    /// Permits in use.
    pub fn used(&self) -> usize {
        self.0.size - self.0.all.available_permits()
    }

    /// So many permits for a caller, or its whole share if that is less, if they are free now.
    pub fn try_take(&self, caller: &CallerKey, permits: usize) -> Result<Permit, Full> {
        let permits = self.capped(permits);
        let (user, share) = self.join(caller);
        let of_share = share.try_acquire_many_owned(permits).map_err(|_| Full::Share)?;
        let of_all = Arc::clone(&self.0.all).try_acquire_many_owned(permits);
        let of_all = of_all.map_err(|_| Full::All)?;
        Ok(Permit { of_all, of_share, user })
    }

    /// The same, if they are free within so much time. Callers take them in the order of asking.
    pub async fn take_within(
        &self,
        caller: &CallerKey,
        permits: usize,
        wait: Duration,
    ) -> Result<Permit, Full> {
        let permits = self.capped(permits);
        let (user, share) = self.join(caller);
        let deadline = Instant::now() + wait;
        let of_share = timeout_at(deadline, share.acquire_many_owned(permits)).await;
        let of_share = of_share.map_err(|_| Full::Share)?.map_err(|_| Full::Share)?;
        let of_all =
            timeout_at(deadline, Arc::clone(&self.0.all).acquire_many_owned(permits)).await;
        let of_all = of_all.map_err(|_| Full::All)?.map_err(|_| Full::All)?;
        Ok(Permit { of_all, of_share, user })
    }

    /// The same, once they are free, in the order of asking. What waits for its share holds nothing of
    /// what others wait for. None if the bound was closed, which it never is.
    pub async fn take(&self, caller: &CallerKey, permits: usize) -> Option<Permit> {
        let permits = self.capped(permits);
        let (user, share) = self.join(caller);
        let of_share = share.acquire_many_owned(permits).await.ok()?;
        let of_all = Arc::clone(&self.0.all).acquire_many_owned(permits).await.ok()?;
        Some(Permit { of_all, of_share, user })
    }

    fn capped(&self, permits: usize) -> u32 {
        u32::try_from(permits.min(self.0.share)).unwrap_or(u32::MAX)
    }

    fn join(&self, caller: &CallerKey) -> (User, Arc<Semaphore>) {
        let mut shares = self.shares();
        let share = shares.entry(caller.clone()).or_insert_with(|| Share {
            semaphore: Arc::new(Semaphore::new(self.0.share)),
            users: 0,
        });
        share.users += 1;
        let user = User { bound: self.clone(), caller: caller.clone() };
        (user, Arc::clone(&share.semaphore))
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<CallerKey, Share>> {
        self.0.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut shares = self.bound.shares();
        if let Entry::Occupied(mut share) = shares.entry(self.caller.clone()) {
            share.get_mut().users -= 1;
            if share.get().users == 0 {
                share.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> CallerKey {
        CallerKey::Identity(name.into())
    }

    #[tokio::test]
    async fn a_caller_has_its_share_and_others_have_theirs() {
        let bound = Bound::new(8, 4);
        let (a, b, c) = (named("a"), named("b"), named("c"));
        let of_a = bound.try_take(&a, 100).expect("capped at its share");
        assert_eq!(bound.used(), 4);
        assert_eq!(bound.try_take(&a, 1).expect_err("its share is used"), Full::Share);
        let mut waiting = Box::pin(bound.take(&a, 1));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let of_b: Vec<Permit> = (0..4).map(|_| bound.try_take(&b, 1).expect("free")).collect();
        assert_eq!(bound.try_take(&c, 1).expect_err("all are used"), Full::All);
        drop(of_a);
        drop(waiting.await.expect("a permit"));
        drop(of_b);
        assert_eq!(bound.used(), 0);
        assert!(bound.shares().is_empty(), "callers that use nothing are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_for_so_long_and_is_told_what_for() {
        const WAIT: Duration = Duration::from_secs(5);
        let bound = Bound::new(8, 4);
        let (a, b, c) = (named("a"), named("b"), named("c"));
        let of_a = bound.try_take(&a, 4).expect("free");
        let begun = Instant::now();
        assert_eq!(bound.take_within(&a, 1, WAIT).await.expect_err("used"), Full::Share);
        assert_eq!(begun.elapsed(), WAIT);
        let of_b = bound.take_within(&b, 4, WAIT).await.expect("free");
        assert_eq!(bound.take_within(&c, 1, WAIT).await.expect_err("used"), Full::All);
        let (waiting, ()) = tokio::join!(bound.take_within(&a, 1, WAIT), async { drop(of_a) });
        drop((waiting.expect("free again"), of_b));
        assert_eq!(bound.used(), 0);
    }
}
