//! Opaque tokens, which clients return unchanged: URL-safe text with its kind, its database and a
//! checksum.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// Kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A page token.
    Page = 1,
    /// A cursor.
    Cursor = 2,
}

/// Version of new tokens. Tokens of version 1 are still accepted, because cursors are stored for
/// years.
const VERSION: u8 = 2;

/// Bytes of a store id that remain when a restore is declared: see [`restored`].
const LINEAGE_BYTES: usize = 8;

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is damaged, was not issued by this service, or is of another kind.
    #[error("is invalid: damaged, or not issued by this service for this use")]
    Garbage,
    /// It was issued by another version of the program.
    #[error("was issued by an unsupported version of this service; start from the beginning")]
    Version,
    /// It was issued for another database.
    #[error("belongs to another database; start from the beginning")]
    Store,
    /// It was issued before the database was restored to an earlier state.
    #[error(
        "was issued before the database was restored to an earlier state: events before it may be \
         missing or replaced; start from the beginning, or from a time"
    )]
    Restored,
}

/// The contents of a token.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// Version of the token, from 1.
    pub version: u8,
    /// Contents.
    pub body: Vec<u8>,
}

/// A new id for a restored store, which is still recognized as related to the old one.
pub(crate) fn restored(store: Uuid) -> Uuid {
    let mut id = *Uuid::new_v4().as_bytes();
    id[..LINEAGE_BYTES].copy_from_slice(&store.as_bytes()[..LINEAGE_BYTES]);
    Uuid::from_bytes(id)
}

/// Encodes a token.
pub fn seal(kind: Kind, store: Uuid, body: &[u8]) -> String {
    let mut token = Vec::with_capacity(2 + 16 + body.len() + 8);
    token.extend([kind as u8, VERSION]);
    token.extend(store.as_bytes());
    token.extend(body);
    token.extend(xxh3_64(&token).to_be_bytes());
    URL_SAFE_NO_PAD.encode(token)
}

/// Decodes a token of this kind for this store.
pub fn open(token: &str, kind: Kind, store: Uuid) -> Result<Opened, Error> {
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
    if !(1..=VERSION).contains(&version) {
        return Err(Error::Version);
    }
    let of_store = take::<16>(&mut rest).ok_or(Error::Garbage)?;
    if of_store == *store.as_bytes() {
        return Ok(Opened { version, body: rest.to_vec() });
    }
    let is_related = of_store[..LINEAGE_BYTES] == store.as_bytes()[..LINEAGE_BYTES];
    Err(if is_related { Error::Restored } else { Error::Store })
}

/// Splits `N` bytes off the front, if there are as many.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let store = Uuid::new_v4();
        let token = seal(Kind::Page, store, b"body");
        let opened = Opened { version: VERSION, body: b"body".to_vec() };
        assert_eq!(open(&token, Kind::Page, store), Ok(opened));
        assert_eq!(open(&token, Kind::Cursor, store), Err(Error::Garbage));
        assert_eq!(open(&token, Kind::Page, Uuid::new_v4()), Err(Error::Store));
        let restored = restored(store);
        assert_ne!(restored, store);
        assert_eq!((restored.get_version_num(), restored.get_variant()), (4, store.get_variant()));
        assert_eq!(open(&token, Kind::Page, restored), Err(Error::Restored));
    }

    #[test]
    fn unknown_versions_are_rejected() {
        let store = Uuid::new_v4();
        let sealed = URL_SAFE_NO_PAD.decode(seal(Kind::Cursor, store, b"body")).expect("base64");
        let of_version = |version| {
            let mut token = sealed[..sealed.len() - 8].to_vec();
            token[1] = version;
            token.extend(xxh3_64(&token).to_be_bytes());
            open(&URL_SAFE_NO_PAD.encode(token), Kind::Cursor, store)
        };
        for version in [1, VERSION] {
            assert_eq!(of_version(version), Ok(Opened { version, body: b"body".to_vec() }));
        }
        for version in [0, VERSION + 1] {
            assert_eq!(of_version(version), Err(Error::Version));
        }
    }

    #[test]
    fn damaged_tokens_are_rejected() {
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
