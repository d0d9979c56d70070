//! HTTP/2 frames by hand, for behavior that no client library has.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// Full name of the gRPC service.
const SERVICE_NAME: &str = "event_aggregator.v1.EventAggregatorService";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

/// Flag of connection frames.
pub const ACK: u8 = 1;
/// Flags of call frames.
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Paths of methods that need no credentials.
pub const CHECK: &str = "/grpc.health.v1.Health/Check";
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";
pub const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Encodes a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (content.len() as u32).to_be_bytes();
    let head = [a, b, c, kind, flags];
    [&head[..], &stream.to_be_bytes(), content].concat()
}

/// The HEADERS frame of an API call.
pub fn begin(method: &str, stream: u32, flags: u8) -> Vec<u8> {
    begin_at(&format!("/{SERVICE_NAME}/{method}"), stream, flags)
}

/// The HEADERS frame of a call of any service.
pub fn begin_at(path: &str, stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &head(path))
}

/// The HEADERS frame of an API call by an identity whose token is `token-of-NAME`.
pub fn begin_as(name: &str, method: &str, stream: u32) -> Vec<u8> {
    let mut head = head(&format!("/{SERVICE_NAME}/{method}"));
    for (prefix, text) in [(&[0][..], "authorization"), (&[], &format!("Bearer token-of-{name}"))] {
        head.extend_from_slice(prefix);
        head.push(text.len() as u8);
        head.extend_from_slice(text.as_bytes());
    }
    frame(HEADERS, END_HEADERS, stream, &head)
}

fn head(path: &str) -> Vec<u8> {
    // POST and http are in the static table, and so are the names of the next three.
    let mut head = vec![0x83, 0x86];
    for (name, value) in [
        (&[0x04][..], path),
        (&[0x01], "test"),
        (&[0x0f, 0x10], "application/grpc"),
        (b"\x00\x02te", "trailers"),
    ] {
        head.extend_from_slice(name);
        head.push(value.len() as u8);
        head.extend_from_slice(value.as_bytes());
    }
    head
}

/// A gRPC message in as many DATA frames as it takes.
pub fn message(stream: u32, content: &[u8], flags: u8) -> Vec<u8> {
    const LARGEST: usize = 16 << 10;
    let length = (content.len() as u32).to_be_bytes();
    let content = [&[0][..], &length, content].concat();
    let mut pieces = content.chunks(LARGEST).peekable();
    let mut frames = Vec::new();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { flags } else { 0 };
        frames.extend(frame(DATA, flags, stream, piece));
    }
    frames
}

/// The stream id of the nth call of a connection.
pub fn stream(n: usize) -> u32 {
    n as u32 * 2 + 1
}

/// A received frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub content: Vec<u8>,
}

/// A connection after the HTTP/2 preface.
pub struct Connection(TcpStream);

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_with(TcpStream::connect(address).await.expect("connect"), &[]).await
    }

    /// A connection with a receive window of zero: it gets only the headers of responses.
    pub async fn open_without_window(address: SocketAddr) -> Self {
        Self::open_without_window_from(Ipv4Addr::LOCALHOST, address).await
    }

    /// The same from another loopback address.
    pub async fn open_without_window_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        const INITIAL_WINDOW_SIZE: u8 = 4;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this machine");
        let stream = socket.connect(address).await.expect("connect");
        Self::open_with(stream, &[0, INITIAL_WINDOW_SIZE, 0, 0, 0, 0]).await
    }

    async fn open_with(stream: TcpStream, settings: &[u8]) -> Self {
        let mut connection = Self(stream);
        let settings = frame(SETTINGS, 0, 0, settings);
        connection.send(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat()).await;
        connection
    }

    /// Waits for the peer's settings, which allow more data to be sent.
    pub async fn acknowledge(&mut self) {
        while self.next().await.is_some_and(|frame| frame.kind != SETTINGS) {}
        self.send(&frame(SETTINGS, ACK, 0, &[])).await;
    }

    /// Answers pings until the connection is closed.
    pub async fn stay(mut self) {
        while let Some(next) = self.next().await {
            if next.kind == PING {
                self.send(&frame(PING, ACK, 0, &next.content)).await;
            }
        }
    }

    /// Sends frames. The connection may already be closed.
    pub async fn send(&mut self, frames: &[u8]) {
        let _ = self.0.write_all(frames).await;
    }

    /// The next frame, or `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut content = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.0.read_exact(&mut content).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), content })
    }

    /// The frames of one call until its end. Those of other calls are dropped.
    pub async fn response(&mut self, stream: u32) -> Vec<Frame> {
        let mut response = Vec::new();
        loop {
            let next = self.next().await.expect("the end of the call");
            if next.stream == stream {
                let is_end = next.kind == RST_STREAM
                    || (matches!(next.kind, DATA | HEADERS) && next.flags & END_STREAM != 0);
                response.push(next);
                if is_end {
                    return response;
                }
            }
        }
    }

    /// The frames received until everything sent so far was processed.
    pub async fn answers(&mut self) -> Vec<Frame> {
        self.send(&frame(PING, 0, 0, b"all seen")).await;
        let mut answers = Vec::new();
        while let Some(next) = self.next().await {
            if next.kind == PING && next.content == b"all seen" {
                break;
            }
            answers.push(next);
        }
        answers
    }
}
