"""The check of the package on a GPU runs, on a CPU and without training."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "gpu_check.py"


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


@pytest.fixture
def setting(gpu_check, tmp_path):
    return gpu_check.Setting(torch.device("cpu"), tmp_path)


def test_light_checks_pass_on_a_cpu(gpu_check, setting, capsys):
    assert len(gpu_check.LIGHT) >= 6
    assert gpu_check.run(setting, gpu_check.LIGHT) == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gpu_check.LIGHT)
    assert all(line.count(" | ") == 2 for line in lines)


def test_checks_go_on_after_a_failure(gpu_check, setting, capsys, monkeypatch):
    def fail(_):
        raise RuntimeError("out of memory")

    checks = {"first": fail, "second": lambda _: "7 cells/s"}
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    assert gpu_check.run(setting, ["first", "second"]) == ["first"]
    first, second = capsys.readouterr().out.splitlines()
    assert "FAILED | RuntimeError: out of memory" in first
    assert "ok     | 7 cells/s" in second


@pytest.mark.parametrize("works", [True, False])
def test_the_exit_status_tells_of_failures(gpu_check, monkeypatch, works, capsys):
    def only(_):
        if not works:
            raise RuntimeError("stop")
        return "1"

    monkeypatch.setattr(gpu_check, "CHECKS", {"only": only})
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu"])
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main()
    assert stopped.value.code == (not works)
    assert f"{int(works)} of 1 checks passed." in capsys.readouterr().out


@pytest.mark.slow(reason="trains ten models, as the check of a GPU does")
def test_all_checks_pass_on_a_cpu(gpu_check, setting):
    assert gpu_check.run(setting, [*gpu_check.CHECKS]) == []
