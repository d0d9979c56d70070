//! Faults by a greedy client, which uses as much of an instance as it can, from its own address.

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

/// The address of the greedy client. All others use 127.0.0.1.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Connections, and streams per connection: more than the call limit of an instance.
const STREAMS: (usize, usize) = (9, 1_000);

/// Partial requests: more than the memory of an instance for reading requests.
const REQUESTS: usize = 40;

/// Announced length of each partial request.
const ANNOUNCED: usize = 4 << 20;

/// HTTP status of a request that was read and rejected.
const INVALID: u16 = 422;

/// Maximum time that others may wait: longer than any other fault.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens idle streams and partial requests, and checks that a normal client is served in the
/// meantime.
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
            // The service may close the connection.
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

/// Opens a number of streams over one connection and sends nothing on them.
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
    // A stream beyond the share is rejected, and not retried.
    if let Ok(stream) = Client::new(channel).publish_stream(requests).await {
        let _ = stream.into_inner().message().await;
    }
}

/// Sends the headers of a large request, and then one byte per second.
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

/// Whether a normal client gets responses to a call and to a large request. The request is invalid,
/// so that no event of it counts as sent. It is retried, because other faults may be active.
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
