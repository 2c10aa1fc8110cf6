"""Finds the expert that is unlike the others of its layer.

transformers joins the experts of a layer into one tensor and does not tell which of
them it could not join.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from llm_node.engine.weights import LazyTensor

_EXPERT = re.compile(r"(.*\bexperts\.)(\d+)(\..*)")


def odd_expert(tensors: Mapping[str, LazyTensor]) -> str | None:
    """What is wrong with a tensor of an expert, by file and name; None when they are alike."""
    parts: dict[tuple[str, str], dict[int, LazyTensor]] = defaultdict(dict)
    experts: dict[str, set[int]] = defaultdict(set)
    for name, tensor in tensors.items():
        found = _EXPERT.fullmatch(name)
        if found is not None:
            layer, expert, part = found[1], int(found[2]), found[3]
            parts[layer, part][expert] = tensor
            experts[layer].add(expert)
    for (layer, part), of_part in parts.items():
        for expert in sorted(experts[layer] - of_part.keys()):
            path = next(iter(of_part.values())).file.path
            return f"{path} lacks {layer}{expert}{part}, which other experts have"
        problem = _odd_shape(layer, part, of_part)
        if problem is not None:
            return problem
    return None


def _odd_shape(layer: str, part: str, of_part: Mapping[int, LazyTensor]) -> str | None:
    shapes = Counter(tuple(tensor.shape) for tensor in of_part.values())
    ((usual, _),) = shapes.most_common(1)
    for expert, tensor in sorted(of_part.items()):
        if tuple(tensor.shape) != usual:
            return (
                f"{tensor.file.path} holds {layer}{expert}{part} as {list(tensor.shape)},"
                f" other experts have {list(usual)}"
            )
    return None
