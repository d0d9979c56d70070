//! Requests that are not answered yet.

use std::collections::VecDeque;

use prost::Message;

use super::source::{Line, Outgoing, Position};
use crate::proto::v1::PublishStreamRequest;

/// Bytes at which a request is closed: half of the service's limit, because one more event may
/// follow.
const REQUEST_BYTES: usize = 2 << 20;

/// Maximum number of unanswered requests.
const REQUESTS_IN_FLIGHT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Request {
    message: PublishStreamRequest,
    /// Lines of the request: its events, and between them invalid lines with the reason.
    pub(super) lines: Vec<(Line, Option<String>)>,
}

impl Request {
    /// Whether it has no valid event. Such a request is not sent.
    fn is_empty(&self) -> bool {
        self.message.events.is_empty()
    }

    /// The byte position after it, for the progress bar.
    pub(super) fn progress(&self) -> u64 {
        self.lines.last().map_or(0, |(line, _)| line.end.bytes)
    }

    /// The position after its last line, unless that line may still be growing.
    pub(super) fn end(&self) -> Option<Position> {
        let last = self.lines.last().filter(|(line, _)| line.is_complete);
        last.map(|(line, _)| line.end)
    }
}

/// Requests in their order: those that were sent over the current call, then all others.
#[derive(Debug, Default)]
pub(super) struct Window {
    sent: VecDeque<Request>,
    unsent: VecDeque<Request>,
}

impl Window {
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.unsent.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.sent.len() + self.unsent.len() < REQUESTS_IN_FLIGHT
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Groups events into requests within the size limit.
    pub(super) fn extend(&mut self, events: impl IntoIterator<Item = Outgoing>) {
        let mut bytes = usize::MAX;
        for Outgoing { line, event } in events {
            let size = event.as_ref().map_or(0, Message::encoded_len);
            bytes = bytes.saturating_add(size);
            if bytes > REQUEST_BYTES {
                bytes = size;
                self.unsent.push_back(Request::default());
            }
            if let Some(Request { message, lines }) = self.unsent.back_mut() {
                let (event, fault) = match event {
                    Ok(event) => (Some(event), None),
                    Err(fault) => (None, Some(fault)),
                };
                message.events.extend(event);
                lines.push((line, fault));
            }
        }
    }

    /// The next message to send. It is kept until its response.
    pub(super) fn send_next(&mut self) -> Option<PublishStreamRequest> {
        let request = self.unsent.pop_front()?;
        let message = request.message.clone();
        self.sent.push_back(request);
        Some(message)
    }

    /// Takes the request that the next response belongs to.
    pub(super) fn pop_answered(&mut self) -> Option<Request> {
        self.sent.pop_front()
    }

    /// Takes the first request if it needs no response.
    pub(super) fn pop_empty(&mut self) -> Option<Request> {
        while let Some(request) = self.unsent.pop_front_if(|next| next.is_empty()) {
            self.sent.push_back(request);
        }
        self.sent.pop_front_if(|first| first.is_empty())
    }

    /// Marks all requests as unsent, for another call.
    pub(super) fn restart(&mut self) {
        self.sent.append(&mut self.unsent);
        std::mem::swap(&mut self.sent, &mut self.unsent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Event, event::Content};

    fn line(number: u64, event: Result<usize, &str>) -> Outgoing {
        let line = Line::simulated(number);
        let event = event.map_err(str::to_owned).map(|bytes| Event {
            content: Some(Content::PayloadJson("x".repeat(bytes))),
            ..Event::default()
        });
        Outgoing { line, event }
    }

    fn last(request: Option<Request>) -> Option<u64> {
        request.and_then(|request| request.end()).map(|end| end.line)
    }

    #[test]
    fn requests_are_answered_in_order_and_sent_again() {
        let mut window = Window::default();
        window.extend([line(1, Err("bad"))]);
        window.extend([line(2, Ok(1 << 20)), line(3, Err("bad")), line(4, Ok(1 << 20))]);
        window.extend([line(5, Err("bad"))]);
        for _ in 0..2 {
            let sent: Vec<_> = std::iter::from_fn(|| {
                assert_eq!(last(window.pop_empty()).filter(|line| *line != 1), None);
                window.send_next()
            })
            .collect();
            assert_eq!(sent.iter().map(|sent| sent.events.len()).collect::<Vec<_>>(), [1, 1]);
            window.restart();
        }
        assert!(window.send_next().is_some() && window.send_next().is_some());
        assert_eq!(last(window.pop_empty()), None);
        assert_eq!(last(window.pop_answered()), Some(3));
        assert_eq!(last(window.pop_answered()), Some(4));
        assert_eq!(last(window.pop_empty()), Some(5));
        assert!(window.is_empty());
    }
}
