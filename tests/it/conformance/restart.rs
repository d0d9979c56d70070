//! State that survives a restart of the service.

use event_aggregator::{app::App, proto::v1::Event};

use crate::harness::*;

on_both_stores!(state_survives_a_restart, newer_schema_is_rejected,);

async fn state_survives_a_restart(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut client = server.client().await;
    let events: Vec<Event> =
        (0..500).map(|n| event(&format!("t{}", n % 9), &n.to_string())).collect();
    publish(&mut client, events.clone()).await;
    let request =
        event_aggregator::proto::v1::ListEventsRequest { page_size: 1, ..Default::default() };
    let page = client.list_events(request.clone()).await.expect("page").into_inner();
    drop(client);

    let server = server.restart().await;
    let mut client = server.client().await;
    let fresh = stats(&mut client).await;
    assert_eq!([fresh.received, fresh.unique_processed], [500, 500]);
    let since_start = fresh.since_start.expect("since_start");
    assert_eq!([since_start.received, since_start.unique_processed], [0, 0]);

    let again = publish(&mut client, events).await;
    assert_eq!([again.unique_processed, again.duplicate_dropped], [0, 500]);
    let stats = stats(&mut client).await;
    assert_eq!(
        [stats.received, stats.unique_processed, stats.duplicate_dropped],
        [1_000, 500, 500]
    );
    let since_start = stats.since_start.expect("since_start");
    assert_eq!([since_start.received, since_start.duplicate_dropped], [500, 500]);
    assert_eq!(server.stored().await, 500);

    let request = event_aggregator::proto::v1::ListEventsRequest {
        page_token: page.next_page_token,
        ..request
    };
    client.list_events(request).await.expect("tokens are good for the store, not the process");
}

async fn newer_schema_is_rejected(backend: Backend) {
    let database = TestServer::start(backend).await.stop().await;
    database
        .execute(
            "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
             VALUES (99, 'from_the_future', '2099-01-01T00:00:00Z', '1')",
        )
        .await;
    let error = App::start(&config_for(&database.url)).await.err().expect("refused").to_string();
    assert!(error.contains("schema version 99"), "{error}");
    assert!(error.contains("upgrade event-aggregator"), "{error}");
}
