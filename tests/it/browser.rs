//! The dashboard, in a real browser.

use std::fs;

use event_aggregator::{
    config::{Config, TlsArgs},
    proto::v1::{Event, PublishRequest},
};
use serde_json::{Value, json};
use testkit::wait_until;

use self::driver::Browser;
use crate::{access::Guarded, harness::*};

mod driver;

/// What a page loads before it is shown, without later requests.
const BYTES_LOADED: &str = "return performance.getEntriesByType('navigation')
    .concat(performance.getEntriesByType('resource'))
    .filter(entry => entry.initiatorType !== 'fetch')
    .reduce((sum, entry) => sum + entry.transferSize, 0)";

const MAX_BYTES_LOADED: f64 = 150_000.0;

/// Runs if its text is ever interpreted as HTML.
const HOSTILE: &str = "<img src=x onerror=\"document.title='hacked'\">";

impl Browser {
    fn text(&self, id: &str) -> String {
        let script = format!("return document.getElementById('{id}').innerText");
        self.run(&script).as_str().expect("text").to_owned()
    }

    /// Waits until the element has the expected text.
    #[track_caller]
    fn await_text(&self, id: &str, expected: &str) {
        wait_until(|| self.text(id).contains(expected));
    }

    /// Types into a field.
    fn fill(&self, id: &str, text: &str) {
        self.run(&format!(
            "const field = document.getElementById('{id}');
             field.value = {};
             for (const name of ['input', 'change']) field.dispatchEvent(new Event(name))",
            json!(text)
        ));
    }

    fn click(&self, selector: &str) {
        self.run(&format!("document.querySelector({}).click()", json!(selector)));
    }

    /// Whether an element is visible.
    fn shows(&self, selector: &str) -> bool {
        self.run(&format!("return document.querySelector({}).checkVisibility()", json!(selector)))
            == json!(true)
    }

    /// Whether the page is wider than the window.
    fn overflows(&self) -> bool {
        let script = "return document.documentElement.scrollWidth > innerWidth";
        self.run(script) == json!(true)
    }

    /// Fails if the browser logged an error, such as a CSP violation.
    fn assert_quiet(&self) {
        assert_eq!(self.log(), json!([]));
    }
}

