//! `restored`: telling a database that it was restored, or is a copy.

use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::{app, config::DatabaseArgs};

#[derive(Debug, Args)]
#[command(after_help = "\
Works on the database itself. Stop all services that use it first, and start them again afterwards.

  event-aggregator restored
  event-aggregator restored --database-url postgres://user@host/events

Gives the database another identity: cursors and page tokens that were made before are refused with \
STORE_RESTORED, whatever they point at. Events and counters stay as they are. A restored database \
refuses cursors of lost events without this command too; run it when consumers should all begin anew, \
and on a copy that is used beside its original.")]
pub(super) struct Restored {
    #[command(flatten)]
    database: DatabaseArgs,
}

impl Restored {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let database = app::restored(&self.database.chosen()).await?;
        print(format_args!(
            "{database} has another identity now: cursors and page tokens made before are refused.\n\
             Consumers begin anew, from the start or from a time: with `event-aggregator tail`, remove \
             its cursor file, and use --from-start or --since TIME."
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
