//! The test harness: a database per test, services in this process on a real socket, and short ways
//! to create events.

use std::{net::SocketAddr, path::PathBuf};

use event_aggregator::{
    app::App,
    config::{Config, Database},
    proto::v1::{
        Event, GetStatsRequest, GetStatsResponse, ListEventsRequest, PublishRequest,
        PublishResponse, PublishStatus, event::Content,
        event_aggregator_service_client::EventAggregatorServiceClient,
    },
};
use tempfile::TempDir;
use testkit::postgres;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

pub use testkit::postgres::connect;

pub use self::{http::*, program::*};

mod http;
mod program;

/// How the names of PostgreSQL databases begin.
const PREFIX: &str = "event_aggregator_test";

pub type Client = EventAggregatorServiceClient<Channel>;

/// The store that a test runs on.
#[derive(Debug, Clone, Copy)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// An empty database that is removed with its test.
pub struct TestDatabase {
    pub url: Database,
    folder: TempDir,
    /// The PostgreSQL database to drop, unless its server goes away.
    drop: Option<postgres::Database>,
}

impl TestDatabase {
    pub async fn new(backend: Backend) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (url, drop) = match backend {
            Backend::Sqlite => (Database::Sqlite(folder.path().join("events.db")), None),
            Backend::Postgres => {
                let database = postgres::Database::create(postgres::url(), PREFIX).await;
                let url = Database::Postgres(database.url.clone());
                (url, postgres::is_shared().then_some(database))
            }
        };
        Self { url, folder, drop }
    }

    /// A database on a server of its own, with which it is removed.
    pub async fn on(server: &postgres::Server) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let database = postgres::Database::create(&server.url, PREFIX).await;
        Self { url: Database::Postgres(database.url), folder, drop: None }
    }

    /// The URL as a command line argument.
    pub fn url_text(&self) -> String {
        match &self.url {
            Database::Sqlite(path) => format!("sqlite:{}", path.display()),
            Database::Postgres(url) => url.clone(),
        }
    }

    /// A path in the directory of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the number that `sql` selects, bypassing the service.
    pub async fn number(&self, sql: &str) -> i64 {
        match &self.url {
            Database::Sqlite(path) => rusqlite::Connection::open(path)
                .expect("open")
                .query_row(sql, [], |row| row.get(0))
                .expect(sql),
            Database::Postgres(url) => {
                connect(url).await.query_one(sql, &[]).await.expect(sql).get(0)
            }
        }
    }

    /// Runs `sql`, bypassing the service.
    pub async fn execute(&self, sql: &str) {
        match &self.url {
            Database::Sqlite(path) => {
                rusqlite::Connection::open(path).expect("open").execute_batch(sql).expect(sql);
            }
            Database::Postgres(url) => connect(url).await.batch_execute(sql).await.expect(sql),
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(database) = self.drop.take() else { return };
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("runtime").block_on(database.drop());
        });
        dropping.join().expect("drop the database");
    }
}

/// Locks all lanes of a PostgreSQL database until it is dropped or rolled back.
pub async fn block_lanes(database: &TestDatabase) -> tokio_postgres::Client {
    let blocker = connect(&database.url_text()).await;
    blocker.batch_execute("BEGIN; SELECT * FROM lanes FOR UPDATE").await.expect("block all lanes");
    blocker
}

/// A service in this process, on a free port.
pub struct TestServer {
    pub database: TestDatabase,
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl TestServer {
    pub async fn start(backend: Backend) -> Self {
        Self::on(TestDatabase::new(backend).await).await
    }

    pub async fn on(database: TestDatabase) -> Self {
        let config = config_for(&database.url);
        Self::with(database, &config).await
    }

    /// A service with custom settings.
    pub async fn with(database: TestDatabase, config: &Config) -> Self {
        let (address, stop, running) = launch_as(config).await;
        Self { database, address, stop, running }
    }

    /// Stops the service as SIGTERM does, and returns its database.
    pub async fn stop(self) -> TestDatabase {
        self.stop.send(()).expect("running");
        self.running.await.expect("stopped");
        self.database
    }

    pub async fn restart(self) -> Self {
        Self::on(self.stop().await).await
    }

    pub async fn client(&self) -> Client {
        connect_to(self.address).await
    }

    /// The number of stored events, bypassing the service.
    pub async fn stored(&self) -> i64 {
        self.database.number("SELECT count(*) FROM processed_events").await
    }
}

/// Settings of a service on a free port. The shared PostgreSQL server runs with fsync=off, for
/// speed.
pub fn config_for(database: &Database) -> Config {
    Config { allow_data_loss: true, ..Config::local(database.clone()) }
}

/// Starts another service on a database that may be in use.
pub async fn launch(database: &TestDatabase) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    launch_on(&database.url).await
}

/// Starts a service on a database URL.
pub async fn launch_on(database: &Database) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    launch_as(&config_for(database)).await
}

/// Starts a service with custom settings.
pub async fn launch_as(config: &Config) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let app = App::start(config).await.expect("start");
    let address = app.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(async move {
        app.run(async { drop(stopped.await) }).await.expect("run");
    });
    (address, stop, running)
}

pub async fn connect_to(address: SocketAddr) -> Client {
    Client::new(channel_to(address).await)
}

pub async fn channel_to(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("connect")
}

/// An event with an empty payload.
pub fn event(topic: &str, event_id: &str) -> Event {
    Event {
        topic: topic.to_owned(),
        event_id: event_id.to_owned(),
        source: "test".to_owned(),
        ..Event::default()
    }
}

/// An event with a JSON text payload.
pub fn event_with(topic: &str, event_id: &str, payload: &str) -> Event {
    Event { content: Some(Content::PayloadJson(payload.to_owned())), ..event(topic, event_id) }
}

pub async fn try_publish(
    client: &mut Client,
    events: Vec<Event>,
) -> Result<PublishResponse, Status> {
    let request = PublishRequest { events, allow_partial: false };
    client.publish(request).await.map(tonic::Response::into_inner)
}

pub async fn publish(client: &mut Client, events: Vec<Event>) -> PublishResponse {
    try_publish(client, events).await.expect("publish")
}

/// Publishes events and returns the verdicts.
pub async fn verdicts(client: &mut Client, events: Vec<Event>) -> Vec<PublishStatus> {
    let response = publish(client, events).await;
    response.results.iter().map(|result| result.status()).collect()
}

pub async fn stats(client: &mut Client) -> GetStatsResponse {
    client.get_stats(GetStatsRequest::default()).await.expect("stats").into_inner()
}

/// The counters: received, unique, duplicates, conflicts.
pub async fn counters(client: &mut Client) -> [i64; 4] {
    let stats = stats(client).await;
    [stats.received, stats.unique_processed, stats.duplicate_dropped, stats.conflicts]
}

/// All events of a listing, page by page.
pub async fn list_all(client: &mut Client, mut request: ListEventsRequest) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let page = client.list_events(request.clone()).await.expect("list").into_inner();
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            return events;
        }
        request.page_token = page.next_page_token;
    }
}

pub fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.event_id.as_str()).collect()
}

pub fn payload_text(event: &Event) -> &str {
    match &event.content {
        Some(Content::PayloadJson(text)) => text,
        other => panic!("not text: {other:?}"),
    }
}

/// The invalid fields of an INVALID_ARGUMENT error, whose format is checked.
pub fn fields_at_fault(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(!reason(status).is_empty());
    let details = status.get_details_bad_request().expect("BadRequest");
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}

/// The reason of an error.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("ErrorInfo");
    assert_eq!(info.domain, "event_aggregator.v1");
    info.reason
}
