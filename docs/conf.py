"""Configuration of the documentation; `make docs` builds it, and a warning is an error."""

import os
import sys
from importlib.metadata import metadata
from pathlib import Path

from sphinx.ext.napoleon.docstring import NumpyDocstring

sys.path.insert(0, str(Path(__file__).parent))  # for the two extensions of these pages

_package = metadata("scvi-sctab")

project = _package["Name"]
version = release = _package["Version"]
author = "scvi-sctab developers"
copyright = f"2026, {author}"

extensions = [
    "_gallery",
    "_mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "jupyter_execute", "**.ipynb_checkpoints"]

html_theme = "sphinx_book_theme"
html_math_renderer = "mathml"  # MathJax would be loaded from a network
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_extra_path = ["llms.txt"]
html_title = project
html_theme_options = {"show_navbar_depth": 2, "use_download_button": False}

# The pages follow the code: what a package names in `__all__` is what gets a page.
autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"

# Docstrings leave the types to the annotations.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = False
napoleon_use_ivar = True  # as directives, the fields of a named tuple would be described twice
napoleon_use_rtype = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 1800  # one cell; scANVI takes a minute on an idle machine
copybutton_exclude = ".linenos, .gp, .go"

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# An inventory that cannot be fetched is a warning, so a build without a network must not ask.
intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
    "python": ("https://docs.python.org/3", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "scvi-tools": ("https://docs.scvi-tools.org/en/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}
if not os.environ.get("DOCS_INVENTORIES"):
    intersphinx_mapping = {}


def _returns_as_prose(self: NumpyDocstring, section: str) -> list[str]:
    """Keep a ``Returns`` section together; napoleon reads each of its lines as a type."""
    lines = self._dedent(self._consume_to_next_section())
    return [*self._format_block(":returns: ", lines), ""]


NumpyDocstring._parse_returns_section = _returns_as_prose
