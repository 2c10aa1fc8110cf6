"""The collection a command means when it names none."""

from __future__ import annotations

from coordinator.cli.rest import RestClient
from ragschema.errors import InvalidInput


def choose_collection(client: RestClient, named: str | None) -> str:
    """The named collection, or the only one there is.

    Raises:
        InvalidInput: there is none, or there are several, naming them.
    """
    if named is not None:
        return named
    names = [str(c["name"]) for c in client.get("/v1/collections")["collections"]]
    if len(names) == 1:
        return names[0]
    if not names:
        raise InvalidInput(
            "there is no collection yet",
            field="collection",
            hint="make one with `ragrig ingest PATH --collection NAME`",
        )
    raise InvalidInput(
        f"there are {len(names)} collections: {', '.join(sorted(names))}",
        field="collection",
        hint=f"choose one, such as --collection {min(names)}",
    )
