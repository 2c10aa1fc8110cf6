"""Requests that are wrong, huge or hostile: a clear refusal, and nothing is lost."""

from __future__ import annotations

import http.client
import io
import json
import select
import socket
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.corpus import FOODS
from tests.e2e.rigs import RunningRig

GIB = 1 << 30
BOUNDARY = "ragrigboundary"
PART_HEAD = (
    f"--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"files\"; filename=\"big.txt\"\r\n"
    "content-type: text/plain\r\n\r\n"
).encode()  # fmt: skip
DOCUMENTS = "/v1/collections/zoo/documents"


@pytest.fixture
def client(appliance: RunningRig) -> Iterator[httpx.Client]:
    with appliance.client() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_lost(appliance: RunningRig) -> Iterator[None]:
    """Whatever a test sent: the server is the same process, healthy, with all its documents."""
    before = appliance.node("coordinator")["pid"] if _named(appliance) else None
    yield
    with appliance.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/collections/zoo").json()["documents"] == len(FOODS)
        body = {"collection": "zoo", "text": "What does the otter eat?", "k": 1}
        hits = client.post("/v1/search", json=body).raise_for_status().json()["hits"]
        assert hits[0]["document_id"] == "zoo/otter"
    assert before == (appliance.node("coordinator")["pid"] if _named(appliance) else None)


def _named(rig: RunningRig) -> bool:
    return any(n["name"] == "coordinator" for n in rig.state["nodes"])


def check_refused(response: httpx.Response, *statuses: int) -> dict[str, Any]:
    """A 4xx of the given ones, with the one error body and no trace of a stack."""
    assert response.status_code in statuses, response.text[:500]
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"type", "message", "field", "hint", "trace_id"}
    assert error["message"]
    assert error["trace_id"]
    assert "Traceback" not in response.text
    return error


def send_until_answered(
    rig: RunningRig, head: bytes, blocks: Iterator[bytes]
) -> tuple[int, dict[str, Any], int]:
    """Writes until the server answers; returns status, error, and the bytes it took."""
    host, _, port = rig.state["coordinator"].rpartition(":")
    sent = 0
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        wire.sendall(head)
        wire.setblocking(False)
        block = b""
        while not select.select([wire], [], [], 0)[0]:
            block = block or next(blocks)
            _, writable, _ = select.select([wire], [wire], [], 60)
            if writable:
                size = wire.send(block)
                sent += size
                block = block[size:]
        wire.settimeout(60)
        reply = http.client.HTTPResponse(wire)
        reply.begin()
        return reply.status, json.loads(reply.read())["error"], sent


def upload_head(*lines: str) -> bytes:
    head = [
        f"POST {DOCUMENTS} HTTP/1.1",
        "host: 127.0.0.1",
        f"content-type: multipart/form-data; boundary={BOUNDARY}",
        *lines,
    ]
    return ("\r\n".join(head) + "\r\n\r\n").encode("ascii")


def one_gib(chunked: bool) -> Iterator[bytes]:
    block = b"all work and no play " * 50_000
    left = GIB
    first = PART_HEAD
    while left > 0:
        data = first + block
        first = b""
        yield b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
        left -= len(data)


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_1_gib_upload_is_refused_before_it_is_read(appliance: RunningRig, chunked: bool) -> None:
    server = max(
        (p for p in psutil.Process(appliance.process.pid).children(recursive=True)
         if "coordinator" in p.cmdline()), key=lambda p: p.memory_info().rss,
    )  # fmt: skip
    before = server.memory_info().rss
    line = "transfer-encoding: chunked" if chunked else f"content-length: {GIB}"
    status, error, sent = send_until_answered(appliance, upload_head(line), one_gib(chunked))
    assert status == 413
    assert error["type"] == "payload_too_large"
    assert error["hint"]
    assert sent < 256 << 20
    assert server.memory_info().rss - before < 128 << 20


def upload(client: httpx.Client, name: str, content: bytes) -> httpx.Response:
    return client.post(DOCUMENTS, files={"files": (name, content)})


