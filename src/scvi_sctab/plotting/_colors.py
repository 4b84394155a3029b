"""Colours of categories: distinct within a figure, the same in all of its panels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MISSING = "#cccccc"
# The cells that are True are the ones of interest, so theirs is the stronger colour.
BOOLEANS = {"False": "#a9bccf", "True": "#d55e00"}
# Number of distinguishable colours; with more categories, unused ones have no colour.
N_DISTINCT = 64
_N_COLORS = 256

# Okabe and Ito (2008), without yellow and black: safe for colour-blind readers.
_FIRST = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
_AVOIDED = ("white", "black", MISSING)
_LIGHTNESS, _CHROMA = (0.35, 0.85), (0.05, 0.24)
_COLOR_BLIND_SHARE = 0.4
# OKLab (Ottosson 2020): linear RGB to cone responses, their cube roots to lightness and two
# opponent colours.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# Deuteranopia, the most frequent colour blindness (Machado et al. 2009, severity 1).
_DEUTERANOPIA = np.array(
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)

_OF_FIGURE: WeakKeyDictionary[Figure, dict[str, str]] = WeakKeyDictionary()


def label_colors(*columns: Iterable[object]) -> dict[str, str]:
    """Assign a colour to each label, for ``colors=`` of several figures.

    Within one figure, panels have the same colours without it.

    Parameters
    ----------
    *columns
        Labels, e.g. columns of ``obs``. Unused categories of a categorical count as well, so that
        colours do not change when cells are left out.

    Returns
    -------
    Colour (hexadecimal) by label. The first six are safe for colour-blind readers, the first 64
    are clearly different, and colours repeat after 256.

    Examples
    --------
    >>> label_colors(["NK", "B"], ["B", "T"])
    {'B': '#0072b2', 'NK': '#e69f00', 'T': '#009e73'}
    """
    names = dict.fromkeys(
        str(name) for column in columns for name in categories_of(column).categories
    )
    return dict(zip(names, palette(len(names)), strict=True))


def categories_of(column: Iterable[object]) -> pd.Categorical:
    """Return the categories of a column, with unused ones if all can have distinct colours."""
    categories = pd.Categorical(column)
    if len(categories.categories) > N_DISTINCT:
        return categories.remove_unused_categories()
    return categories


def panel_colors(
    ax: Axes, names: Iterable[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Choose colours of names, the same as in other panels of the figure.

    Raises
    ------
    ValueError
        If colours are given, but not for each name.
    """
    # The canvas of a subfigure is that of the whole figure.
    known = _OF_FIGURE.setdefault(ax.figure.canvas.figure, {})
    names = list(names)
    if given is not None:
        given = {str(name): to_hex(color) for name, color in given.items()}
        if lacking := [name for name in names if name not in given]:
            raise ValueError(
                f"`colors` has none for {', '.join(map(repr, lacking[:5]))}. Make it of all columns "
                "that you draw: colors=plotting.label_colors(obs['label'], obs['cell_type'])."
            )
        known |= {name: given[name] for name in names}
    new = [name for name in names if name not in known]
    taken = set(known.values())
    free = [color for color in palette(len(taken) + len(new)) if color not in taken]
    # After the last colour of the palette, colours repeat.
    free += palette(len(new))
    known |= dict(zip(new, free, strict=False))
    return {name: known[name] for name in names}


def palette(n_colors: int) -> list[str]:
    """List colours, the most distinct ones first."""
    colors = _all_colors()
    return [colors[i % len(colors)] for i in range(n_colors)]


@cache
def _all_colors() -> tuple[str, ...]:
    """List colours, each the farthest from all before it (as in Glasbey et al. 2007)."""
    steps = np.linspace(0, 1, 11)
    candidates = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lightness, *hue = _seen(candidates)[:, :3].T
    chroma = np.hypot(*hue)
    within = (lightness > _LIGHTNESS[0]) & (lightness < _LIGHTNESS[1])
    candidates = candidates[within & (chroma > _CHROMA[0]) & (chroma < _CHROMA[1])]
    seen, chosen = _seen(candidates), list(_FIRST)
    gap = np.full(len(candidates), np.inf)
    for color in (*_AVOIDED, *_FIRST):
        gap = np.minimum(gap, _distance(seen, _seen(np.array([to_rgb(color)]))))
    while len(chosen) < _N_COLORS:
        farthest = int(gap.argmax())
        chosen.append(to_hex(candidates[farthest]))
        gap = np.minimum(gap, _distance(seen, seen[[farthest]]))
    return tuple(chosen)


def _seen(colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert RGB, ``(n, 3)``, to OKLab without and with deuteranopia, ``(n, 6)``."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    both = (linear, np.clip(linear @ _DEUTERANOPIA.T, 0, 1))
    return np.hstack([np.cbrt(part @ _TO_CONES.T) @ _TO_LAB.T for part in both])


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute differences of colours, ``(n,)``, weighted over full vision and deuteranopia."""
    full, blind = (np.linalg.norm((a - b)[:, part], axis=1) for part in (slice(3), slice(3, 6)))
    return (1 - _COLOR_BLIND_SHARE) * full + _COLOR_BLIND_SHARE * blind
