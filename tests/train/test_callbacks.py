"""The best weights are put back."""

from types import SimpleNamespace

import pytest
import torch

from scvi_sctab.train import RestoreBestWeights


def run(callback, scores, monitor="validation_f1_macro"):
    """Run epochs whose weight is their number; return the weight at the end."""
    module = torch.nn.Linear(1, 1, bias=False)
    plan = SimpleNamespace(module=module)
    for epoch, score in enumerate(scores):
        torch.nn.init.constant_(module.weight, epoch)
        metrics = {} if score is None else {monitor: torch.tensor(score)}
        trainer = SimpleNamespace(
            callback_metrics=metrics, sanity_checking=False, current_epoch=epoch
        )
        callback.on_validation_end(trainer, plan)
    callback.on_train_end(trainer, plan)
    return int(module.weight)


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(
    ("mode", "from_epoch", "scores", "expected"),
    [
        pytest.param("max", 0, [0.1, 0.9, 0.5], 1, id="the maximum"),
        pytest.param("min", 0, [0.3, 0.2, 0.5], 1, id="the minimum"),
        pytest.param("max", 0, [0.4, 0.4, 0.1], 1, id="the later of equals"),
        pytest.param("max", 2, [0.9, 0.8, 0.1, 0.2], 3, id="not from unsettled epochs"),
        pytest.param("max", 0, [0.4, float("nan"), 0.1], 0, id="never NaN"),
        pytest.param("max", 0, [None, None], 1, id="the last where nothing was logged"),
    ],
)
def test_the_weights_kept_are_those_of(mode, from_epoch, scores, expected):
    assert run(RestoreBestWeights("validation_f1_macro", mode, from_epoch), scores) == expected
