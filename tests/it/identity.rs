//! The store of a running service is swapped, moved or removed: the service detects it,
//! acknowledges nothing, logs it once, and recovers when the original is back.

use std::{fs::File, net::SocketAddr, path::PathBuf};

use event_aggregator::proto::v1::{ListEventsRequest, PublishStatus};
use testkit::{process::Service, wait_until, wait_until_async};
use tokio::task::JoinHandle;

use crate::harness::*;

mod postgres;
mod sqlite;

/// A service process with its log in a file.
struct Logged {
    service: Service,
    log: PathBuf,
}

impl Logged {
    fn start(database: &TestDatabase, url: &str, log: &str) -> Self {
        let log = database.path(log);
        let mut serve = program();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--database-url", url]);
        serve.stderr(File::create(&log).expect("log"));
        Self { service: Service::run(&mut serve), log }
    }

    async fn client(&self) -> Client {
        connect_to(self.service.address).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("log")
    }

    /// Waits until the service is ready or not, also according to the health service.
    async fn wait_until_ready(&self, ready: bool) {
        let health = self.service.address.to_string();
        let is_healthy = move || {
            let output = program().args(["health", "--addr", &health]).output();
            output.expect("health").status.success()
        };
        wait_until_ready(self.service.address, ready).await;
        let asking = tokio::task::spawn_blocking(move || {
            wait_until(|| is_healthy() == ready);
        });
        asking.await.expect("asked");
    }

    /// Number of log lines about a wrong store.
    fn told(&self) -> usize {
        self.log().matches("not the one opened at startup").count()
    }

    /// Checks that the log has exactly one line about a wrong store, and no other errors.
    fn has_told_once(&self) {
        let log = self.log();
        let bad: Vec<&str> = log
            .lines()
            .filter(|line| !line.contains(" INFO ") && !line.contains("full_page_writes"))
            .filter(|line| !line.contains("fsync is off"))
            .collect();
        assert_eq!(bad.len(), 1, "{log}");
        let told = ["ERROR", "not the one opened at startup", "restart the service"];
        assert!(told.iter().all(|text| bad[0].contains(text)), "{log}");
    }
}

async fn wait_until_ready(address: SocketAddr, ready: bool) {
    let expected = if ready { 200 } else { 503 };
    wait_until_async(async || get(address, "/readyz").await.status == expected).await;
}

/// Publishes one event in the background.
fn publishing(mut client: Client, id: &'static str) -> JoinHandle<Vec<PublishStatus>> {
    tokio::spawn(async move { verdicts(&mut client, vec![event("t", id)]).await })
}

/// Whether listing fails because the store is missing.
async fn cannot_read(client: &mut Client) -> bool {
    let listed = client.list_events(ListEventsRequest::default()).await;
    listed.is_err_and(|status| status.code() == tonic::Code::Unavailable)
}
