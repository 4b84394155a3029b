"""A user's subclass trains, saves, loads, maps a query and hands its encoder over."""

import numpy as np
import pytest
import torch

from scvi_sctab import SCTAB
from scvi_sctab._constants import WEIGHTS_FILE
from scvi_sctab.pretrain import BYOL, BarlowTwins, MaskedAutoencoder

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
SMALL = {"widths": (16, 8)}


class MyAutoencoder(MaskedAutoencoder):
    """Adds nothing."""


class MyBYOL(BYOL):
    """Adds nothing."""


class MyTwins(BarlowTwins):
    """Adds nothing."""


class Counting(MaskedAutoencoder):
    """Has another default, and hands all arguments on."""

    def __init__(self, adata=None, **kwargs):
        super().__init__(adata, **{"likelihood": "nb", **kwargs})


class Named(BYOL):
    """Has an argument of its own, and records it."""

    def __init__(self, adata=None, title="untitled", registry=None, **kwargs):
        super().__init__(adata, registry=registry, **kwargs)
        self.title = title
        self.init_params_ = self._get_init_params(locals())


PARENTS = {
    MyAutoencoder: MaskedAutoencoder,
    MyBYOL: BYOL,
    MyTwins: BarlowTwins,
    Counting: MaskedAutoencoder,
    Named: BYOL,
}


def trained(cls, cells, **arguments):
    cls.setup_anndata(cells)
    model = cls(cells, **SMALL, **arguments)
    model.train(max_epochs=1, **QUIET)
    return model


@pytest.fixture(params=PARENTS, ids=lambda cls: cls.__name__, scope="module")
def _pair(request, _cuts):
    """A model of a subclass and one of its parent."""
    return [trained(cls, _cuts[0][::4].copy()) for cls in (request.param, PARENTS[request.param])]


@pytest.fixture
def model(_pair):
    return _pair[0]


@pytest.fixture
def parent(_pair):
    return _pair[1]


def assert_alike(model, other, cells):
    np.testing.assert_array_equal(
        model.get_latent_representation(cells), other.get_latent_representation(cells)
    )


@pytest.mark.parametrize("with_cells", [True, False])
def test_a_file_of_a_subclass_is_loaded_by_it(model, query, with_cells, tmp_path):
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", model.adata if with_cells else None)
    assert type(loaded) is type(model)
    assert loaded.digest == model.digest
    assert_alike(loaded, model, query)
    (tmp_path / "model" / WEIGHTS_FILE).unlink()
    pickled = type(model).load(tmp_path / "model", model.adata, allow_pickle=True)
    assert_alike(pickled, model, query)


@pytest.mark.parametrize("form", ["safe", "pickle"])
def test_a_file_of_the_parent_is_loaded_by_a_subclass(model, parent, query, form, tmp_path):
    parent.save(tmp_path / "model")
    if form == "pickle":
        (tmp_path / "model" / WEIGHTS_FILE).unlink()
    loaded = type(model).load(tmp_path / "model", parent.adata, allow_pickle=form == "pickle")
    assert type(loaded) is type(model)
    assert_alike(loaded, parent, query)
    loaded.train(max_epochs=1, **QUIET)


def test_a_file_of_another_class_is_refused(model, parent, unlabelled, tmp_path):
    name = type(model).__name__
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"holds a {name}, not a {type(parent).__name__}"):
        type(parent).load(tmp_path / "model")
    other = MaskedAutoencoder if isinstance(parent, BYOL) else BYOL
    trained(other, unlabelled).save(tmp_path / "other")
    with pytest.raises(ValueError, match=f"holds a {other.__name__}, not a {name}"):
        type(model).load(tmp_path / "other")
    with pytest.raises(TypeError, match=f"The reference is a {name}, not a {other.__name__}"):
        other.load_query_data(unlabelled, model)


def test_a_query_is_mapped_onto_a_subclass(model, parent, query, tmp_path):
    model.save(tmp_path / "model")
    for reference in (model, tmp_path / "model", parent):
        mapped = type(model).load_query_data(query, reference)
        assert type(mapped) is type(model)
        expected = parent if reference is parent else model
        assert_alike(mapped, expected, query)
        mapped.train(max_epochs=1, **QUIET)


def test_the_encoder_of_a_subclass_is_handed_over(model, reference):
    sctab = SCTAB.from_pretrained(model, "cell_type", adata=reference)
    first = "layers.0.weight"  # the last layer is standardised
    torch.testing.assert_close(
        sctab.module.encoder.state_dict()[first], model.module.encoder.state_dict()[first]
    )


def test_arguments_of_a_subclass_are_saved(unlabelled, tmp_path):
    cells = unlabelled[::4].copy()
    trained(Counting, cells, mask_rate=0.3).save(tmp_path / "counting")
    counting = Counting.load(tmp_path / "counting")
    assert counting.init_params_["non_kwargs"]["mask_rate"] == 0.3
    assert type(counting.module.likelihood).__name__ == "NegativeBinomialLikelihood"
    trained(Named, cells, title="mine").save(tmp_path / "named")
    assert Named.load(tmp_path / "named").title == "mine"
