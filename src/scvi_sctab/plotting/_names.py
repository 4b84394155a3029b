"""Shortening of names to a width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

MAX_CHARACTERS = 40
_MIN_CHARACTERS = 6
_ELLIPSIS = "…"
# Shares of the characters before the ellipsis; the next is tried if two shortened names are equal.
_SHARES = (0.5, 0.7, 0.3, 0.9, 0.1)


def text_width(text: str, size: float) -> float:
    """Compute the width of a line of text, in points."""
    return _unit_width(text) * size / 10


@cache
def _unit_width(text: str) -> float:
    font = FontProperties(size=10)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def widest(texts: Iterable[str], size: float) -> float:
    """Compute the width of the widest of some texts, in points."""
    return max((text_width(text, size) for text in texts), default=0.0)


def shorten(names: Sequence[object], n_characters: int = MAX_CHARACTERS) -> list[str]:
    """Replace the middle of long names by an ellipsis; different names stay different.

    Examples
    --------
    >>> shorten(["CD4 T", "CD4-positive, alpha-beta T cell"], 16)
    ['CD4 T', 'CD4-posi…T cell']
    """
    lines = [" ".join(str(name).split()) for name in names]
    groups: dict[str, list[str]] = {}
    for line in dict.fromkeys(lines):
        groups.setdefault(_cut(line, n_characters, _SHARES[0]), []).append(line)
    texts: dict[str, str] = {}
    for group in groups.values():
        texts |= dict(zip(group, _apart(group, n_characters), strict=True))
    return [texts[line] for line in lines]


def with_notes(
    names: Sequence[object], notes: Sequence[str] = (), n_characters: int = MAX_CHARACTERS
) -> list[str]:
    """Shorten names, but not the notes that follow them, e.g. " (n = 3)"."""
    notes = notes or [""] * len(names)
    short = shorten(names, n_characters)
    return [f"{name}{note}".strip() for name, note in zip(short, notes, strict=True)]


def fit(names: Sequence[object], size: float, room: float, notes: Sequence[str] = ()) -> list[str]:
    """Shorten names until the widest, with its note, has at most ``room`` points."""
    n_characters = MAX_CHARACTERS
    while True:
        texts = with_notes(names, notes, n_characters)
        taken = widest(texts, size)
        if taken <= room or n_characters == _MIN_CHARACTERS:
            return texts
        n_characters = max(
            _MIN_CHARACTERS, min(n_characters - 1, int(n_characters * room / taken))
        )


def _cut(line: str, n_characters: int, share: float) -> str:
    if len(line) <= n_characters:
        return line
    head = round((n_characters - 1) * share)
    tail = n_characters - 1 - head
    return line[:head].rstrip() + _ELLIPSIS + line[len(line) - tail :].lstrip()


def _apart(group: list[str], n_characters: int) -> list[str]:
    for share in _SHARES:
        texts = [_cut(line, n_characters, share) for line in group]
        if len(set(texts)) == len(group):
            return texts
    texts = [_cut(line, n_characters - 3, _SHARES[0]) for line in group]
    return [f"{text} {number}" for number, text in enumerate(texts, start=1)]
