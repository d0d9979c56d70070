//! Assembles the service, runs it and shuts it down in order. The only module that names the
//! storage backends.

use std::{
    io,
    net::SocketAddr,
    panic::resume_unwind,
    sync::{Arc, atomic::Ordering},
};

use tokio::{task::spawn_blocking, time::timeout};
use tonic_health::{ServingStatus, server::HealthReporter};
use tracing::{error, info, warn};

use crate::{
    access::{self, Access, AccessFile, exposure::Exposed},
    api::Api,
    config::{Config, Database},
    edge::{Edge, Router},
    grpc::{self, SERVICE_NAME},
    http,
    limits::{DRAIN_TIMEOUT, FLUSH_TIMEOUT, HEALTH_INTERVAL},
    listener::Listener,
    metrics::Metrics,
    store::{
        self, Durability, Store, measured::MeasuredStore, postgres::PostgresStore,
        sqlite::SqliteStore,
    },
    tls::{self, Tls},
};

pub use crate::store::verify::{Difference, Failed, Report};

/// Why a service failed to start or to stop. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener cannot be bound.
    #[error("cannot listen on {address}: {reason}{}", listen_advice(.reason))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        reason: io::Error,
    },
    /// The address is not loopback, without both TLS and authentication.
    #[error("refusing to listen on {address}: {reason}")]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// The reason, with the cure.
        reason: Exposed,
    },
    /// The access file cannot be loaded.
    #[error(transparent)]
    Access(#[from] access::file::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// gRPC reflection cannot be set up.
    #[error("cannot start gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A writer task panicked.
    #[error("a writer task panicked; acknowledged events are stored; restart the service")]
    Broken,
}

fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; stop the process that is using it, or choose another address with --listen"
        }
        _ => "; choose another address with --listen",
    }
}

/// A service that is ready to run: its listener is bound and its store is open.
pub struct App {
    listener: Listener,
    router: Router<grpc::Services>,
    api: Api,
    health: HealthReporter,
}

impl App {
    /// Binds the listener and opens the store.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let address = config.listen;
        config.check_exposure().map_err(|reason| Error::Exposed { address, reason })?;
        if config.is_exposed() {
            warn!("--insecure: {address} is reachable without TLS or without authentication");
        }
        let tls = Tls::open(&config.tls).await?;
        let access_file = match &config.access {
            Some(path) => Some(AccessFile::open(path).await?),
            None => None,
        };
        let is_asked_for = config.tls.tls_client_ca.is_some();
        if !is_asked_for && access_file.as_ref().is_some_and(AccessFile::names_certificates) {
            warn!(
                "the access file has certificate identities, but client certificates require \
                 --tls-client-ca"
            );
        }
        let failed = |reason| Error::Listen { address, reason };
        let listener = Listener::bind(address, tls).await.map_err(failed)?;
        let metrics = Metrics::default();
        let store = open(config, &metrics).await?;
        let access = match &access_file {
            Some(file) => file.access(),
            None if config.is_of_this_machine() => Access::of_this_machine(),
            None => Access::default(),
        };
        Self::assemble(store, metrics, listener, access).await
    }

    /// A service over any store, behind a bound listener.
    pub async fn over(
        store: Arc<dyn Store>,
        metrics: Metrics,
        listener: Listener,
        access_file: Option<AccessFile>,
    ) -> Result<Self, Error> {
        let access = access_file.as_ref().map_or_else(Access::default, AccessFile::access);
        Self::assemble(store, metrics, listener, access).await
    }

    async fn assemble(
        store: Arc<dyn Store>,
        metrics: Metrics,
        listener: Listener,
        access: Access,
    ) -> Result<Self, Error> {
        let api = Api { access, ..Api::start(store, metrics) };
        let edge = Edge::new(&api);
        let (health, health_service) = tonic_health::server::health_reporter();
        tell(&health, ServingStatus::Serving).await;
        let grpc = grpc::services(&api, &edge, health_service)?;
        let router = Router::new(grpc, http::router(&api, &edge));
        Ok(Self { listener, router, api, health })
    }

    /// Location of the database, without secrets.
    pub fn store_location(&self) -> &str {
        self.api.store.location()
    }

    /// Address of the listener. Port 0 is replaced by the port that was assigned.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Whether the listener speaks TLS.
    pub fn is_encrypted(&self) -> bool {
        self.listener.is_encrypted()
    }

    /// Serves until `shutdown` completes, then drains: streams end, calls in progress are answered,
    /// and all accepted events are stored.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { listener, router, api, health } = self;
        let watching = tokio::spawn(watch(api.clone(), health.clone()));
        let Api { ingest, store, feed, metrics, stopping, .. } = api;
        let mut is_broken = false;

        let stop = async {
            tokio::select! {
                () = shutdown => info!("shutting down"),
                () = ingest.broken() => {
                    is_broken = true;
                    error!("shutting down: a writer task panicked");
                }
            }
            watching.abort();
            tell(&health, ServingStatus::NotServing).await;
            // Health watchers have received NOT_SERVING; their open streams would delay the
            // shutdown.
            for service in SERVICES {
                health.clone().clear_service_status(service).await;
            }
            stopping.cancel();
        };
        let too_long = async {
            stopping.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        let answer = move |request| router.clone().answer(request);
        tokio::select! {
            () = listener.serve(answer, metrics, stop) => (),
            () = too_long => {
                warn!("closing calls still in progress after {} s", DRAIN_TIMEOUT.as_secs());
            }
        }
        let close = async {
            ingest.drain().await;
            feed.close().await;
            store.close().await;
        };
        match timeout(FLUSH_TIMEOUT, close).await {
            Ok(()) => info!("stopped"),
            Err(_) => warn!(
                "shutdown timed out before the queue was flushed; unflushed events were not \
                 acknowledged"
            ),
        }
        if is_broken { Err(Error::Broken) } else { Ok(()) }
    }
}

