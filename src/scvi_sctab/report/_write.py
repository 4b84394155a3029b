"""The page and its numbers as files, which replace none unless asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scvi_sctab.base import publish_files, temporary_folder
from scvi_sctab.report._render import render_page

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scvi_sctab.report._report import Report
    from scvi_sctab.report._training_report import TrainingReport


def check_page(path: str | os.PathLike[str], overwrite: bool = False) -> tuple[Path, Path]:
    """Refuse a place for a page that is taken, before any work is done.

    Parameters
    ----------
    path
        File of the page, whose name ends in ``.html``.
    overwrite
        Whether it may exist.

    Returns
    -------
    Files of the page and of its numbers, ``report.html`` and ``report.json``.

    Raises
    ------
    FileExistsError
        If one of the two exists without ``overwrite``.
    ValueError
        If the name does not end in ``.html``.
    """
    page = Path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{str(page)!r} is no name of a page: end it in '.html'.")
    numbers = page.with_suffix(".json")
    for file in (page, numbers):
        if os.path.lexists(file) and not overwrite:
            raise FileExistsError(
                f"{file} exists and was left as it is. Choose another name, or pass overwrite=True."
            )
    return page, numbers


def write_report(
    report: Report | TrainingReport,
    points: Mapping[str, Any] | None,
    path: str | os.PathLike[str],
    overwrite: bool = False,
) -> tuple[Path, Path]:
    """Write a page and its numbers, aside first.

    Parameters
    ----------
    report
        The report.
    points
        Points of the scatter, see :func:`~scvi_sctab.report.pack_points`.
    path, overwrite
        As of :func:`check_page`.

    Returns
    -------
    Files of the page and of its numbers.

    Raises
    ------
    FileExistsError, ValueError
        As of :func:`check_page`.
    """
    page, numbers = check_page(path, overwrite)
    folder = Path(os.path.realpath(page.parent))
    with temporary_folder(folder) as aside:
        (aside / page.name).write_text(render_page(report, points), encoding="utf-8")
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        (aside / numbers.name).write_text(text + "\n", encoding="utf-8")
        publish_files(aside, folder, overwrite)
    return page, numbers
