//! Queries: listings, lookups by key, and counters. Every event is returned with the cursor after
//! it. Results are snapshots at the heads of the lanes, so that a subscription from that cursor
//! delivers every event that the snapshot does not contain.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use super::{Api, Error};
use crate::{
    access::{Caller, Verb},
    admission::{Permit, Reservation},
    cursor::Cursor,
    event::{Event, EventKey, Violation},
    ingest::ProcessCounters,
    limits::MAX_PAGE_BYTES,
    page::{self, Start},
    store::{self, Filter, LaneState, ListQuery, Mark, Page, Place, Stats, Store},
    token,
};

/// A request for a page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    /// Filter and order of the events.
    pub filter: Filter,
    /// Token of the page. None for the first page.
    pub page_token: Option<String>,
    /// Maximum number of events of the page.
    pub limit: usize,
}

/// A page of a listing.
#[derive(Debug)]
pub struct Listed {
    /// The events in order, each with the cursor after it.
    pub events: Vec<(Event, Cursor)>,
    /// Token of the next page, if there is one.
    pub next_page_token: Option<String>,
    /// The reserved memory of the response.
    pub reserved: Reservation,
}

/// The result of a lookup.
#[derive(Debug)]
pub struct LookedUp {
    /// The stored events, each with the cursor after it.
    pub events: Vec<(Event, Cursor)>,
    /// The keys under which no event is stored.
    pub missing: Vec<EventKey>,
    /// The reserved memory of the response.
    pub reserved: Reservation,
}

/// Counters.
#[derive(Debug)]
pub struct StatsReport {
    /// The counters of the store.
    pub stats: Stats,
    /// Uptime of the service.
    pub uptime: Duration,
    /// The counters of this process, over all topics. None if the caller may not read all topics.
    pub since_start: Option<ProcessCounters>,
}

impl Api {
    /// Returns a page of a listing. All pages are of the snapshot at the time of the first page.
    pub async fn list(&self, caller: &Caller, request: ListRequest) -> Result<Listed, Error> {
        let ListRequest { filter, page_token, limit } = request;
        if filter.start_time.zip(filter.end_time).is_some_and(|(start, end)| start > end) {
            let fault = Violation::new("end_time", "must not be before start_time");
            return Err(Error::invalid(vec![fault]));
        }
        caller.identity.demand_filtered(Verb::Read, &filter.topic)?;
        let store = &*self.store;
        let decode = |token: &str| page::decode(token, store.id(), store.lanes(), &filter);
        let (after, begun_at) =
            match page_token.as_deref().map(decode).transpose().map_err(Error::page_token)? {
                Some(Start { after, heads }) => (Some(after), heads),
                None => (None, None),
            };
        // Reserve the response only after waiting for the turn to scan.
        let turn = match filter.source {
            Some(_) => Some(self.admission.scan(&caller.key).await.ok_or_else(too_many_scans)?),
            None => None,
        };
        let reserved = self.reserve(caller).await?;
        let min_heads = begun_at.as_deref().map(store::numbers).unwrap_or_default();
        let lanes = store.heads(min_heads).await?;
        let heads = match begun_at {
            Some(heads) if store::holds(&lanes, &heads) => heads,
            Some(_) => return Err(Error::page_token(token::Error::Restored.into())),
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
            Some(turn) => scan(Arc::clone(&self.store), query, turn).await?,
            None => store.list(query).await?,
        };
        let last = page.events.last().filter(|_| page.more);
        let next_page_token =
            last.map(|last| page::encode(store.id(), &filter, Place::from(last), &heads));
        let with_cursor = |event: Event| {
            let cursor = Cursor::behind(&event, &heads);
            (event, cursor)
        };
        let events = page.events.into_iter().map(with_cursor).collect();
        Ok(Listed { events, next_page_token, reserved })
    }

    /// Returns the events with these keys, as many as fit into one response.
    pub async fn look_up(&self, caller: &Caller, keys: Vec<EventKey>) -> Result<LookedUp, Error> {
        caller.identity.demand(Verb::Read, keys.iter().map(|key| &*key.topic))?;
        let reserved = self.reserve(caller).await?;
        let heads = marks(&self.store.heads(Vec::new()).await?);
        let found = self.store.get(keys.clone(), MAX_PAGE_BYTES).await?;
        let mut missing: Vec<Option<EventKey>> = keys.into_iter().map(Some).collect();
        missing.truncate(found.reached);
        let mut events = Vec::with_capacity(found.events.len());
        for (index, event) in found.events {
            // Skip an event that was committed after the heads were read: subscriptions from the
            // cursors of this response deliver it.
            let head = heads.get(usize::from(event.position.lane));
            if head.is_some_and(|head| event.position.seq <= head.seq) {
                missing[index] = None;
                let cursor = Cursor::behind(&event, &heads);
                events.push((event, cursor));
            }
        }
        Ok(LookedUp { events, missing: missing.into_iter().flatten().collect(), reserved })
    }

    /// Returns the counters of one topic, or of all topics with details of the largest ones.
    pub async fn stats(
        &self,
        caller: &Caller,
        topic: Option<String>,
        max_topics: usize,
    ) -> Result<StatsReport, Error> {
        caller.identity.demand_filtered(Verb::Read, &topic)?;
        let stats = self.store.stats(topic, max_topics).await?;
        let may_all = caller.identity.may_all(Verb::Read);
        let since_start = may_all.then(|| self.ingest.counters());
        Ok(StatsReport { stats, uptime: self.started.elapsed(), since_start })
    }

    /// Reserves memory for the response of a listing or lookup, before anything is read.
    async fn reserve(&self, caller: &Caller) -> Result<Reservation, Error> {
        self.admission.reserve_response(&caller.key).await.map_err(Error::too_many_answers)
    }
}

/// Lists with a filter by source, for which the store has to scan.
async fn scan(store: Arc<dyn Store>, query: ListQuery, turn: Permit) -> Result<Page, store::Error> {
    // A task, because the store continues if the caller disconnects: the turn ends with the scan.
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
    store::Error::Timeout("too many concurrent listings by source".into())
}

fn marks(lanes: &[LaneState]) -> Vec<Mark> {
    lanes.iter().map(|lane| lane.head).collect()
}
