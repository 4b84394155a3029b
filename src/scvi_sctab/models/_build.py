"""Command that builds the ready-made models: ``python -m scvi_sctab.models._build``."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvi_sctab._constants import PICKLE_FILE
from scvi_sctab.baselines import CellTypist
from scvi_sctab.metrics import f1_macro
from scvi_sctab.models._card import write_card
from scvi_sctab.models._held_out import annotate_held_out, score_recipe
from scvi_sctab.models._recipes import DONOR, LABELS, RECIPES, STUDY
from scvi_sctab.models._registry import show
from scvi_sctab.models._training import train_model

if TYPE_CHECKING:
    from scvi_sctab.models._recipes import Recipe

_FOLDER = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Build, check or score the models that the command line names."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", default=list(RECIPES), help="models; all by default")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where to write them")
    parser.add_argument(
        "--check", action="store_true", help="train again, and compare with what is there"
    )
    parser.add_argument(
        "--without", metavar="STUDY", help="train without a study, and print scores on its cells"
    )
    parser.add_argument(
        "--celltypist", metavar="PYTHON", help="with --without: interpreter that has celltypist"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(RECIPES)):
        parser.error(f"there is no recipe {unknown}: it is one of {sorted(RECIPES)}")
    for name in given.names:
        if given.without:
            for method, score in compare(RECIPES[name], given.without, given.celltypist).items():
                print(f"{name} without {given.without}: macro F1 {score:.3f}, {method}")
        elif given.check:
            check(name)
        else:
            held_out = score_recipe(RECIPES[name], given.processes)
            build(RECIPES[name], given.folder / name, held_out)


def build(recipe: Recipe, folder: Path, held_out: Mapping[str, Any]) -> None:
    """Train a model on all cells of a recipe and write it with its card.

    Parameters
    ----------
    recipe
        The recipe.
    folder
        Folder to write; files of the same names are replaced.
    held_out
        Result of :func:`~scvi_sctab.models._held_out.score_recipe`.
    """
    cells = recipe.read()
    model = train_model(cells, recipe)
    with tempfile.TemporaryDirectory() as temporary:
        model.save(Path(temporary) / "model")
        folder.mkdir(parents=True, exist_ok=True)
        for file in (Path(temporary) / "model").iterdir():
            if file.name != PICKLE_FILE:
                (folder / file.name).write_bytes(file.read_bytes())
    by_study = cells.obs.groupby(STUDY, observed=True)
    counts, donors = by_study.size(), by_study[DONOR].nunique()
    data = [
        {**row, "cells": int(counts[row["study"]]), "donors": int(donors[row["study"]])}
        for row in recipe.facts["training_data"]
    ]
    facts = {**recipe.facts, "training_data": data, "n_cells": cells.n_obs}
    write_card(model, folder, {**facts, "held_out": held_out})


def check(name: str) -> None:
    """Train a bundled model again and compare it bit for bit by its digest.

    Parameters
    ----------
    name
        Name of the model.

    Raises
    ------
    SystemExit
        If the digest differs.
    """
    recipe = RECIPES[name]
    found, expected = train_model(recipe.read(), recipe).digest, show(name)["digest"]
    if found != expected:
        raise SystemExit(f"{name}: trained again, the model is {found}, not {expected}.")
    print(f"{name}: trained again, the model is the same, {found}.")


def compare(recipe: Recipe, study: str, celltypist: str | None = None) -> dict[str, float]:
    """Train without a study, and compute the macro F1 on its cells.

    Parameters
    ----------
    recipe
        The recipe.
    study
        Study to leave out.
    celltypist
        Interpreter of an environment with celltypist, which is trained on the same cells by both
        of its recipes. It gets no cells with coarse labels, which it cannot learn from.

    Returns
    -------
    Macro F1 over the types that the model can predict, by method.
    """
    everything, cells = recipe.read(), recipe.read(without=study)
    query = everything[everything.obs[STUDY] == study].copy()
    model = train_model(cells.copy(), recipe)
    rows = annotate_held_out(model, query)
    scores = {"scvi-sctab": f1_macro(rows["truth"], rows["label"])}
    if celltypist is not None:
        query = query[rows.index].copy()
        fine = cells[~cells.obs[LABELS].isin(recipe.coarse_labels)].copy()
        for two_pass in (False, True):
            method = CellTypist(python=celltypist, two_pass=two_pass).fit(fine, LABELS)
            predicted = method.predict_proba(query).idxmax(axis=1)
            scores[method.name] = f1_macro(rows["truth"], predicted)
    return scores


if __name__ == "__main__":
    main()
