//! Producers: each sends its events until every event has a known outcome, and records every
//! attempt. Unknown outcomes are never guessed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fastrand::Rng;
use tokio::{task::JoinSet, time::sleep};
use tonic::Code;

use crate::{
    history::{Attempt, Moment, Outcome},
    outcome,
    recorder::Waiting,
    round::Round,
    workload::{HTTP_PRODUCER, Item, Plan, Request},
};

mod calls;
mod stream;

/// Calls in flight per producer.
const CALLS: usize = 3;

/// Maximum timeout of a producer, regardless of earlier timeouts.
const PATIENCE: Duration = Duration::from_secs(30);

/// The queue of a producer.
type Queue = Arc<Mutex<VecDeque<Request>>>;

/// Starts all producers. They end when all events have a known outcome, or when the round is
/// aborted.
pub fn start(round: &Arc<Round>, rng: &mut Rng, plan: Plan) -> JoinSet<()> {
    let mut producing = JoinSet::new();
    for (number, requests) in plan.requests.into_iter().enumerate() {
        let queue = Queue::new(Mutex::new(requests.into()));
        let workers = if number <= HTTP_PRODUCER { CALLS } else { 1 };
        for _ in 0..workers {
            let producer = Producer {
                round: Arc::clone(round),
                number,
                instance: number % round.cluster.size(),
                queue: Arc::clone(&queue),
                rng: rng.fork(),
                patience: plan.patience,
                failures: 0,
            };
            match number {
                0..HTTP_PRODUCER => producing.spawn(producer.send_calls(false)),
                HTTP_PRODUCER => producing.spawn(producer.send_calls(true)),
                _ => producing.spawn(producer.send_streams()),
            };
        }
    }
    producing
}

struct Producer {
    round: Arc<Round>,
    number: usize,
    /// The instance that it currently sends to.
    instance: usize,
    queue: Queue,
    rng: Rng,
    /// Its initial timeout: minimum and maximum.
    patience: (Duration, Duration),
    /// Number of consecutive timeouts.
    failures: u32,
}

impl Producer {
    /// Records the outcomes of a request. Returns the events to send again.
    fn note(
        &mut self,
        request: Request,
        invoked: Moment,
        outcomes: impl IntoIterator<Item = Outcome>,
    ) -> Option<Request> {
        let returned = self.round.recorder.now();
        let mut unanswered = Vec::new();
        let alone = request.allow_partial || request.items.iter().all(|item| item.valid);
        let attempts = request.items.into_iter().zip(outcomes).map(|(item, outcome)| {
            if let Some(fault) = wrong_judgement(&item, outcome, alone) {
                self.round.recorder.dirt(format!("{} was {fault}", item.key));
            }
            let attempt = Attempt {
                producer: self.number,
                instance: self.instance,
                key: item.key.clone(),
                content: item.content,
                invoked,
                returned,
                outcome,
            };
            if !outcome::is_final(outcome, item.valid) {
                unanswered.push(item);
            }
            attempt
        });
        let attempts: Vec<Attempt> = attempts.collect();
        self.round.recorder.attempts(attempts);
        if unanswered.is_empty() {
            self.failures = 0;
            self.round.recorder.goes_on(Waiting::Producers);
            return None;
        }
        Some(Request { items: unanswered, cancel: None, ..request })
    }

    /// The same for a request with one outcome for all its events.
    fn note_all(&mut self, request: Request, invoked: Moment, outcome: Outcome) -> Option<Request> {
        let outcomes = vec![outcome; request.items.len()];
        self.note(request, invoked, outcomes)
    }

    fn next(&self) -> Option<Request> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn next_due(&self) -> Option<Moment> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.front().map(|request| request.due)
    }

    fn put_back(&self, request: Request) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_front(request);
    }

    /// Changes the instance at random, after a delay.
    async fn look_around(&mut self) {
        self.failures += 1;
        self.instance = self.rng.usize(..self.round.cluster.size());
        sleep(Duration::from_millis(self.rng.u64(5..100))).await;
    }

    /// Grows with the number of timeouts: if everything is slow, responses take longer than the
    /// initial timeout.
    fn patience(&mut self) -> Duration {
        let (least, most) = self.patience;
        let patience = least + (most - least).mul_f64(self.rng.f64());
        (patience * 2_u32.pow(self.failures.min(3))).min(PATIENCE)
    }
}

/// What is wrong with the outcome of an event that was validated individually: the service must
/// distinguish valid from invalid events.
fn wrong_judgement(item: &Item, outcome: Outcome, alone: bool) -> Option<&'static str> {
    match outcome {
        Outcome::Failed(Code::InvalidArgument) if item.valid && alone => Some("refused as invalid"),
        Outcome::Accepted | Outcome::Duplicate | Outcome::Conflict if !item.valid => {
            Some("taken although it is invalid")
        }
        _ => None,
    }
}

/// Encodes the events as messages.
fn events(items: &[Item]) -> Vec<event_aggregator::proto::v1::Event> {
    items.iter().map(Item::event).collect()
}
