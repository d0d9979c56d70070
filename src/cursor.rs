//! Cursors: positions in the feed.
//!
//! A cursor has one number per lane, because each lane is ordered by its commits. It is never
//! compared with a clock or with another lane, so it skips no event. Next to each number it has the
//! time of that event, which tells whether the database was restored to an earlier state and has
//! given the number to another event.

use uuid::Uuid;

use crate::{
    event::{Event, Timestamp},
    page,
    store::{Mark, Place},
    token::{self, Kind, take},
};

/// A position in the feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// After the events up to these marks, one per lane.
    Feed(Vec<Mark>),
    /// After one event in the order of a listing, which is by time of receipt.
    Event {
        /// Place of the event.
        place: Place,
        /// Heads of the lanes when the listing began. Events committed later are after the cursor,
        /// even if they were received before the event.
        heads: Vec<Mark>,
    },
}

const FEED: u8 = 0;
const EVENT: u8 = 1;

impl Cursor {
    /// The cursor after an event that was listed when the lanes had these heads.
    pub fn behind(event: &Event, heads: &[Mark]) -> Self {
        Self::Event { place: Place::from(event), heads: heads.to_vec() }
    }

    /// Encodes the cursor as opaque text.
    pub fn encode(&self, store: Uuid) -> String {
        let body = match self {
            Self::Feed(positions) => [&[FEED], &*write_marks(positions)].concat(),
            Self::Event { place, heads } => {
                [&[EVENT], &*page::write(*place), &*write_marks(heads)].concat()
            }
        };
        token::seal(Kind::Cursor, store, &body)
    }

    /// Decodes a cursor of a store with this many lanes.
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

    /// The marks that the store must still have for the cursor to be valid.
    pub fn marks(&self) -> Vec<Mark> {
        match self {
            Self::Feed(positions) => positions.clone(),
            Self::Event { place, heads } => {
                let mut marks = heads.clone();
                // The event of a forged cursor, or of one of version 1, may be after the head.
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

/// Encoding of a mark without a time.
const NO_TIME: i64 = i64::MIN;

/// Encodes marks.
pub(crate) fn write_marks(marks: &[Mark]) -> Vec<u8> {
    let time = |mark: &Mark| mark.received_at.map_or(NO_TIME, Timestamp::as_micros);
    marks.iter().flat_map(|mark| [mark.seq, time(mark)]).flat_map(i64::to_be_bytes).collect()
}

/// Decodes one mark per lane.
pub(crate) fn read_marks(bytes: &[u8], lanes: u16) -> Option<Vec<Mark>> {
    let (marks, []) = bytes.as_chunks::<16>() else { return None };
    let mark = |mut bytes: &[u8]| {
        let seq = i64::from_be_bytes(take(&mut bytes)?);
        let received_at = match i64::from_be_bytes(take(&mut bytes)?) {
            NO_TIME => None,
            micros => Some(Timestamp::from_micros(micros)?),
        };
        Some(Mark { seq, received_at })
    };
    let marks: Vec<Mark> = marks.iter().map(|bytes| mark(bytes)).collect::<Option<_>>()?;
    are_valid(&marks, lanes).then_some(marks)
}

/// Decodes one number per lane, the format of version 1.
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
    fn longest_cursor_fits_in_the_event_envelope() {
        let position = Position { lane: 0, seq: i64::MAX };
        let place = Place { received_at: Timestamp::now(), position };
        let head = Mark { seq: i64::MAX, received_at: Some(Timestamp::now()) };
        let cursor = Cursor::Event { place, heads: vec![head; MAX_LANES] };
        // Each name with a tag and a length, two times, and a tag and a length for each of them.
        let others = 3 * (MAX_NAME_BYTES + 3) + 2 * 19 + 2 * 5;
        assert!(cursor.encode(Uuid::nil()).len() + 3 + others <= EVENT_ENVELOPE_BYTES);
    }

    fn mark(seq: i64, micros: i64) -> Mark {
        Mark { seq, received_at: Timestamp::from_micros(micros) }
    }

    #[test]
    fn cursors_round_trip() {
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
    fn version_1_cursors_are_accepted() {
        let store = Uuid::from_u128(1);
        // After events 5 and 0 of two lanes, and after event 3 of the second, received at 7.
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
