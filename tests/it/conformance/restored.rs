//! A database that is restored to an earlier state: cursors and page tokens from after that state
//! are rejected with advice, those from before it remain valid and miss nothing.

use event_aggregator::{
    config::Database,
    proto::v1::{
        Event, ListEventsRequest, ListOrder, SubscribeRequest, SubscribeResponse,
        subscribe_response::Frame,
    },
    store::lane_of,
    testing::limits::FEED_SCAN_EVENTS,
};
use testkit::http::Response;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tonic::{Code, Status, Streaming};

use crate::harness::*;

on_both_stores!(
    cursors_of_lost_events_are_rejected,
    live_subscriptions_end_after_restore,
    slow_subscriber_before_the_restore_point_continues,
    cursor_is_valid_while_its_events_exist,
    restored_command_invalidates_all_cursors,
    tail_explains_rejected_cursors,
);

/// Backs up all tables.
const BACKUP: &str = "
    CREATE TABLE kept_events AS SELECT * FROM processed_events;
    CREATE TABLE kept_lanes AS SELECT * FROM lanes;
    CREATE TABLE kept_stats AS SELECT * FROM audit_stats;";

const RESTORE: &str = "BEGIN;
    DELETE FROM processed_events; INSERT INTO processed_events SELECT * FROM kept_events;
    DELETE FROM lanes; INSERT INTO lanes SELECT * FROM kept_lanes;
    DELETE FROM audit_stats; INSERT INTO audit_stats SELECT * FROM kept_stats;
    DELETE FROM batch_ledger; COMMIT";

/// Restores the backup. For SQLite, replaces the file, as administrators do.
struct Backup(Option<Vec<u8>>);

impl Backup {
    async fn of(database: &TestDatabase) -> Self {
        let Database::Sqlite(path) = &database.url else {
            database.execute(BACKUP).await;
            return Self(None);
        };
        Self(Some(std::fs::read(path).expect("the file")))
    }

    async fn restore(self, database: &TestDatabase) {
        match (&database.url, self.0) {
            (Database::Sqlite(path), Some(file)) => std::fs::write(path, file).expect("restored"),
            _ => database.execute(RESTORE).await,
        }
    }
}

fn some(prefix: &str, count: usize) -> Vec<Event> {
    (0..count).map(|n| event(&format!("t{}", n % 9), &format!("{prefix}-{n}"))).collect()
}

fn behind(cursor: &str) -> SubscribeRequest {
    SubscribeRequest { cursor: cursor.to_owned(), ..Default::default() }
}

async fn subscribe(client: &mut Client, request: SubscribeRequest) -> Streaming<SubscribeResponse> {
    client.subscribe(request).await.expect("a subscription").into_inner()
}

/// The events up to the end, and the cursor there.
async fn all(frames: &mut Streaming<SubscribeResponse>) -> (Vec<Event>, String) {
    let mut events = Vec::new();
    loop {
        match frames.message().await.expect("a frame").expect("no end").frame.expect("a frame") {
            Frame::Events(batch) => events.extend(batch.events),
            Frame::Checkpoint(_) => (),
            Frame::CaughtUp(caught_up) => return (events, caught_up.cursor),
        }
    }
}

/// The next events, as many as this.
async fn take(frames: &mut Streaming<SubscribeResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let frame = frames.message().await.expect("a frame").expect("no end").frame;
        if let Some(Frame::Events(batch)) = frame {
            events.extend(batch.events);
        }
    }
    events
}

/// The status that ends a subscription.
async fn end(frames: &mut Streaming<SubscribeResponse>) -> Status {
    loop {
        match frames.message().await {
            Ok(frame) => drop(frame.expect("no proper end")),
            Err(status) => return status,
        }
    }
}

fn assert_restored(status: &Status) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(reason(status), "STORE_RESTORED");
    assert!(status.message().contains("from the beginning"), "{}", status.message());
}

