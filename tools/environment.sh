#!/bin/sh
# Make .venv hold what requirements.lock says, and lrlib itself (editable). Does nothing where it already does.
#
#   PYTHON=python3.12 tools/environment.sh     choose the interpreter (only when .venv is first made)
#
# .venv/.installed holds a fingerprint of what was installed, written last. .venv/.installing is there while an
# installation runs; one left behind by an interrupted installation makes the next call start again.
set -eu
cd "$(dirname "$0")/.."

need_kb=3000000
log=.venv/install.log

fail() {
    echo "environment: $1" >&2
    exit 1
}

fingerprint() { # of the two files, the folder (an editable install holds its path) and the interpreter
    cat requirements.lock pyproject.toml | cksum
    pwd
    .venv/bin/python -c 'import sys; print(sys.version)' 2>/dev/null || echo broken
}

if [ -f .venv/.installed ] && [ "$(cat .venv/.installed)" = "$(fingerprint)" ]; then
    exit 0
fi

if [ -f .venv/.installing ]; then
    other=$(cat .venv/.installing)
    if [ -n "$other" ] && kill -0 "$other" 2>/dev/null; then
        fail "another installation is running (process $other); wait for it to end, then run this again"
    fi
    echo "An earlier installation was interrupted: starting again."
    rm -rf .venv
elif [ -d .venv ] && ! .venv/bin/python -c '' 2>/dev/null; then
    echo "The interpreter of .venv is gone: starting again."
    rm -rf .venv
elif [ -f .venv/.installed ] && ! grep -qxF "$(pwd)" .venv/.installed; then
    echo "The folder has moved: starting again."
    rm -rf .venv
fi

if [ ! -d .venv ]; then
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null 2>&1 || fail "PYTHON=$PYTHON is not a command; set PYTHON to Python 3.11 or newer"
        python=$PYTHON
    else
        python=
        for name in python3 python3.13 python3.12 python3.11; do
            if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
                python=$name
                break
            fi
        done
        if [ -z "$python" ]; then
            found=$(python3 -V 2>/dev/null || echo "no python3")
            fail "needs Python 3.11 or newer, found $found; install it, or name it: make PYTHON=/path/to/python3.12"
        fi
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "needs Python 3.11 or newer, found $("$python" -V 2>&1); set PYTHON to a newer one"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "Python's venv module is missing; install it (Debian and Ubuntu: apt-get install python3-venv)"
    free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
    [ "$free_kb" -ge "$need_kb" ] ||
        fail "needs about 3 GB of free disk, found $((free_kb / 1000)) MB in $(pwd); free some space"
    "$python" -m venv .venv ||
        fail "could not create .venv; install Python's venv (Debian and Ubuntu: apt-get install python3-venv)"
fi

echo $$ >.venv/.installing
rm -f .venv/.installed
child=
trap 'if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi; echo; echo "environment: interrupted; run the same command again" >&2; exit 130' INT TERM HUP

install() { # what it is, then pip's arguments; a dot every few seconds
    what=$1
    shift
    printf '%s ' "$what"
    .venv/bin/python -m pip --disable-pip-version-check --no-input install "$@" >>"$log" 2>&1 </dev/null &
    child=$!
    ticks=0
    while kill -0 "$child" 2>/dev/null; do
        ticks=$((ticks + 1))
        if [ $((ticks % 5)) -eq 0 ]; then printf '.'; fi
        sleep 1
    done
    if wait "$child"; then
        child=
        echo " done"
    else
        echo " failed"
        grep -v '^ ' "$log" | tail -n 8 >&2
        fail "pip could not install it (network or registry not reached, disk full?); see $log, then run this again"
    fi
}

: >"$log"
count=$(grep -c '==' requirements.lock)
install "Installing $count packages into .venv (minutes the first time)" -r requirements.lock
install "Installing lrlib" --no-deps --no-build-isolation -e .
fingerprint >.venv/.installed
rm -f .venv/.installing
