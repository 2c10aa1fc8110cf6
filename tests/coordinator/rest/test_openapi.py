"""The OpenAPI document: complete, exact, and kept by the server for any request."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import settings

from coordinator.jobs.runner import JobOptions
from coordinator.rest.app import create_app
from ragschema.rig import LimitsConfig
from tests.coordinator.rest.conftest import Rig, open_rig, served
from tests.coordinator.rest.fake_runtime import FakeRuntime, make_jobs
from tests.coordinator.rest.openapi_checks import check_response

LIMITS = LimitsConfig(max_jobs_waiting=10_000)


class Server:
    """An edge in a thread of its own, for a test that is not asynchronous."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self.url = ""

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        async with open_rig(self._data_dir, LIMITS) as rig, served(rig.app) as self.url:
            self._up.set()
            await self._stop.wait()

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._up.wait(30), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        runtime = FakeRuntime(Path(folder), LIMITS)
        jobs = make_jobs(runtime, JobOptions())
        return create_app(runtime, jobs, None).openapi()  # type: ignore[arg-type]


schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("rig")) as running:
        yield running


@schema.parametrize()
@settings(max_examples=10)
def test_any_request_gets_an_answer_the_document_allows(
    case: schemathesis.Case, server: Server
) -> None:
    check_response(case, case.call(base_url=server.url))


@pytest.fixture
async def served_document(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = (await rig.client.get("/openapi.json")).json()
    return found


def test_every_operation_documents_its_errors_and_its_examples_are_valid(
    served_document: dict[str, Any],
) -> None:
    operations = [
        (path, method, operation)
        for path, methods in served_document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) == 24
    for path, method, operation in operations:
        statuses = set(operation["responses"])
        assert {"401", "422", "429", "500"} <= statuses, (path, method)
        if method in ("post", "put"):
            assert {"413", "415"} <= statuses, (path, method)
        assert operation["summary"]
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and path != "/readyz":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorReply"}
    for name, model in served_document["components"]["schemas"].items():
        for example in model.get("examples", ()):
            whole = {
                "$ref": f"#/components/schemas/{name}",
                "components": served_document["components"],
            }
            jsonschema_rs.validate(whole, example)


def test_the_rig_s_limits_are_in_the_document(served_document: dict[str, Any]) -> None:
    schemas = served_document["components"]["schemas"]
    assert schemas["SearchBody"]["properties"]["k"]["maximum"] == 100
    assert schemas["DocumentsBody"]["properties"]["documents"]["maxItems"] == 1000
    assert "x-limit" not in str(served_document)


def test_the_upload_has_both_of_its_forms(served_document: dict[str, Any]) -> None:
    upload = served_document["paths"]["/v1/collections/{name}/documents"]["post"]
    assert set(upload["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    query = served_document["paths"]["/v1/query"]["post"]["responses"]["200"]["content"]
    assert set(query) == {"application/json", "text/event-stream"}


async def test_a_keyed_server_documents_its_keys(tmp_path: Path) -> None:
    async with open_rig(tmp_path, key="k") as rig:
        headers = {"authorization": "Bearer k"}
        found = (await rig.client.get("/openapi.json", headers=headers)).json()
    assert found["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert found["paths"]["/healthz"]["get"]["security"] == []
    assert found["paths"]["/v1/search"]["post"]["security"] == [{"bearer": []}, {"api_key": []}]


async def test_the_interactive_page_is_served(rig: Rig) -> None:
    response = await rig.client.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
