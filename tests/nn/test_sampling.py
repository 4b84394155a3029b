"""Draws of devices without some distributions."""

import pytest
import torch

from scvi_sctab.nn import _sampling, negative_binomial_noise, sample


@pytest.fixture
def no_distributions(monkeypatch):
    """Treat the CPU as a device that cannot draw."""
    monkeypatch.setattr(_sampling, "_SAMPLING_DEVICES", set())


def test_draws_that_a_device_supports_are_those_of_torch():
    rate = torch.full((5, 3), 4.0)
    draws = [
        function(generator=torch.Generator().manual_seed(0))
        for function in (
            lambda generator: sample(torch.poisson, rate, generator=generator),
            lambda generator: torch.poisson(rate, generator=generator),
        )
    ]
    assert torch.equal(*draws)


@pytest.mark.usefixtures("no_distributions")
@pytest.mark.parametrize(
    ("function", "parameters", "mean"),
    [
        (torch.poisson, (4.0,), 4.0),
        (torch._standard_gamma, (10.0,), 10.0),
        (torch.binomial, (20.0, 0.3), 6.0),
    ],
    ids=["poisson", "gamma", "binomial"],
)
def test_draws_on_the_cpu_have_the_distribution_and_follow_the_generator(
    function, parameters, mean
):
    tensors = [torch.full((20_000,), value) for value in parameters]
    first, second = (
        sample(function, *tensors, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert float(first.mean()) == pytest.approx(mean, rel=0.02)
    generator = torch.Generator().manual_seed(1)
    draws = [sample(function, *tensors, generator=generator) for _ in range(2)]
    assert not torch.equal(*draws)


@pytest.mark.usefixtures("no_distributions")
def test_noise_of_views_follows_the_seed_of_the_device():
    noisy = []
    for _ in range(2):
        torch.manual_seed(0)
        noisy.append(negative_binomial_noise(torch.zeros(4, 50), 0.2))
    assert torch.equal(*noisy)
    assert (noisy[0] > 0).any()
