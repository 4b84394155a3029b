"""Reading of pickles of arrays and settings as plain data, without executing any of them.

A pickle is a program that calls what it names. Here every name is one of a short list, and stands
for a record of this module that only keeps its arguments, so that nothing of numpy or scikit-learn
is called either. What a pickle names beyond the list is refused before it is used.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_NUMERIC = "biuf"
# Objects that a file may stand for; a model has some per gene and label, its arrays apart.
_MAX_PARTS = 10_000_000
_IS_LITTLE = sys.byteorder == "little"
_ERRORS = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError),
    *(MemoryError, OverflowError, RecursionError, TypeError, ValueError, struct.error),
)


class Record:
    """Object of a pickle: arguments of its construction and its state, both unused.

    Attributes
    ----------
    args
        Arguments that it was built with.
    state
        State, a dictionary of attributes for most classes.
    """

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Record:
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(Record):
    """Array of numpy, by `_reconstruct` and a state."""


class _Buffer(Record):
    """Array of numpy, by `_frombuffer`: buffer, type, shape, order."""


class _Scalar(Record):
    """Scalar of numpy: type, bytes."""


class _Type(Record):
    """Type of numpy: its code, and a state that begins with version and byte order."""


class _Encode:
    """Function that makes bytes of text; without attributes that a pickle could set."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"Bytes are written as {encoding!r}.")
        return text.encode("latin1")


_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Encode(),  # bytes of the pickle protocols 0 to 2
    **{
        (f"numpy.{core}.{module}", name): record
        for core in ("core", "_core")
        for module, name, record in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, allowed: Mapping[tuple[str, str], Any]):
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise _NotAllowedError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _NotAllowedError("a reference to something outside of the file")


class _NotAllowedError(Exception):
    """Error for a name that is not on the list."""


def read_plain_pickle(path: Path, classes: Mapping[tuple[str, str], type[Record]]) -> Any:
    """Read a pickle; objects become records, arrays and scalars of numpy become arrays.

    Parameters
    ----------
    path
        File to read.
    classes
        Module and name of the classes that it may have, and their records.

    Returns
    -------
    The saved object, of plain values, arrays and records whose state is plain as well.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file names anything else, or is damaged. Nothing of it was executed.
    """
    with path.open("rb") as file:
        try:
            return _Converter()(_PlainUnpickler(file, {**_NUMPY, **classes}).load())
        except _NotAllowedError as error:
            raise ValueError(
                f"{path} was refused: it asks for {error}, which a model does not need. Nothing of "
                "it was executed. Do not load this file by other programs."
            ) from None
        except _ERRORS as error:
            raise ValueError(f"{path} is damaged, or no pickle of a model: {error}") from error


class _Converter:
    """Conversion of records of numpy to arrays and scalars, within containers and records.

    An object that is referred to several times is converted once. Its parts count each time, so
    that a small file cannot stand for more than ``_MAX_PARTS``.
    """

    def __init__(self) -> None:
        self._done: dict[int, tuple[Any, int]] = {}

    def __call__(self, value: Any) -> Any:
        return self._convert(value)[0]

    def _convert(self, value: Any) -> tuple[Any, int]:
        if not isinstance(value, dict | list | tuple | Record):
            return value, 1
        if id(value) not in self._done:
            parts: list[int] = [1]
            converted = self._rebuild(value, parts)
            if sum(parts) > _MAX_PARTS:
                raise ValueError("It has too many parts.")
            self._done[id(value)] = converted, sum(parts)
        return self._done[id(value)]

    def _rebuild(self, value: Any, parts: list[int]) -> Any:
        def convert(item: Any) -> Any:
            found, n_parts = self._convert(item)
            parts.append(n_parts)
            return found

        if isinstance(value, dict):
            return {convert(key): convert(item) for key, item in value.items()}
        if isinstance(value, list):
            return [convert(item) for item in value]
        if isinstance(value, tuple):
            return tuple(convert(item) for item in value)
        if isinstance(value, _Array):
            _, shape, kind, is_fortran, content = value.state
            if isinstance(content, list):
                content = convert(content)
            return _array(content, kind, shape, "F" if is_fortran else "C")
        if isinstance(value, _Buffer):
            return _array(*value.args)
        if isinstance(value, _Scalar):
            return _array(value.args[1], value.args[0], (), "C")[()]
        if isinstance(value, _Type):
            return _dtype(value)
        value.args, value.state = convert(value.args), convert(value.state)
        return value


def _array(content: Any, kind: Any, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    dtype = _dtype(kind)
    if dtype.kind == "O":
        flat = np.fromiter(content, object, len(content))
    else:
        flat = np.frombuffer(content, dtype).copy()  # of its own, and writable
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _dtype(kind: Any) -> np.dtype[Any]:
    """Return a type of numbers, strings or objects; others have fields or metadata."""
    if not isinstance(kind, _Type):
        raise TypeError(f"A type of numpy is a {type(kind).__name__}.")
    code = str(kind.args[0])
    is_swapped = kind.state is not None and kind.state[1] == (">" if _IS_LITTLE else "<")
    dtype = np.dtype(code).newbyteorder("S" if is_swapped else "=")
    if dtype.kind not in _NUMERIC + "OUS":
        raise TypeError(f"An array has the type {code!r}.")
    return dtype
