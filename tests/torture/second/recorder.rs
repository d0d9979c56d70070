//! Records the events of a round, with their times.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::watch;

use super::judge::history::{History, Key, Moment, Seen, Sight};

/// The phase of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Producers send, with faults.
    Load,
    /// No more events and faults.
    Healed,
    /// All services have been restarted: reads return the final state.
    Restarted,
}

pub struct Recorder {
    began: Instant,
    pub keys: Arc<[Key]>,
    numbers: HashMap<(Arc<str>, Arc<str>), usize>,
    history: Mutex<History>,
    /// Payloads that were read, deduplicated.
    texts: Mutex<HashSet<Arc<str>>>,
    pub phase: watch::Sender<Phase>,
}

impl Recorder {
    pub fn new(keys: Vec<Key>) -> Self {
        let key = |(number, key): (usize, &Key)| {
            ((Arc::clone(&key.topic), Arc::clone(&key.event_id)), number)
        };
        let numbers = keys.iter().enumerate().map(key).collect();
        Self {
            began: Instant::now(),
            keys: keys.clone().into(),
            numbers,
            history: Mutex::new(History { keys, ..History::default() }),
            texts: Mutex::default(),
            phase: watch::Sender::new(Phase::Load),
        }
    }

    pub fn now(&self) -> Moment {
        self.began.elapsed().as_micros() as Moment
    }

    pub fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() == phase
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fault(&self, text: impl Into<String>) {
        self.history().faults.push(text.into());
    }

    /// The number of a key. An unknown key is a violation.
    pub fn number(&self, topic: &str, event_id: &str) -> Option<usize> {
        let number = self.numbers.get(&(topic.into(), event_id.into())).copied();
        if number.is_none() {
            self.fault(format!("{topic:?}/{event_id:?} was given back, and nobody sent it"));
        }
        number
    }

    /// The shared copy of a text.
    pub fn text(&self, text: &str) -> Arc<str> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        texts.insert(Arc::clone(&new));
        new
    }

    pub fn sight(
        &self,
        by: &'static str,
        key: usize,
        (begin, end): (Moment, Moment),
        seen: Option<Seen>,
    ) {
        self.history().sights.push(Sight { by, key, begin, end, seen });
    }
}
