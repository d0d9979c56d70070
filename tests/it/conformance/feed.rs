//! Subscribe: every event once and in order, from any cursor, and live.

use event_aggregator::proto::v1::{
    BatchGetEventsRequest, EventKey, ListEventsRequest, ListOrder, PayloadFormat, SubscribeRequest,
    subscribe_response::Frame,
};
use tokio_stream::StreamExt;
use tonic::{Code, Status, Streaming};

use crate::harness::*;
use event_aggregator::proto::v1::{Event, SubscribeResponse};

mod unread;

on_both_stores!(
    subscription_sends_stored_then_new_events,
    subscription_from_end_sends_only_new_events,
    subscription_resumes_after_any_cursor,
    list_and_lookup_cursors_resume_in_listing_order,
    pages_are_a_snapshot_of_the_listing_start,
    topic_filter_advances_past_other_topics,
    invalid_subscriptions_are_rejected_with_reason,
    late_or_aborted_commit_is_neither_skipped_nor_visible_early,
    slow_subscriber_does_not_block_others,
    shutdown_ends_subscriptions_at_their_cursor,
    reconnecting_subscribers_see_every_event_once,
);

/// A subscription of a test.
struct Reader {
    frames: Streaming<SubscribeResponse>,
    /// The last cursor.
    cursor: String,
}

impl Reader {
    async fn start(client: &mut Client, request: SubscribeRequest) -> Self {
        let frames = client.subscribe(request).await.expect("a subscription").into_inner();
        Self { frames, cursor: String::new() }
    }

    async fn from(client: &mut Client, cursor: &str) -> Self {
        Self::start(client, SubscribeRequest { cursor: cursor.to_owned(), ..Default::default() })
            .await
    }

    async fn next(&mut self) -> Result<Frame, Status> {
        let frame = self.frames.next().await.expect("no end")?.frame.expect("a frame");
        self.cursor = match &frame {
            Frame::Events(batch) => batch.cursor.clone(),
            Frame::Checkpoint(checkpoint) => checkpoint.cursor.clone(),
            Frame::CaughtUp(caught_up) => caught_up.cursor.clone(),
        };
        Ok(frame)
    }

    /// The events up to the next `CaughtUp`.
    async fn until_caught_up(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.next().await.expect("a frame") {
                Frame::Events(batch) => events.extend(batch.events),
                Frame::Checkpoint(_) => (),
                Frame::CaughtUp(_) => return events,
            }
        }
    }

    /// Reads this many events, and no more of the same frame.
    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            if let Frame::Events(batch) = self.next().await.expect("a frame") {
                events.extend(batch.events);
            }
        }
        assert_eq!(events.len(), count);
        events
    }
}

fn sorted(events: &[Event]) -> Vec<&str> {
    let mut ids = ids(events);
    ids.sort_unstable();
    ids
}

async fn subscription_sends_stored_then_new_events(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut empty = Reader::from(&mut client, "").await;
    assert!(empty.until_caught_up().await.is_empty());

    let old = || (0..2_500).map(|n| event(&format!("t{}", n % 7), &format!("{n:05}")));
    for part in old().collect::<Vec<_>>().chunks(1_000) {
        publish(&mut client, part.to_vec()).await;
    }
    let mut reader = Reader::from(&mut client, "beginning").await;
    let events = reader.until_caught_up().await;
    assert_eq!(sorted(&events), ids(&old().collect::<Vec<_>>()));
    for topic in 0..7 {
        let topic = format!("t{topic}");
        let of_topic = |event: &&Event| event.topic == topic;
        let received: Vec<&str> =
            events.iter().filter(of_topic).map(|event| &*event.event_id).collect();
        assert!(received.is_sorted(), "in the order of commits");
    }
    // Live, for both the subscriber that read old events and the one that started at the end.
    publish(&mut client, vec![event("t1", "new"), event("t1", "00001")]).await;
    let live = reader.take(1).await;
    assert_eq!(ids(&live), ["new"]);
    let [given] = &*live else { panic!("one event") };
    assert_eq!((&*given.topic, &*given.source), ("t1", "test"));
    assert!(given.received_at.is_some() && given.timestamp.is_some() && given.content.is_some());
    assert_eq!(empty.take(2_501).await.len(), 2_501);
}

async fn subscription_from_end_sends_only_new_events(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "old")]).await;
    let mut reader = Reader::from(&mut client, "end").await;
    assert!(reader.until_caught_up().await.is_empty());
    publish(&mut client, vec![event("t", "new"), event("t", "old")]).await;
    assert_eq!(ids(&reader.take(1).await), ["new"]);
}

