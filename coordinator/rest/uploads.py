"""From an upload to a queued ingestion: parse in the sandbox, spool as JSON lines, submit."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from coordinator.ingest.document import ParsedDocument, markdown_headings, write_documents_file
from coordinator.ingest.limits import ParseLimits
from coordinator.ingest.sandbox import ParseWorker
from coordinator.ingest.spec import IngestSpec, spec_to_json
from coordinator.jobs.job import Job
from coordinator.jobs.spool import spool_error
from coordinator.rest.call import Services
from coordinator.rest.multipart import UploadedFile
from coordinator.rest.names import is_document_id
from coordinator.rest.schemas import DocumentContent
from ragschema.errors import InvalidInput, PayloadTooLarge, RagrigError, Unavailable


def document_from_json(document_id: str | None, content: DocumentContent) -> ParsedDocument:
    """A document of a JSON body; without an id it gets one made from its text."""
    if document_id is None:
        digest = hashlib.blake2b(content.text.encode("utf-8"), digest_size=12).hexdigest()
        document_id = f"doc-{digest}"
    return ParsedDocument(
        document_id=document_id,
        title=content.title or document_id,
        text=content.text,
        headings=markdown_headings(content.text),
        metadata=content.metadata,
        source=f"upload:{document_id}",
    )


async def parse_files(files: Iterable[UploadedFile], limits: ParseLimits) -> list[ParsedDocument]:
    """The documents in uploaded files, in their order, read in a process of their own.

    Raises:
        UnreadableDocument, PayloadTooLarge: naming the file.
    """
    found: list[ParsedDocument] = []
    async with ParseWorker(limits) as worker:
        for file in files:
            try:
                documents = await worker.parse(file.path, file.name)
            except RagrigError as error:
                error.message = f"{file.name}: {error.message}"
                error.field = error.field or "files"
                raise
            source = f"upload:{file.name}"
            found.extend(replace(document, source=source) for document in documents)
    return found


def check_documents(documents: list[ParsedDocument], most: int) -> None:
    """Raises for too many documents, an id twice, or an id that is no relative path."""
    if len(documents) > most:
        raise PayloadTooLarge(
            f"{len(documents)} documents in one upload, at most {most} are taken",
            field="documents",
            hint="send them in several uploads",
        )
    seen: set[str] = set()
    for document in documents:
        shown = repr(document.document_id[:120])
        if not is_document_id(document.document_id):
            raise InvalidInput(
                f"{shown} is no document id",
                field="id",
                hint="use a relative path without '.' or '..' parts and control characters",
            )
        if document.document_id in seen:
            raise InvalidInput(f"the id {shown} is sent twice", field="id")
        seen.add(document.document_id)


async def submit_documents(
    services: Services, collection: str, documents: list[ParsedDocument], folder: Path
) -> Job:
    """Queues the ingestion of documents; the job then owns the folder."""
    check_documents(documents, services.limits.max_documents_per_upload)
    path = folder / "documents.jsonl"
    try:
        await asyncio.to_thread(write_documents_file, path, documents)
    except OSError as error:
        raise spool_error(error) from error
    spec = IngestSpec(
        data_dir=services.runtime.rig.data_dir,
        collection=collection,
        llm_address=_embedder_address(services),
        num_shards=services.runtime.rig.num_shards,
        documents_file=str(path),
        prune=False,
    )
    return services.jobs.submit(collection, spec_to_json(spec), folder)


def _embedder_address(services: Services) -> str:
    """The LLM node that will embed: a ready one if there is one."""
    rig = services.runtime.rig
    addresses = {n.name: n.address for n in rig.llm_nodes if "embed" in n.roles}
    ready = {health.name for health in services.runtime.pool.health() if health.ready}
    for name in sorted(addresses, key=lambda name: name not in ready):
        address = addresses[name]
        if address is not None:
            return address
    raise Unavailable("no LLM node with the role embed has an address", hint="see GET /readyz")
