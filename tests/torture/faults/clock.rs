//! Faults of the database's clock: it jumps ahead, so that everything stored before looks old.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    cluster::Instance,
    proxy::{Cut, Trap, Weather},
    round::Round,
    secrets,
};

/// How far the clock jumps: beyond the time for which ledger entries are kept.
const JUMP: &str = "UPDATE batch_ledger SET entered_at = entered_at - make_interval(hours => 3)";

/// How long the instance that starts has to prune the ledger.
const PRUNING: Duration = Duration::from_millis(500);

/// Lets the clock jump while an instance is cut off before it hears of a commit, and another one
/// starts, which prunes the ledger by that clock.
pub(super) async fn jump(
    round: &Round,
    doubtful: &Instance,
    starting: &Instance,
    lasting: Duration,
) -> Result<(), String> {
    let proxy = doubtful.proxy.as_ref().ok_or("there is no network")?;
    let marker = secrets::PAYLOAD.as_bytes();
    proxy.set_trap(Some(Trap::Message { marker, cut: Cut::AfterThenStall }));
    let deadline = Instant::now() + lasting;
    while !proxy.is_sprung() && Instant::now() < deadline {
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
    round.database.execute(JUMP).await?;
    starting.stop_and_restart(&round.recorder, Duration::ZERO).await?;
    sleep(PRUNING).await;
    Ok(())
}
