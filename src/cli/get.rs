//! `get`: shows one stored event by its key.

use std::process::ExitCode;

use clap::Args;

use super::{
    Output,
    client::{Refused, Server},
    list, ndjson, print, print_json, terminal,
};
use crate::proto::v1::{BatchGetEventsRequest, EventKey, PayloadFormat};

#[derive(Debug, Args)]
#[command(after_help = "Exits with 1 if no event has this key.")]
pub(super) struct Get {
    #[command(flatten)]
    server: Server,

    /// Topic of the event
    topic: String,

    /// Event id, unique within the topic
    event_id: String,

    /// Output format [default: table on a terminal, else ndjson]
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

impl Get {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.server.connect().await?;
        let request = BatchGetEventsRequest {
            keys: vec![EventKey { topic: self.topic, event_id: self.event_id }],
            payload_format: PayloadFormat::Json.into(),
        };
        let found = client.batch_get_events(request).await.map_err(Refused)?.into_inner();
        let Some(event) = found.events.first() else {
            terminal::tell("No event has this key.");
            return Ok(ExitCode::FAILURE);
        };
        match Output::or_suitable(self.output) {
            Output::Json | Output::Ndjson => print_json(ndjson::write(event)?)?,
            Output::Table => print(list::rows(&found.events))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