async fn subscription_resumes_after_any_cursor(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for batch in 0..4 {
        let events = (0..10).map(|n| event(&format!("t{n}"), &format!("{batch}-{n}")));
        publish(&mut client, events.collect()).await;
    }
    let all = Reader::from(&mut client, "").await.until_caught_up().await;
    assert_eq!(all.len(), 40);
    for (place, event) in all.iter().enumerate() {
        let rest = Reader::from(&mut client, &event.cursor).await.until_caught_up().await;
        let mut together = ids(&all[..=place]);
        together.extend(ids(&rest));
        together.sort_unstable();
        assert_eq!(together, sorted(&all), "behind event {place}");
    }
}

async fn list_and_lookup_cursors_resume_in_listing_order(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for batch in 0..3 {
        let events = (0..10).map(|n| event(&format!("t{n}"), &format!("{batch}-{n}")));
        publish(&mut client, events.collect()).await;
    }
    let oldest_first = ListOrder::OldestFirst.into();
    let request = ListEventsRequest { order: oldest_first, ..Default::default() };
    let all = list_all(&mut client, request).await;
    for (place, event) in all.iter().enumerate() {
        let rest = Reader::from(&mut client, &event.cursor).await.until_caught_up().await;
        let mut expected = ids(&all[place + 1..]);
        expected.sort_unstable();
        assert_eq!(sorted(&rest), expected, "behind event {place}");
    }
    let key = EventKey { topic: all[7].topic.clone(), event_id: all[7].event_id.clone() };
    let request = BatchGetEventsRequest { keys: vec![key], ..Default::default() };
    let found = client.batch_get_events(request).await.expect("found").into_inner();
    assert_eq!(found.events[0].cursor, all[7].cursor);
}

/// All pages of a listing, four events each, over gRPC and over HTTP. Runs `meanwhile` between the
/// first and the second page.
async fn pages_around(
    server: &TestServer,
    order: ListOrder,
    between: impl AsyncFnOnce(),
) -> Vec<(String, String)> {
    let mut client = server.client().await;
    let name = if order == ListOrder::OldestFirst { "oldest" } else { "newest" };
    let mut between = Some(between);
    let (mut listed, mut over_http) = (Vec::new(), Vec::new());
    let mut request = ListEventsRequest { page_size: 4, order: order.into(), ..Default::default() };
    let mut address = format!("/events?limit=4&order={name}");
    loop {
        let page = client.list_events(request.clone()).await.expect("a page").into_inner();
        listed.extend(page.events.into_iter().map(|event| (event.event_id, event.cursor)));
        let answer = get(server, &address).await;
        for event in answer.json().as_array().expect("events") {
            let text = |name: &str| event[name].as_str().expect("text").to_owned();
            over_http.push((text("event_id"), text("cursor")));
        }
        if let Some(between) = between.take() {
            between().await;
        }
        request.page_token = page.next_page_token;
        match answer.header("link").and_then(|link| link.split(['<', '>']).nth(1)) {
            Some(next) => address = next.to_owned(),
            None => break,
        }
        assert!(address.len() < 300, "{address}");
    }
    assert!(request.page_token.is_empty());
    assert_eq!(listed, over_http);
    listed
}

/// Asserts that a subscription after any listed event gets all events that the listing did not
/// have.
async fn assert_nothing_is_missed(server: &TestServer, listed: &[(String, String)], late: &[&str]) {
    let mut client = server.client().await;
    for (place, (id, cursor)) in listed.iter().enumerate() {
        let rest = Reader::from(&mut client, cursor).await.until_caught_up().await;
        let mut expected: Vec<&str> = listed[place + 1..].iter().map(|(id, _)| &**id).collect();
        expected.extend(late);
        expected.sort_unstable();
        assert_eq!(sorted(&rest), expected, "behind {id}");
    }
}

async fn pages_are_a_snapshot_of_the_listing_start(backend: Backend) {
    for order in [ListOrder::OldestFirst, ListOrder::NewestFirst] {
        let server = TestServer::start(backend).await;
        let mut client = server.client().await;
        for batch in 0..3 {
            let events = (0..4).map(|n| event(&format!("t{n}"), &format!("{batch}-{n}")));
            publish(&mut client, events.collect()).await;
        }
        let mut listed = pages_around(&server, order, async || {
            let events = (0..4).map(|n| event(&format!("t{n}"), &format!("late-{n}")));
            publish(&mut client, events.collect()).await;
        })
        .await;
        assert_eq!(listed.len(), 12);
        if order == ListOrder::NewestFirst {
            listed.reverse();
        }
        let late = ["late-0", "late-1", "late-2", "late-3"];
        assert_nothing_is_missed(&server, &listed, &late).await;
    }
}

