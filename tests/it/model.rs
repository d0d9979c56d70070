//! Model-based test of the guarantees: for any sequence of steps, and any failures of the store,
//! the service responds as an oracle without lanes, batches and retries predicts.
//!
//! The clock is paused while the store works and skips all delays, so failures cost no time.

use std::{collections::BTreeMap, sync::Arc};

use event_aggregator::{
    app,
    config::Database,
    cursor::Cursor,
    event::EventKey,
    store::{Counters, Durability, Filter, Store, postgres::PostgresStore, sqlite::SqliteStore},
    testing::{
        access::{Account, Caller, CallerKey, Identity},
        api::{Api, ListRequest, Listed, Reason},
        feed::{self, Frame, Start, Subscription},
        ingest::{Share, WhenFull},
        limits::{COMMIT_RETRY, FEED_POLL_INTERVAL},
        metrics::Metrics,
    },
};
use proptest::{collection::vec, prelude::*, sample::Index};
use tokio::{
    runtime::Builder,
    time::{sleep, timeout},
};

use self::{
    faulty::{Fault, FaultyStore, in_real_time},
    oracle::{Kept, Oracle, PAYLOADS, Sent},
};
use crate::{
    fuzz::check,
    harness::{self, Backend, TestDatabase},
};

mod faulty;
mod oracle;

/// The caller of all steps.
fn caller() -> Caller {
    Caller { identity: Identity::ANYBODY, key: CallerKey::new(None, None) }
}

fn account() -> Account {
    caller().account()
}

/// One step.
#[derive(Debug, Clone)]
enum Step {
    /// Concurrent requests.
    Publish(Vec<Vec<Sent>>),
    /// A later commit fails.
    Fail(Fault),
    /// This many later reads fail.
    FailReads(usize),
    List {
        topic: Option<u8>,
        oldest_first: bool,
        limit: usize,
    },
    LookUp(Vec<(u8, u8)>),
    Count,
    /// From the beginning, or from a saved cursor.
    Subscribe {
        from: Option<Index>,
        topic: Option<u8>,
    },
    /// The subscription from the beginning continues.
    ReadOn,
    Restart,
    /// Backs up the store.
    Backup,
    /// Restores the latest backup under the running service.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    let sent = (0..4_u8, 0..6_u8, 0..2_u8, proptest::option::of(0..2_i64), 0..PAYLOADS.len() * 4);
    let sent = sent.prop_map(|(topic, id, source, timestamp, payload)| {
        // Most events are equal, and few cannot be stored.
        let payload = if payload < PAYLOADS.len() { payload } else { 0 };
        let source = if payload < 4 { 0 } else { source };
        Sent { topic, id, source, timestamp, payload }
    });
    let fault = prop_oneof![
        Just(Fault::Slow),
        Just(Fault::Before),
        Just(Fault::After),
        Just(Fault::Twice),
        (0..4_usize).prop_map(Fault::Late),
    ];
    let topic = || proptest::option::of(0..4_u8);
    prop_oneof![
        8 => vec(vec(sent, 1..6), 1..5).prop_map(Step::Publish),
        6 => fault.prop_map(Step::Fail),
        2 => (1..4_usize).prop_map(Step::FailReads),
        2 => (topic(), any::<bool>(), 1..6_usize)
            .prop_map(|(topic, oldest_first, limit)| Step::List { topic, oldest_first, limit }),
        1 => vec((0..4_u8, 0..6_u8), 1..8).prop_map(Step::LookUp),
        1 => Just(Step::Count),
        3 => (proptest::option::of(any::<Index>()), topic())
            .prop_map(|(from, topic)| Step::Subscribe { from, topic }),
        2 => Just(Step::ReadOn),
        1 => Just(Step::Restart),
        1 => Just(Step::Backup),
        2 => Just(Step::Restore),
    ]
}

/// Position of a subscriber in the feed.
#[derive(Debug, Clone)]
struct Reached {
    start: Start,
    /// Number of events received from each lane.
    passed: Vec<usize>,
}

