//! Publishes with unary calls, over gRPC and HTTP.

use std::time::Duration;

use event_aggregator::proto::v1::PublishRequest;
use serde_json::Value;
use tokio::time::{sleep, sleep_until, timeout};
use tonic::{Code, Status};

use super::{Producer, events};
use crate::{
    cluster::Client,
    history::Outcome,
    http, outcome,
    workload::{Item, Request},
};

impl Producer {
    /// Makes one call after another.
    pub(super) async fn send_calls(mut self, over_http: bool) {
        while let Some(mut request) = self.next() {
            sleep_until(self.round.recorder.instant(request.due)).await;
            while !self.round.given_up.is_cancelled() {
                let patience = self.patience();
                let cancel = request.cancel.unwrap_or(Duration::MAX);
                let invoked = self.round.recorder.now();
                let sending = async {
                    match over_http {
                        true => self.post(&request).await,
                        false => self.publish(&request, patience).await,
                    }
                };
                let outcomes = tokio::select! {
                    outcomes = timeout(patience, sending) => outcomes.unwrap_or_else(|_| {
                        all(&request, Outcome::Unknown(Code::DeadlineExceeded))
                    }),
                    () = sleep(cancel) => all(&request, Outcome::Unknown(Code::Cancelled)),
                    () = self.round.given_up.cancelled() => {
                        all(&request, Outcome::Unknown(Code::Cancelled))
                    }
                };
                match self.note(request, invoked, outcomes) {
                    Some(again) => request = without_invalid(again),
                    None => break,
                }
                self.look_around().await;
            }
        }
    }

    async fn publish(&self, request: &Request, patience: Duration) -> Vec<Outcome> {
        let recorder = &self.round.recorder;
        let mut client = Client::new(self.round.cluster.channel(self.instance));
        let message =
            PublishRequest { events: events(&request.items), allow_partial: request.allow_partial };
        let mut call = tonic::Request::new(message);
        if request.allow_partial {
            // Also sends the deadline to the service.
            call.set_timeout(patience);
        }
        match client.publish(call).await {
            Ok(response) => {
                let results = response.into_inner().results;
                if results.len() != request.items.len() {
                    recorder.dirt(format!("{} results", results.len()));
                    return all(request, Outcome::Unknown(Code::Unknown));
                }
                results.iter().map(|result| self.outcome_of(result)).collect()
            }
            Err(status) => {
                recorder.look_at("Publish", &status);
                all(request, outcome::of_status(&status))
            }
        }
    }

    /// The outcome of one event.
    pub(super) fn outcome_of(
        &self,
        result: &event_aggregator::proto::v1::PublishResult,
    ) -> Outcome {
        if let Some(error) = result.error.as_ref().filter(|error| error.code != 3) {
            let status = Status::new(Code::from(error.code), error.message.clone());
            self.round.recorder.look_at("an event", &status);
        }
        outcome::of_result(result)
    }

    async fn post(&self, request: &Request) -> Vec<Outcome> {
        let recorder = &self.round.recorder;
        let address = self.round.cluster.address(self.instance);
        let answer = match http::post(address, "/publish", &body(&request.items)).await {
            Ok(answer) => answer,
            Err(error) if outcome::is_refusal(&error) => {
                return all(request, Outcome::Failed(Code::Unavailable));
            }
            Err(_) => return all(request, Outcome::Unknown(Code::Unavailable)),
        };
        if answer.status == 200 {
            return read(&answer.body, request.items.len())
                .unwrap_or_else(|| all(request, Outcome::Unknown(Code::Unknown)));
        }
        let outcome = outcome::of_http(answer.status);
        if let Outcome::Unknown(code) = outcome {
            recorder.look_at("POST /publish", &Status::new(code, answer.body));
        }
        all(request, outcome)
    }
}

fn all(request: &Request, outcome: Outcome) -> Vec<Outcome> {
    vec![outcome; request.items.len()]
}

/// If the whole request was rejected for an invalid event, the others are sent without it.
fn without_invalid(mut request: Request) -> Request {
    let invalid = request.items.iter().any(|item| !item.valid);
    request.allow_partial |= invalid;
    request
}

/// Encodes the events as a JSON array.
fn body(items: &[Item]) -> String {
    let objects = items.iter().map(|item| {
        let text = |text: &str| Value::from(text).to_string();
        format!(
            r#"{{"topic":{},"event_id":{},"source":{},"payload":{}}}"#,
            text(&item.key.topic),
            text(&item.key.event_id),
            text(&item.source),
            item.payload
        )
    });
    format!("[{}]", objects.collect::<Vec<_>>().join(","))
}

/// The outcomes in a response, if it is complete.
fn read(body: &str, events: usize) -> Option<Vec<Outcome>> {
    #[derive(serde::Deserialize)]
    struct Answer {
        results: Vec<Judged>,
    }
    #[derive(serde::Deserialize)]
    struct Judged {
        status: String,
    }
    let answer: Answer = serde_json::from_str(body).ok()?;
    let outcomes: Vec<Outcome> =
        answer.results.iter().map(|judged| outcome::of_word(&judged.status)).collect();
    (outcomes.len() == events).then_some(outcomes)
}
