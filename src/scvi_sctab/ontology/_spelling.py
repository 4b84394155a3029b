"""Normalisation of the spelling of names of cell types."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Abbreviations that are words of longer names and have one meaning there.
_WORDS = {
    "bcell": ("b", "cell"),
    "dc": ("dendritic", "cell"),
    "ec": ("endothelial", "cell"),
    "mac": ("macrophage",),
    "mk": ("megakaryocyte",),
    "mono": ("monocyte",),
    "mph": ("macrophage",),
    "nk": ("natural", "killer"),
    "nkcell": ("natural", "killer", "cell"),
    "nonclassical": ("non", "classical"),
    "prolif": ("proliferating",),
    "smc": ("smooth", "muscle", "cell"),
    "tcell": ("t", "cell"),
    "tcm": ("central", "memory", "t"),
    "tem": ("effector", "memory", "t"),
    "treg": ("regulatory", "t"),
}
_ENTEROCHROMAFFIN = ("ec", "cell")  # "EC cells" of the gut; endothelial cells are "ECs"
_RESPELLED = (
    ("haem", "hem"),
    ("leuco", "leuko"),
    ("oesoph", "esoph"),
    ("centre", "center"),
    ("m\u03c6", "macrophage"),
)
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4"}
_NUMBERED = {"class", "group", "type"}

_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_MARKER = r"cd\d+[a-z]?"
_LEVEL = r"bright|high|hi|dim|low|lo"
# In this order: signs of markers, as + and - or as words, become part of their word. A plus is
# dropped, since a name that only mentions a marker means that it is present.
_SIGNS = (
    (r"[_.](\d+)$", r" #\1"),  # the number of a cluster
    (r"[_.]", " "),
    (rf"\(({_LEVEL}|[+-])\)", r"\1"),
    (r"(?<=[a-z])['\u2019]s\b|(?<=s)['\u2019](?![a-z])", ""),
    (rf"\b({_MARKER})[- ]?(?:bright|high|hi)\b", r"\1high "),
    (rf"\b({_MARKER})[- ]?(?:dim|low|lo)\b", r"\1low "),
    (rf"\b({_MARKER})-(?={_MARKER}(?:[+-]|{_LEVEL}))", r"\1~ "),
    (rf"\b({_MARKER})-(?={_MARKER})", r"\1? "),  # either a sign or a hyphen
    (r"(?<=[a-z0-9])(?<!double)(?<!single)(?<!triple)[- ]?(?:positive|pos)\b", " "),
    (r"(?<=[a-z0-9])(?<!double)(?<!triple)[- ]?(?:negative|neg)\b", "~ "),
    (r"(?<=[a-z0-9])\+(?!\+)", " "),
    (r"(?<=[a-z0-9])-(?![a-z0-9(])", "~ "),
    (r"gamma[-/ ]?delta", " gamma delta "),
    (r"alpha[-/ ]?beta", " alpha beta "),
)
_SIGNS_COMPILED = tuple((re.compile(pattern), to) for pattern, to in _SIGNS)
# Signs that join two types, such as the slash of "T/NK", are words of their own; a question mark
# stays in its word, so that such names match no term.
_WORD = re.compile(r"#?[a-z0-9~?']+|[+/&|]")


class Spelling(NamedTuple):
    """Words of a name, the same for all its spellings.

    Attributes
    ----------
    words
        All words but *cell*, sorted.
    n_cell
        How often the word *cell* occurs.
    """

    words: tuple[str, ...]
    n_cell: int

    def equivalents(self) -> list[Spelling]:
        """List the spellings with the same meaning, itself first.

        "Monocyte cells" are monocytes and "naive B" is a naive B cell, but "kidney" is an organ.
        """
        same = [self]
        if self.words and (self.n_cell == 1 or (self.n_cell == 0 and len(self.words) > 1)):
            same.append(Spelling(self.words, 1 - self.n_cell))
        return same


def normalize(text: str) -> str:
    """Normalise a text for comparison: lower case, single spaces."""
    return " ".join(text.casefold().split())


def words(text: str) -> list[str]:
    """Split a name into words, in the singular, with abbreviations spelled out.

    Examples
    --------
    >>> words("CD4+ γδ T-cells")
    ['cd4', 'gamma', 'delta', 't', 'cell']
    >>> words("CD14-positive, CD16-negative classical monocyte")
    ['cd14', 'cd16~', 'classical', 'monocyte']
    """
    text = _plain(text)
    for pattern, to in _SIGNS_COMPILED:
        text = pattern.sub(to, text)
    found: list[str] = []
    singular = [_singular(word) for word in _WORD.findall(text)]
    for word, after in zip(singular, [*singular[1:], ""], strict=False):
        before = found[-1] if found else ""
        if before in _NUMBERED:
            word = _ROMAN.get(word, word)
        if word.isdigit() and before[-1:].isalpha():
            found[-1] += word  # a number belongs to the word before it, also after sorting
        elif word != "cell" or before != "cell":  # "DC cells": the abbreviation includes *cell*
            is_word = (word, after) == _ENTEROCHROMAFFIN
            found.extend((word,) if is_word else _WORDS.get(word, (word,)))
    return found


def spelling_of(text: str) -> Spelling:
    """Return the words of a name without their order, and without *cell*.

    Examples
    --------
    >>> spelling_of("Naive B cells") == spelling_of("B_cell, naïve")
    True
    """
    found = words(text)
    return Spelling(tuple(sorted(w for w in found if w != "cell")), found.count("cell"))


def _plain(text: str) -> str:
    """Normalise case, British spelling, compatible characters, Greek letters and accents."""
    text = unicodedata.normalize("NFKC", text).casefold().translate(_DASHES)
    for other, ours in _RESPELLED:
        text = text.replace(other, ours)
    text = "".join(_greek(character) for character in text)
    text = unicodedata.normalize("NFKD", text)
    return "".join(c for c in text if not unicodedata.combining(c))


def _greek(character: str) -> str:
    name = unicodedata.name(character, "")
    return f" {name.split()[-1].lower()} " if name.startswith("GREEK SMALL LETTER") else character


def _singular(word: str) -> str:
    if len(word) < 3 or not word.endswith("s") or word.endswith(("ss", "us", "is", "as")):
        return word
    return word[:-3] + "y" if word.endswith("ies") else word[:-1]
