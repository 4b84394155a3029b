"""The import contracts of ``pyproject.toml`` hold, and name what breaks them."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "scvi_sctab"
PACKAGE = ROOT / "src" / NAME


def check_contracts(folder):
    """Run import-linter on the package in a folder, by the contracts of this checkout."""
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo"]
    # Wide enough that no line is broken.
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "400"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_contracts_are_kept():
    found = check_contracts(PACKAGE.parent)
    assert found.returncode == 0, found.stdout + found.stderr


def test_protocols_import_what_they_describe_for_annotations_only():
    tree = ast.parse((PACKAGE / "_types.py").read_text())
    imported = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    imported += [a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names]
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


# Each with a file to add to the package, and the import that import-linter must name.
BREACHES = {
    "a layer that imports one above it": (
        "nn/_a.py",
        "from scvi_sctab.model import SCTAB\n",
        "scvi_sctab.nn._a -> scvi_sctab.model (l.1)",
    ),
    "an upward import inside a function": (
        "model/_b.py",
        "def f():\n    import scvi_sctab.baselines._linear\n",
        "scvi_sctab.model._b -> scvi_sctab.baselines._linear (l.2)",
    ),
    "an upward import for annotations": (
        "sparse/_a.py",
        "import typing\nif typing.TYPE_CHECKING:\n    from scvi_sctab import data\n",
        "scvi_sctab.sparse._a -> scvi_sctab.data (l.3)",
    ),
    "a neighbour of the same height": (
        "metrics/_a.py",
        "from scvi_sctab.nn import TabNet\n",
        "scvi_sctab.metrics._a -> scvi_sctab.nn (l.1)",
    ),
    "data that reaches a network by its public name": (
        "data/_a.py",
        "from scvi_sctab.nn import TabNet\n",
        "scvi_sctab.data._a -> scvi_sctab.nn (l.1)",
    ),
    "a layer below that is not for this one": (
        "base/_a.py",
        "from scvi_sctab.metrics import fit_centers\n",
        "scvi_sctab.base._a -> scvi_sctab.metrics (l.1)",
    ),
    "the whole package imported for one name": (
        "baselines/_a.py",
        "from scvi_sctab import SCTAB\n",
        "scvi_sctab.baselines._a -> scvi_sctab (l.1)",
    ),
    "a shared file that imports a layer": (
        "_optional.py",
        "from scvi_sctab.ontology import CellOntology\n",
        "scvi_sctab._optional -> scvi_sctab.ontology (l.1)",
    ),
    "a banned library": (
        "nn/_b.py",
        "import pandas as pd\n",
        "scvi_sctab.nn._b -> pandas (l.1)",
    ),
    "a banned library by its other name": (
        "sparse/_b.py",
        "from pytorch_lightning import Trainer\n",
        "scvi_sctab.sparse._b -> pytorch_lightning (l.1)",
    ),
    "a banned library imported late": (
        "plotting/_a.py",
        "class A:\n    def f(self):\n        from torch import nn\n",
        "scvi_sctab.plotting._a -> torch (l.3)",
    ),
    "a banned library in a nested folder": (
        "data/stores/__init__.py",
        "from matplotlib.axes import Axes\n",
        "scvi_sctab.data.stores -> matplotlib (l.1)",
    ),
    "a shared file with a library banned anywhere": (
        "_config.py",
        "import torch\n",
        "scvi_sctab._config -> torch (l.1)",
    ),
    "a new layer": ("hub/__init__.py", "", "scvi_sctab.hub"),
    "a new file beside the layers": ("_helpers.py", "", "scvi_sctab._helpers"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Output of one check of a copy of the package with all breaches."""
    folder = tmp_path_factory.mktemp("breaches")
    shutil.copytree(PACKAGE, folder / NAME, ignore=shutil.ignore_patterns("__pycache__", "*.h5ad"))
    for name, text, _ in BREACHES.values():
        path = folder / NAME / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    found = check_contracts(folder)
    assert found.returncode == 1, found.stderr
    return found.stdout


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_is_named(name, report):
    assert BREACHES[name][2] in report
