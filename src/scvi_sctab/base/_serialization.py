"""Serialisation of attributes as JSON and arrays, which are read without executing code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

_KIND = "__kind__"


class NotPortableError(TypeError):
    """Error for a value that cannot be written without pickle."""


def encode(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Turn a value into JSON; numeric arrays go to ``arrays`` and leave their name.

    Parameters
    ----------
    value
        Scalars, strings, lists, tuples, dictionaries, arrays and data frames, also nested.
    arrays
        Dictionary to which numeric arrays are added.

    Raises
    ------
    NotPortableError
        If ``value`` is of another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [encode(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {_KIND: "tuple", "items": [encode(item, arrays) for item in value]}
    if isinstance(value, dict):
        items = [[encode(k, arrays), encode(v, arrays)] for k, v in value.items()]
        return {_KIND: "dict", "items": items}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.itemsize <= 8:
        name = f"array.{len(arrays)}"
        # safetensors does not store a byte order.
        arrays[name] = np.array(value, value.dtype.newbyteorder("="), order="C")
        return {_KIND: "array", "name": name}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        strings = {_KIND: "strings", "items": [encode(item, arrays) for item in value.ravel()]}
        return strings if value.ndim == 1 else {**strings, "shape": list(value.shape)}
    if isinstance(value, pd.DataFrame):
        parts = {
            "columns": [encode(name, arrays) for name in value.columns],
            "values": [encode(value[name].to_numpy(), arrays) for name in value.columns],
            "index": encode(value.index.to_numpy(), arrays),
        }
        return {_KIND: "frame", "name": value.index.name, **parts}
    raise NotPortableError(f"A {type(value).__name__} cannot be written without pickle.")


def decode(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """Undo :func:`encode`.

    Parameters
    ----------
    value
        Result of :func:`encode`.
    arrays
        Arrays that it filled.
    """
    if isinstance(value, list):
        return [decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value[_KIND]
    if kind == "tuple":
        return tuple(decode(item, arrays) for item in value["items"])
    if kind == "dict":
        return {decode(k, arrays): decode(v, arrays) for k, v in value["items"]}
    if kind == "array":
        return arrays[value["name"]]
    if kind == "strings":
        items = [decode(item, arrays) for item in value["items"]]
        return np.fromiter(items, object, len(items)).reshape(value.get("shape", -1))
    if kind == "frame":
        columns = [decode(column, arrays) for column in value["values"]]
        index = pd.Index(decode(value["index"], arrays), name=value["name"])
        return pd.DataFrame(dict(zip(value["columns"], columns, strict=True)), index=index)
    raise ValueError(f"Unknown kind {kind!r}: the file was written by a newer version.")