/// A service, and its expected state.
struct Model {
    database: Database,
    service: Api,
    store: Arc<FaultyStore>,
    oracle: Oracle,
    /// The latest backup.
    backup: Option<Oracle>,
    /// The subscription from the beginning.
    reader: (Option<Subscription>, Reached),
    /// Positions to resume from.
    kept: Vec<Reached>,
}

async fn start(database: Database) -> (Api, Arc<FaultyStore>) {
    let opened = in_real_time(async move {
        let store: Arc<dyn Store> = match database {
            Database::Sqlite(path) => Arc::new(SqliteStore::open(&path).expect("open")),
            Database::Postgres(url) => {
                Arc::new(PostgresStore::open(&url, Durability::Waived).await.expect("open"))
            }
        };
        store
    });
    let store = Arc::new(FaultyStore::new(opened.await));
    let shared: Arc<dyn Store> = Arc::<FaultyStore>::clone(&store);
    (Api::start(shared, Metrics::default()), store)
}

/// Stops a service as SIGTERM does.
async fn stop(service: Api, store: Arc<FaultyStore>) {
    service.ingest.drain().await;
    store.heal().await;
    service.feed.close().await;
    store.close().await;
}

/// An unauthenticated caller.
fn anybody() -> CallerKey {
    caller().key
}

impl Model {
    async fn new(database: Database) -> Self {
        let (service, store) = start(database.clone()).await;
        let oracle = Oracle::new(store.lanes());
        let beginning = Reached { start: Start::Beginning, passed: oracle.heads() };
        let (reader, kept) = ((None, beginning), Vec::new());
        Self { database, service, store, oracle, backup: None, reader, kept }
    }

    async fn take(mut self, step: Step) -> Self {
        match step {
            Step::Publish(requests) => self.publish(requests).await,
            Step::Fail(fault) => self.store.fail(fault),
            Step::FailReads(reads) => self.store.fail_reads(reads),
            Step::List { topic, oldest_first, limit } => {
                self.list(topic, oldest_first, limit).await;
            }
            Step::LookUp(keys) => self.look_up(&keys).await,
            Step::Count => self.count().await,
            Step::Subscribe { from, topic } => self.subscribe(from, topic).await,
            Step::ReadOn => self.read_on().await,
            Step::Restart => return self.restart().await,
            Step::Backup => self.back_up().await,
            Step::Restore => self.restore().await,
        }
        self
    }

