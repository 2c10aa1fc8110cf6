from __future__ import annotations

import pytest

from llm_node.device.lanes import NodeDevices, parse_shares
from ragschema.errors import InvalidInput
from ragschema.types import Role

ROLES = (Role.EMBED, Role.GENERATE, Role.REWRITE)


def test_lanes_of_one_device_share_it() -> None:
    devices = NodeDevices({Role.GENERATE: 3.0, Role.EMBED: 0.5}, threads=1, max_waiting=4)
    devices.lane("cuda", Role.GENERATE, Role.REWRITE)
    devices.lane("cpu", Role.EMBED)
    devices.lane("cuda:0", Role.INDEX_SCAN)
    assert [(one.device, one.name, one.weight) for one in devices.usage()] == [
        ("cuda:0", "generate+rewrite", 4.0),
        ("cuda:0", "index_scan", 1.0),
        ("cpu", "embed", 0.5),
    ]


def test_shares_are_read() -> None:
    assert parse_shares("", ROLES) == {}
    assert parse_shares("generate=3, embed=0.5", ROLES) == {Role.GENERATE: 3.0, Role.EMBED: 0.5}


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("dance=1", "--shares.dance", "'dance' is no role of this node"),
        ("rerank=1", "--shares.rerank", "'rerank' is no role of this node"),
        ("embed=0", "--shares.embed", "the share of embed is '0'"),
        ("embed=-1", "--shares.embed", "the share of embed is '-1'"),
        ("embed=nan", "--shares.embed", "the share of embed is 'nan'"),
        ("embed=inf", "--shares.embed", "the share of embed is 'inf'"),
        ("embed=much", "--shares.embed", "the share of embed is 'much'"),
        ("embed", "--shares.embed", "the share of embed is ''"),
    ],
)
def test_what_is_no_share_is_refused_by_name(text: str, field: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        parse_shares(text, ROLES)
    assert caught.value.field == field
    assert caught.value.hint
