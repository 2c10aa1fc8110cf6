"""/v1/collections/{name}/documents and /v1/jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator.jobs.runner import JobOptions
from coordinator.rest.replies import (
    DeletedReply,
    DocumentReply,
    DocumentsReply,
    JobReply,
    JobsReply,
)
from ragschema.rig import LimitsConfig
from tests.coordinator.rest.conftest import Rig, open_rig
from tests.coordinator.rest.fake_runtime import ENDLESS_INGESTION, program

PATH = "/v1/collections/docs/documents"
#: Stands for the ingestion and keeps what it was given.
KEEPING = """
import json, shutil, sys
spec = json.load(open(sys.argv[1]))
shutil.copy(spec["documents_file"], spec["data_dir"] + "/kept.jsonl")
json.dump(spec, open(spec["data_dir"] + "/spec.json", "w"))
print(json.dumps({"summary": {"added": 1}}))
"""


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(tmp_path, options=JobOptions(program=program(KEEPING))) as opened:
        yield opened


def spooled(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "run" / "spool").iterdir())


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


async def test_json_documents_become_a_job(keeping: Rig, tmp_path: Path) -> None:
    documents = [
        {"id": "guides/a b/ü", "text": "# Keys\n\nRotate.", "title": "Keys", "metadata": {"n": 1}},
        {"text": "No id."},
    ]
    response = await keeping.post(PATH, {"documents": documents})
    assert response.status_code == 202
    JobReply.model_validate_json(response.content)
    job = await keeping.finished_job(response.json()["id"])
    assert (job["state"], job["summary"]) == ("done", {"added": 1})
    assert keeping.runtime.catalog.refreshed[-1] == "docs"
    first, second = kept(tmp_path)
    assert first["document_id"] == "guides/a b/ü"
    assert first["metadata"] == {"n": 1}
    assert first["headings"][0]["title"] == "Keys"
    assert second["document_id"].startswith("doc-")
    assert second["title"] == second["document_id"]
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec["collection"] == "docs"
    assert spec["llm_address"] == "127.0.0.1:1"
    assert spec["num_shards"] == 2
    assert spec["prune"] is False
    assert spooled(tmp_path) == []


async def test_the_same_text_gets_the_same_id(keeping: Rig, tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        response = await keeping.post(PATH, {"documents": [{"text": "No id."}]})
        await keeping.finished_job(response.json()["id"])
        ids.append(kept(tmp_path)[0]["document_id"])
    assert ids[0] == ids[1]


async def test_put_names_the_document(keeping: Rig, tmp_path: Path) -> None:
    response = await keeping.client.put(f"{PATH}/guides/1", json={"text": "New text."})
    assert response.status_code == 202
    assert (await keeping.finished_job(response.json()["id"]))["state"] == "done"
    assert kept(tmp_path)[0]["document_id"] == "guides/1"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": [{"text": ""}]}, "documents.0.text"),
        ({"documents": [{"text": " \n "}]}, "documents.0.text"),
        ({"documents": [{"id": "a"}]}, "documents.0.text"),
        ({"documents": [{"id": "../a", "text": "x"}]}, "documents.0.id"),
        ({"documents": [{"id": "/etc/passwd", "text": "x"}]}, "documents.0.id"),
        ({"documents": [{"id": "a/../../b", "text": "x"}]}, "documents.0.id"),
        ({"documents": [{"id": "a\u0000", "text": "x"}]}, "documents.0.id"),
        ({"documents": [{"id": "a\n", "text": "x"}]}, "documents.0.id"),
        ({"documents": [{"id": "", "text": "x"}]}, "documents.0.id"),
        ({"documents": [{"text": "x", "metadata": {"a": None}}]}, "documents.0.metadata.a"),
        ({"documents": [{"text": "x", "metadata": {"a": [1]}}]}, "documents.0.metadata.a"),
        ({"documents": [{"text": "x", "mime": "y"}]}, "documents.0.mime"),
        ({"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}, "id"),
    ],
    ids=lambda value: repr(value)[:60],
)
async def test_wrong_documents_queue_nothing(
    rig: Rig, tmp_path: Path, body: dict[str, Any], field: str
) -> None:
    response = await rig.post(PATH, body)
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field
    assert rig.jobs.jobs() == ()
    assert spooled(tmp_path) == []


async def test_too_many_documents(tmp_path: Path) -> None:
    async with open_rig(tmp_path, LimitsConfig(max_documents_per_upload=2)) as rig:
        documents = [{"text": f"text {number}"} for number in range(3)]
        response = await rig.post(PATH, {"documents": documents})
        assert response.status_code == 422
        assert "at most 2" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "document_id",
    ["%2e%2e", "a/%2e%2e/b", "%2Fetc/passwd", "a%00b", "a%0Ab", "./a", "x" * 600],
)
async def test_ids_that_could_be_paths_are_refused(rig: Rig, document_id: str) -> None:
    for method in ("GET", "DELETE"):
        response = await rig.client.request(method, f"{PATH}/{document_id}")
        assert response.status_code in (404, 422)
        assert response.json()["error"]["type"] in ("invalid_input", "not_found")
    response = await rig.client.put(f"{PATH}/a/%2e%2e/b", json={"text": "x"})
    assert response.status_code in (404, 422)
    assert rig.jobs.jobs() == ()


async def test_listing_is_paged(rig: Rig) -> None:
    response = await rig.client.get(PATH, params={"offset": 1, "limit": 1})
    reply = DocumentsReply.model_validate_json(response.content)
    assert (reply.total, reply.offset, reply.limit) == (3, 1, 1)
    assert [document.id for document in reply.documents] == ["guides/1"]


@pytest.mark.parametrize(
    ("query", "field"),
    [("offset=-1", "offset"), ("limit=0", "limit"), ("limit=x", "limit"), ("page=1", "page"),
     ("limit=1&limit=2", "query")],
)  # fmt: skip
async def test_wrong_pages(rig: Rig, query: str, field: str) -> None:
    response = await rig.client.get(f"{PATH}?{query}")
    assert response.status_code == 422
    assert response.json()["error"]["field"] == field


async def test_a_document_is_described_and_deleted_at_once(rig: Rig) -> None:
    found = await rig.client.get(f"{PATH}/guides/1")
    assert DocumentReply.model_validate_json(found.content).title == "Guide 1"
    gone = await rig.client.delete(f"{PATH}/guides/1")
    assert DeletedReply.model_validate_json(gone.content).generation == 2
    assert rig.runtime.catalog.refreshed[-1] == "docs"
    assert (await rig.client.get(f"{PATH}/guides/1")).status_code == 404
    assert (await rig.client.delete(f"{PATH}/guides/1")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_an_unknown_collection_is_not_found(rig: Rig, method: str) -> None:
    path = "/v1/collections/nope/documents"
    options: dict[str, Any] = {}
    if method == "POST":
        options = {"json": {"documents": [{"text": "x"}]}}
    elif method == "PUT":
        path, options = f"{path}/a", {"json": {"text": "x"}}
    elif method == "DELETE":
        path = f"{path}/a"
    response = await rig.client.request(method, path, **options)
    assert response.status_code == 404


async def test_files_are_parsed_before_the_answer(keeping: Rig, tmp_path: Path) -> None:
    files = [
        ("files", ("notes/keys.md", b"# Keys\n\nRotate them weekly.", "text/markdown")),
        ("files", ("plain.txt", "Grüße".encode(), "text/plain")),
    ]
    response = await keeping.client.post(PATH, files=files)
    assert response.status_code == 202, response.text
    await keeping.finished_job(response.json()["id"])
    documents = kept(tmp_path)
    assert [document["document_id"] for document in documents] == ["notes/keys.md", "plain.txt"]
    assert "Rotate them weekly." in documents[0]["text"]
    assert documents[1]["text"].strip() == "Grüße"
    assert spooled(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "status", "kind"),
    [
        ("a.bin", b"\x00\x01\x02", 422, "unreadable_document"),
        ("empty.txt", b"", 422, "unreadable_document"),
        ("broken.pdf", b"%PDF-1.7 nothing", 422, "unreadable_document"),
        ("../up.txt", b"text", 422, "invalid_input"),
        ("/etc/passwd", b"text", 422, "invalid_input"),
        ("a\\..\\b.txt", b"text", 422, "invalid_input"),
    ],
)
async def test_bad_files_are_refused_at_once(
    rig: Rig, tmp_path: Path, name: str, content: bytes, status: int, kind: str
) -> None:
    response = await rig.client.post(PATH, files={"files": (name, content)})
    assert response.status_code == status, response.text
    assert response.json()["error"]["type"] == kind
    assert rig.jobs.jobs() == ()
    assert spooled(tmp_path) == []


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("multipart/form-data; boundary=x", b"no boundary at all", 422),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n", 422),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("multipart/form-data; boundary=x", b"", 422),
        ("multipart/form-data", b"--x--\r\n", 415),
        ("text/plain", b"hello", 415),
        ("application/json; charset=latin-1", b"{}", 415),
        ("application/json", b"{", 422),
        ("application/json", b"", 422),
    ],
)
async def test_bodies_that_are_no_upload(
    rig: Rig, tmp_path: Path, content_type: str, content: bytes, status: int
) -> None:
    response = await rig.client.post(PATH, content=content, headers={"content-type": content_type})
    assert response.status_code == status, response.text
    assert spooled(tmp_path) == []


async def test_other_form_fields_are_refused(rig: Rig) -> None:
    response = await rig.client.post(PATH, files={"document": ("a.txt", b"x")})
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "document"


async def test_a_full_queue_is_429(tmp_path: Path) -> None:
    limits, options = LimitsConfig(), JobOptions(1, 1, program=program(ENDLESS_INGESTION))
    async with open_rig(tmp_path, limits, options=options) as rig:
        body = {"documents": [{"text": "x"}]}
        assert (await rig.post(PATH, body)).json()["state"] == "running"
        waiting = (await rig.post(PATH, body)).json()
        assert waiting["state"] == "waiting"
        response = await rig.post(PATH, body)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        put = await rig.client.put(f"{PATH}/a", json={"text": "x"})
        assert put.status_code == 429
        listed = JobsReply.model_validate_json((await rig.client.get("/v1/jobs")).content)
        assert [job.state for job in listed.jobs] == ["waiting", "running"]
        only = await rig.client.get("/v1/jobs", params={"collection": "other"})
        assert only.json() == {"jobs": []}
        assert len(spooled(tmp_path)) == 2


async def test_too_many_uploads_at_once_are_429(rig: Rig, tmp_path: Path) -> None:
    hold = asyncio.Event()
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nx'
    headers = {"content-type": "multipart/form-data; boundary=b"}

    async def slow_body() -> AsyncIterator[bytes]:
        yield head
        await hold.wait()

    def upload() -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(rig.client.post(PATH, content=slow_body(), headers=headers))

    held = [upload() for _ in range(8)]
    async with asyncio.timeout(10):
        while len(spooled(tmp_path)) < 8:
            await asyncio.sleep(0.01)
        refused = await upload()
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "5"
    hold.set()
    assert {response.status_code for response in await asyncio.gather(*held)} == {422}
    assert spooled(tmp_path) == []


async def test_an_unknown_job(rig: Rig) -> None:
    assert (await rig.client.get("/v1/jobs/nope")).status_code == 404
    assert (await rig.client.delete("/v1/jobs/nope")).status_code == 404
