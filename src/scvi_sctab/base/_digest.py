"""Files of tensors with a checksum of their content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

if TYPE_CHECKING:
    from torch import Tensor

_CHECKSUM = "checksum"
_HEADER_SIZE = 8  # bytes, by the format of safetensors


def hash_tensors(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Hash type, shape and bytes of each tensor.

    Parameters
    ----------
    tensors
        Tensors on any device, by name.

    Returns
    -------
    SHA-256 of each tensor as a hexadecimal string, by its name.

    Examples
    --------
    >>> hash_tensors({"a": torch.zeros(2)})["a"] == hash_tensors({"a": torch.zeros(3)})["a"]
    False
    """
    return {name: _hash_tensor(tensor) for name, tensor in tensors.items()}


def _hash_tensor(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    hashed = sha256(f"{values.dtype} {tuple(values.shape)} ".encode())
    # A tensor of one element may have any stride, and `view` as bytes needs a stride of 1.
    flat = values.as_strided((values.numel(),), (1,))
    hashed.update(flat.view(torch.uint8).numpy().data)
    return hashed.hexdigest()


def hash_json(value: Any) -> str:
    """Hash a JSON value, independently of the order of keys.

    Parameters
    ----------
    value
        Dictionaries with strings as keys, lists, strings, numbers, booleans and ``None``.

    Returns
    -------
    SHA-256 as a hexadecimal string.

    Examples
    --------
    >>> hash_json({"a": 1, "b": 2}) == hash_json({"b": 2, "a": 1})
    True
    """
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_checked(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata, and a checksum of both.

    Parameters
    ----------
    path
        File to write.
    tensors
        Tensors on the CPU that share no memory.
    metadata
        Strings; ``"format"`` is the name of the format.
    """
    save_file(tensors, str(path), metadata={**metadata, _CHECKSUM: _checksum(tensors, metadata)})


def read_checked(
    path: Path, kind: str, format_name: str, unchecked_format: str
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file that :func:`write_checked` wrote and verify its checksum.

    The file is read as a whole, without a memory map.

    Parameters
    ----------
    path
        File to read.
    kind
        Kind of content for messages, such as ``"a model"``.
    format_name
        Name of the format.
    unchecked_format
        Name of an earlier format without a checksum.

    Returns
    -------
    Tensors that share no memory, and metadata.

    Raises
    ------
    PermissionError
        If there is no permission to read the file.
    ValueError
        If the file is damaged, of another kind or of a newer version.
    """
    try:
        content = path.read_bytes()
        tensors, metadata = load(content), _read_metadata(content)
    except PermissionError:
        raise
    # safetensors raises KeyError for types that torch lacks, RuntimeError for wrong shapes.
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not {kind} or is damaged: {error}") from error
    expected, found = metadata.pop(_CHECKSUM, None), metadata.get("format")
    if expected is None and found == unchecked_format:
        return tensors, metadata
    newer = f"{kind} of this package, or of a newer version of it"
    if expected is None and found != format_name:
        raise ValueError(f"{path} is not {newer}.")
    if expected != _checksum(tensors, metadata):
        perhaps = "" if found == format_name else ", or of a newer version of the package"
        raise ValueError(
            f"{path} is damaged{perhaps}: its content does not fit its checksum. Copy it again "
            "from where it was saved, or save the model again."
        )
    if found != format_name:
        raise ValueError(f"{path} is not {newer}.")
    return tensors, metadata


def _read_metadata(content: bytes) -> dict[str, str]:
    end = _HEADER_SIZE + int.from_bytes(content[:_HEADER_SIZE], "little")
    return json.loads(content[_HEADER_SIZE:end]).get("__metadata__") or {}


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    return hash_json({"tensors": hash_tensors(tensors), "metadata": metadata})