/// A late commit, because its lane waited or the clock of its instance is behind, is on no page
/// that is read after the place of its time. Requires more than one lane.
#[tokio::test(flavor = "multi_thread")]
async fn commit_between_pages_is_after_their_cursors() {
    for order in [ListOrder::OldestFirst, ListOrder::NewestFirst] {
        let server = TestServer::start(Backend::Postgres).await;
        let mut client = server.client().await;
        publish(&mut client, vec![event("t", "first")]).await;
        let lane = event_aggregator::store::lane_of("t", 4);
        let other = (0..).map(|n| format!("u{n}"));
        let mut other = other.filter(|topic| event_aggregator::store::lane_of(topic, 4) != lane);
        let other = other.next().expect("a topic");
        // Received after the first event and before the others, and not committed yet.
        let writer = SlowWriter::begin(&server.database, Backend::Postgres, "late").await;
        for n in 0..11 {
            publish(&mut client, vec![event(&other, &format!("{n:02}"))]).await;
        }
        let mut listed = pages_around(&server, order, async || {
            writer.end("COMMIT").await;
            publish(&mut client, vec![event("t", "later"), event(&other, "last")]).await;
        })
        .await;
        assert_eq!(listed.len(), 12);
        if order == ListOrder::NewestFirst {
            listed.reverse();
        }
        assert_nothing_is_missed(&server, &listed, &["last", "late", "later"]).await;
    }
}

async fn topic_filter_advances_past_other_topics(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let hidden = |from: usize, to: usize| {
        (from..to).map(|n| event(&format!("t{}", n % 9), &n.to_string())).collect::<Vec<_>>()
    };
    publish(&mut client, vec![event("rare", "1")]).await;
    for part in hidden(0, 3_000).chunks(1_000) {
        publish(&mut client, part.to_vec()).await;
    }
    let narrow = |cursor: &str| SubscribeRequest {
        topics: vec!["rare".to_owned(), "unknown".to_owned()],
        cursor: cursor.to_owned(),
        payload_format: PayloadFormat::Json.into(),
    };
    let mut reader = Reader::start(&mut client, narrow("")).await;
    assert_eq!(ids(&reader.until_caught_up().await), ["1"]);
    // Events of other topics are skipped: the cursor is after them.
    let rest = Reader::from(&mut client, &reader.cursor).await.until_caught_up().await;
    assert!(rest.is_empty(), "{}", rest.len());

    // Idle, but the feed advances: a checkpoint follows, at last after everything.
    publish(&mut client, hidden(3_000, 3_050)).await;
    loop {
        assert!(matches!(reader.next().await, Ok(Frame::Checkpoint(_))));
        if Reader::from(&mut client, &reader.cursor).await.until_caught_up().await.is_empty() {
            break;
        }
    }
    publish(&mut client, vec![event("rare", "2")]).await;
    assert_eq!(ids(&reader.take(1).await), ["2"]);
    assert_eq!(
        ids(&Reader::start(&mut client, narrow("")).await.until_caught_up().await),
        ["1", "2"]
    );
}

async fn invalid_subscriptions_are_rejected_with_reason(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1")]).await;
    let cursor = Reader::from(&mut client, "").await.take(1).await[0].cursor.clone();

    let other = TestServer::start(backend).await;
    let mut others_client = other.client().await;
    let with_cursor =
        |cursor: &str| SubscribeRequest { cursor: cursor.into(), ..Default::default() };
    let refused = others_client.subscribe(with_cursor(&cursor)).await.expect_err("another store");
    assert_eq!(fields_at_fault(&refused), ["cursor"]);
    assert_eq!(reason(&refused), "INVALID_CURSOR");
    assert!(refused.message().contains("another database"), "{}", refused.message());

    for cursor in ["garbage", &cursor[1..], &cursor.to_uppercase(), "Beginning"] {
        let refused = client.subscribe(with_cursor(cursor)).await.expect_err("garbage");
        assert_eq!(fields_at_fault(&refused), ["cursor"], "{cursor}");
    }
    let topics = vec!["t".to_owned(), " ".to_owned()];
    let request = SubscribeRequest { topics, payload_format: 9, ..Default::default() };
    let refused = client.subscribe(request).await.expect_err("bad");
    assert_eq!(fields_at_fault(&refused), ["payload_format", "topics[1]"]);
    let topics = (0..1_001).map(|n| n.to_string()).collect();
    let request = SubscribeRequest { topics, ..Default::default() };
    let refused = client.subscribe(request).await.expect_err("too many");
    assert_eq!(fields_at_fault(&refused), ["topics"]);

    // As after a restore of an older copy.
    let mut open = Reader::from(&mut client, "").await;
    open.until_caught_up().await;
    server.database.execute("DELETE FROM processed_events; UPDATE lanes SET head = 0").await;
    let refused = client.subscribe(with_cursor(&cursor)).await.expect_err("the future");
    assert_eq!(reason(&refused), "STORE_RESTORED");
    let ended = open.next().await.expect_err("what was read is not there any more");
    assert_eq!(reason(&ended), "STORE_RESTORED");
}

