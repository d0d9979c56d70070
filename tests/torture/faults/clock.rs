//! Faults of the database's clock: it jumps ahead, so that everything stored before looks old.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    cluster::Instance,
    proxy::{Cut, Trap, Weather},
    round::Round,
};

/// How far the clock jumps: beyond the time for which ledger entries are kept.
const JUMP: &str = "UPDATE batch_ledger SET entered_at = entered_at - make_interval(hours => 3)";

/// How long a commit may take that has gone through the trap.
const COMMIT: Duration = Duration::from_secs(10);

/// How long the database has for what is on its way.
const PAUSE: Duration = Duration::from_millis(500);

/// Lets the clock jump while an instance is cut off before it hears of a commit, and another one
/// starts, which prunes the ledger by that clock.
pub(super) async fn jump(
    round: &Round,
    doubtful: &Instance,
    starting: &Instance,
    lasting: Duration,
) -> Result<(), String> {
    let proxy = doubtful.proxy.as_ref().ok_or("there is no network")?;
    proxy.set_trap(Some(Trap::Message { marker: b"COMMIT", cut: Cut::AfterThenStall }));
    let deadline = Instant::now() + lasting;
    // A commit that has gone through the trap is waited for: it stalls the network in the end.
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
    // The answer that stalled the network may be the statement's, with its COMMIT just behind.
    sleep(PAUSE).await;
    round.database.execute(JUMP).await?;
    starting.stop_and_restart(&round.recorder, Duration::ZERO).await?;
    // It prunes as soon as it is ready.
    sleep(PAUSE).await;
    Ok(())
}
