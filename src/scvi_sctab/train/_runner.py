"""Training run of scvi-tools in single precision."""

from __future__ import annotations

from typing import Any

from scvi.train import TrainRunner

from scvi_sctab.nn import single_precision

_PRECISIONS = ("32-true", "bf16-mixed")
# Numbers, and names in earlier versions of Lightning.
_SAME = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_CURE = "Train with `precision=32`, or, on a GPU, `precision='bf16-mixed'`."
_REASONS = {
    "16-mixed": "gradients are clipped to a fixed norm, but float16 needs scaled gradients",
    **dict.fromkeys(
        ("16-true", "bf16-true"),
        "weights are float32, as the cells that they are multiplied with, and half precision "
        "would round counts, such as 257 to 256",
    ),
}
_OTHER_REASON = "weights are float32, as the cells that they are multiplied with"


class SinglePrecisionRunner(TrainRunner):  # type: ignore[misc]
    """Training run with float32 weights, independent of :func:`torch.get_default_dtype`.

    Parameters
    ----------
    *args
        As in :class:`scvi.train.TrainRunner`.
    precision
        As in :class:`lightning.pytorch.Trainer`: ``32`` or ``"bf16-mixed"``.
    **kwargs
        As in :class:`scvi.train.TrainRunner`.

    Raises
    ------
    TypeError
        If weights would have another type, or gradients would be scaled.
    """

    def __init__(self, *args: Any, precision: int | str | None = None, **kwargs: Any):
        if precision is not None:
            kwargs["precision"] = _check(precision)
        super().__init__(*args, **kwargs)
        # It may also be set by `trainer_config` or by a plugin.
        _check(self.trainer.precision)
        if self.trainer.world_size > 1:
            # scvi-tools would put the models of all processes on one device.
            self.device = self.trainer.strategy.root_device

    def __call__(self) -> Any:
        """Train."""
        with single_precision(self.device.type):
            return super().__call__()


def _check(precision: int | str) -> str:
    """Return the full name of a precision; refuse those that would give wrong numbers."""
    name = _SAME.get(str(precision), str(precision))
    if name not in _PRECISIONS:
        raise TypeError(f"{precision=}: {_REASONS.get(name, _OTHER_REASON)}. {_CURE}")
    return name
