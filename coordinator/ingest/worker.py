"""The parsing process: reads requests on stdin, parses under limits, answers on stdout.

A request is a JSON line ``{"path", "name", "result"}``; the documents go to the
file ``result``, and the answer is ``{"ok": true}`` or ``{"error": {...}}``.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import sys
from pathlib import Path
from typing import TextIO

from coordinator.ingest.document import documents_to_json
from coordinator.ingest.faults import error_to_dict
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.parsers import parse_file
from ragschema.errors import PayloadTooLarge, RagrigError, Unavailable, UnreadableDocument

#: A character of text in JSON, and room for offsets and names.
_RESULT_BYTES_PER_CHAR = 8
_RESULT_BYTES_MORE = 1 << 20


def serve(limits: ParseLimits) -> None:
    """Answers requests until stdin closes."""
    answers = _private_stdout()
    logging.disable(logging.CRITICAL)
    _limit_process(limits)
    for line in sys.stdin:
        request = json.loads(line)
        _limit_cpu(limits)
        answer = _answer(Path(request["path"]), request["name"], Path(request["result"]), limits)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _private_stdout() -> TextIO:
    """Keeps stdout for answers; what libraries print goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return answers


def _limit_process(limits: ParseLimits) -> None:
    result_bytes = _RESULT_BYTES_PER_CHAR * limits.max_text_chars + _RESULT_BYTES_MORE
    for kind, wanted in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, result_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (soft, hard))


def _limit_cpu(limits: ParseLimits) -> None:
    """The kernel counts the whole process, so the bound moves with every file."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    wanted = int(usage.ru_utime + usage.ru_stime) + 1 + limits.cpu_s
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _answer(path: Path, name: str, result: Path, limits: ParseLimits) -> dict[str, object]:
    try:
        documents = documents_to_json(parse_file(path, name, limits))
    except RagrigError as error:
        return {"error": error_to_dict(error)}
    except MemoryError:
        megabytes = limits.memory_bytes >> 20
        failure: RagrigError = PayloadTooLarge(f"needs more than {megabytes} MB of memory to read")
    except OSError as error:
        failure = UnreadableDocument(f"cannot be read: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001  parsers meet arbitrary bytes
        failure = UnreadableDocument(f"its parser failed with {type(error).__name__}")
    else:
        return _stored(documents, result)
    return {"error": error_to_dict(failure)}


def _stored(documents: str, result: Path) -> dict[str, object]:
    """Writes the result; only its size is the file's fault, a full disk is not."""
    try:
        result.write_text(documents, encoding="utf-8")
    except OSError as error:
        if error.errno == errno.EFBIG:
            failure: RagrigError = PayloadTooLarge("holds more text than allowed", hint="split it")
        else:
            failure = Unavailable(
                f"cannot store the text of a file in {result.parent}: {error.strerror}",
                hint="free space in the folder for temporary files",
            )
        return {"error": error_to_dict(failure)}
    return {"ok": True}