async fn late_or_aborted_commit_is_neither_skipped_nor_visible_early(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut reader = Reader::from(&mut client, "").await;
    reader.until_caught_up().await;
    // A slow transaction holds the lanes; it is rolled back once and committed once.
    for (id, end) in [("undone", "ROLLBACK"), ("late", "COMMIT")] {
        let writer = SlowWriter::begin(&server.database, backend, id).await;
        let mut publisher = server.client().await;
        let behind = format!("behind-{id}");
        let publishing =
            tokio::spawn(async move { publish(&mut publisher, vec![event("t", &behind)]).await });
        // Nothing is visible, not even to a new subscriber.
        let mut other = Reader::from(&mut client, "").await;
        let seen = sorted(&other.until_caught_up().await).join(" ");
        assert!(!seen.contains(id), "{seen}");
        writer.end(end).await;
        publishing.await.expect("published");
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if let Frame::Events(batch) = reader.next().await.expect("a frame") {
            seen.extend(batch.events.into_iter().map(|event| event.event_id));
        }
    }
    assert_eq!(seen, ["behind-undone", "late", "behind-late"]);
}

/// Listings are ordered by time of receipt, which may differ from commit order. A subscriber that
/// lists first must not miss events received before and committed after. Requires more than one
/// lane.
#[tokio::test(flavor = "multi_thread")]
async fn late_commit_is_after_listing_cursors() {
    let server = TestServer::start(Backend::Postgres).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "first")]).await;
    let writer = SlowWriter::begin(&server.database, Backend::Postgres, "late").await;
    let in_another_lane = (0..).map(|n| format!("u{n}")).find(|topic| {
        event_aggregator::store::lane_of(topic, 4) != event_aggregator::store::lane_of("t", 4)
    });
    publish(&mut client, vec![event(&in_another_lane.expect("a topic"), "last")]).await;
    let newest = list_all(&mut client, ListEventsRequest::default()).await.remove(0);
    assert_eq!(newest.event_id, "last");
    writer.end("COMMIT").await;
    let rest = Reader::from(&mut client, &newest.cursor).await.until_caught_up().await;
    assert_eq!(ids(&rest), ["late"]);
}

async fn slow_subscriber_does_not_block_others(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let slow = Reader::from(&mut client, "").await;
    let mut quick = Reader::from(&mut client, "").await;
    quick.until_caught_up().await;
    // Far more than the flow-control windows and the service's buffers.
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(500_000));
    for request in 0..10 {
        let events = (0..8).map(|n| event_with("t", &format!("{request}-{n}"), &payload));
        publish(&mut client, events.collect()).await;
        quick.take(8).await;
    }
    let mut slow = slow;
    let mut events = Vec::new();
    while events.len() < 80 {
        if let Frame::Events(batch) = slow.next().await.expect("a frame") {
            events.extend(batch.events);
        }
    }
    events.dedup_by(|a, b| a.event_id == b.event_id);
    assert_eq!(events.len(), 80, "nothing is lost on the slow one");
}

async fn shutdown_ends_subscriptions_at_their_cursor(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1")]).await;
    let mut reader = Reader::from(&mut client, "").await;
    assert_eq!(ids(&reader.until_caught_up().await), ["1"]);
    let server = server.restart().await;
    let status = reader.next().await.expect_err("the end");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(reason(&status), "SHUTTING_DOWN");

    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "2")]).await;
    let mut again = Reader::from(&mut client, &reader.cursor).await;
    assert_eq!(ids(&again.take(1).await), ["2"]);
}

