//! Publish.

use event_aggregator::proto::v1 as proto;
use tokio::time::timeout;

use super::{Outcome, Producer, Way, message};
use crate::second::clients::{self, of_status};

pub(super) async fn run(mut producer: Producer) {
    let mut client = None;
    let mut service = 0;
    while producer.goes_on() {
        producer.pause().await;
        if client.is_none() || producer.rng.u8(..8) == 0 {
            service = producer.some_service();
            client = clients::connect(producer.services[service].address).await;
        }
        let Some(connected) = &mut client else { continue };
        let sent = producer.next_request();
        let keys = &producer.recorder.keys;
        let events = sent.iter().map(|&(key, content)| {
            message(&keys[key], &keys[key].contents[content], &mut producer.rng)
        });
        let events = events.collect();
        let request = proto::PublishRequest { events, allow_partial: producer.rng.bool() };
        let patience = producer.patience();
        let begin = producer.recorder.now();
        let answer = timeout(patience, connected.publish(request)).await;
        match answer {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                let sums = [
                    response.received,
                    response.unique_processed,
                    response.duplicate_dropped,
                    response.conflicts,
                    response.rejected,
                ];
                let outcomes = producer.judged(&sent, &response.results, sums);
                producer.note(Way::Unary, service, &sent, begin, outcomes);
            }
            Ok(Err(status)) => {
                let outcome = of_status(&status, false);
                producer.note_all(Way::Unary, service, &sent, begin, &outcome);
                client = None;
            }
            Err(_) => {
                let outcome = Outcome::Lost("given up".to_owned());
                producer.note_all(Way::Unary, service, &sent, begin, &outcome);
            }
        }
    }
}
