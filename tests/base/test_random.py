"""Seeds within a block, on every device."""

import pytest
import torch

from scvi_sctab.base import seeded


def test_a_block_is_repeated_and_what_follows_does_not_depend_on_it():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    draws = []
    for _ in range(2):
        with seeded(5):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.rand(2), expected)


def test_the_state_is_restored_after_an_error():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with pytest.raises(KeyError, match="stop"), seeded(5):
        raise KeyError("stop")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("kind", "n_devices"), [("cuda", 2), ("mps", 1)])
def test_states_of_all_devices_are_restored_without_a_warning(kind, n_devices, monkeypatch):
    module = getattr(torch, kind)
    states = {number: f"state {number}" for number in range(n_devices)}
    monkeypatch.setattr(module, "is_available", lambda: True)
    monkeypatch.setattr(module, "device_count", lambda: n_devices)
    monkeypatch.setattr(module, "get_rng_state", lambda number: states[number])
    restored = {}
    monkeypatch.setattr(
        module, "set_rng_state", lambda state, number: restored.update({number: state})
    )
    # Seeding itself is torch's.
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    with seeded(5):
        assert not restored
    assert restored == states
