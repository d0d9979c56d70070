//! The floods: attacks by unauthenticated clients.

use super::*;

/// HTTP/2 preface with an empty SETTINGS frame.
const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Header fields of a call to Publish, for HPACK without compression.
const FIELDS: &[(&[u8], &[u8])] = &[
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/event_aggregator.v1.EventAggregatorService/Publish"),
    (b":authority", b"flood"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
];

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Flood {
    /// No flood: shows the noise between two equal measurements.
    Nobody,
    /// Uses as much CPU time as a flood, without the service.
    Burning,
    /// Calls that are reset immediately.
    Resets,
    /// Connections that send nothing.
    Idle,
    /// Connections that send the HTTP/2 preface byte by byte.
    Slow,
    /// Messages of 8 MiB and more.
    Oversized,
    /// Bytes of no protocol.
    Garbage,
}

impl Flood {
    pub const ALL: [Self; 7] = [
        Self::Nobody,
        Self::Burning,
        Self::Resets,
        Self::Idle,
        Self::Slow,
        Self::Oversized,
        Self::Garbage,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Burning => "burning",
            Self::Resets => "resets",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Oversized => "oversized",
            Self::Garbage => "garbage",
        }
    }

    /// Floods until standard input ends. Prints a line when all connections are active, and the
    /// number of operations at the end.
    pub async fn run(self, address: SocketAddr, connections: usize) {
        let done = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let parallel = match self {
            Self::Nobody => 0,
            Self::Burning => 1,
            Self::Resets | Self::Garbage => 4,
            Self::Oversized => 32,
            Self::Idle | Self::Slow => connections,
        };
        for n in 0..parallel {
            let done = Arc::clone(&done);
            tasks.spawn(async move {
                loop {
                    // Reconnect after a delay similar to that of a network.
                    let _ = self.attack(address, n, &done).await;
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        if matches!(self, Self::Idle | Self::Slow) {
            let begun = Instant::now();
            while done.load(Ordering::Relaxed) < connections as u64
                && begun.elapsed() < Duration::from_secs(5)
            {
                sleep(Duration::from_millis(10)).await;
            }
        }
        // Exclude the start, in which all connections are opened.
        sleep(Duration::from_secs(1)).await;
        println!("flows");
        let _ = tokio::io::stdin().read(&mut [0]).await;
        tasks.shutdown().await;
        println!("{}", done.load(Ordering::Relaxed));
    }

    async fn attack(self, address: SocketAddr, n: usize, done: &AtomicU64) -> std::io::Result<()> {
        let count = |more| done.fetch_add(more, Ordering::Relaxed);
        match self {
            Self::Nobody => (),
            Self::Burning => {
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_millis(10) {
                    std::hint::spin_loop();
                }
                count(1);
            }
            Self::Resets => {
                let mut connection = connect(address, n).await?;
                connection.write_all(BEGIN).await?;
                let mut stream = 1_u32;
                // 20,000 per second over all connections, until this one is closed.
                let mut ticks = interval(Duration::from_millis(10));
                loop {
                    ticks.tick().await;
                    let mut frames = Vec::new();
                    for _ in 0..50 {
                        frames.extend(call(stream));
                        frames.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
                        stream += 2;
                    }
                    connection.write_all(&frames).await?;
                    count(50);
                    drain(&mut connection)?;
                }
            }
            Self::Idle => {
                let mut connection = connect(address, n).await?;
                count(1);
                let _ = connection.read(&mut [0; 64]).await;
            }
            Self::Slow => {
                let mut connection = connect(address, n).await?;
                count(1);
                for byte in BEGIN {
                    connection.write_all(&[*byte]).await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Self::Oversized => {
                let mut connection = connect(address, n).await?;
                connection.write_all(&[BEGIN, &call(1)].concat()).await?;
                // Half of them have the maximum length that is accepted.
                let length = (8 << 20) + (n as u32 % 2);
                let length = [&[0][..], &length.to_be_bytes()].concat();
                connection.write_all(&frame(0, 0, 1, &length)).await?;
                let data = frame(0, 0, 1, &[0xff; 16 << 10]);
                let mut ticks = interval(Duration::from_millis(20));
                // 25 MB per second over all connections, as far as flow control permits.
                for _ in 0..8 << 6 {
                    ticks.tick().await;
                    connection.write_all(&data).await?;
                    drain(&mut connection)?;
                    count(1);
                }
            }
            Self::Garbage => {
                let mut connection = connect(address, n).await?;
                let garbage: Vec<u8> = (0..4_096).map(|_| fastrand::u8(..)).collect();
                let begin = if n.is_multiple_of(2) { BEGIN } else { b"" };
                connection.write_all(begin).await?;
                connection.write_all(&garbage).await?;
                count(1);
                let _ = connection.read(&mut [0; 64]).await;
            }
        }
        Ok(())
    }
}

/// Connects from one of several local addresses, so that there are enough ports.
async fn connect(address: SocketAddr, n: usize) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 2 + (n % 4) as u8], 0).into())?;
    let connection = socket.connect(address).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// Discards received bytes, so that the service is not blocked.
fn drain(connection: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        match connection.try_read(&mut buffer) {
            Ok(0) => return Err(std::io::ErrorKind::ConnectionReset.into()),
            Ok(_) => (),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// An HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call, without its messages.
fn call(stream: u32) -> Vec<u8> {
    const END_HEADERS: u8 = 4;
    let mut fields = Vec::new();
    for (name, value) in FIELDS {
        fields.push(0);
        for text in [name, value] {
            fields.push(text.len() as u8);
            fields.extend_from_slice(text);
        }
    }
    frame(1, END_HEADERS, stream, &fields)
}
