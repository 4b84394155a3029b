"""Defaults that stand in several signatures are the same in all."""

from inspect import cleandoc, signature

import pytest

from scvi_sctab._config import (
    MASKS,
    PRESETS,
    VIEWS,
    NetworkConfig,
    PlanConfig,
    ProteinPlanConfig,
    SelfSupervisedPlanConfig,
)
from scvi_sctab.external.protein import ProteinTrainingPlan
from scvi_sctab.nn import (
    CellViews,
    ProgrammeMask,
    RandomMask,
    SELUEncoder,
    TabNet,
    TabNetEncoder,
)
from scvi_sctab.train import ClassifierTrainingPlan, SelfSupervisedTrainingPlan


def default(function, name):
    return signature(function).parameters[name].default


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
    own = {"module", "class_weights", "augmentation_vectors", "depths"}
    assert set(signature(ClassifierTrainingPlan).parameters) - own == set(PlanConfig().to_kwargs())


def test_what_hides_genes_does_so_by_itself_as_in_a_model():
    assert default(RandomMask, "rate") == MASKS.random_rate
    assert default(ProgrammeMask, "rate") == MASKS.programme_rate
    for name in ("mask_rate", "noise", "dropout"):
        assert default(CellViews, name) == getattr(VIEWS, name)


def test_an_encoder_of_selu_has_the_published_widths_by_itself():
    assert default(SELUEncoder, "widths") == NetworkConfig().widths


def test_plans_without_labels_take_what_the_configuration_has():
    of_training = {"module", "lr_decay_every", "validation_seed"}
    shared = set(signature(SelfSupervisedTrainingPlan).parameters) - of_training
    assert shared == set(SelfSupervisedPlanConfig().to_kwargs())
    of_proteins = set(signature(ProteinTrainingPlan).parameters) - {"module", "kwargs"}
    assert of_proteins | shared == set(ProteinPlanConfig().to_kwargs())


@pytest.mark.parametrize("preset", PRESETS)
def test_a_documented_hyperparameter_exists_and_the_other_way_round(preset):
    from scvi_sctab import SCTAB

    entries = {name for line in cleandoc(SCTAB.__doc__).splitlines() for name in line.split(", ")}
    for name in PRESETS[preset].network.to_kwargs():
        assert name in entries
