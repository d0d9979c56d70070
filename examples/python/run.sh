#!/bin/sh
# Installs the dependencies of client.py into a cache directory, then runs it against ADDRESS.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: run.sh ADDRESS (for example 127.0.0.1:50051)" >&2
    exit 2
fi

# All paths below are relative to the directory of this script.
CDPATH= cd -- "$(dirname -- "$0")"
cache=${EVENT_AGGREGATOR_PYTHON_DIR:-../../target/python}
protos=../../proto

mkdir -p -- "$cache"
cache=$(CDPATH= cd -- "$cache" && pwd)
python=$cache/venv/bin/python
stamp=$cache/requirements.installed
stubs=$cache/stubs

# The stamp is written last, so an interrupted installation starts over.
if ! { cmp -s requirements.txt "$stamp" && "$python" -c '' 2>/dev/null; }; then
    # Debian's python3 has venv without ensurepip until python3-venv is installed.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        echo "run.sh: python3 with the venv module is required: apt-get install python3-venv" >&2
        exit 1
    fi
    rm -f -- "$stamp"
    python3 -m venv --clear "$cache/venv"
    "$python" -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
    cp requirements.txt "$stamp"
fi

# google/rpc/status.proto is only imported: googleapis-common-protos brings its Python module.
mkdir -p -- "$stubs"
"$python" -m grpc_tools.protoc --proto_path="$protos" \
    --python_out="$stubs" --pyi_out="$stubs" --grpc_python_out="$stubs" \
    event_aggregator/v1/event_aggregator.proto

PYTHONPATH=$stubs${PYTHONPATH:+:$PYTHONPATH} exec "$python" client.py "$1"