async fn assert_refused(server: &TestServer, cursor: &str) {
    let refused = server.client().await.subscribe(behind(cursor)).await.expect_err(cursor);
    assert_restored(&refused);
    let answer = get(server, &format!("/events/stream?cursor={cursor}")).await;
    assert_eq!(answer.status, 410, "{}", answer.body);
    assert!(answer.body.contains("from the beginning"), "{}", answer.body);
    let again = format!(
        "GET /events/stream HTTP/1.1\r\nHost: test\r\nConnection: close\r\nLast-Event-ID: \
         {cursor}\r\n\r\n"
    );
    assert_eq!(call(server, again).await.status, 410);
}

async fn page(client: &mut Client, page_token: &str) -> (Vec<Event>, String) {
    let (page_size, page_token) = (10, page_token.to_owned());
    let order = ListOrder::OldestFirst.into();
    let request = ListEventsRequest { page_size, page_token, order, ..Default::default() };
    let page = client.list_events(request).await.expect("a page").into_inner();
    (page.events, page.next_page_token)
}

/// The URL of the next page.
fn next(answer: &Response) -> String {
    let link = answer.header("link").expect("a next page");
    link.split(['<', '>']).nth(1).expect("an address").to_owned()
}

async fn cursors_of_lost_events_are_rejected(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, some("old", 30)).await;
    let (_, early) = all(&mut subscribe(&mut client, behind("")).await).await;
    let (listed, early_page) = page(&mut client, "").await;
    let early_listed = listed[9].cursor.clone();

    drop(client);
    let database = server.stop().await;
    let backup = Backup::of(&database).await;
    let server = TestServer::on(database).await;
    let mut client = server.client().await;
    publish(&mut client, some("lost", 50)).await;
    let (lost, end) = all(&mut subscribe(&mut client, behind(&early)).await).await;
    assert_eq!(lost.len(), 50);
    let topics = vec!["t1".to_owned()];
    let of_topic = SubscribeRequest { topics, ..Default::default() };
    let (of_topic, passed) = all(&mut subscribe(&mut client, of_topic).await).await;
    let (listed, late_page) = page(&mut client, "").await;
    let link = next(&get(&server, "/events").await);
    let mut cursors = vec![end, passed, listed[0].cursor.clone()];
    cursors.extend([&lost[0], &lost[30], &lost[49]].map(|event| event.cursor.clone()));
    cursors.push(of_topic.last().expect("events").cursor.clone());
    // While nothing is lost, all cursors are valid.
    for cursor in &cursors {
        drop(subscribe(&mut client, behind(cursor)).await);
    }

    drop(client);
    let database = server.stop().await;
    backup.restore(&database).await;
    let server = TestServer::on(database).await;
    let mut client = server.client().await;
    for replaced in [0, 70] {
        // Also after more events were stored than were lost.
        if replaced > 0 {
            publish(&mut client, some("new", replaced)).await;
        }
        for cursor in &cursors {
            assert_refused(&server, cursor).await;
        }
        let order = ListOrder::OldestFirst.into();
        let (page_size, page_token) = (10, late_page.clone());
        let request = ListEventsRequest { page_size, page_token, order, ..Default::default() };
        assert_restored(&client.list_events(request).await.expect_err("a late page"));
        let answer = get(&server, &link).await;
        assert_eq!(answer.status, 410, "{}", answer.body);
    }

    let (new, _) = all(&mut subscribe(&mut client, behind(&early)).await).await;
    assert_eq!(new.len(), 70, "nothing is skipped");
    assert!(new.iter().all(|event| event.event_id.starts_with("new-")));
    let (rest, _) = all(&mut subscribe(&mut client, behind(&early_listed)).await).await;
    assert_eq!(rest.len(), 20 + 70);
    let (listed, next) = page(&mut client, &early_page).await;
    assert_eq!((listed.len(), next.is_empty()), (10, false));
}

