//! The minimal database role that SECURITY.md documents.

use event_aggregator::{config::Database, proto::v1::PublishStatus};
use testkit::postgres::Server;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn role_without_update_privilege_suffices() {
    let postgres = Server::start("-c fsync=off");
    let database = TestDatabase::on(&postgres).await;
    // The owner creates the tables.
    let database = TestServer::on(database).await.stop().await;
    let text = include_str!("../../../SECURITY.md");
    let sql = text.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next());
    database.execute(sql.expect("what to grant")).await;

    let url = database.url_text().replacen("postgres@", "aggregator@", 1);
    assert!(url.contains("aggregator@"));
    let config = config_for(&Database::Postgres(url.clone()));
    let (address, stop, running) = launch_as(&config).await;
    let mut client = connect_to(address).await;
    let events = vec![event("t", "1"), event("t", "2"), event("t", "1")];
    let expected = [PublishStatus::Accepted, PublishStatus::Accepted, PublishStatus::Duplicate];
    assert_eq!(verdicts(&mut client, events).await, expected);
    let conflict = vec![event_with("t", "1", "{\"other\":1}"), event("u", "3")];
    let expected = [PublishStatus::Conflict, PublishStatus::Accepted];
    assert_eq!(verdicts(&mut client, conflict).await, expected);
    assert_eq!(counters(&mut client).await, [5, 3, 2, 1]);
    drop(client);
    stop.send(()).expect("running");
    running.await.expect("stopped");

    let role = connect(&url).await;
    for forbidden in [
        "UPDATE processed_events SET source = 'x'",
        "DELETE FROM processed_events",
        "DELETE FROM audit_stats",
        "DROP TABLE processed_events",
        "TRUNCATE batch_ledger",
    ] {
        assert!(role.batch_execute(forbidden).await.is_err(), "{forbidden}");
    }
    let touch = "UPDATE batch_ledger SET committed_at = committed_at";
    role.batch_execute(touch).await.expect("settling a commit that got no answer");
    role.batch_execute("DELETE FROM batch_ledger").await.expect("pruning");
}
