"""Words of a text, made comparable: folded, split at identifier borders, stemmed."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"[^\W_]+(?:[._][^\W_]+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_STOP_LIST = """
    a about above after all also am an and any are as at be because been before being below
    between both but by can could did do does doing done down during each for from further get
    give has have having he her here him his how i if in into is it its itself just let like
    make may me might more most must my no nor not of off on once one only or other our out over
    own please same shall she should so some such tell than that the their them then there these
    they this those through to too under until up use used uses using very want was way we were
    what when where whether which while who whom why will with without would you your
"""
_STOP = frozenset(_STOP_LIST.split())


def terms_of(text: str) -> Counter[str]:
    """How often each comparable term occurs; stop words are left out.

    ``os.path.join`` counts as itself and as its parts, and so do names written
    with underscores or inner capitals.
    """
    found: Counter[str] = Counter()
    for match in _WORD.finditer(text):
        word = match.group()
        lowered = word.lower()
        if lowered in _STOP:
            continue
        parts = _PART.findall(word)
        whole = stem(lowered)
        found[whole] += 1
        if len(parts) > 1:
            for part in {stem(part.lower()) for part in parts}:
                if part not in _STOP and part != whole:
                    found[part] += 1
    return found


def stem(word: str) -> str:
    """A light English stem: plurals, -ing, -ed, and a final e are cut.

    Both sides of a comparison pass through it, so it need not be a word.
    """
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for suffix in ("ing", "ed"):
        base = word[: -len(suffix)]
        if word.endswith(suffix) and len(base) > 2 and re.search(r"[aeiouy]", base):
            word = base[:-1] if base[-1] == base[-2] and base[-1] not in "lsz" else base
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word
