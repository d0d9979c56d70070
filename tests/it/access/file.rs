//! Errors in access files: each is reported with its line and without any value.

use std::fs;

use event_aggregator::{app::App, config::Config};

use super::{entry, grant};
use crate::harness::*;

const CANARY: &str = "canary0123456789";

/// The error of a service that is started with this file.
async fn fault_of(text: &str) -> String {
    let database = TestDatabase::new(Backend::Sqlite).await;
    let file = database.path("access.toml");
    fs::write(&file, text).expect("write");
    let config = Config { access: Some(file), ..config_for(&database.url) };
    let error = App::start(&config).await.err().expect("refused").to_string();
    assert!(error.contains("access.toml: "), "{error}");
    assert!(!error.contains('\n') && !error.contains(CANARY), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn all_errors_are_reported_with_line_numbers() {
    let shop = entry("shop", &grant("read", "*"));
    let of_shop = |more: &str| format!("{shop}{more}");
    for (text, line, expected) in [
        (String::new(), 1, "no identities"),
        (format!("\n{CANARY}"), 2, "invalid TOML"),
        (format!("\n\nname = {CANARY}"), 3, "invalid TOML"),
        (format!("\nx = \"{CANARY}\"\n{shop}"), 2, "unknown field; expected `identity`"),
        ("identity = 1".to_owned(), 1, "expected an array of tables"),
        ("identity = [1]".to_owned(), 1, "expected an array of tables: [[identity]]"),
        ("[[identity]]\n".to_owned(), 1, "missing field `name`"),
        ("[[identity]]\nname = 1".to_owned(), 2, "name must be a non-empty string"),
        (of_shop("\n[[identity]]\nname = \"x\"\ngrants = []"), 6, "x: no credentials"),
        (of_shop(&shop), 5, "shop: duplicate identity"),
        (of_shop(&shop.replace("\"shop\"", "\"x\"")), 7, "x: duplicate digest in token_sha256"),
        (of_shop("certificate = \"\""), 5, "shop: certificate must be a non-empty string"),
        (of_shop("certificate = \"Some Body\""), 5, "shop: certificate must be a DNS name"),
        (of_shop(&format!("tokens = \"{CANARY}\"")), 5, "unknown field; expected one of `name`, "),
        (of_shop("events_per_second = 0"), 5, "shop: events_per_second must be between 1 and"),
        (of_shop("events_per_second = 1\nburst = 999"), 5, "between 1000 and"),
        (of_shop("burst = 1000"), 5, "shop: events_per_second must be"),
        (entry("x", &grant("write", "*")), 4, "x: verbs must be publish, read or admin"),
        (entry("x", &grant("read", "a*b")), 4, "x: topics may contain * only at the end"),
        (
            entry("x", &format!("{{ {CANARY} = 1 }}")),
            4,
            "unknown field; expected `verbs` or `topics`",
        ),
        (entry("x", &format!("\"{CANARY}, expected {CANARY}\"")), 4, "expected a grant as a table"),
        (
            entry("x", "{ verbs = [\"read\"], topics = [\"a \"] }"),
            4,
            "x: topics must match a valid topic",
        ),
        (entry("x", &grant("admin", "orders")), 4, "x: admin can only be granted on topic *"),
        (entry("x", "{ verbs = [], topics = [\"*\"] }"), 4, "x: verbs must not be empty"),
        (entry("x", "{ verbs = [\"read\"], topics = [] }"), 4, "x: topics must not be empty"),
        (entry("x", "{ verbs = [\"read\"] }"), 4, "missing field `topics`"),
        (entry("x", "1"), 4, "expected a grant as a table { verbs, topics }"),
        (shop.replacen("[\"", &format!("[\"{CANARY}"), 1), 3, "shop: token_sha256 must contain"),
        (
            shop.replacen("[\"", &format!("\"{CANARY}\" # [\""), 1),
            3,
            "token_sha256 must be an array",
        ),
        (shop.lines().take(3).collect::<Vec<_>>().join("\n"), 1, "shop: missing grants"),
    ] {
        let error = fault_of(&text).await;
        assert!(error.contains(&format!("line {line}: ")), "{text}\n{error}");
        assert!(error.contains(expected), "{text}\n{error}");
    }
    let two = fault_of("[[identity]]\nname = \"a\"\ntoken_sha256 = 1\ncertificate = 1").await;
    assert!(two.contains("line 3: ") && two.contains("line 4: "), "{two}");
}
