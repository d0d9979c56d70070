//! `demo`: a service and simulated events in one process.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context;
use clap::Args;
use tokio::sync::oneshot;

use super::{
    client::{Refused, Server},
    print, publish, serve, stats,
};
use crate::{
    app::App,
    config::{Config, Database, address},
    proto::v1::GetStatsRequest,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Runs until Ctrl-C, prints the counters and deletes the events. 30% of the events are duplicates.

  event-aggregator demo
  event-aggregator demo --listen 127.0.0.1:0 --rate 1000")]
pub(super) struct Demo {
    /// Address and port to listen on
    #[arg(long, default_value = "127.0.0.1:50051", value_parser = address, value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Simulated events per second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000),
          value_name = "N")]
    rate: u32,
}

impl Demo {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut stop = Box::pin(serve::stop_signal()?);
        let folder = tempfile::tempdir().context("cannot create a temporary directory")?;
        let app = App::start(&Config {
            listen: self.listen,
            ..Config::local(Database::in_folder(folder.path()))
        })
        .await?;
        let address = serve::reachable(app.address());
        let (stop_service, stopped) = oneshot::channel::<()>();
        let mut running = tokio::spawn(app.run(async { drop(stopped.await) }));
        let server = Server::at(address);
        print(banner(address, self.rate))?;

        tokio::select! {
            () = &mut stop => (),
            sent = publish::simulate_steadily(&server, self.rate) => sent?,
            // The service ended by itself.
            ended = &mut running => ended??,
        }
        let mut client = server.connect().await?;
        let request = GetStatsRequest { max_topics: 20, ..Default::default() };
        let kept = client.get_stats(request).await.map_err(Refused)?.into_inner();
        // Shutdown would wait for an open connection.
        drop(client);
        let _ = stop_service.send(());
        running.await??;
        print(stats::as_table(&kept, false))?;
        folder.close().context("cannot remove the temporary directory")?;
        Ok(ExitCode::SUCCESS)
    }
}

fn banner(address: SocketAddr, rate: u32) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "event-aggregator".to_owned());
    format!(
        "event-aggregator {version} is listening on {address}
and receives {rate} simulated events per second, 30% of them duplicates.

Dashboard:  http://{address}/

In another terminal:

  {program} stats --addr {address} --watch
  {program} tail --addr {address}
  curl {address}/stats

Press Ctrl-C to stop and delete the events.
",
        version = env!("CARGO_PKG_VERSION"),
    )
}
