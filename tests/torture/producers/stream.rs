//! Publishes with streams: many requests in flight, with responses in order.

use std::{collections::VecDeque, time::Duration};

use event_aggregator::proto::v1::{PublishStreamRequest, PublishStreamResponse};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Producer, events};
use crate::{
    cluster::Client,
    history::{Moment, Outcome},
    outcome,
    workload::Request,
};

/// Maximum number of requests in flight.
const WINDOW: usize = 64;

/// A request in flight.
struct Sent {
    request: Request,
    id: String,
    at: Moment,
}

/// An open stream.
struct Session {
    requests: mpsc::Sender<PublishStreamRequest>,
    responses: Streaming<PublishStreamResponse>,
    sent: VecDeque<Sent>,
    is_broken: bool,
    patience: Duration,
    /// When the producer cancels the stream.
    cancel: Option<Instant>,
}

/// How a stream ended.
type End = Result<(), Outcome>;

impl Producer {
    /// Opens one stream after another, until all events have a known outcome.
    pub(super) async fn send_streams(mut self) {
        while !self.round.given_up.is_cancelled() {
            let Some(first) = self.next() else { return };
            sleep_until(self.round.recorder.instant(first.due)).await;
            self.put_back(first);
            match self.open().await {
                Ok(mut session) => match self.work(&mut session).await {
                    Ok(()) => return self.finish(session).await,
                    Err(outcome) => self.give_up(session.sent, outcome),
                },
                Err(status) => self.look_at(&status),
            }
            self.look_around().await;
        }
    }

    async fn open(&mut self) -> Result<Session, Status> {
        let mut client = Client::new(self.round.cluster.channel(self.instance));
        let (requests, stream) = mpsc::channel(WINDOW);
        let patience = self.patience();
        let opening = client.publish_stream(ReceiverStream::new(stream));
        let responses = timeout(patience, opening)
            .await
            .map_err(|_| Status::deadline_exceeded("no answer"))??
            .into_inner();
        let sent = VecDeque::new();
        Ok(Session { requests, responses, sent, is_broken: false, patience, cancel: None })
    }

    /// Sends and receives until nothing is left, or the stream fails.
    async fn work(&mut self, session: &mut Session) -> End {
        let round = self.round.clone();
        let far = Instant::now() + Duration::from_secs(3_600);
        loop {
            let due = self.next_due();
            if due.is_none() && session.sent.is_empty() {
                return Ok(());
            }
            let has_room = session.sent.len() < WINDOW && !session.is_broken;
            let due = due.filter(|_| has_room).map(|due| round.recorder.instant(due));
            let oldest = session.sent.front().map(|sent| round.recorder.instant(sent.at));
            tokio::select! {
                () = sleep_until(due.unwrap_or(far)) => self.send(session),
                response = session.responses.message() => self.take(session, response)?,
                () = sleep_until(oldest.map_or(far, |at| at + session.patience)) => {
                    return Err(Outcome::Unknown(Code::DeadlineExceeded));
                }
                () = sleep_until(session.cancel.unwrap_or(far)) => {
                    return Err(Outcome::Unknown(Code::Cancelled));
                }
                () = round.given_up.cancelled() => return Err(Outcome::Unknown(Code::Cancelled)),
            }
        }
    }

    fn send(&mut self, session: &mut Session) {
        let Some(mut request) = self.next() else { return };
        let id = self.rng.u32(..).to_string();
        let at = self.round.recorder.now();
        let message =
            PublishStreamRequest { events: events(&request.items), request_id: id.clone() };
        match session.requests.try_send(message) {
            Ok(()) => {
                if let Some(patience) = request.cancel.take() {
                    session.cancel.get_or_insert(Instant::now() + patience);
                }
                session.sent.push_back(Sent { request, id, at });
            }
            // The responses will contain the reason.
            Err(_) => {
                session.is_broken = true;
                self.put_back(request);
            }
        }
    }

    fn take(
        &mut self,
        session: &mut Session,
        response: Result<Option<PublishStreamResponse>, Status>,
    ) -> End {
        let recorder = &self.round.recorder;
        match response {
            Ok(Some(response)) => {
                let Some(sent) = session.sent.pop_front() else {
                    recorder.dirt("a stream answered what nobody asked".to_owned());
                    return Err(Outcome::Unknown(Code::Unknown));
                };
                if response.request_id != sent.id
                    || response.results.len() != sent.request.items.len()
                {
                    recorder.dirt("a stream answered another request".to_owned());
                    session.sent.push_front(sent);
                    return Err(Outcome::Unknown(Code::Unknown));
                }
                let outcomes: Vec<Outcome> =
                    response.results.iter().map(|result| self.outcome_of(result)).collect();
                let again = self.note(sent.request, sent.at, outcomes);
                again.into_iter().for_each(|request| self.put_back(request));
                Ok(())
            }
            Ok(None) => {
                recorder.dirt("a stream ended well before its producer ended it".to_owned());
                Err(Outcome::Unknown(Code::Unknown))
            }
            Err(status) => {
                self.look_at(&status);
                Err(outcome::of_end(&status))
            }
        }
    }

    /// Ends a stream without pending requests. It must succeed, unless a fault breaks it.
    async fn finish(&self, mut session: Session) {
        drop(session.requests);
        match timeout(session.patience, session.responses.message()).await {
            Ok(Ok(Some(_))) => {
                self.round.recorder.dirt("a stream answered what nobody asked".to_owned());
            }
            Ok(Err(status)) => self.look_at(&status),
            Ok(Ok(None)) | Err(_) => (),
        }
    }

    /// Checks the status of a stream. Invalid events must not end it.
    fn look_at(&self, status: &Status) {
        self.round.recorder.look_at("PublishStream", status);
        if status.code() == Code::InvalidArgument {
            self.round.recorder.dirt(format!("PublishStream was answered {status}"));
        }
    }

    /// Records requests that get no response.
    fn give_up(&mut self, sent: VecDeque<Sent>, outcome: Outcome) {
        for sent in sent.into_iter().rev() {
            let again = self.note_all(sent.request, sent.at, outcome);
            again.into_iter().for_each(|request| self.put_back(request));
        }
    }
}
