FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# Compile the dependencies with an empty program first, so that a change in src reuses this layer.
# Cargo.toml names the benchmarks, so their files must exist, and testkit, of which the manifest is enough.
COPY Cargo.toml Cargo.lock build.rs ./
COPY testkit/Cargo.toml testkit/
COPY proto proto
RUN mkdir -p src benches/ceiling benches/feed benches/flood benches/http \
    && touch src/lib.rs benches/ceiling/main.rs benches/feed/main.rs benches/flood/main.rs benches/http/main.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --profile dist --locked

# Cargo compares modification times, and the files of src may be older than the empty ones.
COPY src src
RUN touch src/lib.rs src/main.rs \
    && cargo build --profile dist --locked


FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="event-aggregator" \
      org.opencontainers.image.description="Exactly-once event store for producers with at-least-once delivery: gRPC and HTTP/JSON, on PostgreSQL or SQLite." \
      org.opencontainers.image.licenses="Apache-2.0"

# A fixed user id, so that later images can write to an existing data volume.
RUN groupadd --gid 65532 event-aggregator \
    && useradd --no-log-init --uid 65532 --gid 65532 --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin event-aggregator \
    && install --directory --owner=65532 --group=65532 --mode=0750 /data

COPY --from=build /build/target/dist/event-aggregator /usr/local/bin/event-aggregator

# CA certificates for TLS connections to databases.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

# Temporary files of SQLite go to /data, because the root file system may be read-only. Listening on
# all addresses requires a certificate and an access file, or EVENT_AGGREGATOR_INSECURE=true on a
# trusted network (SECURITY.md).
ENV EVENT_AGGREGATOR_LISTEN=0.0.0.0:50051 \
    EVENT_AGGREGATOR_DATA_DIR=/data \
    SQLITE_TMPDIR=/data

# Numeric, because Kubernetes cannot verify runAsNonRoot for a user name.
USER 65532:65532
VOLUME /data
EXPOSE 50051

# If the service uses TLS, set EVENT_AGGREGATOR_ADDR=https://NAME:50051 and EVENT_AGGREGATOR_CA
# (SECURITY.md).
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["event-aggregator", "health"]

ENTRYPOINT ["event-aggregator"]
CMD ["serve"]
