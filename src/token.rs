//! Opaque tokens: what callers are given to hand back unread. URL-safe text that says what it is,
//! which database it belongs to, and whether it was damaged.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A place in a listing.
    Page = 1,
    /// A place in the feed.
    Cursor = 2,
}

/// The version of all tokens.
const VERSION: u8 = 1;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It was not made here, or for something else, or was damaged.
    #[error("was not made by this service for this use, or was damaged")]
    Garbage,
    /// It was made by another version of the program.
    #[error("was made by another version of this service; begin from the start")]
    Version,
    /// It was made for another database.
    #[error("belongs to another store; begin from the start")]
    Store,
}

/// Makes a token.
pub fn seal(kind: Kind, store: Uuid, body: &[u8]) -> String {
    let mut token = Vec::with_capacity(2 + 16 + body.len() + 8);
    token.extend([kind as u8, VERSION]);
    token.extend(store.as_bytes());
    token.extend(body);
    token.extend(xxh3_64(&token).to_be_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// What was sealed in a token of this kind for this store.
pub fn open(token: &str, kind: Kind, store: Uuid) -> Result<Vec<u8>, Error> {
    let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::Garbage)?;
    let (sealed, checksum) = token.split_last_chunk::<8>().ok_or(Error::Garbage)?;
    if u64::from_be_bytes(*checksum) != xxh3_64(sealed) {
        return Err(Error::Garbage);
    }
    let mut rest = sealed;
    let [of_kind, version] = take(&mut rest).ok_or(Error::Garbage)?;
    if of_kind != kind as u8 {
        return Err(Error::Garbage);
    }
    if version != VERSION {
        return Err(Error::Version);
    }
    match take::<16>(&mut rest) {
        Some(of_store) if of_store == *store.as_bytes() => Ok(rest.to_vec()),
        Some(_) => Err(Error::Store),
        None => Err(Error::Garbage),
    }
}

/// Takes so many bytes off the front, if there are so many.
pub fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_comes_out_again() {
        let store = Uuid::from_u128(1);
        let token = seal(Kind::Page, store, b"body");
        assert_eq!(open(&token, Kind::Page, store).as_deref(), Ok(&b"body"[..]));
        assert_eq!(open(&token, Kind::Cursor, store), Err(Error::Garbage));
        assert_eq!(open(&token, Kind::Page, Uuid::from_u128(2)), Err(Error::Store));
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let store = Uuid::from_u128(1);
        let token = seal(Kind::Page, store, b"body");
        let opened = |token: &str| open(token, Kind::Page, store);
        for length in 0..token.len() {
            assert_eq!(opened(&token[..length]), Err(Error::Garbage), "{length}");
        }
        for (at, _) in token.char_indices() {
            let mut damaged = token.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(damaged).expect("ASCII");
            assert_eq!(opened(&damaged), Err(Error::Garbage), "{at}");
        }
        assert_eq!(opened("ü"), Err(Error::Garbage));
    }
}
