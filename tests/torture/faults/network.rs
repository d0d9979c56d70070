//! Faults of the network between an instance and PostgreSQL.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::Instance,
    proxy::{Cut, Proxy, Trap, Weather},
    round::Round,
    secrets,
};

/// Markers of a commit: the statement itself, or payloads, which are sent with the statement that
/// stores them. If all events of a batch are new, that is the commit.
const MARKERS: [&[u8]; 3] = [b"COMMIT", secrets::PAYLOAD.as_bytes(), secrets::PAYLOAD.as_bytes()];

/// Repeatedly cuts connections of all instances at a commit.
pub(super) async fn cut_commits(
    round: &Round,
    lasting: Duration,
    rng: &mut Rng,
) -> Result<(), String> {
    let cuts = [Cut::After, Cut::After, Cut::Before, Cut::During];
    cut(round, lasting, || {
        let marker = MARKERS[rng.usize(..MARKERS.len())];
        let cut = cuts[rng.usize(..cuts.len())];
        (Trap::message(marker, cut), Duration::from_millis(rng.u64(..200)))
    })
    .await
}

/// Repeatedly cuts connections of all instances at any byte.
pub(super) async fn cut_anywhere(
    round: &Round,
    lasting: Duration,
    rng: &mut Rng,
) -> Result<(), String> {
    cut(round, lasting, || {
        (Trap::Bytes(rng.usize(1..100_000)), Duration::from_millis(rng.u64(..200)))
    })
    .await
}

async fn cut(
    round: &Round,
    lasting: Duration,
    mut next: impl FnMut() -> (Trap, Duration),
) -> Result<(), String> {
    let proxies: Vec<&Proxy> =
        round.cluster.instances.iter().filter_map(|instance| instance.proxy.as_ref()).collect();
    let deadline = Instant::now() + lasting;
    let mut set = 0;
    while Instant::now() < deadline {
        for proxy in proxies.iter().filter(|proxy| proxy.is_sprung()) {
            let (trap, pause) = next();
            proxy.set_trap(Some(trap));
            set += 1;
            sleep(pause).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
    let waiting = proxies.iter().filter(|proxy| !proxy.is_sprung()).count();
    proxies.iter().for_each(|proxy| proxy.set_trap(None));
    if set == waiting { Err("nothing passed".to_owned()) } else { Ok(()) }
}

/// Stalls the network without closing connections.
pub(super) async fn stall(instance: &Instance, lasting: Duration) -> Result<(), String> {
    under(instance, Weather { stalled: true, ..Weather::default() }, lasting).await
}

/// Delays and splits all traffic.
pub(super) async fn slow(
    instance: &Instance,
    lasting: Duration,
    rng: &mut Rng,
) -> Result<(), String> {
    let delay = Duration::from_millis(rng.u64(20..150));
    let slice = Some(rng.usize(500..8_000));
    under(instance, Weather { stalled: false, delay, slice }, lasting).await
}

async fn under(instance: &Instance, weather: Weather, lasting: Duration) -> Result<(), String> {
    let proxy = instance.proxy.as_ref().ok_or("there is no network")?;
    proxy.set_weather(weather);
    sleep(lasting).await;
    proxy.set_weather(Weather::default());
    Ok(())
}
