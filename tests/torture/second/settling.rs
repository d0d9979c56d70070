//! The end of a round: all faults are healed, all services are restarted, and the final state is
//! read through every API.

use std::{process::Command, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{recorder::Phase, table, watching};
use crate::{database::Database, program::PROGRAM, second::watching::Reader};

/// Timeout for retried reads, and for statements of ended services.
const LIMIT: Duration = Duration::from_secs(60);

/// Restarts all services and reads the final state.
pub async fn read_everything(reader: &mut Reader) -> Result<(), String> {
    let services = reader.services.clone();
    for service in &*services {
        service.start().await?;
        if let Err(reason) = service.stop_and_restart(Duration::ZERO).await {
            reader.recorder.fault(reason);
            service.start().await?;
        }
    }
    reader.recorder.phase.send_replace(Phase::Restarted);
    let deadline = Instant::now() + LIMIT;
    while watching::look_up_all(reader).await.is_none() {
        try_again(deadline).await?;
    }
    for oldest_first in [true, false] {
        while watching::walk(reader, oldest_first, 7).await.is_none() {
            try_again(deadline).await?;
        }
    }
    loop {
        if let Some(sample) = watching::counters::sample(reader).await {
            reader.recorder.history().last = sample;
            return Ok(());
        }
        try_again(deadline).await?;
    }
}

async fn try_again(deadline: Instant) -> Result<(), String> {
    if Instant::now() > deadline {
        return Err(format!("healed services did not answer within {LIMIT:?}"));
    }
    sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// Stops all services, runs `verify`, and reads the rows directly.
pub async fn stop_and_verify(reader: &Reader, database: &Database) -> Result<(), String> {
    for service in &*reader.services {
        if let Err(reason) = service.stop().await {
            reader.recorder.fault(reason);
        }
        if service.panicked() {
            reader.recorder.fault("a service panicked");
        }
    }
    let mut command = Command::new(PROGRAM);
    command.args(["verify", "-o", "table", "--database-url", &database.url(None)]);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || !text.contains("OK: ") {
        let errors = String::from_utf8_lossy(&output.stderr);
        reader.recorder.fault(format!("verify ended with {}: {text} {errors}", output.status));
    }
    let rows = table::rows(database, &reader.recorder).await?;
    reader.recorder.history().rows = rows;
    Ok(())
}

/// Waits until no statement of a killed service is running.
pub async fn wait_for_writers(database: &Database) -> Result<(), String> {
    let deadline = Instant::now() + LIMIT;
    while database.writing().await? > 0 {
        try_again(deadline).await?;
    }
    Ok(())
}
