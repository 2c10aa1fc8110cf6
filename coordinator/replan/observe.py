"""What requests were of late: running totals, and the window over them.

The pipeline adds to totals; the window keeps a sample of them per look, so that its memory
is bounded however many requests there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from coordinator.types import Timings, Usage

#: Stages as plans name them, and the parts of an answer's timings that they are.
_PARTS: Final = {
    "rewrite": ("rewrite_ms",),
    "retrieval": ("embed_ms", "probe_ms", "scan_ms", "merge_ms"),
    "rerank": ("rerank_ms",),
}
STAGES: Final = (*_PARTS, "prefill", "decode")


@dataclass(frozen=True)
class Totals:
    """Since the start.

    Attributes:
        arrivals: questions that came, refused ones too.
        answers: questions that were answered whole.
        prompt_tokens, output_tokens: of those answers.
        again: retrievals while answers were written.
        stages_s: seconds that answers spent, by stage.
        prefix_asked, prefix_hit: prompt tokens that engines looked for in their caches, and
            found there.
    """

    arrivals: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    again: int = 0
    stages_s: Mapping[str, float] = field(default_factory=dict)
    prefix_asked: int = 0
    prefix_hit: int = 0


class Workload:
    """Counts what the pipeline does."""

    def __init__(self) -> None:
        self._arrivals = 0
        self._again = 0
        self._totals = Totals(stages_s=dict.fromkeys(STAGES, 0.0))

    def arrived(self) -> None:
        """A question came, whatever becomes of it."""
        self._arrivals += 1

    def retrieved_again(self, times: int) -> None:
        """Answers that are being written asked for more."""
        self._again += times

    def answered(self, timings: Timings, usage: Usage) -> None:
        """A question's answer is whole."""
        before, spent = self._totals, _stages_s(timings)
        self._totals = replace(
            before,
            answers=before.answers + 1,
            prompt_tokens=before.prompt_tokens + usage.prompt_tokens,
            output_tokens=before.output_tokens + usage.completion_tokens,
            stages_s={stage: s + spent[stage] for stage, s in before.stages_s.items()},
        )

    def totals(self, prefix_asked: int = 0, prefix_hit: int = 0) -> Totals:
        """As of now, with what engines told of their caches."""
        return replace(
            self._totals,
            arrivals=self._arrivals,
            again=self._again,
            prefix_asked=prefix_asked,
            prefix_hit=prefix_hit,
        )


def _stages_s(timings: Timings) -> dict[str, float]:
    spent = {
        stage: sum(getattr(timings, part) or 0.0 for part in parts)
        for stage, parts in _PARTS.items()
    }
    first_ms = timings.first_token_ms
    # An answer without text is all prefill.
    first_ms = timings.total_ms if first_ms is None else first_ms
    before_ms = sum(spent.values()) + timings.queue_ms + (timings.prompt_ms or 0.0)
    spent["prefill"] = max(0.0, first_ms - before_ms)
    spent["decode"] = max(0.0, timings.total_ms - first_ms)
    return {stage: ms / 1e3 for stage, ms in spent.items()}


@dataclass(frozen=True)
class Observed:
    """What requests of the window were.

    Attributes:
        span_s: that the window covers.
        arrivals_per_s: refused ones too.
        prompt, output: mean tokens; None: nothing was answered.
        again: retrievals of an answer while it is written.
        prefix_hit: share of prompt tokens whose KV was there; None: no engine told.
        stages_s: mean seconds of an answer there, waiting in the stage included.
    """

    span_s: float
    arrivals_per_s: float
    answers: int
    prompt: float | None = None
    output: float | None = None
    again: float = 0.0
    prefix_hit: float | None = None
    stages_s: Mapping[str, float] = field(default_factory=dict)


class Window:
    """The last ``samples`` looks at the totals."""

    def __init__(self, samples: int) -> None:
        self._looks: deque[tuple[float, Totals]] = deque(maxlen=max(2, samples + 1))

    def add(self, now_s: float, totals: Totals) -> None:
        """``now_s`` on a clock that never goes back."""
        self._looks.append((now_s, totals))

    @property
    def full(self) -> bool:
        """Whether it covers all the time that it is for."""
        return len(self._looks) == self._looks.maxlen

    def clear(self) -> None:
        """Forgets what was before the last look, so that only what follows counts."""
        last = list(self._looks)[-1:]
        self._looks.clear()
        self._looks.extend(last)

    def observed(self) -> Observed | None:
        """None: there are not two looks yet."""
        if len(self._looks) < 2:
            return None
        (start_s, old), (end_s, new) = self._looks[0], self._looks[-1]
        span_s, answers = end_s - start_s, new.answers - old.answers
        if not span_s > 0:
            return None
        known = Observed(span_s, (new.arrivals - old.arrivals) / span_s, answers)
        if answers <= 0:
            return known
        return replace(
            known,
            prompt=(new.prompt_tokens - old.prompt_tokens) / answers,
            output=(new.output_tokens - old.output_tokens) / answers,
            again=(new.again - old.again) / answers,
            prefix_hit=_hit(old, new),
            stages_s={s: (new.stages_s[s] - old.stages_s[s]) / answers for s in new.stages_s},
        )


def _hit(old: Totals, new: Totals) -> float | None:
    """None where no prompt was looked for, or an engine started anew within the window."""
    asked, hit = new.prefix_asked - old.prefix_asked, new.prefix_hit - old.prefix_hit
    return hit / asked if 0 <= hit <= asked and asked > 0 else None
