"""How any response is held to the OpenAPI document; shared with tests of a whole appliance."""

from __future__ import annotations

import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

#: Refusals of requests that fit their schema, for what no JSON schema can say: a vector's
#: dimension, an index nobody measured, two values that contradict each other, an id or a file's
#: name sent twice, a file's content.
BEYOND_SCHEMAS = frozenset(
    {
        ("incompatible_request", "vector"),
        ("invalid_input", "vector"),
        ("incompatible_request", "dimensions"),
        ("incompatible_request", "recall"),
        ("invalid_input", "collection"),
        ("invalid_input", "chunking"),
        ("invalid_input", "min_tokens"),
        ("invalid_input", "top_logprobs"),
        ("invalid_input", "messages"),
        ("invalid_input", "id"),
        ("invalid_input", "files"),
    }
)

#: Options that the extractive generator lacks; which one a rig has, no schema can say.
OF_LANGUAGE_MODELS = frozenset(
    {
        "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
        "min_tokens", "stop_token_ids", "ignore_eos", "logprobs", "n",
    }
)  # fmt: skip


def check_response(case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Every check of schemathesis; a valid request may be refused only for the reasons above.

    A body over the limit is refused as such, 413, before anybody looks at what else is
    wrong with it; schemathesis does not count that among refusals.
    """
    excluded = [positive_data_acceptance] if _is_beyond_schemas(response) else []
    if response.status_code == 413:
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded)


def _is_beyond_schemas(response: schemathesis.Response) -> bool:
    if response.status_code != 422:
        return False
    error = response.json()["error"]
    kind, field = error["type"], error["field"]
    return (
        (kind, field) in BEYOND_SCHEMAS
        or (kind == "incompatible_request" and field in OF_LANGUAGE_MODELS)
        or kind == "unreadable_document"
    )