/// Compares the counters of a database with its rows, in one snapshot. Read-only.
pub async fn verify(database: &Database) -> Result<Report, Failed> {
    match database.clone() {
        Database::Sqlite(path) => spawn_blocking(move || store::sqlite::verify(&path)).await?,
        Database::Postgres(url) => store::postgres::verify(&url).await,
    }
}

/// Assigns a new identity to a database, so that existing cursors and page tokens are rejected.
/// Returns its location, without secrets.
pub async fn restored(database: &Database) -> Result<String, Failed> {
    match database.clone() {
        Database::Sqlite(path) => spawn_blocking(move || store::sqlite::restored(&path)).await?,
        Database::Postgres(url) => store::postgres::restored(&url).await,
    }
}

async fn open(config: &Config, metrics: &Metrics) -> Result<Arc<dyn Store>, store::OpenError> {
    let durability = match config.allow_data_loss {
        true => Durability::Waived,
        false => Durability::Demanded,
    };
    let store: Arc<dyn Store> = match config.database.chosen() {
        // On a thread for blocking work, so that a stop signal is handled meanwhile.
        Database::Sqlite(path) => match spawn_blocking(move || SqliteStore::open(&path)).await {
            Ok(opened) => Arc::new(opened?),
            Err(broken) => resume_unwind(broken.into_panic()),
        },
        Database::Postgres(url) => Arc::new(PostgresStore::open(&url, durability).await?),
    };
    Ok(Arc::new(MeasuredStore::new(store, metrics.clone())))
}

/// Updates the health status from the state of the store and of the write path.
async fn watch(api: Api, health: HealthReporter) {
    let Api { store, ingest, store_answers, .. } = api;
    let mut was_healthy = true;
    loop {
        // The lanes log why commits fail.
        let is_healthy = ingest.is_flowing()
            && match store.ping().await {
                Ok(()) => true,
                Err(error) => {
                    if was_healthy && !error.is_logged() {
                        warn!(
                            error = store::chain(&error),
                            "health check failed: database unavailable"
                        );
                    }
                    false
                }
            };
        store_answers.store(is_healthy, Ordering::Relaxed);
        if std::mem::replace(&mut was_healthy, is_healthy) != is_healthy {
            let status = match is_healthy {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            tell(&health, status).await;
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

/// Names in the health service: the whole server, and the API service.
const SERVICES: [&str; 2] = ["", SERVICE_NAME];

/// Sets the status of all of them.
async fn tell(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
