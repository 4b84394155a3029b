"""What is used of scvi-tools beyond its public interface."""

import pytest
import torch
from scvi.model.base import BaseModelClass

from scvi_sctab import SCTAB
from scvi_sctab.base import HostModel, arguments_of, choose_device
from scvi_sctab.pretrain import BYOL, MaskedAutoencoder

SMALL = {"widths": (16, 8)}


@pytest.mark.parametrize("cls", [SCTAB, MaskedAutoencoder, BYOL])
def test_every_model_is_one_of_the_host_through_one_class(cls):
    assert issubclass(cls, HostModel)
    assert HostModel.__bases__ == (BaseModelClass,)


def test_cells_are_found_by_their_set_up(unlabelled):
    MaskedAutoencoder.setup_anndata(unlabelled)
    registry = MaskedAutoencoder._registry_of(unlabelled)
    assert registry["setup_args"] == {"layer": None}
    assert registry["model_name"] == "MaskedAutoencoder"
    assert MaskedAutoencoder._has_set_up(unlabelled)
    assert not BYOL._has_set_up(unlabelled)
    assert not MaskedAutoencoder._has_set_up(unlabelled.copy())
    uuid = unlabelled.uns["_scvi_uuid"]
    assert MaskedAutoencoder._find_cells(uuid) is unlabelled
    assert MaskedAutoencoder._find_cells(None) is None
    assert BYOL._find_cells(uuid) is None


def test_cells_that_were_not_set_up_have_no_registry(unlabelled):
    with pytest.raises(ValueError, match=r"set up your AnnData with BYOL.setup_anndata first"):
        BYOL._registry_of(unlabelled)


def test_arguments_are_recorded_as_they_were_resolved(unlabelled):
    MaskedAutoencoder.setup_anndata(unlabelled)
    model = MaskedAutoencoder(unlabelled, "none", **SMALL)
    arguments = model._arguments()
    assert arguments == arguments_of(model.init_params_)
    assert arguments["mask"] == "none"
    assert arguments["widths"] == (16, 8)
    assert arguments["encoder"] == "selu"
    assert not {"adata", "registry", "self"} & set(arguments)


def test_an_untrained_model_says_how_to_train_it(unlabelled):
    MaskedAutoencoder.setup_anndata(unlabelled)
    model = MaskedAutoencoder(unlabelled, **SMALL)
    with pytest.raises(RuntimeError, match="call `model.train\\(\\)` first"):
        model.get_latent_representation()


def test_a_device_is_chosen_as_the_host_chooses_it():
    assert choose_device("cpu", "auto") == torch.device("cpu")
