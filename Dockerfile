FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies are compiled with an empty program first: this layer is kept until they or the
# contract change, so a change in src does not compile them again. The benchmarks are only named.
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
RUN mkdir -p src benches/ceiling benches/feed benches/flood benches/http \
    && touch src/lib.rs benches/ceiling/main.rs benches/feed/main.rs benches/flood/main.rs benches/http/main.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked

# Cargo compares modification times, and the real files may be older than the empty program.
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked


FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="event-aggregator" \
      org.opencontainers.image.description="Takes in events that producers may send more than once and keeps each exactly once, over gRPC, on PostgreSQL or SQLite." \
      org.opencontainers.image.licenses="Apache-2.0"

# The user id is fixed, so that a data volume still belongs to the user of a later image.
RUN groupadd --gid 65532 event-aggregator \
    && useradd --no-log-init --uid 65532 --gid 65532 --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin event-aggregator \
    && install --directory --owner=65532 --group=65532 --mode=0750 /data

COPY --from=build /build/target/release/event-aggregator /usr/local/bin/event-aggregator

# Who may sign the certificates of databases elsewhere.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# With a read-only root file system, /data is the only place for the temporary files of SQLite.
# On all addresses of the container the service starts only with a certificate and an access file, or if
# EVENT_AGGREGATOR_INSECURE=true says that its network keeps others away (SECURITY.md).
ENV EVENT_AGGREGATOR_LISTEN=0.0.0.0:50051 \
    EVENT_AGGREGATOR_DATA_DIR=/data \
    SQLITE_TMPDIR=/data

# Kubernetes can only tell from a number that this user is not root.
USER 65532:65532
VOLUME /data
EXPOSE 50051

# With a certificate: EVENT_AGGREGATOR_ADDR=https://NAME:50051, and EVENT_AGGREGATOR_CA (SECURITY.md).
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["event-aggregator", "health"]

ENTRYPOINT ["event-aggregator"]
CMD ["serve"]
