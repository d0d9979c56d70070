//! ListEvents: order, filters and pages.

use event_aggregator::proto::v1::{Event, ListEventsRequest, ListOrder};

use crate::harness::*;

on_both_stores!(
    default_order_is_newest_first,
    request_order_is_kept,
    filters_narrow_the_listing,
    times_are_a_half_open_range,
    pages_show_every_event_once,
    pages_are_stable_while_events_arrive,
    page_size_is_validated_and_clamped,
    page_tokens_are_bound_to_their_listing,
    empty_listing_is_not_an_error,
);

fn list() -> ListEventsRequest {
    ListEventsRequest::default()
}

async fn default_order_is_newest_first(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for id in ["1", "2", "3"] {
        publish(&mut client, vec![event("t", id)]).await;
    }
    assert_eq!(ids(&list_all(&mut client, list()).await), ["3", "2", "1"]);
    let oldest = ListEventsRequest { order: ListOrder::OldestFirst.into(), ..list() };
    assert_eq!(ids(&list_all(&mut client, oldest).await), ["1", "2", "3"]);
}

async fn request_order_is_kept(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "d")]).await;
    // All new, and with duplicates, which are stored by another statement.
    for ids in [["c", "a", "b"], ["f", "a", "e"]] {
        publish(&mut client, ids.map(|id| event("t", id)).to_vec()).await;
    }
    assert_eq!(ids(&list_all(&mut client, list()).await), ["e", "f", "b", "a", "c", "d"]);
}

async fn filters_narrow_the_listing(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for (topic, id, source) in [("a", "1", "x"), ("a", "2", "y"), ("b", "3", "x"), ("A", "4", "X")]
    {
        publish(&mut client, vec![Event { source: source.into(), ..event(topic, id) }]).await;
    }
    for (topic, source, expected) in [
        ("", "", vec!["4", "3", "2", "1"]),
        ("a", "", vec!["2", "1"]),
        ("", "x", vec!["3", "1"]),
        ("a", "x", vec!["1"]),
        ("b", "y", vec![]),
    ] {
        let request = ListEventsRequest { topic: topic.into(), source: source.into(), ..list() };
        assert_eq!(ids(&list_all(&mut client, request).await), expected, "{topic} {source}");
    }
}

async fn times_are_a_half_open_range(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for id in ["1", "2", "3"] {
        publish(&mut client, vec![event("t", id)]).await;
    }
    let all = list_all(&mut client, list()).await;
    let [first, second, third] = [all[2].received_at, all[1].received_at, all[0].received_at];
    let between = |start_time, end_time| ListEventsRequest { start_time, end_time, ..list() };
    for (request, expected) in [
        (between(second, None), vec!["3", "2"]),
        (between(None, second), vec!["1"]),
        (between(first, third), vec!["2", "1"]),
        (between(second, second), vec![]),
    ] {
        assert_eq!(ids(&list_all(&mut client, request).await), expected);
    }
}

async fn pages_show_every_event_once(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    // Many have the same time of receipt, and they are in several lanes.
    for batch in 0..5 {
        let events = (0..50).map(|n| event(&format!("t{}", n % 7), &format!("{batch}-{n}")));
        publish(&mut client, events.collect()).await;
    }
    for order in [ListOrder::NewestFirst, ListOrder::OldestFirst] {
        for page_size in [1, 7, 250] {
            let request = ListEventsRequest { page_size, order: order.into(), ..list() };
            let events = list_all(&mut client, request).await;
            let times: Vec<_> = events
                .iter()
                .map(|event| event.received_at.map(|time| (time.seconds, time.nanos)))
                .collect();
            match order {
                ListOrder::OldestFirst => assert!(times.is_sorted()),
                _ => assert!(times.iter().rev().is_sorted()),
            }
            let mut ids = ids(&events);
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 250, "{order:?} {page_size}");
        }
    }
}

async fn pages_are_stable_while_events_arrive(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for id in 0..10 {
        publish(&mut client, vec![event("t", &id.to_string())]).await;
    }
    let mut request = ListEventsRequest { page_size: 3, ..list() };
    let mut seen = Vec::new();
    for arriving in 10.. {
        let page = client.list_events(request.clone()).await.expect("page").into_inner();
        seen.extend(page.events.into_iter().map(|event| event.event_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        publish(&mut client, vec![event("t", &arriving.to_string())]).await;
    }
    let expected: Vec<String> = (0..10).rev().map(|id| id.to_string()).collect();
    assert_eq!(seen, expected);
}

async fn page_size_is_validated_and_clamped(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    for batch in 0..3 {
        let events = (0..500).map(|n| event("t", &format!("{batch}-{n}")));
        publish(&mut client, events.collect()).await;
    }
    for (asked, got) in [(0, 50), (1, 1), (1_000, 1_000), (i32::MAX, 1_000)] {
        let request = ListEventsRequest { page_size: asked, ..list() };
        let page = client.list_events(request).await.expect("page").into_inner();
        assert_eq!(page.events.len(), got);
        assert!(!page.next_page_token.is_empty());
    }
    let all = ListEventsRequest { page_size: 500, ..list() };
    assert_eq!(list_all(&mut client, all).await.len(), 1_500, "no empty page at the end");
}

async fn page_tokens_are_bound_to_their_listing(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "1"), event("t", "2")]).await;
    let request = ListEventsRequest { topic: "t".into(), page_size: 1, ..list() };
    let page = client.list_events(request.clone()).await.expect("page").into_inner();
    let token = page.next_page_token;
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));

    let request = ListEventsRequest { page_token: token.clone(), ..request };
    // Page size and format may change between pages.
    let larger = ListEventsRequest { page_size: 9, payload_format: 2, ..request.clone() };
    client.list_events(larger).await.expect("the second page");
    for other in [
        ListEventsRequest { topic: String::new(), ..request.clone() },
        ListEventsRequest { source: "s".into(), ..request.clone() },
        ListEventsRequest { order: ListOrder::OldestFirst.into(), ..request.clone() },
        ListEventsRequest { page_token: token[1..].to_owned(), ..request.clone() },
    ] {
        let status = client.list_events(other).await.expect_err("refused");
        assert_eq!(fields_at_fault(&status), ["page_token"]);
        assert_eq!(reason(&status), "INVALID_PAGE_TOKEN");
    }

    let other_store = TestServer::start(backend).await;
    let status = other_store.client().await.list_events(request).await.expect_err("refused");
    assert!(status.message().contains("another database"), "{}", status.message());
}

async fn empty_listing_is_not_an_error(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let request = ListEventsRequest { topic: "unknown".into(), ..list() };
    let page = client.list_events(request).await.expect("page").into_inner();
    assert!(page.events.is_empty() && page.next_page_token.is_empty());
}
