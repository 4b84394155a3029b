"""The check of the package on a GPU runs on a CPU, and tells of what differs."""

import importlib.util
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"
QUICK = ["--device", "cpu", "--genes", "100"]


@pytest.fixture(autouse=True)
def verbosity():
    """The check quiets the messages of its process, which is that of other tests, too."""
    level = logging.getLogger("scvi").level
    yield
    logging.getLogger("scvi").setLevel(level)


@pytest.fixture(scope="module")
def gpu_check():
    specification = importlib.util.spec_from_file_location("gpu_check", BENCHMARK)
    module = importlib.util.module_from_spec(specification)
    sys.modules["gpu_check"] = module
    try:
        specification.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["gpu_check"]


def test_steps_without_training_agree_on_a_cpu(gpu_check, capsys):
    steps = [name for name in gpu_check.STEPS if name.startswith("step")]
    assert len(steps) == 2
    assert gpu_check.main([*QUICK, "--only", *steps]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert all(line.count(" | ") == 2 for line in lines if line.startswith(tuple(steps)))
    assert last == "2 of 2 steps agree, cpu beside the CPU."


def test_a_difference_and_an_error_are_failures_and_the_others_go_on(
    gpu_check, capsys, monkeypatch
):
    def fail(_):
        raise RuntimeError("out of memory")

    steps = {
        "fails": (fail, 1.0),
        "differs": (lambda place: [np.full(3, float(place.dense))], 0.5),
        "not a number": (lambda place: [np.array(np.nan)], 0.5),
        "agrees": (lambda place: [np.ones(3)], 0.0),
    }
    monkeypatch.setattr(gpu_check, "STEPS", steps)
    assert gpu_check.main(QUICK) == 1
    out = capsys.readouterr().out
    assert "FAILED | RuntimeError: out of memory" in out
    assert "FAILED | 1.0e+00 of 0.5" in out
    assert "FAILED | nan of 0.5" in out
    assert "1 of 4 steps agree" in out


@pytest.mark.slow(reason="trains models of each kind twice, as the check of a GPU does")
def test_all_steps_agree_on_a_cpu(gpu_check):
    assert gpu_check.main(["--device", "cpu", "--genes", "400"]) == 0
