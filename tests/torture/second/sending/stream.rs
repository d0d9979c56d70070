//! PublishStream, with some requests ahead of their responses.

use std::collections::VecDeque;

use event_aggregator::proto::v1 as proto;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Outcome, Producer, Sent, Way, message};
use crate::second::{
    clients::{self, Client, of_status},
    judge::history::Moment,
};

/// Maximum number of requests in flight.
const AHEAD: usize = 5;

/// A request without a response.
struct Waiting {
    id: String,
    sent: Vec<Sent>,
    begin: Moment,
}

pub(super) async fn run(mut producer: Producer) {
    while producer.goes_on() {
        producer.pause().await;
        let service = producer.some_service();
        let address = producer.services[service].address;
        if let Some(client) = clients::connect(address).await {
            one_stream(&mut producer, service, client).await;
        }
    }
}

/// Sends over one call until it fails, or for a while.
async fn one_stream(producer: &mut Producer, service: usize, mut client: Client) {
    let (requests, receiver) = mpsc::channel(1);
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let calling = client.publish_stream(ReceiverStream::new(receiver));
    let end = match timeout(clients::CALL, calling).await {
        Ok(Ok(response)) => {
            converse(producer, service, requests, response.into_inner(), &mut waiting).await
        }
        Ok(Err(status)) => of_status(&status, true),
        Err(_) => Outcome::Lost("the call did not begin".to_owned()),
    };
    for Waiting { sent, begin, .. } in waiting {
        producer.note_all(Way::Stream, service, &sent, begin, &end);
    }
}

/// Returns the outcome of pending requests at the end of the stream.
async fn converse(
    producer: &mut Producer,
    service: usize,
    requests: mpsc::Sender<proto::PublishStreamRequest>,
    mut responses: Streaming<proto::PublishStreamResponse>,
    waiting: &mut VecDeque<Waiting>,
) -> Outcome {
    let mut left = producer.rng.usize(5..60);
    let mut requests = Some(requests);
    loop {
        while let Some(open) = &requests
            && waiting.len() < AHEAD
        {
            if left == 0 || !producer.goes_on() {
                requests = None;
                break;
            }
            left -= 1;
            let sent = producer.next_request();
            let keys = &producer.recorder.keys;
            let events = sent.iter().map(|&(key, content)| {
                message(&keys[key], &keys[key].contents[content], &mut producer.rng)
            });
            let events = events.collect();
            let id = producer.rng.u64(..).to_string();
            let request = proto::PublishStreamRequest { events, request_id: id.clone() };
            waiting.push_back(Waiting { id, sent, begin: producer.recorder.now() });
            if open.send(request).await.is_err() {
                requests = None;
            }
            if producer.rng.u8(..3) == 0 {
                break;
            }
        }
        let patience = producer.patience();
        match timeout(patience, responses.message()).await {
            Ok(Ok(Some(response))) => {
                let Some(answered) = waiting.pop_front() else {
                    producer.recorder.fault("a response to no request of its stream");
                    return Outcome::Wrong("a response too many".to_owned());
                };
                if response.request_id != answered.id {
                    producer.recorder.fault("a response has the id of another request");
                }
                let sums = [
                    response.received,
                    response.unique_processed,
                    response.duplicate_dropped,
                    response.conflicts,
                    response.rejected,
                ];
                let outcomes = producer.judged(&answered.sent, &response.results, sums);
                producer.note(Way::Stream, service, &answered.sent, answered.begin, outcomes);
            }
            // The stream ends when all requests have a response.
            Ok(Ok(None)) => return Outcome::Wrong("the end of its stream".to_owned()),
            Ok(Err(status)) => return of_status(&status, true),
            Err(_) => return Outcome::Lost("given up".to_owned()),
        }
    }
}
