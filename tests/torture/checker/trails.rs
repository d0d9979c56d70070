//! A history by key: who sent it, and what is stored under it.

use std::collections::HashMap;

use super::{Attempt, Content, History, Key, Moment, Outcome, Row};

/// All that is known of one key.
pub(super) struct Trail<'a> {
    pub(super) key: &'a Key,
    pub(super) attempts: Vec<&'a Attempt>,
    pub(super) rows: Vec<&'a Row>,
    /// When a reader first got it.
    pub(super) shown: Option<Moment>,
}

/// All that is known, by key.
pub(super) struct Trails<'a> {
    /// In the order in which the keys came up.
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
            // What nobody sent and nobody stored is for the rules of readers to tell.
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

    /// What is stored under a key.
    pub(super) fn row(&self, key: &Key) -> Option<&'a Row> {
        self.get(key)?.rows.first().copied()
    }
}

impl<'a> Trail<'a> {
    /// Attempts with an outcome that is stored and known.
    pub(super) fn judged(&self) -> impl Iterator<Item = &'a Attempt> {
        self.attempts.iter().copied().filter(|attempt| attempt.outcome.is_judged())
    }

    pub(super) fn accepted(&self) -> impl Iterator<Item = &'a Attempt> {
        self.attempts.iter().copied().filter(|attempt| attempt.outcome == Outcome::Accepted)
    }

    /// Attempts that may have stored it.
    pub(super) fn originals(&self) -> impl Iterator<Item = &'a Attempt> {
        self.attempts
            .iter()
            .copied()
            .filter(|attempt| attempt.outcome == Outcome::Accepted || attempt.outcome.is_unknown())
    }

    /// When somebody first sent what may have been stored. None: nobody ever did.
    pub(super) fn first_sent(&self) -> Option<Moment> {
        self.originals().map(|attempt| attempt.invoked).min()
    }

    /// When it was first known to be stored: somebody was told so, or got it.
    pub(super) fn first_known(&self) -> Option<Moment> {
        self.judged().map(|attempt| attempt.returned).chain(self.shown).min()
    }

    /// Whether it may be seen by readers: a repetition tells of another attempt that was stored, and
    /// that this one is missing is for the rule of verdicts to say.
    pub(super) fn may_be_seen(&self) -> bool {
        self.attempts
            .iter()
            .any(|attempt| attempt.outcome.is_judged() || attempt.outcome.is_unknown())
    }

    /// Whether somebody sent this content in a way that may have stored it. A repetition does not
    /// vouch for itself.
    pub(super) fn may_hold(&self, content: Content) -> bool {
        self.originals().any(|attempt| attempt.content == content)
    }
}

impl Outcome {
    /// Whether it says what became of the event.
    pub(super) fn is_judged(self) -> bool {
        matches!(self, Self::Accepted | Self::Duplicate | Self::Conflict)
    }

    pub(super) fn is_unknown(self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}
