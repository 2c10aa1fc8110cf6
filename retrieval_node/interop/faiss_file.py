"""Opening a faiss index file that nobody vouches for.

faiss trusts what it reads: a damaged file may raise, ask for absurd memory or
end the process. Call ``limit_process`` first, in a process that may be lost.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import faiss

from ragschema.errors import CorruptData, NotFound

#: Address space beyond the file: libraries, thread stacks and the arrays of an index.
_SPACE_BYTES = 12 << 30
_SPACE_PER_FILE_BYTE = 4
_CPU_S = 300
_FILE_BYTES_PER_CPU_S = 1 << 20
#: Inverted lists stay in the file; tables that only faiss's own search needs are not made;
#: lists kept in a file beside it are looked for there and nowhere else.
_FLAGS = (
    faiss.IO_FLAG_MMAP
    | faiss.IO_FLAG_READ_ONLY
    | faiss.IO_FLAG_ONDISK_SAME_DIR
    | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    | faiss.IO_FLAG_PQ_SKIP_SDC_TABLE
)


def limit_process(path: Path) -> None:
    """Limits this process to what an honest file of that size can need; for good."""
    file_bytes = path.stat().st_size if path.is_file() else 0
    _lower(resource.RLIMIT_AS, _SPACE_BYTES + _SPACE_PER_FILE_BYTE * file_bytes)
    _lower(resource.RLIMIT_CPU, _CPU_S + file_bytes // _FILE_BYTES_PER_CPU_S)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def open_index(path: Path) -> Any:
    """The index in the file, as the class it is; inverted lists are mapped.

    Raises:
        NotFound: there is no such file.
        CorruptData: faiss cannot read it.
    """
    if not path.is_file():
        raise NotFound(f"there is no file {path}", field="file")
    try:
        return faiss.read_index(str(path), _FLAGS)
    except (RuntimeError, MemoryError) as error:
        raise CorruptData(
            f"{path} is no faiss index, or a damaged one: {_first_reason(error)}",
            field="file",
            hint="write it again with faiss.write_index",
        ) from error


def _first_reason(error: Exception) -> str:
    """faiss's words without the C++ signature before them."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition("Error: ")[2][:300]
