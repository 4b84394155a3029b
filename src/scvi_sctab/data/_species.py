"""Species of gene names, and well-known marker genes for messages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Markers in human symbols, with their Ensembl ids.
WELL_KNOWN = {
    "CD3D": "ENSG00000167286",
    "MS4A1": "ENSG00000156738",
    "LYZ": "ENSG00000090382",
    "NKG7": "ENSG00000105374",
    "CD14": "ENSG00000170458",
    "PPBP": "ENSG00000163736",
    "EPCAM": "ENSG00000119888",
    "COL1A1": "ENSG00000108821",
    "PECAM1": "ENSG00000261371",
    "INS": "ENSG00000254647",
    "ALB": "ENSG00000163631",
    "HLA-DRA": "ENSG00000204287",
    "CD79A": "ENSG00000105369",
    "CD8A": "ENSG00000153563",
    "GNLY": "ENSG00000115523",
    "FCGR3A": "ENSG00000203747",
    "MKI67": "ENSG00000148773",
    "ACTB": "ENSG00000075624",
}
_RANKS = {name: rank for rank, pair in enumerate(WELL_KNOWN.items()) for name in pair}

_ENSEMBL_GENE = re.compile(r"ENS([A-Z]*?)G\d{11}(?!\d)")
_CODES = {
    "": "human",
    "MUS": "mouse",
    "RNO": "rat",
    "DAR": "zebrafish",
    "MMU": "macaque",
    "MFA": "macaque",
    "CJA": "marmoset",
    "PTR": "chimpanzee",
    "SSC": "pig",
    "BTA": "cow",
    "OAR": "sheep",
    "CAF": "dog",
    "GAL": "chicken",
    "XET": "frog",
}
# Symbols in capitals are human, or of a species whose genes are named after human genes.
_CAPITALS = frozenset(_CODES.values()) - {"mouse", "rat", "zebrafish", "frog"}


@dataclass(frozen=True)
class Origin:
    """Species of gene names, by their form.

    Attributes
    ----------
    species
        The most common species.
    names
        Description of the names.
    possible
        All species with names of this form.
    """

    species: str
    names: str
    possible: frozenset[str]

    def differs(self, other: Origin | None) -> bool:
        """Return whether no species has names of both forms."""
        return other is not None and not self.possible & other.possible


def origin_of(names: Sequence[str]) -> Origin | None:
    """Find the species of most names, by Ensembl ids or by the case of symbols.

    Parameters
    ----------
    names
        Gene names.

    Returns
    -------
    The species; ``None`` if the names do not show it.

    Examples
    --------
    >>> [origin_of(names).species for names in (["CD3D", "LYZ"], ["Cd3d", "mt-Nd1", "H2-K1"])]
    ['human', 'mouse']
    """
    most = len(names) / 2
    ids = Counter(match[1] for match in map(_ENSEMBL_GENE.match, names) if match)
    if ids.total() > most:
        species = _CODES.get(ids.most_common(1)[0][0])
        return species and Origin(species, f"{species} Ensembl ids", frozenset({species})) or None
    if sum(map(is_title, names)) > most:
        return Origin("mouse", "mouse symbols (or rat)", frozenset({"mouse", "rat"}))
    if sum(map(str.isupper, names)) > most:
        return Origin("human", "human symbols", _CAPITALS)
    if any(map(is_fish, names)):
        return Origin("zebrafish", "zebrafish symbols", frozenset({"zebrafish"}))
    return None


def is_title(name: str) -> bool:
    """Return whether a symbol is written as in mouse and rat: ``Cd3d``, ``mt-Nd1``.

    Human ``C1orf159`` is not.
    """
    if name[:3] in ("mt-", "mt."):
        return name[3:4].isupper()
    return name[:1].isupper() and name[1:].islower() and "orf" not in name


def is_fish(name: str) -> bool:
    """Return whether a symbol occurs in zebrafish only."""
    return name.startswith(("si:", "si.", "si-", "zgc:", "zgc.", "zgc-"))


def well_known_first(names: Iterable[str]) -> list[str]:
    """Sort names so that well-known markers, in any case, come first."""
    return sorted(map(str, names), key=lambda name: _RANKS.get(name.upper(), len(_RANKS)))
