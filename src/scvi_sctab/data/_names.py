"""Names of the values of a column, independent of its type."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scvi_sctab._types import Names

_NAMED = (
    *(str, bytes, bool, np.bool_, int, np.integer, float, np.floating, Decimal),
    *(date, np.datetime64, timedelta, np.timedelta64, pd.Period, pd.Interval),
)
_MIDNIGHT = " 00:00:00"


def canonical(value: object) -> str:
    """Name a value independently of the type of its column: ``2``, ``2.0`` and ``"2"`` are equal.

    Strings are not changed. Numbers are named by value, with the fewest digits that distinguish
    them in their precision. Dates, and times at midnight, are ISO dates; whole days are
    ``"2 days"``; bytes are decoded.

    Parameters
    ----------
    value
        Value of the column.

    Examples
    --------
    >>> canonical(2.0), canonical("2"), canonical(True), canonical(b"run1")
    ('2', '2', 'True', 'run1')
    >>> canonical(np.float32(0.1)), canonical(0.1), canonical(pd.Timestamp("2024-03-01"))
    ('0.1', '0.1', '2024-03-01')
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, timedelta | np.timedelta64):
        return str(pd.Timedelta(value)).removesuffix(_MIDNIGHT)
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        return _name_number(value)
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    if isinstance(value, pd.Interval):
        left, right = "[" if value.closed_left else "(", "]" if value.closed_right else ")"
        return f"{left}{canonical(value.left)}, {canonical(value.right)}{right}"
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return str(value).removesuffix(_MIDNIGHT)
    return str(value)


def _name_number(value: float | np.floating | Decimal) -> str:
    number = float(value)
    if number.is_integer():
        return str(int(value))
    if isinstance(value, np.float16):
        return str(value)
    # 0.1 in float32, converted to float64, is 0.10000000149: name it as in float32.
    single = np.float32(number)
    return str(single) if float(single) == number else repr(number)


def name_values(values: pd.Series) -> pd.Categorical:
    """Name the values of a column.

    Parameters
    ----------
    values
        Column of any type; values may be missing.

    Returns
    -------
    Categorical whose categories are the names of the values that occur, in the order of the
    values; missing values are missing.

    Examples
    --------
    >>> name_values(pd.Series(pd.Categorical([10.0, 9.0], [8.0, 9.0, 10.0])))
    ['10', '9']
    Categories (2, object): ['9', '10']
    """
    codes, distinct = _distinct(values)
    names = [canonical(value) for value in distinct]
    unique = pd.Index(dict.fromkeys(names), dtype=object)
    return pd.Categorical.from_codes(np.append(unique.get_indexer(names), -1)[codes], unique)


def _distinct(values: pd.Series) -> tuple[NDArray[np.integer], list[object]]:
    """Return a code per cell, -1 where missing, and the distinct values that occur."""
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if not kind.startswith("mixed") and values.dtype != np.float16:
        categorical = pd.Categorical(values).remove_unused_categories()
        return categorical.codes, list(categorical.categories)
    # pandas would not distinguish True and 1.
    found: dict[tuple[str, type], object] = {}
    keys = [
        None if missing else (canonical(value), type(value))
        for value, missing in zip(values.to_numpy(), values.isna(), strict=True)
    ]
    for key, value in zip(keys, values.to_numpy(), strict=True):
        if key is not None:
            found.setdefault(key, value)
    order = sorted(found, key=lambda key: (key[0], key[1].__name__))
    position: dict[object, int] = {None: -1} | {key: i for i, key in enumerate(order)}
    return np.array([position[key] for key in keys], dtype=np.intp), [found[k] for k in order]


