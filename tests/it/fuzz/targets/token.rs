//! Cursors and page tokens: arbitrary text, and arbitrary contents with a valid checksum.

use event_aggregator::{
    cursor::Cursor,
    page,
    store::Filter,
    testing::token::{self, Kind},
};
use uuid::Uuid;

const STORE: Uuid = Uuid::from_u128(7);

pub fn run(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        opened(text);
    }
    let Some((&lanes, bytes)) = bytes.split_first() else { return };
    let text = token::seal(Kind::Cursor, STORE, bytes);
    assert_eq!(token::open(&text, Kind::Cursor, STORE).expect("sealed").body, bytes);
    if let Ok(cursor) = Cursor::decode(&text, STORE, u16::from(lanes)) {
        assert_eq!(cursor.encode(STORE), text);
        assert_eq!(cursor.marks().len(), usize::from(lanes));
        let (marks, is_in_reach) = match cursor {
            Cursor::Feed(positions) => (positions, true),
            Cursor::Event { place, heads } => (heads, is_in_reach(place, lanes.into())),
        };
        assert!(is_in_reach && marks.len() == usize::from(lanes));
        assert!(marks.iter().all(|mark| mark.seq >= 0));
    }
    // After the filter hash, which can be copied from a valid token.
    let filter = Filter { topic: Some("t".to_owned()), ..Filter::default() };
    let mark = page::encode(STORE, &filter, place(), &[]);
    let mut body = token::open(&mark, Kind::Page, STORE).expect("sealed").body[..8].to_vec();
    body.extend(bytes);
    let text = token::seal(Kind::Page, STORE, &body);
    if let Ok(start) = page::decode(&text, STORE, lanes.into(), &filter) {
        let heads = start.heads.expect("a token of this version");
        assert_eq!(page::encode(STORE, &filter, start.after, &heads), text);
        assert!(is_in_reach(start.after, 1 << 16) && !opened(&text));
    }
}

/// Whether a text is a valid token for a listing of everything; it must be invalid for any other.
fn opened(text: &str) -> bool {
    let opened = page::decode(text, STORE, 4, &Filter::default());
    let other = Filter { oldest_first: true, ..Filter::default() };
    assert!(opened.is_err() || page::decode(text, STORE, 4, &other).is_err());
    assert!(opened.is_err() || Cursor::decode(text, STORE, 4).is_err());
    opened.is_ok()
}

/// Whether a store with this many lanes can read after a place.
fn is_in_reach(place: event_aggregator::store::Place, lanes: u32) -> bool {
    (0..i64::MAX).contains(&place.position.seq) && u32::from(place.position.lane) < lanes
}

fn place() -> event_aggregator::store::Place {
    use event_aggregator::event::{Position, Timestamp};
    let position = Position { lane: 0, seq: 1 };
    event_aggregator::store::Place { received_at: Timestamp::now(), position }
}