    /// Events are deduplicated in the order of their requests.
    async fn publish(&mut self, requests: Vec<Vec<Sent>>) {
        let share = Share::default();
        let mut pending = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            let when_full = match number % 2 {
                0 => WhenFull::Reject,
                _ => WhenFull::Wait(&share),
            };
            let events = request.iter().map(Sent::event).collect();
            pending.push(
                self.service
                    .ingest
                    .submit(events, 0, when_full, account())
                    .await
                    .expect("admitted"),
            );
        }
        for (request, pending) in requests.into_iter().zip(pending) {
            let outcomes = pending.outcomes().await.expect("stored in the end");
            assert_eq!(outcomes.len(), request.len());
            for (sent, settled) in request.into_iter().zip(outcomes) {
                self.oracle.judge(sent, settled);
            }
        }
    }

    /// Retries a read until the store does not fail.
    async fn read<T>(
        &self,
        read: impl AsyncFn(&FaultyStore) -> Result<T, event_aggregator::store::Error>,
    ) -> T {
        for _ in 0..8 {
            match read(&self.store).await {
                Ok(answer) => return answer,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
        }
        panic!("the store does not answer");
    }

    /// Retries a page until the store does not fail.
    async fn page(&self, request: &ListRequest) -> Listed {
        for _ in 0..8 {
            match self.service.list(&caller(), request.clone()).await {
                Ok(page) => return page,
                Err(error) => {
                    let is_of_store = [Reason::StoreUnavailable, Reason::StoreTimeout];
                    assert!(is_of_store.contains(&error.reason), "{error:?}");
                }
            }
        }
        panic!("the store does not answer");
    }

    /// All pages of a listing. If it is complete and oldest first, subscriptions may resume from
    /// each of its events.
    async fn list(&mut self, topic: Option<u8>, oldest_first: bool, limit: usize) {
        let filter = Filter { topic: topic.map(oracle::topic), oldest_first, ..Filter::default() };
        let expected = self.oracle.listing(&filter);
        let is_whole = topic.is_none() && oldest_first;
        let mut passed = vec![0; self.oracle.lanes.len()];
        let mut listed = 0;
        let mut request = ListRequest { filter, page_token: None, limit };
        loop {
            let page = self.page(&request).await;
            assert!(page.events.len() <= limit);
            for (event, cursor) in page.events {
                expected.get(listed).expect("no more than was stored").check(&event);
                listed += 1;
                passed[usize::from(event.position.lane)] += 1;
                if is_whole {
                    let start = Start::Cursor(cursor);
                    self.kept.push(Reached { start, passed: passed.clone() });
                }
            }
            request.page_token = page.next_page_token;
            if request.page_token.is_none() {
                break;
            }
        }
        assert_eq!(listed, expected.len());
    }

    async fn look_up(&self, keys: &[(u8, u8)]) {
        let names: Vec<EventKey> = keys.iter().map(|&(topic, id)| oracle::key(topic, id)).collect();
        let found = self.read(async |store| store.get(names.clone(), 1 << 20).await).await;
        assert_eq!(found.reached, keys.len());
        let expected = keys.iter().enumerate().filter_map(|(index, &(topic, id))| {
            self.oracle.look_up(topic, id).map(|kept| (index, kept))
        });
        let expected: Vec<(usize, &Kept)> = expected.collect();
        assert_eq!(found.events.len(), expected.len());
        for ((index, event), (expected_index, kept)) in found.events.iter().zip(expected) {
            assert_eq!(*index, expected_index);
            kept.check(event);
        }
    }

    async fn count(&self) {
        let stats = self.read(async |store| store.stats(None, 100).await).await;
        let by_topic = stats.topics.iter().map(|topic| (topic.topic.clone(), topic.counters));
        let expected = self.oracle.counters();
        assert_eq!(by_topic.collect::<BTreeMap<_, _>>(), expected);
        let mut totals = Counters::default();
        for counters in expected.values() {
            totals.received += counters.received;
            totals.unique_processed += counters.unique_processed;
            totals.duplicate_dropped += counters.duplicate_dropped;
            totals.conflicts += counters.conflicts;
        }
        assert_eq!(stats.totals, totals);
        assert_eq!(stats.topics_active, expected.len() as i64);
        assert_eq!(totals.unique_processed as usize, self.oracle.heads().iter().sum::<usize>());
    }

    async fn subscribe(&mut self, from: Option<Index>, topic: Option<u8>) {
        let beginning =
            Reached { start: Start::Beginning, passed: vec![0; self.oracle.lanes.len()] };
        let from = match from {
            Some(index) if !self.kept.is_empty() => index.get(&self.kept).clone(),
            _ => beginning,
        };
        if self.is_lost(&from) {
            self.refused(None, from).await;
            return;
        }
        let (_, reached) = self.feed(None, from, topic).await;
        self.kept.push(reached);
    }

    async fn read_on(&mut self) {
        let (mut subscription, mut reached) = (self.reader.0.take(), self.reader.1.clone());
        if self.is_lost(&reached) {
            self.refused(subscription.take(), reached).await;
            reached = Reached { start: Start::Beginning, passed: vec![0; self.oracle.lanes.len()] };
        }
        self.reader = self.feed(subscription, reached, None).await;
    }

    /// Whether the store lost events that a subscriber has passed.
    fn is_lost(&self, reached: &Reached) -> bool {
        match &reached.start {
            Start::Cursor(cursor) => !self.oracle.holds(cursor),
            _ => false,
        }
    }

    /// A subscriber gets STORE_RESTORED, also while it reads.
    async fn refused(&self, mut subscription: Option<Subscription>, reached: Reached) {
        loop {
            let told = match &mut subscription {
                Some(reading) => {
                    timeout(COMMIT_RETRY, reading.next()).await.expect("no silence").map(drop)
                }
                None => {
                    let start = reached.start.clone();
                    let begun = self.service.feed.subscribe(&anybody(), start, [].into()).await;
                    begun.map(|_| panic!("not refused: {reached:?}"))
                }
            };
            match told {
                Ok(()) => (),
                Err(feed::Error::Restored) => return,
                Err(feed::Error::Store(_)) => subscription = None,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn back_up(&mut self) {
        self.store.heal().await;
        self.execute(
            "DROP TABLE IF EXISTS kept_events; DROP TABLE IF EXISTS kept_lanes;
             DROP TABLE IF EXISTS kept_stats;
             CREATE TABLE kept_events AS SELECT * FROM processed_events;
             CREATE TABLE kept_lanes AS SELECT * FROM lanes;
             CREATE TABLE kept_stats AS SELECT * FROM audit_stats",
        )
        .await;
        self.backup = Some(self.oracle.clone());
    }

    async fn restore(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.store.heal().await;
        self.execute(
            "BEGIN;
             DELETE FROM processed_events; INSERT INTO processed_events SELECT * FROM kept_events;
             DELETE FROM lanes; INSERT INTO lanes SELECT * FROM kept_lanes;
             DELETE FROM audit_stats; INSERT INTO audit_stats SELECT * FROM kept_stats;
             DELETE FROM batch_ledger; COMMIT",
        )
        .await;
        self.oracle = backup;
    }

    /// Runs statements, bypassing the service.
    async fn execute(&self, sql: &'static str) {
        let database = self.database.clone();
        in_real_time(async move {
            match database {
                Database::Sqlite(path) => {
                    let connection = rusqlite::Connection::open(path).expect("open");
                    connection.execute_batch(sql).expect(sql);
                }
                Database::Postgres(url) => {
                    harness::connect(&url).await.batch_execute(sql).await.expect(sql);
                }
            }
        })
        .await;
    }

    /// Reads the feed until it is caught up, and checks that each event comes once and each lane in
    /// order. Resubscribes after the last event whenever it fails.
    async fn feed(
        &mut self,
        mut subscription: Option<Subscription>,
        mut reached: Reached,
        topic: Option<u8>,
    ) -> (Option<Subscription>, Reached) {
        let topics: Vec<String> = topic.map(oracle::topic).into_iter().collect();
        let is_wanted = |kept: &&Kept| topic.is_none_or(|topic| kept.sent.topic == topic);
        loop {
            let is_there = |(lane, passed): (&Vec<Kept>, &usize)| {
                !lane[*passed..].iter().any(|kept| is_wanted(&kept))
            };
            let is_all = self.oracle.lanes.iter().zip(&reached.passed).all(is_there);
            if is_all && subscription.is_some() {
                break;
            }
            let reading = match &mut subscription {
                Some(reading) => reading,
                none => {
                    let topics = topics.clone().into();
                    match self
                        .service
                        .feed
                        .subscribe(&anybody(), reached.start.clone(), topics)
                        .await
                    {
                        Ok(begun) => none.insert(begun),
                        Err(feed::Error::Store(_)) => continue,
                        Err(error) => panic!("{error:?}: {reached:?}"),
                    }
                }
            };
            match timeout(COMMIT_RETRY, reading.next()).await.expect("a frame") {
                Ok(Frame::Events(events, _, _)) => {
                    for (event, cursor) in events {
                        let lane = usize::from(event.position.lane);
                        let rest = self.oracle.lanes[lane].iter().skip(reached.passed[lane]);
                        let next = rest.clone().find(is_wanted).expect("was stored and not given");
                        next.check(&event);
                        reached.passed[lane] = next.position.seq as usize;
                        reached = self.go_on(&reached, cursor, topic);
                        if topic.is_none() && self.kept.len() < 100 {
                            self.kept.push(reached.clone());
                        }
                    }
                }
                Ok(Frame::Checkpoint(cursor) | Frame::CaughtUp(cursor)) => {
                    reached = self.go_on(&reached, cursor, topic);
                }
                Err(_) => subscription = None,
            }
        }
        (subscription, reached)
    }

    /// Restarts the service on the same database.
    async fn restart(self) -> Self {
        let Self { database, service, store, oracle, backup, reader, kept } = self;
        let (subscription, reached) = reader;
        drop(subscription);
        stop(service, store).await;
        let (service, store) = start(database.clone()).await;
        Self { database, service, store, oracle, backup, reader: (None, reached), kept }
    }

    /// The position after a cursor, which may only skip events that were not subscribed to.
    fn go_on(&self, reached: &Reached, cursor: Cursor, topic: Option<u8>) -> Reached {
        let passed = passed(&cursor);
        for ((lane, from), to) in self.oracle.lanes.iter().zip(&reached.passed).zip(&passed) {
            let is_wanted = |kept: &Kept| topic.is_none_or(|topic| kept.sent.topic == topic);
            assert!(!lane[*from..*to].iter().any(is_wanted), "skipped: {reached:?} {passed:?}");
        }
        Reached { start: Start::Cursor(cursor), passed }
    }

    /// Delayed commits change nothing, and the counters match the rows.
    async fn end(mut self) {
        self.store.heal().await;
        self.count().await;
        self.list(None, true, 4).await;
        self.list(None, false, 100).await;
        self.read_on().await;
        self.subscribe(None, None).await;
        let Self { database, service, store, reader, .. } = self;
        drop(reader);
        stop(service, store).await;
        let report = in_real_time(async move { app::verify(&database).await }).await;
        let report = report.expect("verified");
        assert!(report.is_exact(), "{report:?}");
    }
}

/// Number of events of each lane before a position in the feed: numbers have no gaps.
fn passed(cursor: &Cursor) -> Vec<usize> {
    match cursor {
        Cursor::Feed(positions) => positions.iter().map(|position| position.seq as usize).collect(),
        Cursor::Event { .. } => panic!("the feed has cursors of its own"),
    }
}

fn run(database: &Database, steps: Vec<Step>) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("runtime").block_on(async {
        let mut model = Model::new(database.clone()).await;
        for step in steps {
            model = model.take(step).await;
        }
        model.end().await;
    });
}

#[test]
fn sqlite_keeps_the_promises() {
    check(64, vec(step(), 1..40), |steps| {
        let folder = tempfile::tempdir().expect("temporary folder");
        run(&Database::Sqlite(folder.path().join("events.db")), steps);
    });
}

#[test]
fn postgres_keeps_the_promises() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let database = runtime.block_on(TestDatabase::new(Backend::Postgres));
    run(&database.url, Vec::new());
    check(24, vec(step(), 1..40), |steps| {
        let empty = "TRUNCATE processed_events, audit_stats, batch_ledger;
                     UPDATE lanes SET head = 0, last_received_at = '0001-01-01 00:00:00+00'";
        runtime.block_on(database.execute(empty));
        run(&database.url, steps);
    });
}

#[test]
fn feed_recovers_after_a_panic() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let database = Database::Sqlite(folder.path().join("events.db"));
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("runtime").block_on(async {
        let (service, store) = start(database).await;
        let topics: Vec<String> = Vec::new();
        let begun = service.feed.subscribe(&anybody(), Start::Beginning, topics.into()).await;
        let mut subscription = begun.expect("subscribed");
        let caught_up = subscription.next().await.expect("a frame");
        assert!(matches!(caught_up, Frame::CaughtUp(_)), "{caught_up:?}");
        store.panic(2);
        while !store.has_panicked() {
            sleep(FEED_POLL_INTERVAL).await;
        }
        let sent = Sent { topic: 0, id: 0, source: 0, timestamp: None, payload: 0 };
        let pending =
            service.ingest.submit(vec![sent.event()], 0, WhenFull::Reject, account()).await;
        pending.expect("admitted").outcomes().await.expect("stored");
        let frame = timeout(COMMIT_RETRY, subscription.next()).await.expect("no silence");
        assert!(matches!(frame, Ok(Frame::Events(events, _, _)) if events.len() == 1));
        drop(subscription);
        stop(service, store).await;
    });
}
