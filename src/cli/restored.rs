//! `restored`: assigns a new identity to a database that was restored or copied.

use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::{app, config::DatabaseArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Opens the database directly. Stop all services that use it first, and start them again afterwards.

  event-aggregator restored
  event-aggregator restored --database-url postgres://user@host/events

Assigns a new identity to the database: all existing cursors and page tokens are rejected with \
STORE_RESTORED. Events and counters do not change. Without this command, a restored database \
rejects only cursors of lost events. Run it to make all consumers start over, and on a copy that \
is used alongside its original.")]
pub(super) struct Restored {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Restored {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let database = app::restored(&self.database.chosen()).await?;
        print(format_args!(
            "{database} has a new identity: existing cursors and page tokens are \
             rejected.\nConsumers must start over, from the beginning or from a time. For \
             `event-aggregator tail`, remove its cursor file and use --from-start or --since TIME."
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
