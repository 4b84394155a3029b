"""Equations as MathML, which browsers draw without a script or a font from a network."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Any

from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Delimiters of a fixed size, which the converter of docutils does not know, grow with their content.
_OPENING, _CLOSING = re.compile(r"\\[bB]igg?([(\[])"), re.compile(r"\\[bB]igg?([)\]])")


def to_mathml(tex: str, as_block: bool = False) -> str:
    """Convert an equation to MathML, which screen readers read."""
    text = _CLOSING.sub(r"\\right\1", _OPENING.sub(r"\\left\1", tex))
    text = re.sub(r"\\(?:text|display)style\s*", "", text)
    try:
        return tex2mathml(text, as_block=as_block)
    except Exception as error:
        raise ExtensionError(f"An equation cannot be converted: {tex!r}: {error}") from error


def _inline(self: Any, node: Any) -> None:
    self.body.append(f'<span class="math" title="{escape(node.astext())}">')
    self.body.append(to_mathml(node.astext()) + "</span>")
    raise _skip()


def _block(self: Any, node: Any) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(to_mathml(node.astext(), as_block=True) + "</div>")
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
