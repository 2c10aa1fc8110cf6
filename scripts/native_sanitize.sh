#!/bin/sh
# Builds the native extensions with address and undefined-behaviour sanitizers, beside
# the real ones, and runs their tests. Any report ends the run with an error.
set -eu
PYTHON=${PYTHON:-.venv/bin/python}
OUT=build/sanitize
CXX=${CXX:-g++}

if ! command -v "$CXX" >/dev/null; then
    echo "native-sanitize: $CXX is missing, install a C++ compiler" >&2
    exit 1
fi
# Optional in setup.py: a compiler that fails would only warn.
rm -rf "$OUT/lib"
RAGRIG_SANITIZE=address,undefined "$PYTHON" setup.py -q build_ext \
    --build-lib "$OUT/lib" --build-temp "$OUT/temp"
for NAME in retrieval_node/native/_scan llm_node/native/_kernels; do
    test -n "$(find "$OUT/lib" -path "*$NAME*.so")" ||
        { echo "native-sanitize: $NAME was not built" >&2; exit 1; }
done
test $# -gt 0 || set -- tests/retrieval_node/native tests/llm_node/native

# The runtimes must come first in a process that was not linked with them. Leaks
# are not looked for: the interpreter keeps what it allocates until it ends.
LD_PRELOAD="$("$CXX" -print-file-name=libasan.so) $("$CXX" -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:exitcode=99 \
UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:exitcode=99 \
RAGRIG_NATIVE_FOLDER="$OUT/lib" \
PYTHONPATH=scripts:. \
    "$PYTHON" -m pytest -p use_extension -q --durations=5 --capture=sys "$@"
