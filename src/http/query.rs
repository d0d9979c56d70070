//! `GET /events`, `/events/{topic}/{event_id}` and `/stats`.

use axum::{
    Extension, Json,
    extract::{OriginalUri, Path, State, rejection::PathRejection},
    http::header::LINK,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{event::EventJson, parameters::Parameters};
use crate::{
    access::Caller,
    api::{Api, Error, ListRequest, Reason, StatsReport},
    cursor::Cursor,
    event::{Event, EventKey, Name, Timestamp, Violation, Violations},
    limits::{MAX_PAGE_EVENTS, MAX_STATS_TOPICS},
    store::{Counters, Filter, TopicStats},
};

/// Default of `limit`: events per page.
const DEFAULT_LIMIT: usize = 10;

pub(super) async fn list(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    Parameters(parameters): Parameters,
) -> Result<Response, Error> {
    let mut filter = Filter::default();
    let mut limit = DEFAULT_LIMIT;
    let mut page_token = None;
    let mut violations = Violations::default();
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
        violations.check(check());
    }
    Error::check(violations)?;
    let page_token = page_token.cloned();
    let listed = api.list(&caller, ListRequest { filter, page_token, limit }).await?;
    let events = Json(event_jsons(listed.events, &api)?);
    let reserved = Extension(listed.reserved);
    Ok(match listed.next_page_token {
        Some(token) => {
            let link = [(LINK, next_page(uri.path(), &parameters, &token))];
            (reserved, link, events).into_response()
        }
        None => (reserved, events).into_response(),
    })
}

/// The `Link` header with the URL of the next page.
fn next_page(path: &str, parameters: &[(String, String)], token: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.iter().filter(|(name, _)| name != "page_token"));
    query.append_pair("page_token", token);
    format!("<{path}?{}>; rel=\"next\"", query.finish())
}

fn event_jsons(events: Vec<(Event, Cursor)>, api: &Api) -> Result<Vec<EventJson>, Error> {
    let store = api.store.id();
    let events = events.into_iter();
    events
        .map(|(event, cursor)| EventJson::new(event, cursor.encode(store)))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::internal())
}

fn size(field: &str, value: &str, max: usize) -> Result<usize, Violation> {
    match value.parse() {
        Ok(size @ 1..) => Ok(max.min(size)),
        _ => Err(Violation::new(field, "must be a positive integer")),
    }
}

fn is_oldest_first(field: &str, value: &str) -> Result<bool, Violation> {
    match value {
        "newest" => Ok(false),
        "oldest" => Ok(true),
        _ => Err(Violation::new(field, "must be newest or oldest")),
    }
}

/// The violation of an unknown parameter.
pub(super) fn unknown(field: &str, known: &str) -> Violation {
    Violation::new(field, format!("is an unknown parameter; known ones are {known}"))
}

fn checked_name(field: &str, value: &str) -> Result<String, Violation> {
    Name::new(field, value.to_owned()).map(Name::into_string)
}

fn time(field: &str, value: &str) -> Result<Timestamp, Violation> {
    value.parse().map_err(|fault: String| Violation::new(field, fault))
}

pub(super) async fn event(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Error> {
    let not_utf8 = |_| Error::invalid(vec![Violation::new("path", "must be UTF-8")]);
    let Path((topic, event_id)) = path.map_err(not_utf8)?;
    let mut violations = Violations::default();
    let topic = violations.check(Name::new("topic", topic));
    let event_id = violations.check(Name::new("event_id", event_id));
    let (Some(topic), Some(event_id)) = (topic, event_id) else {
        return Err(Error::invalid(violations.into_vec()));
    };
    let found = api.look_up(&caller, vec![EventKey { topic, event_id }]).await?;
    match event_jsons(found.events, &api)?.pop() {
        Some(event) => Ok((Extension(found.reserved), Json(event)).into_response()),
        None => {
            let message = "no event is stored under this topic and event_id";
            Err(Error::new(Reason::NotFound, message))
        }
    }
}

pub(super) async fn stats(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    Parameters(parameters): Parameters,
) -> Result<Json<Value>, Error> {
    let mut topic = None;
    let mut max_topics = MAX_STATS_TOPICS;
    let mut violations = Violations::default();
    for (name, value) in parameters {
        let mut check = || {
            match &*name {
                "topic" => topic = Some(checked_name(&name, &value)?),
                "max_topics" => max_topics = size(&name, &value, MAX_STATS_TOPICS)?,
                _ => return Err(unknown(&name, "topic, max_topics")),
            }
            Ok(())
        };
        violations.check(check());
    }
    Error::check(violations)?;
    let StatsReport { stats, uptime, since_start } = api.stats(&caller, topic, max_topics).await?;
    let mut answer = counters(stats.totals);
    answer["topics_active"] = stats.topics_active.into();
    answer["topics"] = stats.topics.iter().map(|topic| &*topic.topic).collect();
    answer["by_topic"] = stats.topics.iter().map(counted).collect();
    answer["uptime_seconds"] = uptime.as_secs().into();
    if let Some(process) = since_start {
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
