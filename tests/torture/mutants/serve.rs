//! Serves like `event-aggregator serve`, over the store of a mutant. The test starts itself in this
//! mode, so that the mutants need no other program.

use std::{env, io, pin::pin, sync::Arc};

use clap::Parser;
use event_aggregator::{
    app::App,
    config::{Config, Database},
    store::{
        Durability, Store, measured::MeasuredStore, postgres::PostgresStore, sqlite::SqliteStore,
    },
    testing::{
        listener::{Listener, raise_limit},
        metrics::Metrics,
    },
};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};
use tracing_subscriber::EnvFilter;

use super::{Made, Mutant, Wrap};

/// The first argument in this mode.
pub const FLAG: &str = "--serve-mutant";

/// What to serve.
#[derive(Debug, Parser)]
pub struct Serve {
    #[arg(value_parser = super::find)]
    mutant: &'static Mutant,
    #[command(flatten)]
    config: Config,
}

impl Serve {
    /// Reads the arguments, if this process is to be a service.
    pub fn requested() -> Option<Self> {
        let is_requested = env::args_os().nth(1).is_some_and(|first| first == FLAG);
        is_requested.then(|| Self::parse_from(env::args_os().skip(1)))
    }

    /// Serves until SIGTERM.
    pub async fn run(self) -> anyhow::Result<()> {
        let Made::Store(wrap) = self.mutant.made else {
            anyhow::bail!("{} is not a store", self.mutant.name)
        };
        tracing_subscriber::fmt()
            .with_writer(io::stderr)
            .with_ansi(false)
            .with_env_filter(EnvFilter::new("info,refinery_core=warn,tokio_postgres=warn"))
            .init();
        raise_limit();
        let mut signals = signal(SignalKind::terminate())?;
        let mut terminate = pin!(async {
            signals.recv().await;
        });
        let app = tokio::select! {
            app = start(&self.config, wrap) => app?,
            // Nothing was accepted yet.
            () = &mut terminate => return Ok(()),
        };
        println!("{} is listening on {}", self.mutant.name, app.address());
        Ok(app.run(terminate).await?)
    }
}

async fn start(config: &Config, wrap: Wrap) -> anyhow::Result<App> {
    let listener = Listener::bind(config.listen, None).await?;
    let store: Arc<dyn Store> = match config.database.chosen() {
        Database::Sqlite(path) => {
            Arc::new(spawn_blocking(move || SqliteStore::open(&path)).await??)
        }
        Database::Postgres(url) => Arc::new(PostgresStore::open(&url, Durability::Demanded).await?),
    };
    let metrics = Metrics::default();
    let store = MeasuredStore::new(wrap(store), metrics.clone());
    Ok(App::over(Arc::new(store), metrics, listener, None).await?)
}
