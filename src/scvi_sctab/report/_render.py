"""The page of a report: one file that loads nothing."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from scvi_sctab.report._format import count, decimal, percent

if TYPE_CHECKING:
    from scvi_sctab.report._report import Report
    from scvi_sctab.report._training_report import TrainingReport

_STYLES: dict[str, Callable[[float], str]] = {
    "count": count,
    "percent": percent,
    "decimal": decimal,
}


def render_page(report: Report | TrainingReport, points: Mapping[str, Any] | None = None) -> str:
    """Render a report as HTML.

    Names are escaped; by its own policy the page runs no script but ours, and requests nothing.

    Parameters
    ----------
    report
        The report.
    points
        Points of the scatter, see :func:`~scvi_sctab.report.pack_points`; of an annotation only.
    """
    script = _read("page.js")
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = report.to_dict()
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {**_STYLES, "code": _code}
    return environment.get_template(report.template).render(
        report=values,
        points=points,
        number=lambda key, style="count": _number(values, key, style),
        css=Markup(_read("page.css")),
        script=Markup(script),
        script_digest=digest,
    )


def _number(values: Mapping[str, Any], key: str, style: str) -> Markup:
    """Write the number at a key of the report, ``"types.0.n_cells"``, with its exact value."""
    value: Any = values
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list | tuple) else value[part]
    text = _STYLES[style](value)
    return Markup('<data data-key="{}" value="{}">{}</data>').format(key, repr(value), text)


def _code(text: str) -> Markup:
    """Write what is between backticks as code."""
    parts = str(text).split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts)
    )


def _read(name: str) -> str:
    return (files("scvi_sctab.report") / "templates" / name).read_text(encoding="utf-8")
