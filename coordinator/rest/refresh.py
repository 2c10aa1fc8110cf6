"""Waits until a commit is served, or says why it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragschema.errors import CorruptData

if TYPE_CHECKING:
    from coordinator.catalog import Catalog


async def serve_latest(catalog: Catalog, name: str) -> None:
    """Returns once what was committed before the call is served.

    Raises:
        CorruptData: the committed state cannot be opened.
    """
    await catalog.refresh(name)
    error = catalog.errors().get(name)
    if error is not None:
        raise CorruptData(
            f"collection {name!r} was changed but cannot be served: {error.message}",
            field=error.field,
            hint=error.hint,
        ) from error
