"""The host's runner of a trainer, in single precision."""

from __future__ import annotations

from typing import Any

from scvi.train import TrainRunner

from scvi_sctab.nn import single_precision

_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
# Numbers, and names of earlier versions of Lightning.
_SAME = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


class SinglePrecisionRunner(TrainRunner):  # type: ignore[misc]
    """Train weights of type float32, whatever :func:`torch.get_default_dtype` says.

    Parameters
    ----------
    *args
        As of :class:`scvi.train.TrainRunner`.
    precision
        As of :class:`lightning.pytorch.Trainer`, of which ``32``, ``"16-mixed"`` and
        ``"bf16-mixed"`` are possible.
    **kwargs
        As of :class:`scvi.train.TrainRunner`.

    Raises
    ------
    TypeError
        If weights would be of another type.
    """

    def __init__(self, *args: Any, precision: int | str | None = None, **kwargs: Any):
        if precision is not None:
            name = _SAME.get(str(precision), str(precision))
            if name not in _PRECISIONS:
                raise TypeError(
                    f"{precision=}: weights are float32, as the cells that they are multiplied "
                    "with. Train with `precision=32`, or, on a GPU, `precision='bf16-mixed'`."
                )
            kwargs["precision"] = name
        super().__init__(*args, **kwargs)

    def __call__(self) -> Any:
        """Train."""
        with single_precision(self.device.type):
            return super().__call__()
