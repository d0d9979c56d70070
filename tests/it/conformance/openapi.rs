//! `/openapi.json` compared with the routes of the service.

use std::collections::BTreeSet;

use crate::harness::*;

on_both_stores!(openapi_matches_the_routes);

const JSON: &str = "application/json";

/// The routes, as written in the source of the router.
fn routes() -> BTreeSet<(String, String)> {
    let source = include_str!("../../../src/http.rs");
    let routes = source.split(".route(\"").skip(1).map(|rest| {
        let (path, handler) = rest.split_once("\", ").expect("a handler");
        let (method, _) = handler.split_once('(').expect("a method");
        (method.to_owned(), path.to_owned())
    });
    // The dashboard's own files are not part of the API.
    routes.chain([("get".to_owned(), "/".to_owned())]).collect()
}

async fn openapi_matches_the_routes(backend: Backend) {
    let server = TestServer::start(backend).await;
    let answer = get(&server, "/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let file = answer.json();
    let mut described = BTreeSet::new();
    for (path, methods) in file["paths"].as_object().expect("paths") {
        for (method, call) in methods.as_object().expect("methods") {
            described.insert((method.clone(), path.clone()));
            let expected = call["responses"].as_object().expect("responses");
            // Errors that any path can return.
            let slow = (method == "post").then_some("408");
            for status in ["429", "500", "504"].into_iter().chain(slow) {
                assert!(expected.contains_key(status), "{path}: {status}");
            }
            let mut path = path.replace("{topic}", "t").replace("{event_id}", "1");
            if path.ends_with("/stream") {
                // Would not end.
                path.push_str("?cursor=x");
            }
            let event = r#"{"topic":"t","event_id":"1","source":"s"}"#;
            let answer = match &**method {
                "post" => {
                    assert_eq!(post_to(&server, &path, JSON, event).await.status, 200, "{path}");
                    post_to(&server, &path, JSON, "{}").await
                }
                _ => get(&server, &path).await,
            };
            let is_described = expected.contains_key(&answer.status.to_string());
            assert!(is_described, "{path}: {}", answer.status);
            assert_ne!(answer.status, 405, "{path}");
        }
    }
    assert_eq!(described, routes());
}
