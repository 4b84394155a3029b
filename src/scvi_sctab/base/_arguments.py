"""Arguments that users guess, and the ones that are meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def check_arguments(
    given: Iterable[str], known: Iterable[str], verb: str, cures: Mapping[str, str]
) -> None:
    """Stop at keyword arguments that do not exist.

    Parameters
    ----------
    given
        Names that were given.
    known
        Names that there are.
    verb
        Name of the function, for the message.
    cures
        For names that users of other packages try: what to type instead.

    Raises
    ------
    TypeError
        If a name does not exist. The message has the cure, or the nearest name.

    Examples
    --------
    >>> check_arguments(["lr"], ["batch_size"], "train", {"lr": "`plan_kwargs={'lr': 1e-3}`"})
    Traceback (most recent call last):
        ...
    TypeError: train() has no argument 'lr': `plan_kwargs={'lr': 1e-3}`.
    """
    known = list(known)
    for name in given:
        if name in known:
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.75)
        cure = cures.get(name)
        if cure is None and near:
            cure = f"did you mean {near[0]!r}?"
        end = "" if cure is not None and cure.endswith("?") else "."
        raise TypeError(f"{verb}() has no argument {name!r}" + (f": {cure}" if cure else "") + end)
