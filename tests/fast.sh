#!/bin/sh
# Runs the tests that need nothing but cargo: unit tests, everything on SQLite, the checkers, the fuzz targets with
# generated input, and the architecture rules. No PostgreSQL, browser, Python, strace or promtool.
set -eu
cd "$(dirname "$0")/.."

cargo test --locked --lib
# `unread` waits for a timeout of a minute; `running` compares SQLite with PostgreSQL.
exec cargo test --locked --test it -- \
    ::sqlite:: fuzz:: second_checker:: tidy:: torture_checker:: \
    --skip ::unread:: --skip fuzz::running::