def docx(document_xml: bytes) -> bytes:
    """A Word file with this main part."""
    types = (
        b'<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/'
        b'content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-'
        b'package.relationships+xml"/><Override PartName="/word/document.xml" ContentType="applica'
        b'tion/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        b'<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006'
        b'/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocum'
        b'ent/2006/relationships/officeDocument" Target="word/document.xml"/></Relationships>'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", types)
        archive.writestr("_rels/.rels", relations)
        archive.writestr("word/document.xml", document_xml)
    return out.getvalue()


W = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def word_text(inner: bytes) -> bytes:
    return b"<w:document " + W + b"><w:body>" + inner + b"</w:body></w:document>"


def test_a_sound_word_file_is_taken(client: httpx.Client) -> None:
    """So that the refusals below are of the bombs and not of the container."""
    content = docx(word_text(b"<w:p><w:r><w:t>The owl keeps the ledger.</w:t></w:r></w:p>"))
    client.post("/v1/collections", json={"name": "word"}).raise_for_status()
    reply = client.post("/v1/collections/word/documents", files={"files": ("owl.docx", content)})
    assert reply.status_code == 202, reply.text


def billion_laughs() -> bytes:
    lines = [b'<!ENTITY a0 "' + b"ha" * 50 + b'">']
    lines += [b'<!ENTITY a%d "' % i + b"&a%d;" % (i - 1) * 10 + b'">' for i in range(1, 12)]
    text = word_text(b"<w:p><w:r><w:t>&a11;</w:t></w:r></w:p>")
    return b"<!DOCTYPE w [" + b"".join(lines) + b"]>" + text


BOMBS = {
    "zeros.docx": lambda: docx(word_text(b"<w:p/>" + b" " * (400 << 20))),
    "laughs.docx": lambda: docx(billion_laughs()),
    "nested.docx": lambda: docx(word_text(b"<w:p>" * 500_000 + b"</w:p>" * 500_000)),
    "nested.html": lambda: b"<div>" * 2_000_000 + b"deep",
    "nested.json": lambda: b"[" * 3_000_000,
    "records.jsonl": lambda: b'{"text": "x"}\n' * 300_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(client: httpx.Client, name: str) -> None:
    error = check_refused(upload(client, name, BOMBS[name]()), 413, 422)
    assert error["hint"] or name in error["message"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.txt", b""),
        ("binary.txt", bytes(range(256)) * 64),
        ("broken.pdf", b"%PDF-1.7\nnot really"),
        ("broken.docx", b"PK\x03\x04 not really"),
        ("program.exe", b"MZ\x90\x00"),
        ("noname", b"text without a suffix"),
        ("../../etc/passwd.txt", b"climbing out"),
        ("..", b"climbing out"),
        ("a\\..\\b.txt", b"climbing out"),
    ],
)
def test_an_unreadable_or_climbing_file_is_refused(
    client: httpx.Client, name: str, content: bytes
) -> None:
    check_refused(upload(client, name, content), 415, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/collections/..%2f..%2fetc/documents",
        "/v1/collections/%2e%2e/documents",
        "/v1/collections/..",
        "/v1/collections/zoo%00",
        "/v1/collections/zoo%0a",
        "/v1/collections/ZOO",
    ],
)
def test_a_path_that_climbs_is_refused(client: httpx.Client, path: str) -> None:
    check_refused(client.get(path), 404, 405, 422)


@pytest.mark.parametrize("document", ["%2e%2e", "../../../etc/passwd", "a/../b", "a%00b"])
def test_a_document_id_is_never_a_path(client: httpx.Client, document: str) -> None:
    url = f"{DOCUMENTS}/{document.replace('/', '%2F')}"
    check_refused(client.get(url), 404, 405, 422)
    check_refused(client.delete(url), 404, 405, 422)


def searched(client: httpx.Client, **changes: Any) -> httpx.Response:
    body = {"collection": "zoo", "k": 3, "vector": [0.1] * 384} | changes
    raw = json.dumps({k: v for k, v in body.items() if v is not None})
    return client.post(
        "/v1/search", content=raw.encode(), headers={"content-type": "application/json"}
    )


def test_the_search_below_is_sound(client: httpx.Client) -> None:
    assert searched(client).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"vector": [float("nan")] * 384}, 422, None),
        ({"vector": [float("inf")] * 384}, 422, None),
        ({"vector": [1e39] * 384}, 422, "vector"),
        ({"vector": [0.0] * 384}, 422, "vector"),
        ({"vector": [0.1] * 383}, 422, "vector"),
        ({"vector": []}, 422, "vector"),
        ({"vector": ["0.1"] * 384}, 422, "vector"),
        ({"vector": None}, 422, None),
        ({"text": "both"}, 422, None),
        ({"k": 0}, 422, "k"),
        ({"k": -1}, 422, "k"),
        ({"k": 10**9}, 422, "k"),
        ({"k": "3"}, 422, "k"),
        ({"k": True}, 422, "k"),
        ({"min_coverage": 1.5}, 422, "min_coverage"),
        ({"collection": "nowhere"}, 404, "collection"),
        ({"collection": "../zoo"}, 422, "collection"),
        ({"surprise": 1}, 422, "surprise"),
        ({"filters": {"number": {"like": "x"}}}, 422, "filters"),
        ({"filters": {"number": {"gt": "text"}}}, 422, "filters"),
        ({"timeout_ms": 0}, 422, "timeout_ms"),
    ],
)
def test_a_wrong_search_names_the_field(
    client: httpx.Client, changes: dict[str, Any], status: int, field: str | None
) -> None:
    error = check_refused(searched(client, **changes), status)
    if field is not None:
        assert (error["field"] or "").startswith(field), error


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"collection": "zoo", "collection": 1}',
     b"[" * 100_000, b'{"k": ' + b"9" * 100_000 + b"}"],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(client: httpx.Client, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    for path in ("/v1/search", "/v1/query", "/v1/chat/completions", "/v1/embeddings"):
        check_refused(client.post(path, content=raw, headers=headers), 422)


def test_a_json_body_over_the_limit_is_refused(client: httpx.Client) -> None:
    body = {"collection": "zoo", "question": "x" * (6 << 20)}
    check_refused(client.post("/v1/query", json=body), 413)


def test_other_content_types_and_methods_are_refused(client: httpx.Client) -> None:
    check_refused(
        client.post("/v1/search", content=b"{}", headers={"content-type": "text/xml"}), 415
    )
    check_refused(client.put("/v1/search", json={}), 405)
    check_refused(client.get("/v1/nothing"), 404)
