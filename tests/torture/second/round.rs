//! One round, from an empty database to a history.

use std::{path::Path, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    breaking::{self, Struck, Target},
    judge::history::{History, Way},
    planned,
    recorder::{Phase, Recorder},
    sending,
    service::Service,
    settling,
    watching::{self, Reader},
};
use crate::{Store, database::Database, mutants::Mutant, proxy::Proxy};

/// Duration of publishing.
const LOAD: Duration = Duration::from_millis(2_500);

/// Minimum responses per API in a round, and the maximum time to get them after the last fault.
const ENOUGH: usize = 20;
const ENOUGH_WITHIN: Duration = Duration::from_secs(60);

/// Number of services on PostgreSQL. A SQLite file has one.
const SERVICES: usize = 2;

/// A planned round.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub store: Store,
    pub seed: u64,
    /// A mutant instead of the service.
    pub mutant: Option<&'static Mutant>,
}

/// The result of a round.
pub struct Ended {
    pub history: History,
    pub struck: Struck,
}

/// Runs it. It is an error if the round itself broke.
pub async fn run(case: Case, database: Arc<Database>, folder: &Path) -> Result<Ended, String> {
    // Other seeds than those of the first checker.
    let mut rng = Rng::with_seed(case.seed ^ 0x5ec0_4d00);
    let recorder = Arc::new(Recorder::new(planned::keys(&mut rng)));
    let services: Arc<[Service]> = services(case, &database, folder).await.into();
    let mut starting = JoinSet::new();
    for number in 0..services.len() {
        let services = Arc::clone(&services);
        starting.spawn(async move { services[number].start().await });
    }
    starting.join_all().await.into_iter().collect::<Result<(), String>>()?;
    let mut reader = Reader {
        recorder: Arc::clone(&recorder),
        services: Arc::clone(&services),
        rng: rng.fork(),
    };
    let subscribing = watching::subscribe(&reader, &mut rng);
    let watching = watching::start(&reader, &mut rng);
    let load = LOAD + Duration::from_micros(recorder.now());
    let sending = sending::start(&recorder, &services, load, &mut rng);
    let target = Target {
        database: Arc::clone(&database),
        services: Arc::clone(&services),
        recorder: Arc::clone(&recorder),
    };
    let struck = breaking::run(target, case.store, LOAD, rng.fork()).await;
    wait_for_enough(&recorder).await;
    recorder.phase.send_replace(Phase::Healed);
    sending.join_all().await;
    watching.join_all().await;
    settling::wait_for_writers(&database).await?;
    settling::read_everything(&mut reader).await?;
    subscribing.join_all().await;
    settling::stop_and_verify(&reader, &database).await?;
    let history = std::mem::take(&mut *recorder.history());
    Ok(Ended { history, struck })
}

/// Continues until the round has enough responses: a round with few responses proves nothing.
async fn wait_for_enough(recorder: &Recorder) {
    let deadline = Instant::now() + ENOUGH_WITHIN;
    loop {
        let missing = missing(&recorder.history());
        let Some(missing) = missing else { return };
        if Instant::now() > deadline {
            return recorder.fault(format!("{ENOUGH_WITHIN:?} after the last fault {missing}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn missing(history: &History) -> Option<String> {
    for way in [Way::Unary, Way::Stream, Way::Http] {
        let answered = history.attempts.iter().filter(|it| it.outcome.first().is_some());
        let answered = answered.filter(|attempt| attempt.way == way).count();
        if answered < ENOUGH {
            return Some(format!("{way:?} has {answered} answers"));
        }
    }
    let has_readers = !history.samples.is_empty() && !history.walks.is_empty();
    (!has_readers).then(|| "a reader was not answered".to_owned())
}

async fn services(case: Case, database: &Database, folder: &Path) -> Vec<Service> {
    let count = if database.is_shared() { SERVICES } else { 1 };
    let mut services = Vec::new();
    for number in 0..count {
        let proxy = match database.socket() {
            Some(socket) => Some(Proxy::start(socket).await),
            None => None,
        };
        let url = database.url(proxy.as_ref().map(|proxy| proxy.address));
        services.push(Service::new(number, url, proxy, folder, case.mutant));
    }
    services
}
