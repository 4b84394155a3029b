"""Defaults that stand in several signatures are the same in all."""

from inspect import signature

import pytest

from scvi_sctab._config import PRESETS, NetworkConfig, PlanConfig
from scvi_sctab.nn import TabNet, TabNetEncoder
from scvi_sctab.train import ClassifierTrainingPlan


@pytest.mark.parametrize("network", [TabNet, TabNetEncoder])
def test_a_network_built_by_itself_is_the_published_one(network):
    published = NetworkConfig().to_kwargs()
    shown = {
        name: parameter.default
        for name, parameter in signature(network).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert shown == {name: published[name] for name in shown}
    assert len(shown) == 10


def test_each_setting_of_the_plan_has_its_default_in_the_configuration():
    own = {"module", "class_weights", "augmentation_vectors"}
    assert set(signature(ClassifierTrainingPlan).parameters) - own == set(PlanConfig().to_kwargs())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_documented_hyperparameter_exists_and_the_other_way_round(preset):
    from scvi_sctab import SCTAB

    for name in PRESETS[preset].network.to_kwargs():
        assert f"``{name}``" in SCTAB.__doc__
