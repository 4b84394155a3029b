"""Short HTML of models and reports, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from scvi_sctab._constants import N_NAMES_SHOWN

if TYPE_CHECKING:
    from scvi_sctab.model._annotator import CellAnnotator


def facts_table(title: str, facts: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    """Write facts as a small HTML table.

    Parameters
    ----------
    title
        Caption of the table.
    facts
        Names and values, as text.
    notes
        Sentences below.

    Examples
    --------
    >>> facts_table("A <model>", [("genes", "300")])
    '<table><caption>A &lt;model&gt;</caption><tr><th>genes</th><td>300</td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts
    )
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<table><caption>{escape(title)}</caption>{rows}</table>{below}"


def describe_model(model: CellAnnotator) -> str:
    """Describe a model in a small HTML table.

    Parameters
    ----------
    model
        The model.
    """
    names = [str(label) for label in model.labels]
    more = f" and {len(names) - N_NAMES_SHOWN:,} more" if len(names) > N_NAMES_SHOWN else ""
    n_networks, calibration = len(model.networks), model.calibration
    hierarchy = model.hierarchy
    n_matched = 0 if hierarchy is None else int((hierarchy.own >= 0).sum())
    facts = [
        ("labels", f"{len(names):,}: {', '.join(names[:N_NAMES_SHOWN])}{more}"),
        ("genes", f"{len(model.gene_names):,}"),
        ("trained", "yes" if model.is_trained else "no"),
        (
            "calibrated",
            "no" if calibration is None else f"on {len(calibration.truth):,} held-out cells",
        ),
        (
            "Cell Ontology",
            "labels not matched" if hierarchy is None else f"{n_matched:,} labels matched",
        ),
    ]
    kind = type(model).__name__
    return facts_table(kind if n_networks == 1 else f"{kind} of {n_networks}", facts)
