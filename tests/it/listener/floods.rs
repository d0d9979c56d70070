//! Abusive HTTP/2 connections, which cause work and read no responses: each is closed, without
//! effects on others.

use std::net::SocketAddr;

use event_aggregator::{proto::v1::GetStatsResponse, testing::limits::MAX_RESETS_PER_CONNECTION};
use prost::Message;
use testkit::http2::{
    Connection, DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, begin, frame, stream,
};

use crate::harness::*;

const CANCEL: [u8; 4] = [0, 0, 0, 8];
const ENHANCE_YOUR_CALM: u32 = 11;
/// `:status: 431` in HPACK.
const STATUS_431: &[u8] = &[0x48, 0x83, 0x69, 0x90, 0xff];
/// Length of the head of a gRPC message.
const PREFIX: usize = 5;

/// Sends the same frames for one call after another, until the connection is closed.
async fn flood(address: SocketAddr, call: impl Fn(u32) -> Vec<u8>) -> (usize, Option<u32>) {
    const AT_ONCE: usize = 100;
    const ENOUGH: usize = 100_000;
    let mut connection = Connection::open(address).await;
    for sent in (0..ENOUGH).step_by(AT_ONCE) {
        let calls: Vec<u8> = (sent..sent + AT_ONCE).flat_map(|n| call(stream(n))).collect();
        connection.send(&calls).await;
        let answers = connection.answers().await;
        if let Some(end) = answers.iter().find(|answer| answer.kind == GOAWAY) {
            let reason = end.content[4..8].try_into().expect("four bytes");
            return (sent + AT_ONCE, Some(u32::from_be_bytes(reason)));
        }
    }
    (ENOUGH, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_flood_closes_connection() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    let call = |stream| {
        [begin("PublishStream", stream, 0), frame(RST_STREAM, 0, stream, &CANCEL)].concat()
    };
    let (calls, end) = flood(server.address, call).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM), "after {calls} calls");
    publish(&mut client, vec![event("t", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forced_reset_flood_closes_connection() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut client = server.client().await;
    let too_much = |stream| {
        let window = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes());
        [begin("PublishStream", stream, 0), window].concat()
    };
    let (calls, end) = flood(server.address, too_much).await;
    assert_eq!(end, Some(ENHANCE_YOUR_CALM), "after {calls} calls");
    assert!(calls > MAX_RESETS_PER_CONNECTION, "after {calls} calls");
    publish(&mut client, vec![event("t", "1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_headers_fail_only_their_call() {
    let server = TestServer::start(Backend::Sqlite).await;
    let mut connection = Connection::open(server.address).await;
    let mut head = begin("GetStats", stream(0), END_STREAM).split_off(9);
    // More than 16 KiB when decompressed: repetitions of a header in the HPACK table.
    let value = [b'x'; 1_000];
    let length = [0x7f, 0xe9, 0x06];
    head.extend_from_slice(&[&[0x40, 1, b'x'][..], &length, &value].concat());
    head.extend([0xbe; 17]);
    connection.send(&frame(HEADERS, 5, stream(0), &head)).await;
    let refusal = connection.response(stream(0)).await;
    assert_eq!(refusal.len(), 1, "{refusal:?}");
    assert_eq!((refusal[0].kind, &*refusal[0].content), (HEADERS, STATUS_431));
    // The next call of the connection succeeds: its response has a message, which refusals do not have.
    let request = frame(DATA, END_STREAM, stream(1), &[0; PREFIX]);
    connection.send(&[begin("GetStats", stream(1), 0), request].concat()).await;
    let response = connection.response(stream(1)).await;
    let message = response.iter().find(|frame| frame.kind == DATA).expect("a message");
    GetStatsResponse::decode(&message.content[PREFIX..]).expect("statistics");
    assert_eq!(response.last().map(|frame| frame.kind), Some(HEADERS), "trailers");
}
