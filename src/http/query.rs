//! `GET /events`, `/events/{topic}/{event_id}` and `/stats`.

use axum::{
    Extension, Json,
    extract::{OriginalUri, Path, State, rejection::PathRejection},
    http::header::LINK,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    access::{Authentication, Caller},
    error::Error,
    event::Given,
    parameters::Parameters,
};
use crate::{
    access::Verb,
    cursor::Cursor,
    event::{Event, EventKey, Name, Timestamp, Violation},
    limits::{MAX_PAGE_EVENTS, MAX_STATS_TOPICS},
    listing::{self, LookedUp},
    service::Service,
    store::{Counters, Filter, TopicStats},
};

/// Events of a page when the caller names no limit.
const DEFAULT_LIMIT: usize = 10;

pub(super) async fn list(
    Caller(caller): Caller,
    authentication: Authentication,
    State(service): State<Service>,
    OriginalUri(uri): OriginalUri,
    Parameters(parameters): Parameters,
) -> Result<Response, Error> {
    let mut filter = Filter::default();
    let mut limit = DEFAULT_LIMIT;
    let mut page_token = None;
    let mut violations = Vec::new();
    for (name, value) in &parameters {
        let mut check = || {
            match &**name {
                "topic" => filter.topic = Some(checked_name(name, value)?),
                "source" => filter.source = Some(checked_name(name, value)?),
                "start_time" => filter.start_time = Some(time(name, value)?),
                "end_time" => filter.end_time = Some(time(name, value)?),
                "limit" => limit = size(name, value, MAX_PAGE_EVENTS)?,
                "order" => filter.oldest_first = is_oldest_first(name, value)?,
                "page_token" => page_token = Some(value),
                _ => {
                    return Err(unknown(
                        name,
                        "topic, source, start_time, end_time, limit, order, page_token",
                    ));
                }
            }
            Ok(())
        };
        violations.extend(check().err());
    }
    if filter.start_time.zip(filter.end_time).is_some_and(|(start, end)| start > end) {
        violations.push(Violation::new("end_time", "must not be before start_time"));
    }
    if !violations.is_empty() {
        return Err(Error::invalid(violations));
    }
    caller.demand_filtered(Verb::Read, &filter.topic).map_err(Error::access)?;
    let token = page_token.map(|token| &**token);
    let listed = listing::list(&service, authentication.key(), filter, token, limit).await;
    let listed = listed.map_err(Error::listing)?;
    let next = listed.next_page_token;
    let next = next.map(|token| next_page(uri.path(), &parameters, &token));
    let events = given(listed.events, &listed.cursors, &service)?;
    Ok(match next {
        Some(next) => (Extension(listed.reserved), [(LINK, next)], Json(events)).into_response(),
        None => (Extension(listed.reserved), Json(events)).into_response(),
    })
}

/// The `Link` header with the address of the next page.
fn next_page(path: &str, parameters: &[(String, String)], token: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter(|(name, _)| name != "page_token"));
    query.append_pair("page_token", token);
    format!("<{path}?{}>; rel=\"next\"", query.finish())
}

fn given(events: Vec<Event>, cursors: &[Cursor], service: &Service) -> Result<Vec<Given>, Error> {
    let given = events.into_iter().zip(cursors);
    given
        .map(|(event, cursor)| Given::new(event, cursor.encode(service.store.id())))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::internal())
}

fn size(field: &str, value: &str, most: usize) -> Result<usize, Violation> {
    match value.parse() {
        Ok(asked @ 1..) => Ok(most.min(asked)),
        _ => Err(Violation::new(field, "must be a whole number from 1")),
    }
}

fn is_oldest_first(field: &str, value: &str) -> Result<bool, Violation> {
    match value {
        "newest" => Ok(false),
        "oldest" => Ok(true),
        _ => Err(Violation::new(field, "must be newest or oldest")),
    }
}

/// What is wrong with a parameter that a call does not have.
pub(super) fn unknown(field: &str, known: &str) -> Violation {
    Violation::new(field, format!("is no parameter of this call; it has {known}"))
}

fn checked_name(field: &str, value: &str) -> Result<String, Violation> {
    Name::new(field, value.to_owned()).map(Name::into_string)
}

fn time(field: &str, value: &str) -> Result<Timestamp, Violation> {
    value.parse().map_err(|fault: String| Violation::new(field, fault))
}

pub(super) async fn event(
    Caller(caller): Caller,
    authentication: Authentication,
    State(service): State<Service>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Error> {
    let not_text = |_| Error::invalid(vec![Violation::new("path", "must be UTF-8")]);
    let Path((topic, event_id)) = path.map_err(not_text)?;
    let mut violations = Vec::new();
    let mut name = |field, text: String| {
        Name::new(field, text).map_err(|violation| violations.push(violation)).ok()
    };
    let (Some(topic), Some(event_id)) = (name("topic", topic), name("event_id", event_id)) else {
        return Err(Error::invalid(violations));
    };
    caller.demand(Verb::Read, [&*topic]).map_err(Error::access)?;
    let keys = vec![EventKey { topic, event_id }];
    let looked_up = listing::look_up(&service, authentication.key(), keys).await;
    let LookedUp { found, cursors, reserved } = looked_up.map_err(Error::listing)?;
    let events = found.events.into_iter().map(|(_, event)| event).collect();
    match given(events, &cursors, &service)?.pop() {
        Some(event) => Ok((Extension(reserved), Json(event)).into_response()),
        None => Err(Error::not_found("no event is stored under this topic and event_id")),
    }
}

pub(super) async fn stats(
    Caller(caller): Caller,
    State(service): State<Service>,
    Parameters(parameters): Parameters,
) -> Result<Json<Value>, Error> {
    let mut topic = None;
    let mut max_topics = MAX_STATS_TOPICS;
    let mut violations = Vec::new();
    for (name, value) in parameters {
        let mut check = || {
            match &*name {
                "topic" => topic = Some(checked_name(&name, &value)?),
                "max_topics" => max_topics = size(&name, &value, MAX_STATS_TOPICS)?,
                _ => return Err(unknown(&name, "topic, max_topics")),
            }
            Ok(())
        };
        violations.extend(check().err());
    }
    if !violations.is_empty() {
        return Err(Error::invalid(violations));
    }
    caller.demand_filtered(Verb::Read, &topic).map_err(Error::access)?;
    let stats = service.store.stats(topic, max_topics).await.map_err(Error::store)?;
    let mut answer = counters(stats.totals);
    answer["topics_active"] = stats.topics_active.into();
    answer["topics"] = stats.topics.iter().map(|topic| &*topic.topic).collect();
    answer["by_topic"] = stats.topics.iter().map(counted).collect();
    answer["uptime_seconds"] = service.started.elapsed().as_secs().into();
    // Those are of all topics.
    if caller.may_all(Verb::Read) {
        let process = service.ingest.counters();
        answer["since_start"] = counters(process.judged);
        answer["since_start"]["rejected"] = process.rejected.into();
    }
    Ok(Json(answer))
}

fn counted(stats: &TopicStats) -> Value {
    let mut counted = counters(stats.counters);
    counted["topic"] = (&*stats.topic).into();
    counted["last_received_at"] = stats.last_received_at.to_string().into();
    counted
}

fn counters(counters: Counters) -> Value {
    json!({
        "received": counters.received,
        "unique_processed": counters.unique_processed,
        "duplicate_dropped": counters.duplicate_dropped,
        "conflicts": counters.conflicts,
    })
}