/// Several services on one database write to the same topics, while subscribers connect, read some
/// events, and continue on another service.
async fn reconnecting_subscribers_see_every_event_once(backend: Backend) {
    const EVENTS: usize = 3_000;
    let server = TestServer::start(backend).await;
    let mut addresses = vec![server.address];
    let mut others = Vec::new();
    if let Backend::Postgres = backend {
        for _ in 0..2 {
            let (address, stop, running) = launch(&server.database).await;
            addresses.push(address);
            others.push((stop, running));
        }
    }
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..3 {
        let address = addresses[writer % addresses.len()];
        tasks.spawn(async move {
            let mut client = connect_to(address).await;
            for batch in 0..EVENTS / 3 / 20 {
                // Some events are sent by two writers.
                let mut events: Vec<Event> = (0..20)
                    .map(|n| event(&format!("t{}", n % 5), &format!("{writer}-{batch:03}-{n:02}")))
                    .collect();
                events.push(event("shared", &batch.to_string()));
                publish(&mut client, events).await;
            }
        });
    }
    for reader in 0..4_u64 {
        let addresses = addresses.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(reader);
            let mut cursor = String::new();
            let mut seen: Vec<Event> = Vec::new();
            while seen.len() < EVENTS + EVENTS / 3 / 20 {
                let address = addresses[random.usize(..addresses.len())];
                let mut client = connect_to(address).await;
                let mut reader = Reader::from(&mut client, &cursor).await;
                for _ in 0..random.usize(1..8) {
                    match reader.next().await.expect("a frame") {
                        Frame::Events(batch) => {
                            // Disconnects in the middle of a batch, too.
                            let kept = random.usize(1..=batch.events.len());
                            cursor = batch.events[kept - 1].cursor.clone();
                            seen.extend(batch.events.into_iter().take(kept));
                            if cursor != batch.cursor {
                                break;
                            }
                        }
                        Frame::Checkpoint(_) | Frame::CaughtUp(_) => cursor = reader.cursor.clone(),
                    }
                    if seen.len() >= EVENTS + EVENTS / 3 / 20 {
                        break;
                    }
                }
            }
            let mut keys: Vec<(&str, &str)> =
                seen.iter().map(|event| (&*event.topic, &*event.event_id)).collect();
            // A writer's events of one topic were committed in this order.
            for writer in 0..3 {
                for topic in 0..5 {
                    let (topic, writer) = (format!("t{topic}"), format!("{writer}-"));
                    assert!(
                        keys.iter()
                            .filter(|(of, id)| *of == topic && id.starts_with(&writer))
                            .is_sorted()
                    );
                }
            }
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), EVENTS + EVENTS / 3 / 20, "each once");
        });
    }
    tasks.join_all().await;
    for (stop, running) in others {
        let _ = stop.send(());
        running.await.expect("stopped");
    }
}

/// Inserts an event, bypassing the service, in a transaction that stays open.
struct SlowWriter {
    open: Open,
}

enum Open {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl SlowWriter {
    async fn begin(database: &TestDatabase, backend: Backend, id: &str) -> Self {
        let lane = match backend {
            Backend::Sqlite => 0,
            Backend::Postgres => event_aggregator::store::lane_of("t", 4),
        };
        let (lane_column, lane_value, now) = match backend {
            Backend::Sqlite => ("", String::new(), "last_received_at"),
            Backend::Postgres => ("lane, ", format!("{lane}, "), "last_received_at"),
        };
        let sql = format!(
            "UPDATE lanes SET head = head + 1 WHERE lane = {lane};
             INSERT INTO processed_events
                 ({lane_column}seq, topic, event_id, source, payload, received_at)
             SELECT {lane_value}head, 't', '{id}', 's', '{{}}', {now} FROM lanes WHERE lane = {lane};"
        );
        let open = match &database.url {
            event_aggregator::config::Database::Sqlite(path) => {
                let connection = rusqlite::Connection::open(path).expect("open");
                connection.busy_timeout(std::time::Duration::from_secs(5)).expect("wait");
                connection.execute_batch(&format!("BEGIN IMMEDIATE; {sql}")).expect("write");
                Open::Sqlite(connection)
            }
            event_aggregator::config::Database::Postgres(url) => {
                let client = connect(url).await;
                client.batch_execute(&format!("BEGIN; {sql}")).await.expect("write");
                Open::Postgres(client)
            }
        };
        Self { open }
    }

    async fn end(self, how: &str) {
        match self.open {
            Open::Sqlite(connection) => connection.execute_batch(how).expect("end"),
            Open::Postgres(client) => client.batch_execute(how).await.expect("end"),
        }
    }
}
