//! Page tokens: where the next page of a listing begins.
//!
//! A token has a place in the order of the listing instead of an offset, and the heads of the lanes
//! when the listing began. So all pages together are a snapshot, and later events are after the
//! cursors of all listed ones. A token is only valid for the listing it was issued for.

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    cursor::{read_marks, write_marks},
    event::{Position, Timestamp},
    store::{Filter, Mark, Place},
    token::{self, Kind, take},
};

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not a valid page token of this store.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// It was issued for a request with other fields.
    #[error("was issued for a listing with other filters or another order")]
    Filter,
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// After the last event of the previous page.
    pub after: Place,
    /// Heads of the lanes when the listing began, which limit it. `None` in tokens of version 1.
    pub heads: Option<Vec<Mark>>,
}

/// Encodes the token of the page after `after`, in a listing that began at these heads.
pub fn encode(store: Uuid, filter: &Filter, after: Place, heads: &[Mark]) -> String {
    let body = [&fingerprint(filter).to_be_bytes(), &*write(after), &*write_marks(heads)].concat();
    token::seal(Kind::Page, store, &body)
}

/// Decodes a token for a listing with `filter`, of a store with this many lanes.
pub fn decode(token: &str, store: Uuid, lanes: u16, filter: &Filter) -> Result<Start, Error> {
    let token::Opened { version, body } = token::open(token, Kind::Page, store)?;
    let mut rest = &*body;
    if take(&mut rest) != Some(fingerprint(filter).to_be_bytes()) {
        return Err(Error::Filter);
    }
    let after = read(&mut rest).ok_or(token::Error::Garbage)?;
    let heads = match version {
        1 => rest.is_empty().then_some(None),
        _ => read_marks(rest, lanes).map(Some),
    };
    Ok(Start { after, heads: heads.ok_or(token::Error::Garbage)? })
}

/// Encodes a place.
pub(crate) fn write(place: Place) -> Vec<u8> {
    let mut bytes = place.received_at.as_micros().to_be_bytes().to_vec();
    bytes.extend(place.position.lane.to_be_bytes());
    bytes.extend(place.position.seq.to_be_bytes());
    bytes
}

/// Decodes a place from the front of a slice.
pub(crate) fn read(rest: &mut &[u8]) -> Option<Place> {
    let received_at = Timestamp::from_micros(i64::from_be_bytes(take(rest)?))?;
    let lane = u16::from_be_bytes(take(rest)?);
    let seq = i64::from_be_bytes(take(rest)?);
    // The next number must not overflow.
    (0..i64::MAX).contains(&seq).then_some(Place { received_at, position: Position { lane, seq } })
}

fn fingerprint(filter: &Filter) -> u64 {
    let Filter { topic, source, start_time, end_time, oldest_first } = filter;
    let mut hash = Xxh3::new();
    for name in [topic, source] {
        let name = name.as_deref().unwrap_or_default();
        hash.update(&(name.len() as u64).to_be_bytes());
        hash.update(name.as_bytes());
    }
    for time in [start_time, end_time] {
        let time = time.map_or(i64::MIN, Timestamp::as_micros);
        hash.update(&time.to_be_bytes());
    }
    hash.update(&[u8::from(*oldest_first)]);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_token_is_bound_to_its_listing_and_store() {
        let store = Uuid::new_v4();
        let filter = Filter { topic: Some("a".into()), ..Filter::default() };
        let after = Place {
            received_at: Timestamp::from_micros(-7).expect("valid"),
            position: Position { lane: 3, seq: i64::MAX - 1 },
        };
        let heads = [Mark { seq: 5, received_at: Some(after.received_at) }, Mark::default()];
        let token = encode(store, &filter, after, &heads);
        let start = Start { after, heads: Some(heads.to_vec()) };
        assert_eq!(decode(&token, store, 2, &filter), Ok(start));

        assert_eq!(decode(&token, store, 3, &filter), Err(token::Error::Garbage.into()));
        let another = decode(&token, Uuid::new_v4(), 2, &filter);
        assert_eq!(another, Err(Error::Token(token::Error::Store)));
        let other = Filter { source: Some("a".into()), ..Filter::default() };
        assert_eq!(decode(&token, store, 2, &other), Err(Error::Filter));
        let other = Filter { oldest_first: true, ..filter.clone() };
        assert_eq!(decode(&token, store, 2, &other), Err(Error::Filter));
        for seq in [-1, i64::MIN, i64::MAX] {
            let nowhere = Place { position: Position { lane: 3, seq }, ..after };
            let token = encode(store, &filter, nowhere, &heads);
            assert_eq!(decode(&token, store, 2, &filter), Err(token::Error::Garbage.into()));
        }
    }

    #[test]
    fn version_1_page_tokens_are_accepted() {
        let token = "AQEAAAAAAAAAAAAAAAAAAAABqiQQlsO5FSMAAAAAAAAABwAAAAAAAAAAAANcDMcaQ8nBFg";
        let after = Place {
            received_at: Timestamp::from_micros(7).expect("valid"),
            position: Position { lane: 0, seq: 3 },
        };
        let read = decode(token, Uuid::from_u128(1), 2, &Filter::default());
        assert_eq!(read, Ok(Start { after, heads: None }));
    }
}
