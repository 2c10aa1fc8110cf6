"""Any request the OpenAPI document allows, and many it does not, against a whole appliance."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings

from tests.coordinator.rest.openapi_checks import check_response
from tests.coordinator.rest.test_openapi import document
from tests.e2e.rigs import RunningRig

schema = schemathesis.openapi.from_dict(document())


def test_the_appliance_serves_this_document(appliance: RunningRig) -> None:
    """The requests below are made from it before any server runs."""
    with appliance.client() as client:
        served = client.get("/openapi.json").json()
    assert served == schema.raw_schema


@schema.parametrize()
@settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_no_5xx_and_no_violation(case: schemathesis.Case[Any], appliance: RunningRig) -> None:
    check_response(case, case.call(base_url=appliance.url))


def test_the_appliance_is_whole_after_all_that(appliance: RunningRig) -> None:
    with appliance.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/v1/collections/zoo").json()["index"] == "exact"
        assert client.get("/v1/collections/sightings").json()["index"] == "ivfpq"
