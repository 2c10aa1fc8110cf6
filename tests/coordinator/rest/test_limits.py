"""The outermost layer: keys, trace ids, admission, sizes, and what never leaves."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from ragschema.rig import LimitsConfig
from tests.coordinator.rest.conftest import Rig, open_rig, served

KEY = "correct-horse"
SEARCH = {"collection": "docs", "text": "keys"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": KEY[:-1]}, 401),
    ],
)
async def test_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, headers: dict[str, str], status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        open_rig(tmp_path, key=KEY) as rig,
        served(rig.app) as url,
        httpx.AsyncClient(base_url=url, headers=headers) as client,
    ):
        response = await client.post("/v1/search", json=SEARCH)
        health = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
    assert response.status_code == status
    assert health == [200, 200]
    assert KEY not in caplog.text
    if status == 401:
        assert response.json()["error"]["type"] == "unauthenticated"
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/v1/status", "/openapi.json", "/docs", "/nope", "/v1/jobs"]
)
async def test_everything_but_health_is_closed(tmp_path: Path, path: str) -> None:
    async with open_rig(tmp_path, key=KEY) as rig:
        assert (await rig.client.get(path)).status_code == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8080", 200),
        ("http://[::1]:8080", 200),
        ("https://example.org", 401),
        ("http://localhost.example.org", 401),
        ("null", 401),
    ],
)
async def test_web_pages_of_other_origins_may_not_use_a_keyless_server(
    rig: Rig, origin: str, status: int
) -> None:
    response = await rig.post("/v1/search", SEARCH, headers={"origin": origin})
    assert response.status_code == status


@pytest.mark.parametrize("trace_id", ["0123456789abcdef", "0123456789abcdef" * 2])
async def test_a_trace_id_makes_the_round_trip(rig: Rig, trace_id: str) -> None:
    response = await rig.post("/v1/search", SEARCH, headers={"x-trace-id": trace_id})
    assert response.headers["x-trace-id"] == trace_id
    assert response.json()["trace_id"] == trace_id
    assert rig.runtime.pipeline.contexts[-1].trace_id == trace_id


@pytest.mark.parametrize("offered", ["", "short", "0123456789ABCDEF", "g" * 16, "a" * 17])
async def test_an_odd_trace_id_is_replaced(rig: Rig, offered: str) -> None:
    response = await rig.client.get("/nope", headers={"x-trace-id": offered})
    made = response.headers["x-trace-id"]
    assert made != offered
    assert len(bytes.fromhex(made)) == 8
    assert response.json()["error"]["trace_id"] == made


async def test_every_slot_taken_is_429_but_health_answers(tmp_path: Path) -> None:
    async with open_rig(tmp_path, LimitsConfig(max_inflight=2)) as rig:
        rig.runtime.pipeline.search_s = 30
        busy = [asyncio.create_task(rig.post("/v1/search", SEARCH)) for _ in range(2)]
        async with asyncio.timeout(10):
            while rig.runtime.pipeline.running < 2:
                await asyncio.sleep(0.01)
        refused = await rig.post("/v1/search", SEARCH)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "overloaded"
        for path in ("/healthz", "/readyz", "/metrics", "/v1/status"):
            assert (await rig.client.get(path)).status_code == 200
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        rig.runtime.pipeline.search_s = 0
        assert (await rig.post("/v1/search", SEARCH)).status_code == 200


async def test_an_unexpected_exception_shows_nothing(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.runtime.pipeline.error = RuntimeError("secret detail")
    response = await rig.post("/v1/search", SEARCH)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "internal"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "secret detail" in caplog.text
    assert response.headers["x-trace-id"] in caplog.text


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "text/plain"}, b"{}", 415),
        ({}, b"{}", 415),
        ({"content-type": "application/json; charset=utf-16"}, b"{}", 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=1", 415),
        ({"content-type": "application/json"}, b"", 422),
        ({"content-type": "application/json"}, b"{", 422),
        ({"content-type": "application/json"}, b"\xff\xfe", 422),
        ({"content-type": "application/json"}, b"[]", 422),
        ({"content-type": "application/json"}, b"[" * 100_000, 422),
        ({"content-type": "application/json"}, b'{"collection": "\\ud800", "text": "x"}', 422),
        ({"content-type": "Application/JSON; Charset=UTF-8"}, b"{}", 422),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_bodies_that_are_not_json(
    rig: Rig, headers: dict[str, str], content: bytes, status: int
) -> None:
    response = await rig.client.post("/v1/search", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"type", "message", "field", "hint", "trace_id"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
async def test_other_methods_are_405_with_allow(rig: Rig, method: str) -> None:
    response = await rig.client.request(method, "/v1/search")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    both = await rig.client.request("PATCH", "/v1/collections/docs/documents/a/b")
    assert both.headers["allow"] == "GET, PUT, DELETE"


async def test_unknown_query_parameters_are_refused(rig: Rig) -> None:
    response = await rig.client.get("/healthz?verbose=1")
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "verbose"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_413(tmp_path: Path, announced: bool) -> None:
    async with open_rig(tmp_path, LimitsConfig(max_body_bytes=2000)) as rig:
        headers = {"content-type": "application/json"}
        if announced:
            response = await rig.client.post("/v1/search", content=b" " * 2001, headers=headers)
        else:
            response = await rig.client.post("/v1/search", content=_parts(300, 10), headers=headers)
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "payload_too_large"


async def _parts(size: int, count: int) -> Any:
    for _ in range(count):
        yield b" " * size


def test_a_gigabyte_is_refused_early_with_bounded_memory_and_an_empty_spool(
    tmp_path: Path,
) -> None:
    """A chunked upload that never announces its size, against a real server."""
    seen = asyncio.run(_send_gigabyte(tmp_path))
    assert seen["status"].startswith("HTTP/1.1 413")
    assert "payload_too_large" in seen["status"]
    assert seen["sent_bytes"] < 200 << 20, "the server went on reading"
    assert seen["spool_bytes"] <= 9 << 20
    assert seen["grown_bytes"] < 100 << 20
    assert list((tmp_path / "run" / "spool").iterdir()) == []


async def _send_gigabyte(tmp_path: Path) -> dict[str, Any]:
    limits = LimitsConfig(max_upload_bytes=8 << 20)
    async with open_rig(tmp_path, limits) as rig, served(rig.app) as url:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        port = int(url.rpartition(":")[2])
        found = await asyncio.to_thread(_blast, port, tmp_path / "run" / "spool")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**found, "grown_bytes": (after - before) * 1024}


def _blast(port: int, spool: Path) -> dict[str, Any]:
    head = (
        "POST /v1/collections/docs/documents HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n'
    block = b"x" * (1 << 20)
    sent, spooled = 0, 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(head.encode() + b"%x\r\n%b\r\n" % (len(part), part))
        try:
            for _ in range(1024):
                client.sendall(b"%x\r\n" % len(block) + block + b"\r\n")
                sent += len(block)
                spooled = max(spooled, sum(p.stat().st_size for p in spool.rglob("*")))
        except (BrokenPipeError, ConnectionResetError):
            pass
        status = b""
        deadline = time.monotonic() + 30
        while b"}}" not in status and time.monotonic() < deadline:
            piece = client.recv(65536)
            if not piece:
                break
            status += piece
    return {"status": status.decode(), "sent_bytes": sent, "spool_bytes": spooled}


async def test_an_announced_gigabyte_is_refused_before_it_is_sent(rig: Rig) -> None:
    async with served(rig.app) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/collections/docs/documents HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1073741824\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"100 Continue" not in answer
    assert b"connection: close" in answer
