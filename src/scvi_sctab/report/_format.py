"""Numbers as text."""

from __future__ import annotations

_SMALLEST_SHARE = 0.001
# After a space at which no line is broken.
_PERCENT = "\xa0%"


def count(value: float) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count(2638)
    '2,638'
    """
    return f"{int(value):,}"


def percent(value: float) -> str:
    r"""Write a share as a percentage, with more digits where it is small.

    Examples
    --------
    >>> [percent(share).replace("\xa0", " ") for share in (0.436, 0.0123, 0.05, 0.0001, 0.9999)]
    ['44 %', '1.2 %', '5 %', '< 0.1 %', '> 99.9 %']
    """
    if 0 < value < _SMALLEST_SHARE:
        return f"< 0.1{_PERCENT}"
    if 1 - _SMALLEST_SHARE < value < 1:
        return f"> 99.9{_PERCENT}"
    digits = 1 if 0 < value < 0.0995 or 0.9905 <= value < 1 else 0
    return f"{100 * value:.{digits}f}".removesuffix(".0") + _PERCENT


def decimal(value: float) -> str:
    """Write a number with two decimals; very small ones with an exponent.

    Examples
    --------
    >>> decimal(0.873), decimal(3e-9)
    ('0.87', '3e-09')
    """
    return f"{value:.0e}" if 0 < abs(value) < 0.001 else f"{value:.2f}"
