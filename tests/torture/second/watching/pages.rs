//! ListEvents, all pages from the first to the last, in both orders.

use std::collections::BTreeSet;

use event_aggregator::proto::v1 as proto;
use tokio::time::timeout;

use super::{Reader, is_load};
use crate::second::{clients, judge::history::Walk, sending::micros};

pub(super) async fn run(mut reader: Reader) {
    while is_load(&reader) {
        reader.pause(60).await;
        let oldest_first = reader.rng.bool();
        let page_size = reader.rng.i32(2..12);
        let _given_up = walk(&mut reader, oldest_first, page_size).await;
    }
}

/// Reads all pages of a listing. Each page may come from another service.
pub async fn walk(reader: &mut Reader, oldest_first: bool, page_size: i32) -> Option<()> {
    const BY: &str = "ListEvents";
    let order = match oldest_first {
        true => proto::ListOrder::OldestFirst,
        false => proto::ListOrder::NewestFirst,
    };
    let mut walk = Walk { oldest_first, begin: reader.recorder.now(), events: Vec::new() };
    let mut listed = BTreeSet::new();
    let mut page_token = String::new();
    loop {
        let address = reader.some_service().address;
        let mut client = clients::connect(address).await?;
        let request = proto::ListEventsRequest {
            page_size,
            page_token,
            order: order.into(),
            payload_format: proto::PayloadFormat::Json.into(),
            ..Default::default()
        };
        let page = timeout(clients::CALL, client.list_events(request)).await.ok()?.ok()?;
        let (page, end) = (page.into_inner(), reader.recorder.now());
        for event in &page.events {
            let Some(key) = reader.note(BY, (walk.begin, end), event) else { continue };
            let received_at = event.received_at.as_ref().map_or(0, micros);
            walk.events.push((key, received_at));
            listed.insert(key);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    // Events on no page were stored after the listing began, or never.
    let at = (walk.begin, reader.recorder.now());
    for key in (0..reader.recorder.keys.len()).filter(|key| !listed.contains(key)) {
        reader.recorder.sight(BY, key, at, None);
    }
    reader.recorder.history().walks.push(walk);
    Some(())
}
