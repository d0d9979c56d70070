//! Puts the service together, runs it, and takes it apart in the right order. The only place that
//! names the backends.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, task::spawn_blocking, time::timeout};
use tonic::transport::server::TcpIncoming;
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{info, warn};

use crate::{
    config::{Config, Database},
    grpc::{self, Router, SERVICE_NAME},
    http,
    ingest::Ingest,
    limits::{DRAIN_TIMEOUT, FLUSH_TIMEOUT, HEALTH_INTERVAL},
    metrics::Metrics,
    service::Service,
    store::{self, Store, measured::MeasuredStore, postgres::PostgresStore, sqlite::SqliteStore},
};

pub use crate::store::verify::{Difference, Failed, Report};

/// Why a service did not start, or did not end well. Each reads as one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}{}", listen_advice(.reason))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The contract built into the program cannot be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server broke while it was running.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; stop what is using it, or choose another with --listen",
        _ => "; choose another with --listen",
    }
}

/// A service that is ready to run: its address is bound and its store is open.
pub struct App {
    address: SocketAddr,
    incoming: TcpIncoming,
    router: Router,
    service: Service,
    health: HealthReporter,
}

impl App {
    /// Binds the address and opens the store.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let address = config.listen;
        let failed = |reason| Error::Listen { address, reason };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;

        let metrics = Metrics::default();
        let store = open(&config.database.chosen(), &metrics).await?;
        let service = Service::start(store, metrics);
        let (health, health_service) = tonic_health::server::health_reporter();
        tell(&health, ServingStatus::Serving).await;
        let others = http::router(service.clone());
        let router = grpc::router(service.clone(), health_service, others)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(Self { address, incoming, router, service, health })
    }

    /// Where events are kept, without secrets.
    pub fn store_location(&self) -> &str {
        self.service.store.location()
    }

    /// Where the service listens, with the port that was chosen if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then finishes what was begun: streams end, calls in progress
    /// are answered, everything that was taken in is stored.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { incoming, router, service, health, .. } = self;
        let Service { ingest, store, feed, stopping, .. } = service;
        let watching = tokio::spawn(watch(Arc::clone(&store), ingest.clone(), health.clone()));

        let stop = async {
            shutdown.await;
            info!("stopping");
            watching.abort();
            tell(&health, ServingStatus::NotServing).await;
            // Whoever watches health has been told, and would keep the service waiting.
            for service in SERVICES {
                health.clone().clear_service_status(service).await;
            }
            stopping.cancel();
        };
        let too_long = async {
            stopping.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        let served = tokio::select! {
            served = router.serve_with_incoming_shutdown(incoming, stop) => served,
            () = too_long => {
                warn!("calls still in progress after {} s are cut off", DRAIN_TIMEOUT.as_secs());
                Ok(())
            }
        };
        let close = async {
            ingest.drain().await;
            feed.close().await;
            store.close().await;
        };
        match timeout(FLUSH_TIMEOUT, close).await {
            Ok(()) => info!("stopped"),
            Err(_) => warn!("stopped without the store; nothing that it owes was acknowledged"),
        }
        Ok(served?)
    }
}

/// Compares the counters of a database with its rows, in one snapshot. Reads only.
pub async fn verify(database: &Database) -> Result<Report, Failed> {
    match database.clone() {
        Database::Sqlite(path) => spawn_blocking(move || store::sqlite::verify(&path)).await?,
        Database::Postgres(url) => store::postgres::verify(&url).await,
    }
}

async fn open(database: &Database, metrics: &Metrics) -> Result<Arc<dyn Store>, store::OpenError> {
    let store: Arc<dyn Store> = match database {
        Database::Sqlite(path) => Arc::new(SqliteStore::open(path)?),
        Database::Postgres(url) => Arc::new(PostgresStore::open(url).await?),
    };
    #[cfg(feature = "planted-bugs")]
    let store = crate::planted::plant(store)?;
    Ok(Arc::new(MeasuredStore::new(store, metrics.clone())))
}

/// Keeps the health service saying whether the store answers, and takes what it is given.
async fn watch(store: Arc<dyn Store>, ingest: Ingest, health: HealthReporter) {
    let mut healthy = true;
    loop {
        let answer = match ingest.is_flowing() {
            true => store.ping().await,
            false => Err(store::Error::Unavailable("it takes no events".into())),
        };
        if std::mem::replace(&mut healthy, answer.is_ok()) != answer.is_ok() {
            if let Err(error) = &answer {
                warn!(error = store::chain(error), "the store does not answer");
            }
            tell(
                &health,
                match answer {
                    Ok(()) => ServingStatus::Serving,
                    Err(_) => ServingStatus::NotServing,
                },
            )
            .await;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Whose health is told: that of the server as a whole, and that of the service.
const SERVICES: [&str; 2] = ["", SERVICE_NAME];

/// Sets the health of all.
async fn tell(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
