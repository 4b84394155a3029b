"""Reports of the bundled data, written beside the built pages."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def write_reports(folder: Path) -> None:
    """Write the report of a query and that of a training, which take less than a minute."""
    import scvi

    from scvi_sctab import SCTAB, datasets, models

    scvi.settings.seed = 0
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models.load("pbmc").report(
            datasets.pbmc3k(),
            folder / "annotation.html",
            name="10x pbmc3k",
            card=models.show("pbmc"),
            overwrite=True,
        )
        reference = datasets.pbmc_kang18()
        SCTAB.setup_anndata(reference, labels_key="cell_type", donor_key="donor_id")
        model = SCTAB(reference, "small")
        model.train(30, **quiet)
        audit = model.audit_labels(3, max_epochs=15, groupby=["condition"], **quiet)
        model.training_report(
            folder / "training.html",
            name="Kang et al. 2018, control and interferon",
            audit=audit,
            overwrite=True,
        )


def _at_the_end(app: Sphinx, exception: Exception | None) -> None:
    folder = Path(app.outdir) / "gallery"
    if exception is None and app.builder.format == "html" and not _is_new(folder):
        write_reports(folder)


def _is_new(folder: Path) -> bool:
    """Return whether the pages were written after the package was last changed."""
    pages = [folder / name for name in ("annotation.html", "training.html")]
    package = Path(__file__).parents[1] / "src"
    changed = max(file.stat().st_mtime for file in package.rglob("*.*"))
    return all(page.exists() and page.stat().st_mtime > changed for page in pages)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the reports after the pages."""
    app.connect("build-finished", _at_the_end)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
