//! `version`: shows the version of the program and of its API.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Output, print, print_json};
use crate::grpc::SERVICE_NAME;

#[derive(Debug, Args)]
pub(super) struct Version {
    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl Version {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let version = env!("CARGO_PKG_VERSION");
        let contract = SERVICE_NAME.rsplit_once('.').map_or(SERVICE_NAME, |(package, _)| package);
        match Output::or_suitable(self.output) {
            Output::Table => print(format!("event-aggregator {version}, API {contract}"))?,
            Output::Json | Output::Ndjson => {
                print_json(json!({ "version": version, "contract": contract }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
