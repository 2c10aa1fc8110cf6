"""What a request may ask of its collection, checked before any work is done."""

from __future__ import annotations

from coordinator.types import Coverage, SearchSpec
from ragschema.errors import IncompatibleRequest, InsufficientCoverage, InvalidInput
from ragschema.storage.manifest import Manifest


def check_search(spec: SearchSpec, manifest: Manifest, max_k: int) -> None:
    """
    Raises:
        InvalidInput: neither or both of text and vector, or k out of range.
        IncompatibleRequest: text for a collection of vectors without a model.
    """
    if (spec.text is None) == (spec.vector is None):
        what = "neither" if spec.text is None else "both"
        raise InvalidInput(
            f"{what} of text and vector was given", field="text", hint="give exactly one of them"
        )
    if not 1 <= spec.k <= max_k:
        raise InvalidInput(f"{spec.k} is not in 1..{max_k}", field="k")
    if spec.nprobe is not None and spec.nprobe < 1:
        raise InvalidInput(f"{spec.nprobe} is less than 1", field="nprobe")
    _check_recall(spec)
    if not 0.0 <= spec.min_coverage <= 1.0:
        raise InvalidInput(f"{spec.min_coverage} is not in 0..1", field="min_coverage")
    if spec.text is None:
        return
    if not spec.text.strip():
        raise InvalidInput("the text is empty", field="text", hint="say what to look for")
    if manifest.embedder is None and manifest.live_rows:
        raise IncompatibleRequest(
            f"collection {manifest.collection!r} holds vectors of no known model",
            field="text",
            hint="search it by vector",
        )


def _check_recall(spec: SearchSpec) -> None:
    if spec.recall is None:
        return
    if spec.nprobe is not None:
        raise InvalidInput(
            f"both nprobe ({spec.nprobe}) and recall ({spec.recall:g}) were given",
            field="recall",
            hint="give nprobe or recall; recall sets nprobe",
        )
    if not 0.0 < spec.recall <= 1.0:
        raise InvalidInput(
            f"{spec.recall} is not above 0 and at most 1", field="recall", hint="such as 0.95"
        )


def check_coverage(coverage: Coverage, wanted: float) -> None:
    """An answer must rest on what the caller asked for, and on something at all.

    Raises:
        InsufficientCoverage: naming the shards that did not answer.
    """
    if coverage.fraction >= wanted and coverage.fraction > 0.0:
        return
    missing = ", ".join(coverage.missing) or "some rows"
    raise InsufficientCoverage(
        f"{coverage.fraction:.1%} of the rows could be searched, {wanted:.1%} were asked for;"
        f" missing: {missing}",
        field="min_coverage",
        hint="try again when the node is back (see /readyz), or lower min_coverage",
    )
