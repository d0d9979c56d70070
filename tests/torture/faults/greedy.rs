//! Faults that another client makes: it takes as much of an instance as it gets, from an address of its
//! own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use event_aggregator::proto::v1::{GetStatsRequest, PublishStreamRequest};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    cluster::{Client, Instance},
    http,
    round::Round,
};

/// The address it comes from; everybody else comes from 127.0.0.1.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connections, and streams on each: more than an instance has calls.
const STREAMS: (usize, usize) = (9, 1_000);

/// Requests that are begun and not continued: more than an instance has memory for reading.
const REQUESTS: usize = 40;

/// Bytes that each of them announces.
const ANNOUNCED: usize = 4 << 20;

/// How HTTP calls a request that the service has read and does not accept.
const INVALID: u16 = 422;

/// How long others may be kept waiting: longer than any other fault lasts.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens streams on which nothing comes and requests that do not go on, and watches that an ordinary
/// client is served meanwhile.
pub(super) async fn take_all(
    round: &Round,
    instance: &Instance,
    lasting: Duration,
) -> Result<(), String> {
    let address = instance.address;
    let mut open = JoinSet::new();
    let (connections, streams) = STREAMS;
    for _ in 0..connections {
        open.spawn(async move { hold_streams(address, streams).await });
    }
    for _ in 0..REQUESTS {
        open.spawn(async move {
            // The service may end it.
            let _ = drip(address).await;
        });
    }
    sleep(lasting).await;
    let served = is_served(round, instance).await;
    let is_holding = !open.is_empty();
    open.shutdown().await;
    if !served {
        round.recorder.stuck(format!(
            "instance {} served no other client for {PATIENCE:?} while one took all it could",
            instance.number
        ));
    }
    is_holding.then_some(()).ok_or_else(|| "it got nothing".to_owned())
}

/// Opens so many streams over one connection and sends nothing on them.
async fn hold_streams(address: SocketAddr, streams: usize) {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let Ok(channel) = endpoint.local_address(Some(ADDRESS)).connect().await else { return };
    let mut held = JoinSet::new();
    for _ in 0..streams {
        held.spawn(hold_stream(channel.clone()));
    }
    held.join_all().await;
}

async fn hold_stream(channel: Channel) {
    let requests = tokio_stream::pending::<PublishStreamRequest>();
    // Refused beyond its share, it does not ask again.
    if let Ok(stream) = Client::new(channel).publish_stream(requests).await {
        let _ = stream.into_inner().message().await;
    }
}

/// Sends the head of a large request, and then a byte each second.
async fn drip(address: SocketAddr) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(ADDRESS, 0))?;
    let mut connection: TcpStream = socket.connect(address).await?;
    let head = format!(
        "POST /publish HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\n\
         content-length: {ANNOUNCED}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        connection.write_all(b" ").await?;
    }
}

/// Whether an ordinary client gets an answer to a call, and to a large request, which is invalid so that
/// nothing of it is counted as sent. Other faults may strike at the same time, so it may ask again.
async fn is_served(round: &Round, instance: &Instance) -> bool {
    let began = Instant::now();
    let mut client = Client::new(round.cluster.channel(instance.number));
    let large = format!("[{}{{}}]", " ".repeat(256 << 10));
    while began.elapsed() < PATIENCE {
        let call = timeout(PATIENCE, client.get_stats(GetStatsRequest::default())).await;
        let request = timeout(PATIENCE, http::post(instance.address, "/publish", &large)).await;
        let is_called = matches!(call, Ok(Ok(_)));
        if is_called && matches!(request, Ok(Ok(answer)) if answer.status == INVALID) {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}
