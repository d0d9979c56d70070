//! Marks: what tells whether a lane still has the events that somebody has passed.

use crate::event::{Event, Timestamp};

/// A number of a lane, and when the event with it was received. A store that was restored to an earlier
/// state gives the number to another event, which was received at another time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number. Zero is before the first event.
    pub seq: i64,
    /// The time of receipt; nothing if there is no event, or if the time is not known.
    pub received_at: Option<Timestamp>,
}

impl From<&Event> for Mark {
    fn from(event: &Event) -> Self {
        Self { seq: event.position.seq, received_at: Some(event.received_at) }
    }
}

/// One lane at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneState {
    /// The last number given out. All events up to there are committed.
    pub head: Mark,
    /// The last event that is stored up to the number that was asked for, if any is.
    pub found: Option<Mark>,
}

impl LaneState {
    /// Whether the lane still is the one in which `mark` was made; `mark.seq` is what was asked for. An
    /// event that was deleted since is made up for by the one before it, which cannot be later.
    pub fn holds(&self, mark: &Mark) -> bool {
        let is_same = match (mark.received_at, self.found) {
            (Some(then), Some(found)) if found.seq == mark.seq => found.received_at == Some(then),
            (Some(then), Some(found)) => found.received_at <= Some(then),
            _ => true,
        };
        mark.seq <= self.head.seq && is_same
    }
}

/// Whether each lane still is the one in which its mark was made: if not, the store was restored to an
/// earlier state.
pub fn holds(lanes: &[LaneState], marks: &[Mark]) -> bool {
    lanes.len() == marks.len() && lanes.iter().zip(marks).all(|(lane, mark)| lane.holds(mark))
}

/// The numbers of marks.
pub fn numbers(marks: &[Mark]) -> Vec<i64> {
    marks.iter().map(|mark| mark.seq).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_as_long_as_its_event_is_the_same() {
        let mark = |seq, micros| Mark { seq, received_at: Timestamp::from_micros(micros) };
        let lane = |head, found| LaneState { head: mark(head, 90), found };
        let is_held = |lane: LaneState| lane.holds(&mark(5, 50));
        assert!(is_held(lane(5, Some(mark(5, 50)))) && is_held(lane(9, Some(mark(5, 50)))));
        assert!(!is_held(lane(4, Some(mark(4, 40)))), "ahead of the lane");
        assert!(!is_held(lane(9, Some(mark(5, 51)))) && !is_held(lane(9, Some(mark(5, 49)))));
        // The event itself was deleted.
        assert!(is_held(lane(9, Some(mark(3, 30)))) && is_held(lane(9, None)));
        assert!(!is_held(lane(9, Some(mark(3, 51)))));
        // Nothing is known of the time.
        assert!(lane(9, Some(mark(5, 50))).holds(&Mark { seq: 5, received_at: None }));
        assert!(!lane(4, None).holds(&Mark { seq: 5, received_at: None }));
    }
}
