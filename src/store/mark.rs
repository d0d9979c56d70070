//! Marks, which tell whether a lane still has the events that a cursor has passed.

use crate::event::{Event, Timestamp};

/// A number in a lane, and the time when its event was received. After a restore to an earlier
/// state, the number belongs to another event with another time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number; 0 is before the first event.
    pub seq: i64,
    /// When the event was received; `None` if there is no event, or if the time is not known.
    pub received_at: Option<Timestamp>,
}

impl From<&Event> for Mark {
    fn from(event: &Event) -> Self {
        Self { seq: event.position.seq, received_at: Some(event.received_at) }
    }
}

/// The state of a lane at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneState {
    /// The last number that was assigned. All events up to it are committed.
    pub head: Mark,
    /// The last stored event up to the requested number.
    pub found: Option<Mark>,
}

impl LaneState {
    /// Whether the lane still has the event of `mark`, whose number was requested. If that event
    /// was deleted, the one before it counts, which cannot be later.
    pub fn holds(&self, mark: &Mark) -> bool {
        let is_same = match (mark.received_at, self.found) {
            (Some(then), Some(found)) if found.seq == mark.seq => found.received_at == Some(then),
            (Some(then), Some(found)) => found.received_at <= Some(then),
            _ => true,
        };
        mark.seq <= self.head.seq && is_same
    }
}

/// Whether each lane still has the event of its mark. If not, the database was restored to an
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
    fn mark_holds_while_its_event_exists() {
        let mark = |seq, micros| Mark { seq, received_at: Timestamp::from_micros(micros) };
        let lane = |head, found| LaneState { head: mark(head, 90), found };
        let is_held = |lane: LaneState| lane.holds(&mark(5, 50));
        assert!(is_held(lane(5, Some(mark(5, 50)))) && is_held(lane(9, Some(mark(5, 50)))));
        assert!(!is_held(lane(4, Some(mark(4, 40)))), "ahead of the lane");
        assert!(!is_held(lane(9, Some(mark(5, 51)))) && !is_held(lane(9, Some(mark(5, 49)))));
        // The event itself was deleted.
        assert!(is_held(lane(9, Some(mark(3, 30)))) && is_held(lane(9, None)));
        assert!(!is_held(lane(9, Some(mark(3, 51)))));
        // The time is not known.
        assert!(lane(9, Some(mark(5, 50))).holds(&Mark { seq: 5, received_at: None }));
        assert!(!lane(4, None).holds(&Mark { seq: 5, received_at: None }));
    }
}