async fn live_subscriptions_end_after_restore(backend: Backend) {
    let second = match backend {
        Backend::Sqlite => "1000000",
        Backend::Postgres => "interval '1 second'",
    };
    let lane = match backend {
        Backend::Sqlite => "",
        Backend::Postgres => "lane, ",
    };
    // Other events with the same numbers, as if restore and publish were one step.
    let others = format!(
        "UPDATE processed_events SET received_at = received_at + {second}
         WHERE event_id LIKE 'lost-%';
         UPDATE lanes SET last_received_at = last_received_at + {second}"
    );
    let one_more = format!(
        "INSERT INTO processed_events ({lane}seq, topic, event_id, source, payload, received_at)
         SELECT {lane}head + 1, 't1', 'more-' || lane, 's', '{{}}', last_received_at FROM lanes;
         UPDATE lanes SET head = head + 1"
    );
    let beyond = format!("BEGIN; {others}; {one_more}; COMMIT");
    for set_back in [RESTORE, &*format!("BEGIN; {others}; COMMIT"), &beyond] {
        let server = TestServer::start(backend).await;
        let mut client = server.client().await;
        publish(&mut client, some("old", 30)).await;
        server.database.execute(BACKUP).await;
        publish(&mut client, some("lost", 50)).await;
        let mut whole = subscribe(&mut client, behind("")).await;
        let (_, cursor) = all(&mut whole).await;
        let topics = vec!["t1".to_owned()];
        let narrow = SubscribeRequest { topics, ..Default::default() };
        let mut narrow = subscribe(&mut client, narrow).await;
        all(&mut narrow).await;
        let request = format!(
            "GET /events/stream?cursor={cursor} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        );
        let mut stream = BufReader::new(send(&server, request).await);
        let mut line = String::new();
        while !line.starts_with("id: ") {
            line.clear();
            stream.read_line(&mut line).await.expect("a place");
        }
        server.database.execute(set_back).await;
        assert_restored(&end(&mut whole).await);
        assert_restored(&end(&mut narrow).await);
        stream.read_to_end(&mut Vec::new()).await.expect("the end");
        assert_refused(&server, &cursor).await;
        // New subscriptions start and continue.
        let mut anew = subscribe(&mut client, behind("")).await;
        assert!(all(&mut anew).await.0.len() >= 30);
        publish(&mut client, some("new", 9)).await;
        let frame = anew.message().await.expect("a frame").expect("no end").frame;
        assert!(matches!(frame, Some(Frame::Events(_))), "{frame:?}");
    }
}

async fn slow_subscriber_before_the_restore_point_continues(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let mut slow = subscribe(&mut client, behind("")).await;
    let mut quick = subscribe(&mut client, behind("")).await;
    // Far more than the flow-control windows and the service's buffers.
    let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(500_000));
    let large = |request: usize| -> Vec<Event> {
        (0..8).map(|n| event_with("t", &format!("old-{}", request * 8 + n), &payload)).collect()
    };
    for request in 0..8 {
        publish(&mut client, large(request)).await;
    }
    server.database.execute(BACKUP).await;
    publish(&mut client, some("lost", 9)).await;
    take(&mut quick, 64 + 9).await;
    server.database.execute(RESTORE).await;
    assert_restored(&end(&mut quick).await);
    publish(&mut client, some("new", 9)).await;
    let events = take(&mut slow, 64 + 9).await;
    let mut ids = ids(&events);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 64 + 9, "each once");
    assert!(!ids.iter().any(|id| id.starts_with("lost-")), "{ids:?}");
}

