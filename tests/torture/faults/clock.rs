//! Faults of the database's clock: a jump ahead, after which all stored entries look old.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    cluster::Instance,
    proxy::{Cut, Trap, Weather},
    round::Round,
};

/// The jump: more than the retention of ledger entries.
const JUMP: &str = "UPDATE batch_ledger SET entered_at = entered_at - make_interval(hours => 3)";

/// Maximum time of a commit after it was cut off.
const COMMIT: Duration = Duration::from_secs(10);

/// Time for the database to process messages in transit.
const PAUSE: Duration = Duration::from_millis(500);

/// Makes the clock jump while an instance waits for the response to a commit, and starts another
/// instance, which prunes the ledger by that clock.
pub(super) async fn jump(
    round: &Round,
    doubtful: &Instance,
    starting: &Instance,
    lasting: Duration,
) -> Result<(), String> {
    let proxy = doubtful.proxy.as_ref().ok_or("there is no network")?;
    proxy.set_trap(Some(Trap::message(b"COMMIT", Cut::AfterThenStall)));
    let deadline = Instant::now() + lasting;
    // Wait for a commit that was cut off: it stalls the network.
    while !proxy.is_stalled() && (proxy.is_sprung() || Instant::now() < deadline) {
        if Instant::now() > deadline + COMMIT {
            break;
        }
        sleep(Duration::from_millis(5)).await;
    }
    proxy.set_trap(None);
    let jumped = match proxy.is_stalled() {
        true => jump_and_prune(round, starting).await,
        false => Err("nothing was committed".to_owned()),
    };
    proxy.set_weather(Weather::default());
    jumped
}

async fn jump_and_prune(round: &Round, starting: &Instance) -> Result<(), String> {
    // The response that stalled the network may be that of the statement, with its COMMIT right
    // after it.
    sleep(PAUSE).await;
    round.database.execute(JUMP).await?;
    starting.stop_and_restart(&round.recorder, Duration::ZERO).await?;
    // It prunes when it is ready.
    sleep(PAUSE).await;
    Ok(())
}
