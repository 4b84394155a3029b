"""Command ``train``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scvi_sctab.cli import _options as options
from scvi_sctab.cli._console import Console, session
from scvi_sctab.cli._errors import CommandError, ExitCode
from scvi_sctab.cli._outputs import check_folder, results
from scvi_sctab.cli._terms import read_terms

if TYPE_CHECKING:
    from anndata import AnnData

_AUTO, _NONE = "auto", "none"
_AUDIT, _PAGE = "audit.csv", "training.html"
_PAGES = (_AUDIT, _PAGE, "training.json")


def train(
    reference: Annotated[
        Path,
        typer.Argument(
            help="File of raw counts with labels: .h5ad, .h5mu or .zarr.", show_default=False
        ),
    ],
    labels_key: Annotated[
        str, typer.Option(help="Column of obs with cell types.", show_default=False)
    ],
    out: options.Folder,
    donor_key: Annotated[
        str | None,
        typer.Option(
            help="Column with donors, of which some are held out whole.", show_default=False
        ),
    ] = None,
    batch_key: Annotated[
        str | None,
        typer.Option(
            help="Column with batches, so that queries can be mapped.", show_default=False
        ),
    ] = None,
    unlabeled_category: Annotated[
        str, typer.Option(help="Label of cells without one.")
    ] = "unknown",
    preset: Annotated[
        str, typer.Option(help="Network and recipe: auto, few, small or paper.")
    ] = _AUTO,
    ontology: Annotated[
        str,
        typer.Option(
            help="Cell Ontology terms of labels: 'auto' matches names, 'none' leaves them out; or a "
            "CSV file with the columns label and term_id."
        ),
    ] = _AUTO,
    ensemble: Annotated[int, typer.Option(help="Number of networks.", min=1)] = 1,
    max_epochs: Annotated[
        int | None,
        typer.Option(help="Number of epochs, if not that of the preset.", show_default=False),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Write a page about the training into the folder, too: training.html.",
        ),
    ] = False,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Train again without each fifth of the donors, and list the cells whose label "
            "contradicts these models, by score: audit.csv.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    layer: options.Layer = None,
    modality: options.Modality = None,
    gene_column: options.GeneColumn = None,
    accelerator: options.Device = options.Accelerator.auto,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a model on an annotated reference, and save it."""
    with session(as_json, quiet, debug, threads) as console:
        check_folder(out, overwrite)
        if audit and ensemble > 1:
            raise CommandError(
                ExitCode.USAGE,
                "--audit trains one network per fold, not an ensemble.",
                "Leave out --ensemble, or --audit.",
            )
        terms = None if ontology in (_AUTO, _NONE) else read_terms(Path(ontology))
        cells = _read(console, reference, layer, modality, gene_column)
        import scvi

        from scvi_sctab import SCTAB, SCTABEnsemble

        scvi.settings.seed = seed
        SCTAB.setup_anndata(
            cells,
            labels_key=labels_key,
            donor_key=donor_key,
            batch_key=batch_key,
            unlabeled_category=unlabeled_category,
        )
        model: SCTAB | SCTABEnsemble = (
            SCTAB(cells, preset)
            if ensemble == 1
            else SCTABEnsemble(cells, preset, n_members=ensemble)
        )
        if ontology != _NONE:  # before training, which is lost if a term does not exist
            _set_ontology(console, model, terms)
        console.note(f"Training on {cells.n_obs:,} cells ...")
        shows_bar = not (quiet or as_json)
        model.train(
            max_epochs, accelerator=str(accelerator), enable_progress_bar=shows_bar and _is_shown()
        )
        model.save(out, overwrite=overwrite)
        for name in _PAGES:  # of an earlier model
            (out / name).unlink(missing_ok=True)
        console.note(f"{out}: a model of {len(model.labels)} labels.")
        if model.calibration is not None:
            scores = model.evaluate()["f1"]
            console.note(
                f"Cells it has not seen: macro F1 {scores['macro average']:.3f}, accuracy "
                f"{scores['accuracy']:.3f}."
            )
        audited = None
        if audit and isinstance(model, SCTAB):
            console.note("Training again without each fold, to audit the labels ...")
            audited = model.audit_labels(
                max_epochs=max_epochs,
                accelerator=str(accelerator),
                enable_progress_bar=shows_bar and _is_shown(),
            )
            console.note(repr(audited))
        files = [out, *_write_pages(console, model, out, reference.stem, report, audited)]
        console.event("done", files=[str(file) for file in files])


def _write_pages(
    console: Console,
    model: Any,
    out: Path,
    name: str,
    report: bool,
    audited: Any,
) -> list[Path]:
    """Write the page and the audit, if wanted, into the folder of the model."""
    files = []
    if audited is not None:
        files.append(out / _AUDIT)
        cells = audited.cells.sort_values("score", ascending=False, kind="stable")
        with results(out, overwrite=True) as aside:
            cells.to_csv(aside / _AUDIT, index_label="barcode")
    if report:
        from scvi_sctab.model import report_training

        page = out / _PAGE
        call = shlex.join(["scvi-sctab", *sys.argv[1:]])
        written = report_training(model, page, name=name, audit=audited, call=call, overwrite=True)
        for sentence in written.verdict.sentences:
            console.note(sentence)
        console.note(f"{page}: open it in a browser.")
        files += [page, page.with_suffix(".json")]
    return files


def _is_shown() -> bool:
    from scvi_sctab._logging import shows_progress

    return shows_progress()


def _read(
    console: Console,
    path: Path,
    layer: str | None,
    modality: str | None,
    gene_column: str | None,
) -> AnnData:
    """Read a reference into memory, as training goes over its cells many times."""
    console.note(f"Reading {path} ...")  # before what takes seconds to import
    from scvi_sctab.data.files import find_query, open_stored

    with open_stored(path, modality) as stored:
        found = find_query(stored, layer=layer, gene_column=gene_column)
        console.note(f"{path}: {found.describe()}")
        return found.to_memory()


def _set_ontology(console: Console, model: Any, terms: dict[str, str] | None) -> None:
    try:
        model.set_ontology(terms)
    except ValueError as error:
        if terms is not None:
            raise
        console.note(f"No Cell Ontology terms: {error}")
