"""Files beside the code agree with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import scvi_sctab

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_file_states_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    entry = yaml.safe_load((ROOT / ".github" / "scverse-ecosystem.yaml").read_text())
    (recipe,) = re.findall(
        r'set version = "(.*?)"', (ROOT / ".github" / "bioconda.yaml").read_text()
    )
    version = PROJECT["version"]
    assert [citation["version"], entry["version"], recipe] == [version, f"v{version}", version]
    assert scvi_sctab.__version__ == version


@pytest.mark.parametrize("dependency", PROJECT["dependencies"], ids=str)
def test_the_recipe_has_each_dependency(dependency):
    name, bounds = re.fullmatch(r"([\w-]+)(.*)", dependency).groups()
    name = {"torch": "pytorch", "matplotlib": "matplotlib-base"}.get(name, name)
    assert f"    - {name} {bounds}\n" in (ROOT / ".github" / "bioconda.yaml").read_text()
