//! `health`: checks the health of a service, as container health checks do.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use tonic::Request;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::client::{Refused, Server};
use crate::grpc::SERVICE_NAME;

/// Timeout of the health check.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    server: Server,
}

impl Health {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = HealthClient::new(self.server.channel().await?);
        let request = HealthCheckRequest { service: SERVICE_NAME.to_owned() };
        let mut request = Request::new(request);
        request.set_timeout(DEADLINE);
        let response = client.check(request).await;
        // Container runtimes expect exit code 0 or 1.
        let status = match response {
            Ok(response) => response.into_inner().status(),
            Err(status) => bail!("{}", Refused(status)),
        };
        if status != ServingStatus::Serving {
            bail!(
                "the service is not serving: its database is unavailable, or it is shutting down"
            );
        }
        super::print("serving")?;
        Ok(ExitCode::SUCCESS)
    }
}
