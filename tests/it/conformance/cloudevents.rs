//! CloudEvents over plain HTTP.

use serde_json::{Value, json};

use crate::harness::*;

on_both_stores!(
    cloudevent_is_stored_as_event,
    dropped_attributes_are_reported,
    batch_events_have_individual_results,
    violations_use_cloudevents_attribute_names,
);

const ONE: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json";

fn cloud_event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": "order.paid",
        "time": "2026-01-31T12:00:00Z", "datacontenttype": "application/json", "subject": null,
        "data": { "n": 1 },
    })
}

async fn cloudevent_is_stored_as_event(backend: Backend) {
    let server = TestServer::start(backend).await;
    let first = post_as(&server, ONE, &cloud_event("1").to_string()).await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.json()["status"], "accepted");
    assert_eq!(first.json()["topic"], "order.paid");
    let stored = get(&server, "/events/order.paid/1").await.json();
    assert_eq!(stored["source"], "/shop");
    assert_eq!(stored["timestamp"], "2026-01-31T12:00:00Z");
    assert_eq!(stored["payload"], json!({ "n": 1 }));

    let plain = json!({ "topic": "order.paid", "event_id": "1", "source": "/shop",
                        "timestamp": "2026-01-31T12:00:00Z", "payload": { "n": 1 } });
    assert_eq!(post(&server, &plain.to_string()).await.json()["status"], "duplicate");
    let mut other = cloud_event("1");
    other["source"] = "/elsewhere".into();
    let other = post_as(&server, ONE, &other.to_string()).await.json();
    assert_eq!(other["status"], "conflict");
    assert_eq!(other["differing_fields"], json!(["source"]));
    let bare = r#"{"specversion":"1.0","id":"2","source":"s","type":"t"}"#;
    assert_eq!(post_as(&server, ONE, bare).await.json()["status"], "accepted");
    assert_eq!(get(&server, "/events/t/2").await.json()["payload"], json!({}));
}

async fn dropped_attributes_are_reported(backend: Backend) {
    let server = TestServer::start(backend).await;
    let mut with_all = cloud_event("1");
    for (name, value) in [("subject", "s"), ("dataschema", "x:y"), ("traceparent", "00")] {
        with_all[name] = value.into();
    }
    let names = json!(["dataschema", "subject", "traceparent"]);
    let answer = post_as(&server, ONE, &with_all.to_string()).await.json();
    assert_eq!((&answer["status"], &answer["not_kept"]), (&json!("accepted"), &names));
    let batch = json!([cloud_event("1"), with_all]).to_string();
    let answer = post_as(&server, BATCH, &batch).await.json();
    assert_eq!(answer["duplicate_dropped"], 2);
    assert_eq!(answer["results"][0]["not_kept"], Value::Null);
    assert_eq!(answer["results"][1]["not_kept"], names);
}

async fn batch_events_have_individual_results(backend: Backend) {
    let server = TestServer::start(backend).await;
    let batch = json!([cloud_event("1"), cloud_event("2"), cloud_event("1")]).to_string();
    let answer = post_as(&server, BATCH, &batch).await.json();
    assert_eq!(answer["results"][2]["status"], "duplicate");
    assert_eq!((&answer["received"], &answer["unique_processed"]), (&json!(3), &json!(2)));
    assert_eq!(post_as(&server, BATCH, "[]").await.json()["received"], 0);
    assert_eq!(server.stored().await, 2);
}

async fn violations_use_cloudevents_attribute_names(backend: Backend) {
    let server = TestServer::start(backend).await;
    let bad = json!({ "specversion": "0.3", "id": "", "type": 1, "time": "soon",
                      "datacontenttype": "text/plain", "data_base64": "AA==", "data": "x" });
    let bad_fields =
        ["specversion", "id", "source", "type", "time", "datacontenttype", "data_base64", "data"];
    for (media_type, body, expected) in [
        (ONE, bad.to_string(), bad_fields.to_vec()),
        (ONE, json!([cloud_event("1")]).to_string(), vec!["body"]),
        (BATCH, cloud_event("1").to_string(), vec!["body"]),
        (
            BATCH,
            json!([cloud_event("1"), { "specversion": "1.0", "id": "2", "source": "s" }])
                .to_string(),
            vec!["[1].type"],
        ),
    ] {
        let answer = post_as(&server, media_type, &body).await;
        assert_eq!(answer.status, 422, "{}", answer.body);
        let detail = answer.json()["detail"].as_array().expect("detail").clone();
        let fields: Vec<_> = detail.iter().map(|fault| fault["field"].as_str()).collect();
        assert_eq!(fields, expected.into_iter().map(Some).collect::<Vec<_>>(), "{body}");
    }
    // Binary mode has its attributes in headers, which would be ignored.
    let binary = "application/json\r\nce-specversion: 1.0";
    let answer = post_as(&server, binary, r#"{"topic":"t","event_id":"1","source":"s"}"#).await;
    assert_eq!(answer.status, 422, "{}", answer.body);
    assert_eq!(server.stored().await, 0);
}
