//! Reading stored events: pages of listings, and look-ups by key. Each event comes with the cursor behind
//! it, and both show the store as it was when the heads of its lanes were asked for, so that whoever
//! subscribes behind an event misses nothing that was not shown.

use std::{panic::resume_unwind, sync::Arc};

use crate::{
    access::CallerKey,
    cursor::Cursor,
    event::{Event, EventKey},
    limits::MAX_PAGE_BYTES,
    load::{Full, Permit, Reserved},
    page::{self, Start},
    service::Service,
    store::{self, Filter, Found, LaneState, ListQuery, Mark, Page, Place, Store},
    token,
};

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The page token is not good.
    #[error(transparent)]
    Token(#[from] page::Error),
    /// The caller, or all together, leave too many large answers untaken.
    #[error("{}", .0.answers())]
    TooManyAnswers(Full),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        Self::TooManyAnswers(full)
    }
}

/// One page of a listing.
#[derive(Debug)]
pub struct Listed {
    /// Its events, in order.
    pub events: Vec<Event>,
    /// The cursor behind each of them.
    pub cursors: Vec<Cursor>,
    /// The token of the next page, if there is one.
    pub next_page_token: Option<String>,
    /// For the answer.
    pub reserved: Reserved,
}

/// What a look-up found.
#[derive(Debug)]
pub struct LookedUp {
    /// See there.
    pub found: Found,
    /// The cursor behind each event that was found.
    pub cursors: Vec<Cursor>,
    /// For the answer.
    pub reserved: Reserved,
}

/// The page of a listing that `token` names, or the first one, for a caller. All pages together are what was
/// stored when the first one was asked for.
pub async fn list(
    service: &Service,
    caller: &CallerKey,
    filter: Filter,
    token: Option<&str>,
    limit: usize,
) -> Result<Listed, Error> {
    let store = &*service.store;
    let decode = |token| page::decode(token, store.id(), store.lanes(), &filter);
    let (after, begun_at) = match token.map(decode).transpose()? {
        Some(Start { after, heads }) => (Some(after), heads),
        None => (None, None),
    };
    // An answer is not reserved while the listing waits for its turn to scan.
    let turn = match filter.source {
        Some(_) => Some(service.load.scan(caller).await.ok_or_else(too_many_scans)?),
        None => None,
    };
    let reserved = service.load.listing(caller).await?;
    let asked_for = begun_at.as_deref().map(store::numbers).unwrap_or_default();
    let lanes = store.heads(asked_for).await?;
    let heads = match begun_at {
        Some(heads) if store::holds(&lanes, &heads) => heads,
        Some(_) => return Err(page::Error::from(token::Error::Restored).into()),
        None => marks(&lanes),
    };
    let query = ListQuery {
        filter: filter.clone(),
        heads: store::numbers(&heads),
        after,
        limit,
        max_bytes: MAX_PAGE_BYTES,
    };
    let page = match turn {
        Some(turn) => scan(Arc::clone(&service.store), query, turn).await?,
        None => store.list(query).await?,
    };
    let last = page.events.last().filter(|_| page.more);
    let next_page_token =
        last.map(|last| page::encode(store.id(), &filter, Place::from(last), &heads));
    let cursors = page.events.iter().map(|event| Cursor::behind(event, &heads)).collect();
    Ok(Listed { events: page.events, cursors, next_page_token, reserved })
}

/// The stored events among `keys`, as [`Store::get`] finds them, for a caller.
pub async fn look_up(
    service: &Service,
    caller: &CallerKey,
    keys: Vec<EventKey>,
) -> Result<LookedUp, Error> {
    let store = &*service.store;
    let reserved = service.load.listing(caller).await?;
    let heads = marks(&store.heads(Vec::new()).await?);
    let mut found = store.get(keys, MAX_PAGE_BYTES).await?;
    // What was committed since may have been received before the others, and is behind their cursors.
    let is_shown = |event: &Event| {
        let head = heads.get(usize::from(event.position.lane));
        head.is_some_and(|head| event.position.seq <= head.seq)
    };
    found.events.retain(|(_, event)| is_shown(event));
    let cursors = found.events.iter().map(|(_, event)| Cursor::behind(event, &heads)).collect();
    Ok(LookedUp { found, cursors, reserved })
}

/// Lists with a filter by source, which makes the store scan.
async fn scan(store: Arc<dyn Store>, query: ListQuery, turn: Permit) -> Result<Page, store::Error> {
    // The store goes on although the caller is gone, and so long it is its turn.
    let listing = tokio::spawn(async move {
        let page = store.list(query).await;
        drop(turn);
        page
    });
    match listing.await {
        Ok(page) => page,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(error) => Err(store::Error::Unavailable(error.into())),
        },
    }
}

fn too_many_scans() -> store::Error {
    store::Error::Timeout("too many listings by source at the same time".into())
}

fn marks(lanes: &[LaneState]) -> Vec<Mark> {
    lanes.iter().map(|lane| lane.head).collect()
}
