"""Model cards: facts about a model as JSON, and as a page."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scvi_sctab.model import SCTAB

CARD_FILE = "card.json"
PAGE_FILE = "card.md"


def write_card(model: SCTAB, folder: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
    """Write the card of a saved model, ``card.json`` and ``card.md``, into its folder.

    Parameters
    ----------
    model
        The model, which tells its types with their terms, its genes and its digest.
    folder
        Folder that ``model.save`` wrote.
    facts
        What the model cannot tell, plain values: ``title``, ``species``, ``tissue``,
        ``intended_use``, ``not_for``, ``training_data`` (rows with ``study``, ``publication``,
        ``assay``, ``source``, ``licence``, ``cells``, ``donors``), ``n_cells``, ``notes``,
        ``held_out``. None is required.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    TypeError
        If a fact is no plain value.
    """
    target = Path(folder)
    if not target.is_dir():
        raise FileNotFoundError(f"There is no folder {target}: `model.save` comes first.")
    hierarchy = model.hierarchy
    predictable = [str(label) for label in model.labels if label not in model.coarse_labels]
    own = {}
    if hierarchy is not None:
        rows = dict(zip(hierarchy.labels.tolist(), hierarchy.own.tolist(), strict=True))
        own = {label: row for label, row in rows.items() if row >= 0}
    types = [
        {
            "label": label,
            "term_id": str(hierarchy.terms[own[label]]) if hierarchy and label in own else "",
        }
        for label in predictable
    ]
    card = {
        "name": target.name,
        **facts,
        "types": types,
        "n_genes": len(model.gene_names),
        "digest": model.digest,
    }
    text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
    # Both are made before one of them is written.
    for name, content in ((PAGE_FILE, render_card(card)), (CARD_FILE, text)):
        beside = target / f".{name}.part"
        beside.write_text(content, encoding="utf-8")
        beside.replace(target / name)


def render_card(card: Mapping[str, Any]) -> str:
    """Render a card as Markdown.

    Parameters
    ----------
    card
        Card, as :func:`show` returns it; what it lacks is left out.

    Examples
    --------
    >>> print(render_card({"name": "mine", "title": "My tissue", "types": []}))
    ## `mine`: My tissue
    <BLANKLINE>
    """
    parts = [f"## `{card['name']}`: {card.get('title', '')}", _summary(card)]
    parts += [f"**For.** {card['intended_use']}"] if "intended_use" in card else []
    parts += [f"**Not for.** {card['not_for']}"] if "not_for" in card else []
    held_out = card.get("held_out", {})
    f1 = held_out.get("types", {})
    header = ("type", "Cell Ontology", "F1, donors held out")
    rows = [(t["label"], t["term_id"], _number(f1.get(t["label"]))) for t in card.get("types", ())]
    parts += ["### Types", _table(header[: 3 if f1 else 2], rows)] if rows else []
    parts += _held_out(held_out) if held_out else []
    if card.get("training_data"):
        keys = ("study", "publication", "assay", "cells", "donors", "licence")
        data = [tuple(str(row.get(key, "")) for key in keys) for row in card["training_data"]]
        parts += ["### Training data", _table(keys, data)]
        sources = [row for row in card["training_data"] if "source" in row]
        parts += [_list(f"`{row.get('study', '')}`: {row['source']}" for row in sources)]
    parts += [_list(card["notes"])] if card.get("notes") else []
    parts += [f"Digest: `{card['digest']}`."] if "digest" in card else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(card: Mapping[str, Any]) -> str:
    facts = [str(card[key]) for key in ("species", "tissue") if card.get(key)]
    facts += [f"{len(card['types'])} types"] if card.get("types") else []
    facts += [f"{card['n_genes']:,} genes"] if "n_genes" in card else []
    facts += [f"{card['n_cells']:,} training cells"] if "n_cells" in card else []
    return ", ".join(facts) + ("." if facts else "")


def _held_out(held_out: Mapping[str, Any]) -> list[str]:
    """Render scores on held-out cells."""
    keys = ("n_cells", "accuracy", "macro_f1", "coverage", "ece")
    parts = [
        "### Held-out cells",
        "Cells of donors or of a study that the model of that row was not trained on; types that "
        "it does not know are left out. Sets are those at an error rate of 10 %; ECE is the "
        "expected calibration error.",
        _table(
            ("held out", "cells", "accuracy", "macro F1", "coverage of sets", "ECE"),
            [(row["split"], *(_number(row[key]) for key in keys)) for row in held_out["splits"]],
        ),
        _table(
            ("held out", "labels per set", "called novel at 5 %"),
            [
                (row["split"], _number(row["set_size"]), _number(row["false_alarms"]))
                for row in held_out["splits"]
            ],
        ),
        "### Types that the model does not know",
        "Each type was left out of a training; these are its cells of held-out donors. The share "
        "that is called novel, by the rate of false alarms that is asked for, and the label that "
        "most of them get:",
        _table(
            ("type left out", "cells", "novel at 1 %", "at 5 %", "at 10 %", "taken for"),
            [
                (
                    row["type"],
                    _number(row["n_cells"]),
                    *(_number(row[f"novel_at_{rate}"]) for rate in ("0.01", "0.05", "0.1")),
                    f"{row['taken_for']} ({_number(row['taken_share'])})",
                )
                for row in held_out["unseen"]
            ],
        ),
        "If cells below a probability are left without a label:",
        _table(
            ("probability", "kept", "accuracy of these", "unseen types flagged"),
            [tuple(_number(value) for value in row.values()) for row in held_out["thresholds"]],
        ),
        "### Known confusions",
    ]
    confusions = [
        f"{row['truth']} as {row['predicted']}: {row['share']:.0%}"
        for row in held_out["confusions"]
    ]
    return [*parts, _list(confusions) or "None of 5 % or more."]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *(row[: len(header)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