fn with_source(source: &str, event: Event) -> Event {
    Event { source: source.to_owned(), ..event }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_dashboard_shows_example_calls() {
    let server = TestServer::start(Backend::Sqlite).await;
    let browser = Browser::start();
    browser.open(&format!("http://{}/", server.address));
    browser.await_text("state", "live");
    browser.await_text("calls-title", "No events yet");
    let first = browser.run("return document.querySelector('main').firstElementChild.id");
    assert_eq!(first, "calls");
    let calls = browser.text("call-list");
    let address = server.address;
    assert!(calls.contains(&format!("http://{address}/publish")), "{calls}");
    assert!(calls.contains(&format!("{address} event_aggregator.v1.")), "{calls}");
    assert!(browser.shows("#call-list button") && !browser.shows("#notice"));
    let bytes = browser.run(BYTES_LOADED).as_f64().expect("a number");
    assert!(bytes > 0.0 && bytes < MAX_BYTES_LOADED, "{bytes}");
    assert!(!browser.overflows());

    publish(&mut server.client().await, vec![event("t", "1")]).await;
    browser.await_text("received", "1");
    browser.await_text("tail-rows", "1");
    assert_ne!(browser.text("calls-title"), "No events yet");
    browser.assert_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn example_calls_use_the_scheme_of_the_page() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("certificate");
    let [certificate, key] = ["server.pem", "server.key"].map(|name| database.path(name));
    fs::write(&certificate, own.cert.pem()).expect("write");
    fs::write(&key, own.signing_key.serialize_pem()).expect("write");
    let tls = TlsArgs { tls_cert: Some(certificate), tls_key: Some(key), ..TlsArgs::default() };
    let config = Config { tls, ..config_for(&database.url) };
    let server = TestServer::with(database, &config).await;
    let browser = Browser::start();
    let origin = format!("https://localhost:{}", server.address.port());
    browser.open(&origin);
    browser.await_text("state", "live");
    let calls = browser.text("call-list");
    assert!(calls.contains(&format!("publish --addr {origin} ")), "{calls}");
    assert!(!calls.contains("-plaintext"), "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_refreshes_automatically() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    let exact = r#"{ "big" : 12345678901234567890123, "x":[{"received_at":1}] }"#;
    publish(&mut client, vec![event_with("a/b", "ü 1", exact), event("u", "2")]).await;
    publish(&mut client, vec![event("u", "2"), with_source("other", event("u", "2"))]).await;

    let browser = Browser::start();
    browser.open(&format!("http://{}/", server.address));
    browser.run("window.same = true");
    browser.await_text("tail-rows", "ü 1");
    let agree = async |client: &mut Client| {
        let numbers = counters(client).await;
        let ids = ["received", "unique", "duplicates", "conflicts"];
        for (id, number) in ids.into_iter().zip(numbers) {
            wait_until(|| browser.text(id).replace(',', "") == number.to_string());
        }
        let stats = stats(client).await;
        browser.await_text("topic-count", &stats.topics_active.to_string());
        for (index, topic) in stats.topics.iter().enumerate() {
            let cell = |column| {
                let row = format!("document.querySelectorAll('#topic-rows tr')[{index}]");
                browser.run(&format!("return {row}?.cells[{column}].innerText"))
            };
            let received = topic.received.to_string();
            wait_until(|| {
                let [name, number] = [0, 1].map(|column| cell(column).as_str().map(str::to_owned));
                name.as_ref() == Some(&topic.topic)
                    && number.is_some_and(|number| number.replace(',', "") == received)
            });
        }
    };
    agree(&mut client).await;

    // The payload is shown verbatim, even numbers that JavaScript cannot represent.
    browser.fill("lookup-topic", "a/b");
    browser.fill("lookup-id", "ü 1");
    browser.click("#lookup-form button");
    browser.await_text("lookup-event", exact);
    browser.await_text("tail-rows", "12345678901234567890123");
    browser.fill("lookup-id", "nothing");
    browser.click("#lookup-form button");
    browser.await_text("lookup-said", "no event is stored");
    assert!(!browser.shows("#lookup-event"));
    let complaints = browser.log();
    let complaint = complaints[0]["message"].as_str().expect("the 404");
    assert!(complaint.contains("/events/a%2Fb/nothing"), "{complaints}");
    assert_eq!(complaints[1], Value::Null);

    let hostile = format!(r#"{{"x":{}}}"#, json!(HOSTILE));
    let event = with_source(HOSTILE, event_with(HOSTILE, HOSTILE, &hostile));
    let more: Vec<Event> = (0..1_000).map(|n| crate::harness::event("u", &n.to_string())).collect();
    for events in more.chunks(100) {
        publish(&mut client, events.to_vec()).await;
    }
    publish(&mut client, vec![event]).await;
    agree(&mut client).await;
    browser.await_text("tail-rows", HOSTILE);
    browser.await_text("topic-rows", HOSTILE);
    browser.click("#tail-rows .id");
    browser.await_text("lookup-event", &json!(HOSTILE).to_string());
    let rows = browser.run("return document.querySelectorAll('#tail-rows li').length");
    assert!(rows.as_i64().is_some_and(|rows| (1..=200).contains(&rows)), "{rows}");
    assert_eq!(browser.run("return document.querySelectorAll('img').length"), 0);
    assert_eq!(browser.run("return document.title"), "Event Aggregator");

    browser.resize(360, 740);
    assert!(!browser.overflows());
    assert_eq!(browser.run("return window.same"), true, "it was loaded once");
    browser.assert_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn live_tail_can_be_filtered_and_paused() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    publish(&mut client, vec![event("t", "early"), event("u", "other")]).await;
    let browser = Browser::start();
    browser.open(&format!("http://{}/", server.address));
    browser.await_text("tail-rows", "early");
    let shown = || browser.text("tail-rows");

    browser.fill("tail-filter", "EARL");
    assert!(!shown().contains("other"));
    publish(&mut client, vec![event("u", "another"), event("u", "earlier")]).await;
    browser.await_text("tail-rows", "earlier");
    assert!(!shown().contains("another"));
    browser.fill("tail-filter", "");
    browser.await_text("tail-rows", "other");

    browser.fill("tail-topic", "t");
    wait_until(|| !shown().contains("other"));
    publish(&mut client, vec![event("u", "unseen"), event("t", "seen")]).await;
    browser.await_text("tail-rows", "seen");
    assert!(!shown().contains("unseen"));

    browser.click("#tail-pause");
    publish(&mut client, vec![event("t", "held")]).await;
    browser.await_text("tail-pause", "Resume (1)");
    assert!(!shown().contains("held"));
    browser.click("#tail-pause");
    browser.await_text("tail-rows", "held");
    browser.assert_quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_reconnects_after_outage() {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let service = serve(&database.url_text());
    let address = service.address;
    let browser = Browser::start();
    browser.open(&format!("http://{address}/"));
    browser.await_text("state", "live");
    drop(service);
    browser.await_text("notice", "not responding");
    assert!(browser.shows("#notice"));

    let service = serve_at(&address.to_string(), &database.url_text());
    publish(&mut connect_to(service.address).await, vec![event("t", "back")]).await;
    browser.await_text("state", "live");
    browser.await_text("received", "1");
    browser.await_text("tail-rows", "back");
    assert!(!browser.shows("#notice"));
    let complaints = browser.log();
    // Failed connections are logged, and nothing else.
    for complaint in complaints.as_array().expect("a list") {
        assert_eq!(complaint["source"], Value::from("network"), "{complaint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_prompts_for_token() {
    let guarded = Guarded::start(Backend::Sqlite).await;
    let mut root = guarded.caller("root").await;
    let request = PublishRequest { events: vec![event("t", "1")], allow_partial: false };
    root.publish(request).await.expect("granted");
    let browser = Browser::start();
    browser.open(&format!("http://{}/", guarded.server.address));
    browser.await_text("access-said", "requires a token");
    assert!(browser.shows("#access-form"));
    assert_eq!(browser.text("state"), "locked");
    let give = |token: &str| {
        browser.fill("access-token", token);
        browser.click("#access-form button");
    };
    give("wrong");
    browser.await_text("access-said", "not valid");
    give("token-of-shop");
    browser.await_text("notice", "no grant to read all topics");
    assert_eq!(browser.text("state"), "denied");
    wait_until(|| browser.shows("#access-form"));
    give("token-of-reader");
    browser.await_text("state", "live");
    browser.await_text("received", "1");
    browser.await_text("tail-rows", "1");
    wait_until(|| !browser.shows("#access-form") && !browser.shows("#notice"));

    // The stream continues, and the token is in no URL.
    let request = PublishRequest { events: vec![event("t", "live")], allow_partial: false };
    root.publish(request).await.expect("granted");
    browser.await_text("tail-rows", "live");
    let addresses = browser.run(
        "return [location.href, ...performance.getEntries().map(entry => entry.name)].join(' ')",
    );
    assert!(!addresses.to_string().contains("token-of"), "{addresses}");
    let bytes = browser.run(BYTES_LOADED).as_f64().expect("a number");
    assert!(bytes > 0.0 && bytes < MAX_BYTES_LOADED, "{bytes}");
    // Rejected calls are logged, and nothing else.
    for complaint in browser.log().as_array().expect("a list") {
        assert_eq!(complaint["source"], Value::from("network"), "{complaint}");
    }
}
