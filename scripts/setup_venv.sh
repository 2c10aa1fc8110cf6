#!/bin/sh
# Creates .venv and installs the pinned versions. Called by `make setup`.
set -eu
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "ragrig needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1)." >&2
    echo "Name a newer one: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi

# Debian ships ensurepip apart from python3.
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing python3-venv, which Debian keeps apart from python3"
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
    else
        echo "'$python' cannot create environments. On Debian or Ubuntu:" >&2
        echo "  sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install -q -c requirements/constraints.txt"
# torch by name and version first: asked for by another package it may bring
# several gigabytes of GPU libraries.
echo "installing torch (the largest part) ..."
$pip torch==2.13.0
echo "installing ragrig and its tools ..."
$pip -e '.[llm,test]'
