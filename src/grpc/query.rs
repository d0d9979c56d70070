//! ListEvents, GetStats and BatchGetEvents.

use prost::Message;
use tonic::{Response, Status};

use super::{
    convert::{self, Violations},
    status,
};
use crate::{
    access::{CallerKey, Identity, Verb},
    cursor::Cursor,
    event::{Name, Violation},
    limits::{
        DEFAULT_PAGE_EVENTS, DEFAULT_STATS_TOPICS, MAX_PAGE_EVENTS, MAX_REQUEST_EVENTS,
        MAX_STATS_TOPICS,
    },
    listing::{self, LookedUp},
    load::Reserved,
    proto::{
        outgoing::{BatchGetEventsResponse, ListEventsResponse},
        timestamp,
        v1::{
            BatchGetEventsRequest, EventKey, GetStatsRequest, GetStatsResponse, ListEventsRequest,
            ListOrder, TopicStats,
        },
    },
    service::Service,
    store::{self, Filter, Store},
};

pub(super) async fn list_events(
    service: &Service,
    caller: &Identity,
    key: &CallerKey,
    request: ListEventsRequest,
) -> Result<Response<ListEventsResponse>, Status> {
    demand(caller, &request.topic)?;
    let mut violations = Violations::default();
    let topic = violations.check(name("topic", request.topic));
    let source = violations.check(name("source", request.source));
    let start = violations.check(request.start_time.map(convert::time("start_time")).transpose());
    let end = violations.check(request.end_time.map(convert::time("end_time")).transpose());
    let limit = violations.check(size(
        "page_size",
        request.page_size,
        DEFAULT_PAGE_EVENTS,
        MAX_PAGE_EVENTS,
    ));
    let order = violations.check(
        ListOrder::try_from(request.order)
            .map_err(|_| Violation::new("order", "must be an order that the contract names")),
    );
    let format = violations.check(convert::payload_format(request.payload_format));
    if let (Some(Some(start)), Some(Some(end))) = (start, end)
        && start > end
    {
        violations.0.push(Violation::new("end_time", "must not be before start_time"));
    }
    let (
        Some(topic),
        Some(source),
        Some(start_time),
        Some(end_time),
        Some(limit),
        Some(order),
        Some(format),
        true,
    ) = (topic, source, start, end, limit, order, format, violations.0.is_empty())
    else {
        return Err(status::invalid(&violations.0));
    };

    let oldest_first = order == ListOrder::OldestFirst;
    let filter = Filter { topic, source, start_time, end_time, oldest_first };
    let token = Some(&*request.page_token).filter(|token| !token.is_empty());
    let listed = listing::list(service, key, filter, token, limit).await;
    let listed = listed.map_err(status::listing)?;
    let cursors = texts(&listed.cursors, &*service.store);
    let events = convert::events(listed.events, cursors, format, 0);
    let next_page_token = listed.next_page_token.unwrap_or_default();
    Ok(response(ListEventsResponse { events, next_page_token }, listed.reserved))
}

pub(super) async fn get_stats(
    store: &dyn Store,
    caller: &Identity,
    request: GetStatsRequest,
) -> Result<GetStatsResponse, Status> {
    demand(caller, &request.topic)?;
    let mut violations = Violations::default();
    let topic = violations.check(name("topic", request.topic));
    let max_topics = violations.check(size(
        "max_topics",
        request.max_topics,
        DEFAULT_STATS_TOPICS,
        MAX_STATS_TOPICS,
    ));
    let (Some(topic), Some(max_topics)) = (topic, max_topics) else {
        return Err(status::invalid(&violations.0));
    };
    let stats = store.stats(topic, max_topics).await.map_err(status::store)?;
    Ok(GetStatsResponse {
        received: stats.totals.received,
        unique_processed: stats.totals.unique_processed,
        duplicate_dropped: stats.totals.duplicate_dropped,
        conflicts: stats.totals.conflicts,
        topics_active: stats.topics_active,
        topics: stats.topics.into_iter().map(topic_stats).collect(),
        uptime: None,
        since_start: None,
    })
}

