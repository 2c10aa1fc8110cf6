from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragschema.errors import InvalidInput
from retrieval_node.placement import check_cpus, format_cpus, node_cpus, parse_cpus


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("0-3,6", (0, 1, 2, 3, 6)), ("5, 2-3", (5, 2, 3))]
)
def test_lists(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpus(text) == cpus


@given(st.sets(st.integers(0, 300), min_size=1))
def test_the_short_form_is_read_back(cpus: set[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == tuple(sorted(cpus))


@pytest.mark.parametrize(
    "text", ["", ",", "a", "-1", "3-1", "1-", "0,,1", "0-99999999", "1.5", "²", "0-1,1", "0x1"]
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_cpus(text)
    assert caught.value.field == "--cpus"
    assert caught.value.hint


def test_a_processor_that_may_not_be_used() -> None:
    check_cpus(os.sched_getaffinity(0))
    with pytest.raises(InvalidInput, match="65000") as caught:
        check_cpus((65000,))
    assert format_cpus(os.sched_getaffinity(0)) in (caught.value.hint or "")


def test_nodes_are_read_from_the_system(tmp_path: Path) -> None:
    for number, cpus in ((0, "0-1,4"), (1, "2-3"), (2, "")):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "cpulist").write_text(cpus + "\n")
    assert node_cpus(0, tmp_path) == (0, 1, 4)
    with pytest.raises(InvalidInput, match="no NUMA node 7") as caught:
        node_cpus(7, tmp_path)
    assert "0, 1, 2" in (caught.value.hint or "")
    with pytest.raises(InvalidInput, match="no processors"):
        node_cpus(2, tmp_path)


_STAY = """
import json, os, sys
from pathlib import Path
from ragschema.errors import InvalidInput
from retrieval_node.placement import stay_on_node
try:
    stay_on_node(0, Path(sys.argv[1]))
except InvalidInput as error:
    print(json.dumps(error.message))
else:
    print(json.dumps(sorted(os.sched_getaffinity(0))))
"""


@pytest.mark.parametrize("usable", [True, False])
def test_the_process_stays_on_the_node_s_processors(tmp_path: Path, usable: bool) -> None:
    mine = sorted(os.sched_getaffinity(0))
    (tmp_path / "node0").mkdir()
    cpu = mine[-1] if usable else 65000
    (tmp_path / "node0" / "cpulist").write_text(f"{cpu}\n")
    done = subprocess.run(
        [sys.executable, "-c", _STAY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    if usable:
        assert told == [cpu]
    else:
        assert "may not run on any processor of NUMA node 0" in told
