//! A store that fails in every way in which a database can, to test that the guarantees still hold.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use event_aggregator::{
    event::{EventKey, NewEvent, Outcome},
    store::{
        Batch, Error, FeedQuery, Found, LaneState, ListQuery, Page, Place, Stats, Store, StoreLayer,
    },
    testing::limits::{FEED_POLL_PAUSE, STATEMENT_TIMEOUT},
};
use tokio::{runtime::Handle, task::spawn_blocking, time::sleep};

/// The fault of one commit.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is slow and succeeds.
    Slow,
    /// It is not done.
    Before,
    /// It is done, and the reply is lost.
    After,
    /// It is done twice, concurrently.
    Twice,
    /// The reply is lost, and it is done together with a later commit, like an orphaned statement.
    Late(usize),
}

/// Wraps a store with faults.
pub struct FaultyStore {
    store: Arc<dyn Store>,
    faults: Mutex<VecDeque<Fault>>,
    failing_reads: AtomicUsize,
    /// Number of panics left in `heads`.
    panics: AtomicUsize,
    /// Delayed batches, and the number of commits until each is done.
    late: Mutex<Vec<(usize, Arc<Batch>)>>,
}

/// A valid payload that the store cannot store.
pub const POISON: &str = r#"{"poison":true}"#;

fn is_poison(event: &NewEvent) -> bool {
    event.payload.as_str() == POISON
}

/// Runs work that takes real time while the test's clock is paused: the clock skips to the next
/// delay only when no task is blocked.
pub async fn in_real_time<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = Handle::current();
    spawn_blocking(move || runtime.block_on(work)).await.expect("no panic")
}

impl FaultyStore {
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (faults, late) = (Mutex::default(), Mutex::default());
        Self {
            store,
            faults,
            failing_reads: AtomicUsize::new(0),
            panics: AtomicUsize::new(0),
            late,
        }
    }

    /// Lets a later commit fail.
    pub fn fail(&self, fault: Fault) {
        self.faults.lock().expect("lock").push_back(fault);
    }

    /// Lets the next reads fail.
    pub fn fail_reads(&self, reads: usize) {
        self.failing_reads.store(reads, Relaxed);
    }

    /// Lets the next calls of `heads` panic.
    pub fn panic(&self, times: usize) {
        self.panics.store(times, Relaxed);
    }

    /// Whether all requested faults have occurred.
    pub fn has_panicked(&self) -> bool {
        self.panics.load(Relaxed) == 0
    }

    /// Runs all delayed commits and clears the faults.
    pub async fn heal(&self) {
        self.faults.lock().expect("lock").clear();
        self.failing_reads.store(0, Relaxed);
        let late = mem::take(&mut *self.late.lock().expect("lock"));
        self.do_late(late.into_iter().map(|(_, batch)| batch).collect()).await;
    }

    async fn do_late(&self, late: Vec<Arc<Batch>>) {
        for batch in late {
            let store = Arc::clone(&self.store);
            // The result is not observed.
            drop(in_real_time(async move { store.commit(batch).await }).await);
        }
    }

    /// The batches that are done with this commit.
    fn take_late(&self) -> Vec<Arc<Batch>> {
        let mut late = self.late.lock().expect("lock");
        let due =
            late.extract_if(.., |(commits, _)| *commits == 0).map(|(_, batch)| batch).collect();
        late.iter_mut().for_each(|(commits, _)| *commits -= 1);
        due
    }

    fn read(&self) -> Result<Arc<dyn Store>, Error> {
        let failing =
            self.failing_reads.fetch_update(Relaxed, Relaxed, |reads| reads.checked_sub(1));
        match failing {
            Ok(_) => Err(Error::Unavailable("a fault".into())),
            Err(_) => Ok(Arc::clone(&self.store)),
        }
    }
}

#[async_trait]
impl StoreLayer for FaultyStore {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, batch: Arc<Batch>) -> Result<Vec<Outcome>, Error> {
        if batch.events.iter().any(is_poison) {
            return Err(Error::Refused("poison".into()));
        }
        let fault = self.faults.lock().expect("lock").pop_front();
        let late = self.take_late();
        let unknown = || Error::Unknown("a fault".into());
        match fault {
            Some(Fault::Before) => {
                self.do_late(late).await;
                return Err(Error::Unavailable("a fault".into()));
            }
            Some(Fault::Late(commits)) => {
                self.do_late(late).await;
                self.late.lock().expect("lock").push((commits, batch));
                return Err(unknown());
            }
            Some(Fault::Slow) => sleep(STATEMENT_TIMEOUT).await,
            Some(Fault::After | Fault::Twice) | None => (),
        }
        let store = Arc::clone(&self.store);
        let committed = in_real_time(async move {
            let others: Vec<_> = late
                .into_iter()
                .map(|batch| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { store.commit(batch).await })
                })
                .collect();
            let committed = match fault {
                Some(Fault::Twice) => {
                    let twin = store.commit(Arc::clone(&batch));
                    let (one, other) = tokio::join!(twin, store.commit(batch));
                    let (one, other) = (one?, other?);
                    assert_eq!(one, other, "both get the same outcomes");
                    Ok(one)
                }
                _ => store.commit(batch).await,
            };
            for other in others {
                // The result is not observed.
                drop(other.await.expect("no panic"));
            }
            committed
        })
        .await;
        match fault {
            Some(Fault::After) => committed.and(Err(unknown())),
            _ => committed,
        }
    }

    async fn list(&self, query: ListQuery) -> Result<Page, Error> {
        let store = self.read()?;
        in_real_time(async move { store.list(query).await }).await
    }

    async fn get(&self, keys: Vec<EventKey>, max_bytes: usize) -> Result<Found, Error> {
        let store = self.read()?;
        in_real_time(async move { store.get(keys, max_bytes).await }).await
    }

    async fn stats(&self, topic: Option<String>, max_topics: usize) -> Result<Stats, Error> {
        let store = self.read()?;
        in_real_time(async move { store.stats(topic, max_topics).await }).await
    }

    async fn heads(&self, at: Vec<i64>) -> Result<Vec<LaneState>, Error> {
        let panics = self.panics.fetch_update(Relaxed, Relaxed, |panics| panics.checked_sub(1));
        assert!(panics.is_err(), "a fault of the program");
        let store = self.read()?;
        in_real_time(async move { store.heads(at).await }).await
    }

    async fn read(&self, query: FeedQuery) -> Result<Page, Error> {
        let store = self.read()?;
        in_real_time(async move { store.read(query).await }).await
    }

    async fn positions_at(&self, place: Place) -> Result<Vec<i64>, Error> {
        let store = self.read()?;
        in_real_time(async move { store.positions_at(place).await }).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let store = self.read()?;
        in_real_time(async move { store.ping().await }).await
    }

    async fn close(&self) {
        let store = Arc::clone(&self.store);
        in_real_time(async move { store.close().await }).await;
        // A cancelled read still holds it.
        while Arc::strong_count(&self.store) > 1 {
            sleep(FEED_POLL_PAUSE).await;
        }
    }
}
