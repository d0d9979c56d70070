//! Cursors: where a reader is in the feed.
//!
//! The feed is every lane in the order of its commits, so a place in it is one number per lane. A
//! cursor never has to be compared with a clock or another lane, which is why it skips nothing.

use uuid::Uuid;

use crate::{
    event::{Event, Position},
    page,
    store::Place,
    token::{self, Kind, take},
};

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Behind the events up to these numbers, one for each lane.
    Feed(Vec<i64>),
    /// Behind one event as a listing orders them: by the time of receipt.
    Event {
        /// The event's place.
        place: Place,
        /// The heads of the lanes when it was listed. What is committed later is behind the event,
        /// although it may have been received before.
        heads: Vec<i64>,
    },
}

const FEED: u8 = 0;
const EVENT: u8 = 1;

impl Cursor {
    /// As text that readers hand back unread.
    pub fn encode(&self, store: Uuid) -> String {
        let body = match self {
            Self::Feed(positions) => {
                let mut body = vec![FEED];
                body.extend(positions.iter().flat_map(|position| position.to_be_bytes()));
                body
            }
            Self::Event { place, heads } => {
                let mut body = vec![EVENT];
                body.extend(page::write(*place));
                body.extend(heads.iter().flat_map(|head| head.to_be_bytes()));
                body
            }
        };
        token::seal(Kind::Cursor, store, &body)
    }

    /// Reads a cursor that was given back to a store with so many lanes.
    pub fn decode(text: &str, store: Uuid, lanes: u16) -> Result<Self, token::Error> {
        let body = token::open(text, Kind::Cursor, store)?;
        let mut rest = &*body;
        match take(&mut rest) {
            Some([FEED]) => numbers(rest, lanes).map(Self::Feed),
            Some([EVENT]) => {
                let place = page::read(&mut rest).filter(|place| place.position.lane < lanes);
                place.zip(numbers(rest, lanes)).map(|(place, heads)| Self::Event { place, heads })
            }
            _ => None,
        }
        .ok_or(token::Error::Garbage)
    }
}

/// One number for each lane.
fn numbers(bytes: &[u8], lanes: u16) -> Option<Vec<i64>> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let numbers: Vec<i64> = numbers.iter().map(|bytes| i64::from_be_bytes(*bytes)).collect();
    let is_valid = numbers.len() == usize::from(lanes) && numbers.iter().all(|&number| number >= 0);
    is_valid.then_some(numbers)
}

/// The cursor behind each of some listed events. `heads` are those of before the events were read.
pub fn of_listed(events: &[Event], mut heads: Vec<i64>) -> Vec<Cursor> {
    for Position { lane, seq } in events.iter().map(|event| event.position) {
        // What was read is not to come again.
        heads[usize::from(lane)] = seq.max(heads[usize::from(lane)]);
    }
    let cursor = |event| Cursor::Event { place: Place::from(event), heads: heads.clone() };
    events.iter().map(cursor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Timestamp,
        limits::{EVENT_ENVELOPE_BYTES, MAX_LANES, MAX_NAME_BYTES},
    };

    #[test]
    fn the_longest_cursor_fits_an_event() {
        let position = Position { lane: 0, seq: i64::MAX };
        let place = Place { received_at: Timestamp::now(), position };
        let cursor = Cursor::Event { place, heads: vec![i64::MAX; MAX_LANES] };
        // Each name with its tag and length; as much as two times, a tag and a length each have.
        let others = 3 * (MAX_NAME_BYTES + 3) + 2 * 19 + 2 * 5;
        assert!(cursor.encode(Uuid::nil()).len() + 3 + others <= EVENT_ENVELOPE_BYTES);
    }

    #[test]
    fn cursors_survive_the_way_there_and_back() {
        let store = Uuid::from_u128(1);
        let place = Place {
            received_at: Timestamp::from_micros(7).expect("valid"),
            position: Position { lane: 1, seq: 9 },
        };
        for cursor in [Cursor::Feed(vec![0, i64::MAX]), Cursor::Event { place, heads: vec![7, 9] }]
        {
            let text = cursor.encode(store);
            assert_eq!(Cursor::decode(&text, store, 2), Ok(cursor.clone()));
            assert_eq!(Cursor::decode(&text, store, 1), Err(token::Error::Garbage));
            assert_eq!(Cursor::decode(&text, Uuid::nil(), 2), Err(token::Error::Store));
        }
        let negative = Cursor::Feed(vec![0, -1]).encode(store);
        assert_eq!(Cursor::decode(&negative, store, 2), Err(token::Error::Garbage));
    }
}
