#!/bin/sh
# Make .venv hold what requirements.lock says, and lrlib itself (editable): with uv where it is installed, else with pip.
# Does nothing where it already does.
#
#   PYTHON=python3.12 tools/environment.sh     choose the interpreter (only when .venv is first made)
#
# .venv/.installed says what was installed where, and is written last; .venv/.installing names the process until then.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "environment: $1" >&2
    exit 1
}

wanted() {
    cat requirements.lock pyproject.toml | cksum
    pwd # an editable install holds its path
}

works() {
    .venv/bin/python -c '' 2>/dev/null
}

moved() {
    [ -f .venv/.installed ] && ! grep -qxF "$(pwd)" .venv/.installed
}

if works && [ "$(cat .venv/.installed 2>/dev/null)" = "$(wanted)" ]; then
    exit 0
fi
if [ -f .venv/.installing ] && kill -0 "$(cat .venv/.installing)" 2>/dev/null; then
    fail "another installation is running (process $(cat .venv/.installing)); wait for it to end, then run this again"
fi
if [ -d .venv ] && { [ -f .venv/.installing ] || moved || ! works; }; then
    echo "An installation was interrupted, its interpreter is gone, or the folder has moved: starting again."
    rm -rf .venv
fi

if command -v uv >/dev/null 2>&1; then
    tool=uv
    # uv reads no settings of pip's; with these it looks in the same places, and in all of them.
    export UV_INDEX_STRATEGY=unsafe-best-match
    export UV_INDEX_URL="${UV_INDEX_URL:-${PIP_INDEX_URL:-}}"
    export UV_EXTRA_INDEX_URL="${UV_EXTRA_INDEX_URL:-${PIP_EXTRA_INDEX_URL:-}}"
    export UV_FIND_LINKS="${UV_FIND_LINKS:-$(echo "${PIP_FIND_LINKS:-}" | tr ' ' ',')}"
    make_venv() { uv venv --quiet --allow-existing --seed --python "${PYTHON:->=3.11}" .venv; }
    install() { uv pip install --quiet --python .venv/bin/python "$@"; }
else
    tool=pip
    make_venv() {
        for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
            if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
                "$python" -m venv .venv || fail "Python's venv module is missing (Debian, Ubuntu: apt-get install python3-venv)"
                return
            fi
        done
        fail "needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3.12"
    }
    install() { .venv/bin/python -m pip --disable-pip-version-check --no-input install -qq "$@"; }
fi

if [ ! -d .venv ]; then
    mkdir .venv
    echo $$ >.venv/.installing
    make_venv || fail "could not make .venv"
fi
echo $$ >.venv/.installing
rm -f .venv/.installed
echo "Installing $(grep -c '==' requirements.lock) packages into .venv with $tool (minutes the first time)"
install -r requirements.lock && install --no-deps --no-build-isolation -e . ||
    fail "$tool could not install them (index not reached, disk full?); see above, then run the same command again"
wanted >.venv/.installed
rm .venv/.installing
