# List the recipes.
default:
    @just --list

# Run the service, with its events in data/events.db.
serve *ARGS:
    cargo run --release -- serve {{ARGS}}

# Run all tests; arguments go to `cargo test`. Installs missing system packages.
test *ARGS:
    tests/run.sh {{ARGS}}

# Run the tests that need no database, browser or other program.
test-fast:
    tests/fast.sh

# Check the format and the lints.
lint:
    cargo fmt --all --check
    cargo clippy --locked --all-targets -- -D warnings

# Format the code.
fmt:
    cargo fmt --all

# Build the API documentation, without warnings.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# Check licenses, banned crates and sources of the dependencies.
deny:
    cargo deny check bans licenses sources

# Run a benchmark: ceiling, feed, http or flood.
bench NAME="ceiling" *ARGS:
    cargo bench --locked --bench {{NAME}} -- {{ARGS}}

# Run the torture test that a release must pass, about 25 minutes.
gate:
    cargo test --locked --release --test torture -- --gate

# Check that the torture test finds every mutant of the service; `--mutant NAME` selects one.
mutants *ARGS:
    cargo test --locked --test torture -- --mutants {{ARGS}}

# Fuzz a target with nightly Rust: json, event, structure, token or http.
fuzz TARGET *ARGS:
    cargo +nightly fuzz run {{TARGET}} {{ARGS}}

# Run everything that a change must pass.
ci:
    .ci/run
