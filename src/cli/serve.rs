//! `serve`: runs the service until it receives a stop signal.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    process::ExitCode,
};

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{Level, Metadata, info};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, LevelFilter, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{app::App, config::Config, grpc::SERVICE_NAME, listener::files, trace};

/// Logs statement parameters, which are user data, at debug level.
const INDISCREET: &str = "tokio_postgres";

/// The store logs applied migrations, so the logs of `refinery_core` are reduced to warnings.
const DEFAULT_LOG: &str = "info,refinery_core=warn,tokio_postgres=warn";

#[derive(Debug, Args)]
#[command(
    after_help = "Logs are written to standard error; set RUST_LOG=debug for more detail.\nTraces \
                  are exported over OTLP/gRPC to the collector in OTEL_EXPORTER_OTLP_ENDPOINT, if \
                  it is set."
)]
pub(super) struct Serve {
    #[command(flatten)]
    config: Config,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let exporter = start_log()?;
        files::raise_limit();

        let mut stop = Box::pin(stop_signal()?);
        let app = tokio::select! {
            app = App::start(&self.config) => app?,
            // Nothing was accepted yet.
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        // The service runs even if standard output is closed.
        let _ = print_banner(&app, self.config.access.is_some());
        app.run(stop).await?;
        if let Some(exporter) = exporter {
            tokio::task::spawn_blocking(|| exporter.close()).await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Sets up the log, and tracing if a collector is configured.
fn start_log() -> anyhow::Result<Option<trace::Exporter>> {
    let log = std::env::var("RUST_LOG").unwrap_or_else(|_| DEFAULT_LOG.to_owned());
    let filter = EnvFilter::try_new(log)
        .map_err(|error| anyhow!("invalid RUST_LOG: {error}; try RUST_LOG=debug"))?;
    let is_secret = |metadata: &Metadata<'_>| {
        metadata.target().starts_with(INDISCREET) && *metadata.level() > Level::INFO
    };
    let is_span = |metadata: &Metadata<'_>| metadata.target() == trace::TARGET;
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(is_colourful(io::stderr().is_terminal(), std::env::var_os("NO_COLOR")))
        // Internal errors go to standard error, and a failed write there panics.
        .log_internal_errors(false)
        .with_filter(
            filter.and(
                // Without the hint, the spans and events of all libraries would be filtered at
                // runtime.
                filter_fn(move |metadata| !is_span(metadata) && !is_secret(metadata))
                    .with_max_level_hint(LevelFilter::TRACE),
            ),
        );
    let exporter = trace::Exporter::from_env().context("cannot export traces")?;
    let spans = exporter.as_ref().map(|exporter| {
        tracing_opentelemetry::layer()
            .with_tracer(exporter.tracer())
            .with_filter(filter_fn(is_span).with_max_level_hint(LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(log).with(spans).init();
    Ok(exporter)
}

/// Whether the log has colors: on a terminal, unless NO_COLOR is set (<https://no-color.org>).
fn is_colourful(terminal: bool, no_color: Option<OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

/// Prints the address and example commands.
fn print_banner(app: &App, guarded: bool) -> io::Result<()> {
    let listening = app.address();
    let address = reachable(listening);
    // Without a scheme, curl and our commands use plaintext.
    let (scheme, shown, plaintext) = match app.is_encrypted() {
        true => ("https", format!("https://{address}"), ""),
        false => ("http", address.to_string(), "-plaintext "),
    };
    let program = std::env::args().next().unwrap_or_else(|| "event-aggregator".to_owned());
    let event = r#"{"topic":"orders","event_id":"1","source":"me","payload":{"n":1}}"#;
    let request = format!(r#"{{"events":[{event}]}}"#);
    let token = match guarded {
        true => "callers need a token: --token-file FILE, or -H 'authorization: Bearer …'\n",
        false => "",
    };
    writeln!(
        io::stdout(),
        "event-aggregator {version} is listening on {listening}
storing events in {database}
dashboard: {scheme}://{address}/
{token}
Publish the same event twice; the second is reported as a duplicate:

  curl --json '{event}' {shown}/publish
  grpcurl {plaintext}-d '{request}' {address} {SERVICE_NAME}/Publish

Or publish 20,000 simulated events and show the counters:

  {program} publish --addr {shown} --simulate 20000 --duplicates 0.3
  {program} stats --addr {shown}
",
        version = env!("CARGO_PKG_VERSION"),
        database = app.store_location(),
    )
}

/// The address by which this machine reaches the listener.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

/// Completes on the first SIGTERM or Ctrl-C. The second one exits the process immediately.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
            info!("second signal: exiting immediately");
            std::process::exit(130);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::is_colourful;

    #[test]
    fn colors_respect_terminal_and_no_color() {
        assert!(is_colourful(true, None));
        assert!(is_colourful(true, Some("".into())), "an empty variable says nothing");
        assert!(!is_colourful(true, Some("1".into())));
        assert!(!is_colourful(false, None));
    }
}