def check_values(values: pd.Series, key: str, argument: str) -> None:
    """Check that each value of a column has a unique name.

    Parameters
    ----------
    values
        The column.
    key, argument
        Its name, and the argument that named it, for messages.

    Raises
    ------
    ValueError
        If a value is of an unsupported type, or a string equals the name of another value.
    """
    _, distinct = _distinct(values)
    cure = f"`adata.obs[{key!r}] = adata.obs[{key!r}].astype(str)`."
    strange = [value for value in distinct if not isinstance(value, _NAMED)]
    if strange:
        raise ValueError(
            f"{argument}={key!r} holds values of type {type(strange[0]).__name__}, such as "
            f"{strange[0]!r}, which other data could not be matched with. Make them strings: {cure}"
        )
    texts = {canonical(value): value for value in distinct if isinstance(value, str)}
    others = {canonical(value): value for value in distinct if not isinstance(value, str)}
    alike = [name for name in others if name in texts]
    if alike:
        other = others[alike[0]]
        raise ValueError(
            f"{argument}={key!r} holds different values of the same name: {other!r} "
            f"({type(other).__name__}) and {texts[alike[0]]!r} (str)"
            + (f", and {len(alike) - 1:,} more such pairs" if len(alike) > 1 else "")
            + f". Make all of them strings: {cure}"
        )


def codes_among(names: pd.Categorical, known: Sequence[str]) -> NDArray[np.intp]:
    """Look up names among known ones.

    A name that is not found may be found as the same number, day or interval: ``"2.0"`` and
    ``"2024-03-01 00:00:00"``, strings made from a column of floats or of times, match ``"2"`` and
    ``"2024-03-01"``.

    Parameters
    ----------
    names
        Name of each cell, as :func:`name_values` gives them.
    known
        Known names.

    Returns
    -------
    Position in ``known`` of each cell, -1 where the name is unknown or missing.

    Examples
    --------
    >>> codes_among(name_values(pd.Series([1.0, 2.0, None])), ["1.0", "missing"]).tolist()
    [0, -1, -1]
    """
    exact = {name: code for code, name in reversed([*enumerate(known)])}
    plain: dict[str, list[int]] = {}
    for name, code in exact.items():
        plain.setdefault(_plain(name), []).append(code)
    codes = []
    for name in names.categories:
        like = plain.get(_plain(name), [])
        codes.append(exact.get(name, like[0] if len(like) == 1 else -1))
    return np.array([*codes, -1], dtype=np.intp)[names.codes]


def name_as_known(names: pd.Categorical, known: Sequence[str]) -> pd.Categorical:
    """Replace names by the known names that :func:`codes_among` finds.

    Parameters
    ----------
    names, known
        As in :func:`codes_among`.

    Examples
    --------
    >>> name_as_known(name_values(pd.Series(["1.0", "3.0"])), ["1", "2"]).tolist()
    ['1', '3.0']
    """
    each = pd.Categorical(names.categories, names.categories)
    codes = codes_among(each, known)
    renamed = [known[code] if code >= 0 else name for code, name in zip(codes, each, strict=True)]
    unique = pd.Index(dict.fromkeys(renamed), dtype=object)
    return pd.Categorical.from_codes(
        np.append(unique.get_indexer(renamed), -1)[names.codes], unique
    )


def _plain(name: str) -> str:
    interval = re.fullmatch(r"([\[(])(.+), (.+)([\])])", name)
    if interval:
        left, first, last, right = interval.groups()
        return f"{left}{_plain(first)}, {_plain(last)}{right}"
    number = re.fullmatch(r"(-?\d+)\.0+", name)
    return number[1] if number else name.removesuffix(_MIDNIGHT)


def fold(name: str) -> str:
    r"""Normalise a name for comparison: case, spaces and Unicode form.

    Parameters
    ----------
    name
        A name.

    Examples
    --------
    >>> fold("CD4\u00a0T ") == fold("cd4 t")
    True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    # Characters of the category Cf have no width.
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf")


def near_name(name: str, known: Names) -> str | None:
    """Find the known name that another spelling may mean; its numbers must be equal.

    Parameters
    ----------
    name
        Name that is not known.
    known
        Known names.

    Examples
    --------
    >>> near_name("Lab_7 ", ["lab 6", "lab 7"]), near_name("lab 8", ["lab 6", "lab 7"])
    ('lab 7', None)
    """
    spelled = {re.sub(r"[\W_]+", "", fold(other)): str(other) for other in reversed(known)}
    own = re.sub(r"[\W_]+", "", fold(name))
    if own in spelled:
        return spelled[own]
    numbers = re.findall(r"\d+", own)
    alike = [other for other in spelled if re.findall(r"\d+", other) == numbers]
    near = get_close_matches(own, alike, n=1, cutoff=0.8)
    return spelled[near[0]] if near else None
