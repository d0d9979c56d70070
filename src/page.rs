//! Page tokens: where the next page of a listing begins, as text that callers hand back unread.
//!
//! A token names the place in the listing's order, not an offset, so pages neither repeat nor skip
//! events that were there when the listing began, whatever arrives meanwhile. It also carries what it is good for: the store and the
//! filter, and a checksum against damage.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    event::{Position, Timestamp},
    store::{Filter, Place},
};

const VERSION: u8 = 1;

/// Bytes before the checksum: version, store, filter, time, lane, seq.
const BODY: usize = 1 + 16 + 8 + 8 + 2 + 8;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was not made here, or was damaged.
    #[error("is not a token of this service")]
    Garbage,
    /// It was made by another version of the program.
    #[error("was made by another version of this service; list from the start")]
    Version,
    /// It was made for another database.
    #[error("belongs to another store; list from the start")]
    Store,
    /// It was made for other fields of the request.
    #[error("belongs to a listing with other filters or another order")]
    Filter,
}

/// Makes the token for the page behind `place`.
pub fn encode(store: Uuid, filter: &Filter, place: Place) -> String {
    let mut token = Vec::with_capacity(BODY + 8);
    token.push(VERSION);
    token.extend(store.as_bytes());
    token.extend(fingerprint(filter).to_be_bytes());
    token.extend(place.received_at.as_micros().to_be_bytes());
    token.extend(place.position.lane.to_be_bytes());
    token.extend(place.position.seq.to_be_bytes());
    token.extend(xxh3_64(&token).to_be_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// Reads a token that was given back for a listing of `store` with `filter`.
pub fn decode(token: &str, store: Uuid, filter: &Filter) -> Result<Place, Error> {
    let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::Garbage)?;
    let (&version, _) = token.split_first().ok_or(Error::Garbage)?;
    let (body, checksum) = token.split_last_chunk::<8>().ok_or(Error::Garbage)?;
    if u64::from_be_bytes(*checksum) != xxh3_64(body) {
        return Err(Error::Garbage);
    }
    if version != VERSION {
        return Err(Error::Version);
    }
    let mut rest = body.get(1..).ok_or(Error::Garbage)?;
    if take::<16>(&mut rest)? != *store.as_bytes() {
        return Err(Error::Store);
    }
    if u64::from_be_bytes(take(&mut rest)?) != fingerprint(filter) {
        return Err(Error::Filter);
    }
    let received_at =
        Timestamp::from_micros(i64::from_be_bytes(take(&mut rest)?)).ok_or(Error::Garbage)?;
    let lane = u16::from_be_bytes(take(&mut rest)?);
    let seq = i64::from_be_bytes(take(&mut rest)?);
    Ok(Place { received_at, position: Position { lane, seq } })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(Error::Garbage)?;
    *rest = left;
    Ok(*taken)
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
    fn a_token_is_good_for_one_listing_of_one_store() {
        let store = Uuid::from_u128(1);
        let filter = Filter { topic: Some("a".into()), ..Filter::default() };
        let place = Place {
            received_at: Timestamp::from_micros(-7).expect("valid"),
            position: Position { lane: 3, seq: i64::MAX },
        };
        let token = encode(store, &filter, place);
        assert_eq!(decode(&token, store, &filter), Ok(place));

        assert_eq!(decode(&token, Uuid::from_u128(2), &filter), Err(Error::Store));
        let other = Filter { source: Some("a".into()), ..Filter::default() };
        assert_eq!(decode(&token, store, &other), Err(Error::Filter));
        let other = Filter { oldest_first: true, ..filter };
        assert_eq!(decode(&token, store, &other), Err(Error::Filter));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let (store, filter) = (Uuid::from_u128(1), Filter::default());
        let place = Place {
            received_at: Timestamp::from_micros(0).expect("valid"),
            position: Position { lane: 0, seq: 1 },
        };
        let token = encode(store, &filter, place);
        for length in 0..token.len() {
            assert_eq!(decode(&token[..length], store, &filter), Err(Error::Garbage), "{length}");
        }
        for (at, _) in token.char_indices() {
            let mut damaged = token.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).expect("ASCII");
            assert_eq!(decode(&damaged, store, &filter), Err(Error::Garbage), "{at}");
        }
        assert_eq!(decode("ü", store, &filter), Err(Error::Garbage));
    }
}
