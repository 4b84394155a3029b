"""Cell Ontology terms of labels, in a file of the user."""

from __future__ import annotations

from pathlib import Path

from scvi_sctab.cli._errors import CommandError, ExitCode


def read_terms(path: Path) -> dict[str, str]:
    """Read a CSV file with the columns ``label`` and ``term_id``.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    CommandError
        If there is no such file, or it lacks a column.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str)
        return dict(zip(table["label"], table["term_id"], strict=True))
    except (OSError, KeyError, ValueError) as error:
        raise CommandError(
            ExitCode.REFUSED,
            f"The terms of labels in {path} cannot be read: {error}.",
            "Write a CSV file with the columns label and term_id.",
        ) from error