fn topic_stats(stats: store::TopicStats) -> TopicStats {
    TopicStats {
        topic: stats.topic,
        received: stats.counters.received,
        unique_processed: stats.counters.unique_processed,
        duplicate_dropped: stats.counters.duplicate_dropped,
        conflicts: stats.counters.conflicts,
        last_received_at: Some(timestamp(stats.last_received_at)),
    }
}

pub(super) async fn batch_get_events(
    service: &Service,
    caller: &Identity,
    key: &CallerKey,
    request: BatchGetEventsRequest,
) -> Result<Response<BatchGetEventsResponse>, Status> {
    let asked = request.keys.len();
    if asked == 0 {
        return Err(status::invalid(&[Violation::new("keys", "must not be empty")]));
    }
    if asked > MAX_REQUEST_EVENTS {
        let fault = format!("has {asked} keys; at most {MAX_REQUEST_EVENTS} are taken");
        return Err(status::too_large(Violation::new("keys", fault)));
    }
    let topics = request.keys.iter().map(|key| &*key.topic);
    caller.demand(Verb::Read, topics).map_err(status::access)?;
    let mut violations = Violations::default();
    let format = violations.check(convert::payload_format(request.payload_format));
    let mut keys = Vec::with_capacity(asked);
    for (index, key) in request.keys.into_iter().enumerate() {
        match convert::event_key(key) {
            Ok(key) => keys.push(key),
            Err(faults) => violations.0.extend(faults.into_iter().map(|fault| {
                Violation::new(format!("keys[{index}].{}", fault.field), fault.description)
            })),
        }
    }
    let (Some(format), true) = (format, violations.0.is_empty()) else {
        return Err(status::invalid(&violations.0));
    };

    let looked_up = listing::look_up(service, key, keys.clone()).await;
    let LookedUp { found, cursors, reserved } = looked_up.map_err(status::listing)?;
    let mut missing = vec![true; found.reached];
    for (index, _) in &found.events {
        missing[*index] = false;
    }
    let missing: Vec<EventKey> = keys
        .iter()
        .zip(missing)
        .filter(|(_, missing)| *missing)
        .map(|(key, _)| convert::key(key))
        .collect();
    let others = BatchGetEventsResponse { events: Vec::new(), missing };
    let events = found.events.into_iter().map(|(_, event)| event).collect();
    let cursors = texts(&cursors, &*service.store);
    let events = convert::events(events, cursors, format, others.encoded_len());
    Ok(response(BatchGetEventsResponse { events, ..others }, reserved))
}

/// An answer, with its permit.
fn response<T>(answer: T, reserved: Reserved) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(reserved);
    response
}

/// Cursors as text.
fn texts(cursors: &[Cursor], store: &dyn Store) -> Vec<String> {
    cursors.iter().map(|cursor| cursor.encode(store.id())).collect()
}

/// Fails unless the caller may read the topic, or all if it is empty.
fn demand(caller: &Identity, topic: &str) -> Result<(), Status> {
    let topics = Some(topic).filter(|topic| !topic.is_empty());
    caller.demand_filtered(Verb::Read, topics).map_err(status::access)
}

/// A name to filter by; empty means all.
fn name(field: &str, text: String) -> Result<Option<String>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    Name::new(field, text).map(|name| Some(name.to_string()))
}

/// A size as AIP-158 has it: zero asks for the default, too much gets the most there is.
fn size(field: &str, asked: i32, default: usize, max: usize) -> Result<usize, Violation> {
    match usize::try_from(asked) {
        Err(_) => Err(Violation::new(field, "must not be negative")),
        Ok(0) => Ok(default),
        Ok(asked) => Ok(asked.min(max)),
    }
}
