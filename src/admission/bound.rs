//! A limit on what is in use at the same time, by all callers together and by each of them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, timeout_at},
};

use crate::access::CallerKey;

/// A limit. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Bound(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: usize,
    share: usize,
    all: Arc<Semaphore>,
    /// Callers that hold permits, or wait for some.
    shares: Mutex<HashMap<CallerKey, Share>>,
}

#[derive(Debug)]
struct Share {
    semaphore: Arc<Semaphore>,
    users: usize,
}

/// What a caller uses, until this is dropped.
#[derive(Debug)]
pub struct Permit {
    of_all: OwnedSemaphorePermit,
    of_share: OwnedSemaphorePermit,
    user: User,
}

impl Permit {
    /// Splits so many permits off, or all if there are fewer.
    pub fn split(&mut self, permits: usize) -> Option<Self> {
        let permits = permits.min(self.of_all.num_permits());
        let (user, _) = self.user.bound.join(&self.user.caller);
        let of_all = self.of_all.split(permits)?;
        let of_share = self.of_share.split(permits)?;
        Some(Self { of_all, of_share, user })
    }
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// That of this caller. Others are not affected.
    Share,
    /// That of all callers together.
    All,
}

/// Keeps the share of a caller in the map while it is used.
#[derive(Debug)]
struct User {
    bound: Bound,
    caller: CallerKey,
}

impl Bound {
    /// A limit of `size` permits in all, and of `share` for one caller.
    pub fn new(size: usize, share: usize) -> Self {
        let all = Arc::new(Semaphore::new(size));
        Self(Arc::new(Shared { size, share, all, shares: Mutex::default() }))
    }

    /// Permits in use.
    pub fn used(&self) -> usize {
        self.0.size - self.0.all.available_permits()
    }

    /// Acquires permits for a caller, or its whole share if that is less, if they are free now.
    pub fn try_take(&self, caller: &CallerKey, permits: usize) -> Result<Permit, Full> {
        let permits = self.capped(permits);
        let (user, share) = self.join(caller);
        let of_share = share.try_acquire_many_owned(permits).map_err(|_| Full::Share)?;
        let of_all = Arc::clone(&self.0.all).try_acquire_many_owned(permits);
        let of_all = of_all.map_err(|_| Full::All)?;
        Ok(Permit { of_all, of_share, user })
    }

    /// The same, if they are free within `wait`. First come, first served.
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

    /// The same, once they are free. First come, first served; while it waits for the share of its caller,
    /// it holds no permits. None if the limit was closed, which never happens.
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
        let mut shares = self.0.shares.lock();
        let share = shares.entry(caller.clone()).or_insert_with(|| Share {
            semaphore: Arc::new(Semaphore::new(self.0.share)),
            users: 0,
        });
        share.users += 1;
        let user = User { bound: self.clone(), caller: caller.clone() };
        (user, Arc::clone(&share.semaphore))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut shares = self.bound.0.shares.lock();
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
    async fn a_caller_cannot_exceed_its_share() {
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
        assert!(bound.0.shares.lock().is_empty(), "callers without permits are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_limit_that_is_reached() {
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
