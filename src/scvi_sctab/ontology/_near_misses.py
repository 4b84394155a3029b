"""Ranking of the terms that a label may mean."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from scvi_sctab.ontology._organisms import of_one_species
from scvi_sctab.ontology._spelling import words

_MIN_SCORE = 0.25
_PREFIX, _MISSPELT = 0.7, 0.8  # weight of a word that is the prefix of a known word, or similar
_MIN_PREFIX, _MIN_MISSPELT = 3, 5  # letters
_CLOSE = 0.85  # similarity by `difflib`
_ONE_SPECIES, _USUAL, _PER_ANCESTOR = 0.6, 1.25, 0.004


@dataclass(frozen=True, eq=False)
class NearMisses:
    """Names of terms, ranked by the words that they share with a label.

    The score of a name is the Dice coefficient of its words and the label's, each weighted by its
    rarity among all names. It is higher for terms with usual names, and lower for terms of one
    species and terms with many ancestors.

    Parameters
    ----------
    names
        Name, synonyms and usual names by term, the name first.
    usual
        Terms with usual names.
    n_ancestors
        Number of ancestors by term.
    """

    names: Mapping[str, Sequence[str]]
    usual: Set[str]
    n_ancestors: Mapping[str, int]

    def find(self, text: str, n: int) -> list[str]:
        """Return the ids of up to ``n`` terms, the most plausible first; none has to be right.

        Parameters
        ----------
        text
            A label.
        n
            Largest number of terms.
        """
        says = [word for word in words(text) if word != "cell" and not word.isdigit()]
        wanted = [self._meanings(word) for word in says]
        gained: dict[int, float] = defaultdict(float)
        for meanings in wanted:
            best: dict[int, float] = {}
            for word, share in meanings.items():
                for row in self._rows.get(word, ()):
                    best[row] = max(best.get(row, 0.0), share * self._rarity(word))
            for row, value in best.items():
                gained[row] += value
        asked = sum(max(map(self._rarity, meanings)) for meanings in wanted)
        scores: dict[str, float] = {}
        for row, value in gained.items():
            term_id, of_name = self._entries[row]
            dice = 2 * value / (asked + sum(map(self._rarity, of_name)))
            if dice >= _MIN_SCORE:
                scores[term_id] = max(scores.get(term_id, 0.0), dice * self._prior(term_id))
        return sorted(scores, key=lambda t: (-scores[t], t))[:n]

    def _meanings(self, word: str) -> dict[str, float]:
        """Find the words of names that a word of a label may mean, and their weights."""
        if word in self._rows:
            return {word: 1.0}
        found = {word: 1.0}
        if len(word) >= _MIN_PREFIX:
            found |= {known: _PREFIX for known in self._rows if known.startswith(word)}
        if len(found) == 1 and len(word) >= _MIN_MISSPELT:
            begin_alike = [known for known in self._rows if known[0] == word[0]]
            close = get_close_matches(word, begin_alike, n=3, cutoff=_CLOSE)
            found |= dict.fromkeys(close, _MISSPELT)
        return found

    def _rarity(self, word: str) -> float:
        return math.log1p(len(self._entries) / max(self._frequency[word], 1))

    def _prior(self, term_id: str) -> float:
        prior = _USUAL if term_id in self.usual else 1.0
        if of_one_species(self.names[term_id][0]):
            prior *= _ONE_SPECIES
        return prior / (1 + _PER_ANCESTOR * self.n_ancestors[term_id])

    @cached_property
    def _entries(self) -> list[tuple[str, frozenset[str]]]:
        return [
            (term_id, frozenset(words(name)) - {"cell"})
            for term_id, names in self.names.items()
            for name in names
        ]

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = defaultdict(list)
        for row, (_, of_name) in enumerate(self._entries):
            for word in sorted(of_name):
                rows[word].append(row)
        return dict(rows)

    @cached_property
    def _frequency(self) -> Counter[str]:
        return Counter({word: len(rows) for word, rows in self._rows.items()})
