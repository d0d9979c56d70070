//! The history of each key: its attempts, and the stored rows.

use std::collections::HashMap;

use super::{Attempt, Content, History, Key, Moment, Outcome, Row};

/// The history of one key.
pub(super) struct Trail<'a> {
    pub(super) key: &'a Key,
    pub(super) attempts: Vec<&'a Attempt>,
    pub(super) rows: Vec<&'a Row>,
    /// When a reader first received it.
    pub(super) shown: Option<Moment>,
}

/// The histories of all keys.
pub(super) struct Trails<'a> {
    /// In order of first occurrence.
    trails: Vec<Trail<'a>>,
    places: HashMap<&'a Key, usize>,
}

impl<'a> Trails<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut trails = Self { trails: Vec::new(), places: HashMap::new() };
        for attempt in &history.attempts {
            trails.at(&attempt.key).attempts.push(attempt);
        }
        for row in &history.settled.rows {
            trails.at(&row.key).rows.push(row);
        }
        let delivered = history.readers.iter().flat_map(|reader| &reader.deliveries);
        let listed = history.listings.iter().flat_map(|listing| &listing.events);
        for delivery in delivered.chain(listed) {
            // Deliveries of unknown keys are left to the rules of readers.
            if let Some(&place) = trails.places.get(&delivery.key) {
                let shown = trails.trails[place].shown.get_or_insert(delivery.at);
                *shown = delivery.at.min(*shown);
            }
        }
        trails
    }

    fn at(&mut self, key: &'a Key) -> &mut Trail<'a> {
        let next = self.trails.len();
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.trails.push(Trail { key, attempts: Vec::new(), rows: Vec::new(), shown: None });
        }
        &mut self.trails[place]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Trail<'a>> {
        self.trails.iter()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Trail<'a>> {
        self.places.get(key).map(|&place| &self.trails[place])
    }

    /// The stored rows of a key.
    pub(super) fn row(&self, key: &Key) -> Option<&'a Row> {
        self.get(key)?.rows.first().copied()
    }
}

impl<'a> Trail<'a> {
    /// Attempts whose outcome is known and that are stored.
    pub(super) fn judged(&self) -> impl Iterator<Item = &'a Attempt> {
        self.attempts.iter().copied().filter(|attempt| attempt.outcome.is_judged())
    }

    pub(super) fn accepted(&self) -> impl Iterator<Item = &'a Attempt> {
        self.attempts.iter().copied().filter(|attempt| attempt.outcome == Outcome::Accepted)
    }

    /// Attempts that may have stored the event.
    pub(super) fn originals(&self) -> impl Iterator<Item = &'a Attempt> {
        self.attempts
            .iter()
            .copied()
            .filter(|attempt| attempt.outcome == Outcome::Accepted || attempt.outcome.is_unknown())
    }

    /// When an attempt that may have stored the event was first sent. None if there is no such
    /// attempt.
    pub(super) fn first_sent(&self) -> Option<Moment> {
        self.originals().map(|attempt| attempt.invoked).min()
    }

    /// When it was first known to be stored, from an acknowledgement or a delivery.
    pub(super) fn first_known(&self) -> Option<Moment> {
        self.judged().map(|attempt| attempt.returned).chain(self.shown).min()
    }

    /// Whether readers may see it: a duplicate implies another attempt that was stored. If that one
    /// is missing, the rule of verdicts reports it.
    pub(super) fn may_be_seen(&self) -> bool {
        self.attempts
            .iter()
            .any(|attempt| attempt.outcome.is_judged() || attempt.outcome.is_unknown())
    }

    /// Whether an attempt that may have stored it had this content. A duplicate is no evidence for
    /// itself.
    pub(super) fn may_hold(&self, content: Content) -> bool {
        self.originals().any(|attempt| attempt.content == content)
    }
}

impl Outcome {
    /// Whether the outcome is known.
    pub(super) fn is_judged(self) -> bool {
        matches!(self, Self::Accepted | Self::Duplicate | Self::Conflict)
    }

    pub(super) fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}
