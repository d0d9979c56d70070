//! Cursors: where a reader is in the feed.
//!
//! The feed is every lane in the order of its commits, so a place in it is one number per lane. A
//! cursor never has to be compared with a clock or another lane, which is why it skips nothing. Beside
//! each number it has the time of that event, which tells whether the store was restored to an earlier
//! state meanwhile and has given the number to another event.

use uuid::Uuid;

use crate::{
    event::{Event, Timestamp},
    page,
    store::{Mark, Place},
    token::{self, Kind, take},
};

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Behind the events up to these, one for each lane.
    Feed(Vec<Mark>),
    /// Behind one event as a listing orders them: by the time of receipt.
    Event {
        /// The event's place.
        place: Place,
        /// The heads of the lanes when the listing began. What is committed later is behind the event,
        /// although it may have been received before.
        heads: Vec<Mark>,
    },
}

const FEED: u8 = 0;
const EVENT: u8 = 1;

impl Cursor {
    /// The cursor behind an event that was looked at when the lanes had these heads.
    pub fn behind(event: &Event, heads: &[Mark]) -> Self {
        Self::Event { place: Place::from(event), heads: heads.to_vec() }
    }

    /// As text that readers hand back unread.
    pub fn encode(&self, store: Uuid) -> String {
        let body = match self {
            Self::Feed(positions) => [&[FEED], &*write_marks(positions)].concat(),
            Self::Event { place, heads } => {
                [&[EVENT], &*page::write(*place), &*write_marks(heads)].concat()
            }
        };
        token::seal(Kind::Cursor, store, &body)
    }

    /// Reads a cursor that was given back to a store with so many lanes.
    pub fn decode(text: &str, store: Uuid, lanes: u16) -> Result<Self, token::Error> {
        let token::Opened { version, body } = token::open(text, Kind::Cursor, store)?;
        let marks = |bytes| match version {
            1 => read_numbers(bytes, lanes),
            _ => read_marks(bytes, lanes),
        };
        let mut rest = &*body;
        match take(&mut rest) {
            Some([FEED]) => marks(rest).map(Self::Feed),
            Some([EVENT]) => {
                let place = page::read(&mut rest).filter(|place| place.position.lane < lanes);
                place.zip(marks(rest)).map(|(place, heads)| Self::Event { place, heads })
            }
            _ => None,
        }
        .ok_or(token::Error::Garbage)
    }

    /// What the store must still have for the cursor to be good.
    pub fn marks(&self) -> Vec<Mark> {
        match self {
            Self::Feed(positions) => positions.clone(),
            Self::Event { place, heads } => {
                let mut marks = heads.clone();
                // A forged cursor, or one of version 1, may have its event behind the head.
                if let Some(mark) = marks.get_mut(usize::from(place.position.lane))
                    && mark.seq <= place.position.seq
                {
                    let received_at = Some(place.received_at).filter(|_| place.position.seq > 0);
                    *mark = Mark { seq: place.position.seq, received_at };
                }
                marks
            }
        }
    }
}

/// The time of a mark that has none, which is no time.
const NO_TIME: i64 = i64::MIN;

/// Marks as bytes.
pub(crate) fn write_marks(marks: &[Mark]) -> Vec<u8> {
    let time = |mark: &Mark| mark.received_at.map_or(NO_TIME, Timestamp::as_micros);
    marks.iter().flat_map(|mark| [mark.seq, time(mark)]).flat_map(i64::to_be_bytes).collect()
}

