"""Terms of invertebrates, plants, fungi and bacteria, and terms of one species."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Releases mark few terms with a taxon, so these were found by searching names and definitions for
# words such as insect, nematode, sponge and compound eye. Their descendants count as well.
_FOREIGN = frozenset(
    {
        "CL:0000026",  # invertebrate nurse cell
        "CL:0000196",  # insect flight muscle cell
        "CL:0000301",  # pole cell
        "CL:0000350",  # amnioserosal cell
        "CL:0000373",  # histoblast
        "CL:0000418",  # arcade cell
        "CL:0000419",  # seam cell
        "CL:0000423",  # tip cell, of the Malpighian tubule
        "CL:0000425",  # pore cell
        "CL:0000427",  # GLR cell
        "CL:0000429",  # imaginal disc cell
        "CL:0000462",  # adepithelial cell
        "CL:0000469",  # ganglion mother cell
        "CL:0000477",  # follicle cell of egg chamber
        "CL:0000487",  # oenocyte
        "CL:0000520",  # prokaryotic cell
        "CL:0000521",  # fungal cell
        "CL:0000565",  # fat body cell
        "CL:0000628",  # photosynthetic cell
        "CL:0000658",  # cuticle secreting cell
        "CL:0000674",  # interfollicle cell
        "CL:0000718",  # compound eye cone cell
        "CL:0000725",  # nitrogen fixing cell
        "CL:0002520",  # nephrocyte
        "CL:0008003",  # somatic muscle myotube
        "CL:0008005",  # obliquely striated somatic muscle cell
        "CL:0008026",  # open tracheal system tracheocyte
        "CL:0009001",  # compound eye retinal cell
        "CL:0009003",  # larval midgut cell
        "CL:0010016",  # collar cell
        "CL:0011015",  # amoeboid sperm cell
        "CL:0011029",  # cnidocyte
        "CL:1000155",  # Malpighian tubule stellate cell
        "CL:2000019",  # compound eye photoreceptor cell
        *(f"CL:40700{number}" for number in range(10, 18)),  # stomatogastric neurons of crabs
    }
)
_NAMED = re.compile(r"\(sensu (?!Vertebrata|Mus\b)")
_ONE_SPECIES = re.compile(
    r"\((?:Mmus|Primate|Homo sapiens|Mus musculus|sensu Mus)\)|, (?:mouse|human)$"
)


def foreign(names: Mapping[str, str]) -> frozenset[str]:
    """Return the ids of terms of organisms other than vertebrates, without their descendants.

    Parameters
    ----------
    names
        Names of terms by id.
    """
    return frozenset(t for t, name in names.items() if t in _FOREIGN or _NAMED.search(name))


def of_one_species(name: str) -> bool:
    """Return whether a term is for one species, as in ``ILC1, human``."""
    return _ONE_SPECIES.search(name) is not None
