"""What a request asks: texts of a wanted length, the same for the same number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np

#: Frequent English words, which most vocabularies hold as one token each.
_FREQUENT: Final = (
    "the of and to in is you that it he was for on are as with his they at be this have from or"
    " one had by word but not what all were we when your can said there use an each which she do"
    " how their if will up other about out many then them these so some her would make like him"
    " into time has look two more write go see number no way could people my than first water"
    " been call who oil its now find long down day did get come made may part over new sound"
    " take only little work know place year live me back give most very after thing our just name"
    " good man think say great where help through much before line right too mean old any same"
    " tell boy follow came want show also around form three small set put end does another well"
    " large must big even such because turn here why ask went men read need land different home"
    " us move try kind hand picture again change off play spell air away animal house point page"
    " letter mother answer found study still learn should world"
)
_WORDS: Final = tuple(_FREQUENT.split())


class PartKind(IntEnum):
    """What a part of a prompt is; part of what its text depends on."""

    SYSTEM = 0
    PASSAGE = 1
    HISTORY = 2
    WEB = 3
    QUESTION = 4


@dataclass(frozen=True)
class Part:
    """A piece of a prompt: equal kind and number, equal text.

    Attributes:
        tokens: words of the text, each about one token.
    """

    kind: PartKind
    number: int
    tokens: int


@dataclass(frozen=True)
class LoadRequest:
    """One request.

    Attributes:
        parts: of its prompt, in order.
        question: a text as it is, asked behind the parts; None: only the parts.
        output_tokens: to be written at most; None: the endpoint's own limit.
    """

    parts: tuple[Part, ...]
    question: str | None
    output_tokens: int | None

    @property
    def prompt_tokens(self) -> int:
        """Tokens, roughly: a word is taken for one."""
        asked = len(self.question.split()) if self.question is not None else 0
        return sum(part.tokens for part in self.parts) + asked

    def messages(self) -> list[dict[str, str]]:
        """OpenAI messages: a system message where there is such a part, then the user's."""
        system = [text_of(p) for p in self.parts if p.kind is PartKind.SYSTEM]
        user = [text_of(p) for p in self.parts if p.kind is not PartKind.SYSTEM]
        if self.question is not None:
            user.append(self.question)
        turns = [{"role": "user", "content": "\n\n".join(user)}]
        if system:
            turns.insert(0, {"role": "system", "content": "\n\n".join(system)})
        return turns


def text_of(part: Part) -> str:
    """Words of a part, drawn by its kind and number."""
    return " ".join(_drawn(int(part.kind), part.number, part.tokens))


def topical_question(topic: int, number: int, tokens: int) -> str:
    """A question of ``tokens`` words, two thirds of which belong to its topic.

    Questions of one topic lie close together for an embedder, so that they find the same
    passages; no two of them need be alike.
    """
    about = max(1, tokens * 2 // 3)
    words: Sequence[str] = _drawn(int(PartKind.PASSAGE), topic, about)
    rest = _drawn(int(PartKind.QUESTION), number, max(0, tokens - about))
    return " ".join([*words, *rest])


def _drawn(kind: int, number: int, count: int) -> list[str]:
    picks = np.random.default_rng([kind, number]).integers(0, len(_WORDS), count)
    return [_WORDS[at] for at in picks]
