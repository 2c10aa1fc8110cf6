"""/v1/collections/{name}/documents: list, upload, replace, describe and delete."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from coordinator.collections.snapshot import DocumentInfo
from coordinator.ingest.document import ParsedDocument
from coordinator.rest.body import media_type, read_body, refuse_encoded, stream_body
from coordinator.rest.call import Call, Reply
from coordinator.rest.encode import JsonObject, to_json
from coordinator.rest.multipart import FIELD, FileReceiver
from coordinator.rest.names import CollectionName, DocumentId
from coordinator.rest.operations.jobs import job_reply
from coordinator.rest.refresh import serve_latest
from coordinator.rest.replies import DeletedReply, DocumentReply, DocumentsReply, JobReply
from coordinator.rest.route import NODE_ERRORS, add_operation, validated
from coordinator.rest.schemas import DocumentContent, DocumentsBody, PageQuery
from coordinator.rest.uploads import document_from_json, parse_files, submit_documents
from ragschema.errors import UnsupportedMediaType

_ALL = "/v1/collections/{name}/documents"
_ONE = "/v1/collections/{name}/documents/{document_id:path}"

#: The body of an upload is read by hand, so its two forms are described by hand.
_UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/DocumentsBody"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": ".txt .md .html .pdf .docx .py .json .jsonl",
                        }
                    },
                    "required": [FIELD],
                    "additionalProperties": False,
                }
            },
        },
    }
}


async def list_documents(
    call: Call, name: CollectionName, page: Annotated[PageQuery, Query()]
) -> Reply:
    """List a page of documents in order of their ids."""
    snapshot = call.services.runtime.catalog.current(name)
    found = await asyncio.to_thread(snapshot.documents, page.offset, page.limit)
    return Reply(
        to_json(
            {
                "collection": name,
                "total": snapshot.manifest.live_documents,
                "offset": page.offset,
                "limit": page.limit,
                "documents": [_document_json(info) for info in found],
            }
        )
    )


async def upload_documents(call: Call, name: CollectionName) -> Reply:
    """Add documents or replace those of the same id, as JSON or as files.

    Files are read before the answer, so an unreadable one is refused here; embedding and
    indexing go on as a job. When the job is `done`, the documents are searchable.
    """
    call.services.runtime.catalog.current(name)
    call.services.jobs.check_room()
    folder = await asyncio.to_thread(call.services.jobs.spool.folder)
    try:
        documents = await _read_upload(call, folder)
        job = await submit_documents(call.services, name, documents, folder)
    except BaseException:
        call.services.jobs.spool.discard(folder)
        raise
    return job_reply(job, status=202)


async def _read_upload(call: Call, folder: Path) -> list[ParsedDocument]:
    exchange, limits = call.exchange, call.services.limits
    kind, parameters = media_type(exchange)
    refuse_encoded(exchange)
    if kind == "application/json" and parameters.get("charset", "utf-8").lower() == "utf-8":
        raw = await read_body(exchange, call.receive, limits.max_body_bytes)
        body = validated(DocumentsBody, raw, limits)
        assert isinstance(body, DocumentsBody), "validated returns what it was asked for"
        return [document_from_json(document.id, document) for document in body.documents]
    boundary = parameters.get("boundary", "")
    if kind != "multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise UnsupportedMediaType(
            f"the body's content type is {kind[:80] or 'missing'!r}",
            field="content-type",
            hint="send application/json, or multipart/form-data with a boundary",
        )
    with call.services.uploads.admitted():
        receiver = FileReceiver(boundary.encode("latin-1"), folder, limits.max_documents_per_upload)
        parts = stream_body(exchange, call.receive, limits.max_upload_bytes)
        files = await receiver.receive(parts)
        with call.guard(call.context()):
            async with call.services.uploads.parsing:
                return await parse_files(files, call.services.parse_limits)


async def replace_document(
    call: Call, name: CollectionName, document_id: DocumentId, body: DocumentContent
) -> Reply:
    """Replace one document, or add it under this id."""
    call.services.runtime.catalog.current(name)
    call.services.jobs.check_room()
    folder = await asyncio.to_thread(call.services.jobs.spool.folder)
    try:
        document = document_from_json(document_id, body)
        job = await submit_documents(call.services, name, [document], folder)
    except BaseException:
        call.services.jobs.spool.discard(folder)
        raise
    return job_reply(job, status=202)


async def get_document(call: Call, name: CollectionName, document_id: DocumentId) -> Reply:
    """Describe one document."""
    snapshot = call.services.runtime.catalog.current(name)
    info = await asyncio.to_thread(snapshot.document, document_id)
    return Reply(to_json(_document_json(info)))


async def delete_document(call: Call, name: CollectionName, document_id: DocumentId) -> Reply:
    """Delete one document; no search returns it once this has answered."""
    runtime = call.services.runtime
    manifest = await asyncio.to_thread(runtime.store.delete_documents, name, [document_id])
    await serve_latest(runtime.catalog, name)
    return Reply(to_json({"id": document_id, "deleted": True, "generation": manifest.generation}))


def _document_json(info: DocumentInfo) -> JsonObject:
    return {
        "id": info.document_id,
        "title": info.title,
        "source": info.source,
        "content_hash": info.content_hash,
        "chunks": info.chunks,
        "bytes": info.bytes,
        "ingested_at": info.ingested_at,
        "metadata": info.metadata,
    }


def add(router: APIRouter) -> None:
    tag = "documents"
    add_operation(router, "GET", _ALL, list_documents, DocumentsReply, errors=(503,), tag=tag)
    add_operation(
        router,
        "POST",
        _ALL,
        upload_documents,
        JobReply,
        errors=(503,),
        status=202,
        tag=tag,
        openapi_extra=_UPLOAD_BODY,
    )
    add_operation(router, "GET", _ONE, get_document, DocumentReply, errors=(503,), tag=tag)
    add_operation(
        router, "PUT", _ONE, replace_document, JobReply, errors=(503,), status=202, tag=tag
    )
    add_operation(
        router,
        "DELETE",
        _ONE,
        delete_document,
        DeletedReply,
        errors=(409, *NODE_ERRORS),
        tag=tag,
    )
