#!/bin/sh
# Runs all tests, and first installs what they need and this machine lacks: PostgreSQL, and Python
# for the example client. Arguments go to `cargo test`.
set -eu
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

install() {
    if ! command -v apt-get >/dev/null; then
        echo "tests/run.sh: please install $* (there is no apt-get here to do it)" >&2
        exit 1
    fi
    echo "tests/run.sh: installing $*" >&2
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

has_postgres() {
    [ -n "${TEST_DATABASE_URL:-}" ] || command -v initdb >/dev/null ||
        ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

has_postgres || install postgresql
python3 -c 'import venv, ensurepip' 2>/dev/null || install python3 python3-venv

exec cargo test --locked "$@"
