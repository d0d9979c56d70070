//! ListEvents, GetStats and BatchGetEvents.

use prost::Message;
use tonic::Response;

use super::convert;
use crate::{
    access::Caller,
    admission::Reservation,
    api::{Api, Error, ListRequest, StatsReport},
    event::{Name, Violation, Violations},
    limits::{
        DEFAULT_PAGE_EVENTS, DEFAULT_STATS_TOPICS, MAX_PAGE_EVENTS, MAX_REQUEST_EVENTS,
        MAX_STATS_TOPICS,
    },
    proto::{
        timestamp,
        v1::{
            BatchGetEventsRequest, GetStatsRequest, GetStatsResponse, ListEventsRequest, ListOrder,
            TopicStats,
        },
        wire::{BatchGetEventsResponse, ListEventsResponse},
    },
    store::{self, Filter},
};

pub(super) async fn list_events(
    api: &Api,
    caller: &Caller,
    request: ListEventsRequest,
) -> Result<Response<ListEventsResponse>, Error> {
    let mut violations = Violations::default();
    let topic = violations.check(name("topic", request.topic)).flatten();
    let source = violations.check(name("source", request.source)).flatten();
    let start = request.start_time.map(convert::time("start_time")).transpose();
    let end = request.end_time.map(convert::time("end_time")).transpose();
    let start_time = violations.check(start).flatten();
    let end_time = violations.check(end).flatten();
    let limit = size("page_size", request.page_size, DEFAULT_PAGE_EVENTS, MAX_PAGE_EVENTS);
    let limit = violations.check(limit).unwrap_or_default();
    let order = ListOrder::try_from(request.order);
    let order = order.map_err(|_| Violation::new("order", "is not a known order"));
    let oldest_first = violations.check(order) == Some(ListOrder::OldestFirst);
    let format = violations.check(convert::payload_format(request.payload_format));
    Error::check(violations)?;

    let filter = Filter { topic, source, start_time, end_time, oldest_first };
    let page_token = Some(request.page_token).filter(|token| !token.is_empty());
    let listed = api.list(caller, ListRequest { filter, page_token, limit }).await?;
    let events = convert::events(listed.events, api.store.id(), format.unwrap_or_default(), 0);
    let next_page_token = listed.next_page_token.unwrap_or_default();
    Ok(response(ListEventsResponse { events, next_page_token }, listed.reserved))
}

pub(super) async fn get_stats(
    api: &Api,
    caller: &Caller,
    request: GetStatsRequest,
) -> Result<GetStatsResponse, Error> {
    let mut violations = Violations::default();
    let topic = violations.check(name("topic", request.topic)).flatten();
    let max_topics = size("max_topics", request.max_topics, DEFAULT_STATS_TOPICS, MAX_STATS_TOPICS);
    let max_topics = violations.check(max_topics).unwrap_or_default();
    Error::check(violations)?;

    let StatsReport { stats, uptime, since_start } = api.stats(caller, topic, max_topics).await?;
    Ok(GetStatsResponse {
        received: stats.totals.received,
        unique_processed: stats.totals.unique_processed,
        duplicate_dropped: stats.totals.duplicate_dropped,
        conflicts: stats.totals.conflicts,
        topics_active: stats.topics_active,
        topics: stats.topics.into_iter().map(topic_stats).collect(),
        uptime: Some(convert::duration(uptime)),
        since_start: since_start.map(convert::process_stats),
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
    api: &Api,
    caller: &Caller,
    request: BatchGetEventsRequest,
) -> Result<Response<BatchGetEventsResponse>, Error> {
    let count = request.keys.len();
    if count == 0 {
        return Err(Error::invalid(vec![Violation::new("keys", "must not be empty")]));
    }
    if count > MAX_REQUEST_EVENTS {
        let fault = format!("has {count} keys; the limit is {MAX_REQUEST_EVENTS} per request");
        return Err(Error::too_large(Violation::new("keys", fault)));
    }
    let mut violations = Violations::default();
    let format = violations.check(convert::payload_format(request.payload_format));
    let keys = request.keys.into_iter().enumerate();
    let keys = keys
        .filter_map(|(index, key)| {
            convert::event_key(key, &format!("keys[{index}]."), &mut violations)
        })
        .collect();
    Error::check(violations)?;

    let found = api.look_up(caller, keys).await?;
    let missing = found.missing.iter().map(convert::key).collect();
    let others = BatchGetEventsResponse { events: Vec::new(), missing };
    let (store, format) = (api.store.id(), format.unwrap_or_default());
    let events = convert::events(found.events, store, format, others.encoded_len());
    Ok(response(BatchGetEventsResponse { events, ..others }, found.reserved))
}

/// A response, with its permit.
fn response<T>(message: T, reserved: Reservation) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(reserved);
    response
}

/// Decodes a filter. An empty name means no filter.
fn name(field: &str, text: String) -> Result<Option<String>, Violation> {
    if text.is_empty() {
        return Ok(None);
    }
    Name::new(field, text).map(|name| Some(name.into_string()))
}

/// Decodes a size as in [AIP-158](https://google.aip.dev/158): zero means the default, and values
/// above the maximum mean the maximum.
fn size(field: &str, size: i32, default: usize, max: usize) -> Result<usize, Violation> {
    match usize::try_from(size) {
        Err(_) => Err(Violation::new(field, "must not be negative")),
        Ok(0) => Ok(default),
        Ok(size) => Ok(size.min(max)),
    }
}
