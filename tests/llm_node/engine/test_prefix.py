from __future__ import annotations

from llm_node.engine.prefix import extend_chain


def _chain(tokens: list[int], block_tokens: int = 4) -> list[bytes]:
    hashes: list[bytes] = []
    extend_chain(hashes, tokens, block_tokens)
    return hashes


def test_only_full_blocks_have_names() -> None:
    assert [len(_chain(list(range(n)))) for n in (0, 3, 4, 7, 8, 9)] == [0, 0, 1, 1, 2, 2]


def test_a_name_depends_on_all_tokens_before() -> None:
    first, second = _chain([1, 2, 3, 4, 5, 6, 7, 8]), _chain([9, 2, 3, 4, 5, 6, 7, 8])
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert _chain([1, 2, 3, 4, 5, 6, 7, 9])[0] == first[0]
    assert _chain([1, 2, 3, 4, 5, 6, 7, 9])[1] != first[1]


def test_growing_equals_hashing_at_once() -> None:
    tokens = [7, 300, 70_000, 2**31, 1, 2, 3, 4, 5, 6, 7, 8]
    grown: list[bytes] = []
    for end in range(len(tokens) + 1):
        extend_chain(grown, tokens[:end], 4)
    assert grown == _chain(tokens)
    assert len(set(grown)) == 3
