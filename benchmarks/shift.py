"""Statements about cells of other laboratories: coverage, calibration and status.

    .venv/bin/python benchmarks/shift.py --data ../shared/data --cache shift_models

Blood cells of five studies, every ordered pair of a reference and a query that shares four types,
references of one study and of two, and donors of the same study. Writes
``results/shift_statements.csv``, a row per pair, seed and calibration, after each, and
``results/shift.md``. With each type of the reference left out in turn, the part ``populations``
looks for it in the query and in simulated laboratories (``results/shift_populations.md``). The part
``mapping`` compares labels before and after a query is mapped (``results/shift_mapping.md``). Models
are kept in ``--cache``; rows that are there are not made again.

What is chosen in this project is chosen on the pairs for choosing; the rest was opened once, for
the report. The queries of 200 cells are gated by proteins and markers, not by their authors.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _shift_mapping
import _shift_populations
import numpy as np
import pandas as pd
from _arguments import add_data
from _shift_laboratories import LABEL, Pair, pairs, query_of, without_each_type
from _shift_models import trained
from _table import Table

from scvi_sctab.metrics import expected_calibration_error, f1_macro

if TYPE_CHECKING:
    from scvi_sctab import SCTAB

RESULTS = Path(__file__).resolve().parent / "results"
KEYS = ["pair", "seed", "calibration"]
ERROR_RATE = 0.1

Row = dict[str, Any]


def statements(model: SCTAB, pair: Pair, folder: Path) -> Row:
    """Compare what a model states about the query with the truth."""
    query = query_of(folder, pair)
    truth = query.obs[LABEL].to_numpy(str)
    known = np.isin(truth, model.labels)
    frame, soft = model.annotate(query), model.predict(query, soft=True)
    right = frame["label"].to_numpy(str) == truth
    state = model.annotation
    wide = sets_of(model, query)
    model.annotation = replace(state, calibration=replace(state.calibration, entropy=None))
    narrow = sets_of(model, query)
    model.annotation = state
    confident = (frame["status"] == "confident").to_numpy()
    places = np.arange(len(truth)), pd.Index(model.labels).get_indexer(truth)
    return {
        "n_cells": int(known.sum()),
        "new": float(1 - known.mean()),
        "accuracy": float(right[known].mean()),
        "macro_f1": f1_macro(truth[known], frame["label"].to_numpy(str)[known]),
        "ece": expected_calibration_error(soft.to_numpy().max(axis=1)[known], right[known]),
        "coverage": float(wide[places][known].mean()),
        "size": float(wide.sum(axis=1).mean()),
        "coverage_as_held_out": float(narrow[places][known].mean()),
        "size_as_held_out": float(narrow.sum(axis=1).mean()),
        "confident": float(confident.mean()),
        "accuracy_of_confident": float(right[confident].mean()) if confident.any() else np.nan,
        "false_novel": float(frame["novel"][known].mean()),
    }


def sets_of(model: SCTAB, query: Any) -> np.ndarray:
    """Return the prediction sets, ``(n_cells, n_labels)``."""
    return model.get_prediction_sets(query, error_rate=ERROR_RATE).to_numpy()


def kind_of(pair: Pair) -> str:
    """Return the block of the report that a pair belongs to."""
    if pair.donors:
        return "same study"
    n_studies = "two studies" if len(pair.references) > 1 else "one study"
    return f"{n_studies}, {'opened once' if pair.is_opened_once else 'for choosing'}"


def markdown(rows: pd.DataFrame) -> str:
    """Format the tables: a block per kind, a line per pair, mean and sample sd over seeds."""
    parts = []
    for (kind, calibration), block in rows.groupby(["kind", "calibration"], sort=False):
        parts += [f"## {kind.capitalize()}, calibrated across {calibration}", ""]
        parts += ["| pair | " + " | ".join(SHOWN.values()) + " |", "|---" * (1 + len(SHOWN)) + "|"]
        for pair, runs in block.groupby("pair", sort=False):
            cells = [mean_sd(runs[name]) for name in SHOWN]
            parts.append(f"| {pair} | " + " | ".join(cells) + " |")
        by_seed = block.groupby("seed")[list(SHOWN)].mean()
        parts.append("| **mean** | " + " | ".join(mean_sd(by_seed[name]) for name in SHOWN) + " |")
        parts.append("")
    return "\n".join(parts)


SHOWN = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "coverage_as_held_out": "coverage, as held-out cells",
    "coverage": "coverage",
    "size": "labels per set",
    "confident": "share confident",
    "accuracy_of_confident": "their accuracy",
    "false_novel": "false novel",
}


def mean_sd(values: pd.Series) -> str:
    """Format ``mean ± sd``; no sd for one run."""
    values = values.dropna()
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}" if len(values) else "-"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data(parser)
    parser.add_argument("--cache", type=Path, required=True, help="folder of trained models")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="such as 'same study'")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--simulated", type=int, default=10, help="laboratories for each type")
    parser.add_argument("--report-only", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if not args.report_only:
        for part in args.parts:
            PARTS[part](args)
    for name, (path, keys, form) in TABLES.items():
        if path.exists():
            report = form(Table(path, keys, merge=True).rows)
            (RESULTS / name).write_text(report)
            print(report)


def run_statements(args: argparse.Namespace) -> None:
    """Run every pair with every seed; rows that are there are not made again."""
    folder, table = Path(args.data), Table(*TABLES["shift.md"][:2], merge=True)
    for seed in args.seeds:
        for pair in pairs(folder):
            if args.kinds and not any(kind_of(pair).startswith(kind) for kind in args.kinds):
                continue
            for calibration in ("donors", "studies")[: len(pair.references)]:
                key = [pair.name, seed, calibration]
                if (table.rows[KEYS] == key).all(axis=1).any():
                    continue
                model = trained(folder, pair, seed, args.cache, across=calibration == "studies")
                row = dict(zip(KEYS, key, strict=True)) | {"kind": kind_of(pair)}
                table.add([row | statements(model, pair, folder)])
                last = table.rows.iloc[-1]
                print(
                    f"{pair.name}, {calibration}, seed {seed}: accuracy {last['accuracy']:.3f}, "
                    f"coverage {last['coverage']:.3f} with {last['size']:.2f} labels",
                    flush=True,
                )


def run_populations(args: argparse.Namespace) -> None:
    """Leave out each type of the reference, and look for it in the query."""
    folder, table = Path(args.data), Table(*TABLES["shift_populations.md"][:2], merge=True)
    for seed in args.seeds:
        for pair in without_each_type(folder):
            model = trained(folder, pair, seed, args.cache)
            query = query_of(folder, pair)
            for number, cells in _shift_populations.laboratories(query, args.simulated):
                key = [pair.name, pair.left_out, number, seed]
                if (table.rows[_shift_populations.KEYS] == key).all(axis=1).any():
                    continue
                row = dict(zip(_shift_populations.KEYS, key, strict=True))
                table.add([row | _shift_populations.populations(model, cells, pair.left_out)])
                print(f"{pair.name} without {pair.left_out}, laboratory {number}", flush=True)


def run_mapping(args: argparse.Namespace) -> None:
    """Map every query, real ones first."""
    folder, table = Path(args.data), Table(*TABLES["shift_mapping.md"][:2], merge=True)
    for seed in args.seeds:
        for n_simulated in (0, args.simulated):
            for pair in _shift_mapping.mapping_pairs(folder):
                _map_onto(folder, pair, seed, args.cache, n_simulated, table)


def _map_onto(
    folder: Path, pair: Pair, seed: int, cache: Path, n_simulated: int, table: Table
) -> None:
    model = None
    for number in _shift_mapping.laboratories(pair, n_simulated):
        key = [pair.name, pair.left_out or _shift_mapping.NOTHING, number, seed]
        if (table.rows[_shift_mapping.KEYS] == key).all(axis=1).any():
            continue
        if model is None:
            model = trained(folder, pair, seed, cache, batches=True)
        row = _shift_mapping.mapping(model, _shift_mapping.measured(folder, pair, number))
        if row is not None:
            kind = {"kind": _shift_mapping.kind_of(pair, number)}
            table.add([dict(zip(_shift_mapping.KEYS, key, strict=True)) | kind | row])
            print(f"{pair.name} without {pair.left_out}, laboratory {number}, mapped", flush=True)


PARTS = {"statements": run_statements, "populations": run_populations, "mapping": run_mapping}
TABLES = {
    "shift.md": (RESULTS / "shift_statements.csv", KEYS, markdown),
    "shift_populations.md": (
        RESULTS / "shift_populations.csv",
        _shift_populations.KEYS,
        _shift_populations.markdown,
    ),
    "shift_mapping.md": (
        RESULTS / "shift_mapping.csv",
        _shift_mapping.KEYS,
        _shift_mapping.markdown,
    ),
}


if __name__ == "__main__":
    main()