/// One mark for each lane.
pub(crate) fn read_marks(bytes: &[u8], lanes: u16) -> Option<Vec<Mark>> {
    let (marks, []) = bytes.as_chunks::<16>() else { return None };
    let mark = |mut bytes: &[u8]| {
        let seq = i64::from_be_bytes(take(&mut bytes)?);
        #[cfg(feature = "planted-bugs")]
        if crate::planted::is(crate::planted::Bug::CursorUnmarked) {
            return Some(Mark { seq, received_at: None });
        }
        let received_at = match i64::from_be_bytes(take(&mut bytes)?) {
            NO_TIME => None,
            micros => Some(Timestamp::from_micros(micros)?),
        };
        Some(Mark { seq, received_at })
    };
    let marks: Vec<Mark> = marks.iter().map(|bytes| mark(bytes)).collect::<Option<_>>()?;
    are_valid(&marks, lanes).then_some(marks)
}

/// One number for each lane, as version 1 has them.
fn read_numbers(bytes: &[u8], lanes: u16) -> Option<Vec<Mark>> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let mark = |bytes: &[u8; 8]| Mark { seq: i64::from_be_bytes(*bytes), received_at: None };
    let marks: Vec<Mark> = numbers.iter().map(mark).collect();
    are_valid(&marks, lanes).then_some(marks)
}

fn are_valid(marks: &[Mark], lanes: u16) -> bool {
    marks.len() == usize::from(lanes) && marks.iter().all(|mark| mark.seq >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Position,
        limits::{EVENT_ENVELOPE_BYTES, MAX_LANES, MAX_NAME_BYTES},
    };

    #[test]
    fn the_longest_cursor_fits_an_event() {
        let position = Position { lane: 0, seq: i64::MAX };
        let place = Place { received_at: Timestamp::now(), position };
        let head = Mark { seq: i64::MAX, received_at: Some(Timestamp::now()) };
        let cursor = Cursor::Event { place, heads: vec![head; MAX_LANES] };
        // Each name with its tag and length; as much as two times, a tag and a length each have.
        let others = 3 * (MAX_NAME_BYTES + 3) + 2 * 19 + 2 * 5;
        assert!(cursor.encode(Uuid::nil()).len() + 3 + others <= EVENT_ENVELOPE_BYTES);
    }

    fn mark(seq: i64, micros: i64) -> Mark {
        Mark { seq, received_at: Timestamp::from_micros(micros) }
    }

    #[test]
    fn cursors_survive_the_way_there_and_back() {
        let store = Uuid::new_v4();
        let place = Place {
            received_at: Timestamp::from_micros(7).expect("valid"),
            position: Position { lane: 1, seq: 9 },
        };
        let marks = vec![Mark::default(), mark(i64::MAX, -1)];
        for cursor in [Cursor::Feed(marks.clone()), Cursor::Event { place, heads: marks }] {
            let text = cursor.encode(store);
            assert_eq!(Cursor::decode(&text, store, 2), Ok(cursor.clone()));
            assert_eq!(Cursor::decode(&text, store, 1), Err(token::Error::Garbage));
            assert_eq!(Cursor::decode(&text, Uuid::new_v4(), 2), Err(token::Error::Store));
        }
        let negative = Cursor::Feed(vec![mark(0, 0), mark(-1, 0)]).encode(store);
        assert_eq!(Cursor::decode(&negative, store, 2), Err(token::Error::Garbage));
    }

    #[test]
    fn cursors_of_version_1_are_read() {
        let store = Uuid::from_u128(1);
        // Behind the events 5 and 0 of two lanes, and behind event 3 of the second, received at 7.
        let feed = "AgEAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAFAAAAAAAAAAAxsFSIFH0gUw";
        let event =
            "AgEAAAAAAAAAAAAAAAAAAAABAQAAAAAAAAAHAAEAAAAAAAAAAwAAAAAAAAAFAAAAAAAAAANEbGtTmQEyOw";
        let number = |seq| Mark { seq, received_at: None };
        let expected = Cursor::Feed(vec![number(5), number(0)]);
        assert_eq!(Cursor::decode(feed, store, 2), Ok(expected));
        let cursor = Cursor::decode(event, store, 2).expect("a cursor");
        assert_eq!(cursor.marks(), [number(5), mark(3, 7)]);
    }
}