/// A subscription to a rare topic skips other events in steps, and a cursor between two steps is as
/// valid as any other. Rows deleted by an administrator do not invalidate a cursor.
async fn cursor_is_valid_while_its_events_exist(backend: Backend) {
    let lane = match backend {
        Backend::Sqlite => 0,
        Backend::Postgres => lane_of("rare", 4),
    };
    let numbers = match backend {
        Backend::Sqlite => {
            "WITH RECURSIVE numbers (n) AS (
                 SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 25000
             )"
        }
        Backend::Postgres => "WITH numbers (n) AS (SELECT generate_series(1, 25000))",
    };
    let (columns, values, second) = match backend {
        Backend::Sqlite => ("", String::new(), "1000000"),
        Backend::Postgres => ("lane, ", format!("{lane}, "), "interval '1 second'"),
    };
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("rare", "1")]).await;
    let many = format!(
        "{numbers}
         INSERT INTO processed_events ({columns}seq, topic, event_id, source, payload, received_at)
         SELECT {values}n + 1, 'many', 'n' || n, 's', '{{}}', last_received_at
         FROM numbers, lanes WHERE lanes.lane = {lane};
         UPDATE lanes SET head = 25001 WHERE lane = {lane}"
    );
    server.database.execute(&many).await;
    let topics = vec!["rare".to_owned()];
    let request = SubscribeRequest { topics, ..Default::default() };
    let mut frames = subscribe(&mut client, request).await;
    let frame = frames.message().await.expect("a frame").expect("no end").frame;
    let Some(Frame::Events(batch)) = frame else { panic!("{frame:?}") };
    let (rest, _) = all(&mut subscribe(&mut client, behind(&batch.cursor)).await).await;
    let passed = 25_001 - rest.len() as i64;
    assert_eq!(passed, FEED_SCAN_EVENTS, "the place behind one step");

    let at = match backend {
        Backend::Sqlite => "seq".to_owned(),
        Backend::Postgres => format!("lane = {lane} AND seq"),
    };
    let delete = format!("DELETE FROM processed_events WHERE {at} IN ({passed}, {passed} - 1)");
    server.database.execute(&delete).await;
    let again = all(&mut subscribe(&mut client, behind(&batch.cursor)).await).await;
    assert_eq!(again.0.len(), rest.len());
    let other = format!(
        "UPDATE processed_events SET received_at = received_at + {second} WHERE {at} > 5000"
    );
    server.database.execute(&other).await;
    assert_refused(&server, &batch.cursor).await;
}

async fn restored_command_invalidates_all_cursors(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, some("old", 30)).await;
    let (_, cursor) = all(&mut subscribe(&mut client, behind("")).await).await;
    let (_, page_token) = page(&mut client, "").await;
    let restored = |database: &TestDatabase| {
        let mut command = program();
        command.args(["restored", "--database-url", &database.url_text()]);
        command.output().expect("restored")
    };
    if let Backend::Sqlite = backend {
        let refused = restored(&server.database);
        assert_eq!(refused.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert!(stderr.contains("another event-aggregator is using it"), "{stderr}");
    }
    drop(client);
    let database = server.stop().await;
    let done = restored(&database);
    assert!(done.status.success(), "{done:?}");
    let stdout = String::from_utf8_lossy(&done.stdout);
    assert!(stdout.contains("a new identity") && stdout.contains("--from-start"), "{stdout}");

    let server = TestServer::on(database).await;
    let mut client = server.client().await;
    assert_refused(&server, &cursor).await;
    let order = ListOrder::OldestFirst.into();
    let request = ListEventsRequest { page_token, order, ..Default::default() };
    assert_restored(&client.list_events(request).await.expect_err("an old token"));
    assert_eq!(counters(&mut client).await, [30, 30, 0, 0]);
    let (events, cursor) = all(&mut subscribe(&mut client, behind("")).await).await;
    assert_eq!(events.len(), 30);
    publish(&mut client, some("new", 1)).await;
    let (events, _) = all(&mut subscribe(&mut client, behind(&cursor)).await).await;
    assert_eq!(ids(&events), ["new-0"]);

    let nowhere = TestDatabase::new(backend).await;
    let failed = restored(&nowhere);
    assert_eq!(failed.status.code(), Some(1), "there is nothing to restore: {failed:?}");
}

async fn tail_explains_rejected_cursors(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, some("old", 30)).await;
    server.database.execute(BACKUP).await;
    publish(&mut client, some("lost", 50)).await;
    let file = server.database.path("place");
    let output = server.database.path("output");
    let tail = |count: &str| {
        let output = std::fs::File::options().create(true).append(true).open(&output);
        let mut command = program();
        command.args(["tail", "--addr", &server.address.to_string(), "--from-start", "-n", count]);
        command.arg("--cursor-file").arg(&file);
        command.stdout(output.expect("a file")).output().expect("tail")
    };
    assert!(tail("80").status.success());
    server.database.execute(RESTORE).await;
    publish(&mut client, some("new", 70)).await;
    let refused = tail("1");
    assert_eq!(refused.status.code(), Some(64 + Code::FailedPrecondition as i32));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    for advice in ["--from-start", "--since", "place; remove it", "restored"] {
        assert!(stderr.contains(advice), "{advice}: {stderr}");
    }
    std::fs::remove_file(&file).expect("as it says");
    std::fs::remove_file(&output).expect("another one");
    assert!(tail("100").status.success());
}
