"""Command ``inspect``."""

from __future__ import annotations

import json

from scvi_sctab.cli import _options as options
from scvi_sctab.cli._annotating import Source
from scvi_sctab.cli._console import session
from scvi_sctab.cli._models import open_model

# Cells on which the test of shift rests; it needs no more.
_N_CELLS = 5000


def inspect(
    query: options.Query,
    model: options.Model,
    layer: options.Layer = None,
    modality: options.Modality = None,
    gene_column: options.GeneColumn = None,
    gene_table: options.GeneTable = None,
    accelerator: options.Device = options.Accelerator.auto,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Look at a file before it is annotated: counts, genes, shift. Nothing is predicted."""
    with session(as_json, quiet, debug, threads) as console:
        loaded = open_model(console, model, str(accelerator))
        from scvi_sctab.data.files import open_stored

        source = Source(layer, modality, gene_column, gene_table)
        with open_stored(query, modality) as stored:
            found = source.find(stored, loaded)
            cells, genes = found.cells, found.genes
            assert genes is not None  # a model was given
            shift = None
            if loaded.calibration is not None:
                step = max(1, -(-cells.n_obs // _N_CELLS))
                table = loaded.get_shift(cells, list(range(0, cells.n_obs, step)), layer="X")
                shift = json.loads(table.to_json(orient="index"))
        facts = {
            "query": str(query),
            "kind": stored.kind,
            "n_cells": cells.n_obs,
            "counts": found.counts,
            "genes": genes.source,
            "n_genes_found": genes.n_found,
            "n_genes_of_model": genes.n_genes,
            "overlap": round(genes.overlap, 4),
            "respelt": genes.n_respelt,
            "duplicated": len(genes.duplicated),
            "shift": shift,
        }
        console.event("inspection", **facts)
        if not as_json:
            console.result(f"{query}: {stored.kind}, {found.describe()}")
            for name, row in (shift or {}).items():
                verdict = "shifted" if row["shifted"] else "as in the reference"
                console.result(
                    f"{name}: distance {row['distance']:.2f}, limit {row['limit']:.2f}, {verdict}"
                )
            if shift is None:
                console.result("shift: unknown, the model is not calibrated")
