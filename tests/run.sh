#!/bin/sh
# Installs missing dependencies (PostgreSQL, Python for the example client, Chromium for the
# dashboard tests, promtool for the alert tests, strace for disk faults, and patch for mutants), then
# runs all tests. Arguments are passed to `cargo test`.
set -eu
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        return 1
    fi
}

install() {
    echo "tests/run.sh: installing $*" >&2
    if ! {
        command -v apt-get >/dev/null && as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends "$@" >&2
    }; then
        echo "tests/run.sh: installation failed; please install $* manually" >&2
        exit 1
    fi
}

# The service requires version 15 or newer.
has_postgres() {
    for initdb in /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"; do
        [ -x "$initdb" ] || continue
        version=$("$initdb" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        [ "$version" -ge 15 ] && return
    done
    return 1
}

has_postgres || install postgresql
if ! has_postgres; then
    echo "tests/run.sh: PostgreSQL 15 or newer is required" >&2
    exit 1
fi
python3 -c 'import venv, ensurepip' 2>/dev/null || install python3 python3-venv

has_chromium() {
    [ -x "${CHROMIUM:-/usr/bin/chromium}" ] && [ -x "${CHROMEDRIVER:-/usr/bin/chromedriver}" ]
}

if ! has_chromium; then
    if grep -qs '^ID=ubuntu' /etc/os-release; then
        # Ubuntu's packages install a snap, which does not run everywhere; other tests do not need
        # it.
        echo "tests/run.sh: Ubuntu packages Chromium only as a snap, so the dashboard tests will fail;" \
            "install Chrome and chromedriver manually and set CHROMIUM and CHROMEDRIVER" >&2
    else
        install chromium chromium-driver fonts-dejavu-core
    fi
fi

command -v promtool >/dev/null || install prometheus
command -v strace >/dev/null || install strace
command -v patch >/dev/null || install patch

exec cargo test --locked "$@"
