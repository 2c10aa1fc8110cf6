"""What ``ragrig index knnlm`` does."""

from __future__ import annotations

from pathlib import Path

from coordinator.cli.console import printable, stdout
from coordinator.cli.indexing import Bars, name_of, run_to_end, served_by_rig
from coordinator.cli.target import START_HINT, running_rig
from coordinator.datastore.build import DatastoreRequest, build_datastore
from ragschema.errors import Unavailable
from ragschema.rig import RigConfig
from ragschema.storage.manifest import check_collection_name

_MOST_NOTES = 10


def run_knnlm(
    rig: RigConfig, sources: tuple[Path, ...], name: str | None, llm: str | None, window_chars: int
) -> None:
    """Builds, reports, waits until a running rig serves it.

    Raises:
        RagrigError: what went wrong; nothing was made.
        KeyboardInterrupt: stopped by a signal; likewise.
    """
    found = running_rig(rig.data_dir)
    rig = found.rig if found else rig
    request = DatastoreRequest(
        data_dir=Path(rig.data_dir),
        collection=check_collection_name(name or name_of(sources[0])),
        sources=tuple(source.expanduser().absolute() for source in sources),
        llm_address=llm or _generator_of(rig),
        num_shards=rig.num_shards,
        window_chars=window_chars,
    )
    with Bars() as bars:
        built = run_to_end(build_datastore(request, bars.report))
    manifest = built.manifest
    stdout().print(
        f"{manifest.live_rows} states of {manifest.dim} numbers in {manifest.collection}"
    )
    for note in built.notes[:_MOST_NOTES]:
        stdout().print(f"left out: {printable(note)}")
    if len(built.notes) > _MOST_NOTES:
        stdout().print(f"and {len(built.notes) - _MOST_NOTES} more")
    served_by_rig(rig, manifest)


def _generator_of(rig: RigConfig) -> str:
    """The address of the first node that runs a model of its own."""
    for node in rig.llm_nodes:
        own = "generate" in node.roles and node.generator.startswith("hf:")
        if own and node.address is not None:
            return node.address
    raise Unavailable(
        "no node with the role generate and an hf: generator is known",
        field="llm",
        hint=f"{START_HINT}, or name one with --llm HOST:PORT",
    )
