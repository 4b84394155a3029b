"""Training on several devices, and training that is killed, each by a script of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scvi_sctab import SCTAB
from scvi_sctab.base import count_processes
from scvi_sctab.data import BatchOrder

HERE = Path(__file__).parent
STARTS_PYTHON = "starts Python some times, which imports torch"


def run(script, *arguments):
    """Run a script of this folder; a warning is an error."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK")}
    # Threads would wait for each other on the few CPUs of a test.
    environment["OMP_NUM_THREADS"] = "1"
    command = [
        sys.executable,
        "-W",
        "error::UserWarning",
        str(HERE / script),
        *map(str, arguments),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


class Model(SCTAB):
    """As in the script."""


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """What one process has after training, what each of two has, and what they print."""
    folder = tmp_path_factory.mktemp("devices")
    read = {}
    for devices in (1, 2):
        place = folder / str(devices)
        place.mkdir()
        printed = run("train_on_devices.py", devices, place)
        read[devices] = [dict(np.load(place / f"rank{rank}.npz")) for rank in range(devices)]
    return read[1][0], *read[2], printed.stdout + printed.stderr, place


@pytest.mark.slow(reason=STARTS_PYTHON)
def test_two_devices_train_as_one_does_on_batches_of_twice_the_size(one_and_two):
    one, first, *_ = one_and_two
    compared = [name for name in one if name.startswith(("exact", "probabilities"))]
    assert len(compared) == 10
    for name in compared:
        np.testing.assert_allclose(first[name], one[name], atol=1e-5, rtol=1e-4, err_msg=name)
    weight = "linear_skip.weight"
    assert np.abs(one[f"exact {weight}"] - one[f"before {weight}"]).max() > 0.1
    # Early stopping comes to the same decision: eight epochs were asked for.
    assert len(first["exact history train_loss"]) < 8


@pytest.mark.slow(reason=STARTS_PYTHON)
def test_every_process_has_the_same_model_and_history(one_and_two):
    _, first, second, *_ = one_and_two
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert first["pretrained history"].size == 1
    assert np.isfinite(first["trained encoder.initial_bn.running_var"]).all()


@pytest.mark.slow(reason=STARTS_PYTHON)
def test_a_training_on_several_devices_continues_as_well(one_and_two):
    for results in one_and_two[:3]:
        compared = [name for name in results if name.startswith("whole ")]
        assert len(compared) > 20
        for name in compared:
            resumed = results[name.replace("whole", "resumed")]
            np.testing.assert_array_equal(resumed, results[name], err_msg=name)


@pytest.mark.slow(reason=STARTS_PYTHON)
def test_the_default_number_of_epochs_counts_steps_of_all_devices(one_and_two):
    one, first, *_ = one_and_two
    assert first["default epochs"] == one["default epochs"]


@pytest.mark.slow(reason=STARTS_PYTHON)
def test_one_process_reports_and_saves(one_and_two):
    *_, printed, place = one_and_two
    assert printed.count("INFO: Calibrated on") == 4  # four trainings
    assert printed.count("Signaling Trainer to stop") == 1
    assert Model.load(place / "model").is_trained
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


@pytest.mark.slow(reason=STARTS_PYTHON)
def test_a_training_that_is_killed_three_times_ends_as_if_it_had_not_been(tmp_path):
    printed = run("kill_and_resume.py", 3, tmp_path).stdout.splitlines()
    result = json.loads(printed[-1])
    assert len(result["kills"]) == 3
    assert result["compared"] > 50  # weights, history and the random state
    assert result["differing"] == []


def test_devices_that_are_not_asked_for_are_not_taken():
    assert count_processes() == 1
    assert count_processes(accelerator="cpu", devices="auto") == 1
    assert count_processes(accelerator="cpu", devices=2, strategy="ddp") == 2


def test_devices_within_a_notebook_are_refused(reference):
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    model = SCTAB(reference, preset="small", encoder="linear")
    with pytest.raises(ValueError, match="every device runs all lines"):
        model.train(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_spawn")
    assert not model.is_trained


@pytest.mark.parametrize("n_cells", [100, 128, 7])
def test_every_cell_is_on_one_device(n_cells):
    def parts(process, **arguments):
        order = BatchOrder(n_cells, 16, process=process, n_processes=3, **arguments)
        return [*map(list, order)], len(order)

    held_out = [parts(p, seed=None, drop_last=False) for p in range(3)]
    together = [cell for batches, _ in held_out for batch in batches for cell in batch]
    assert sorted(together) == list(range(n_cells))
    trained = [parts(p, seed=1, drop_last=True) for p in range(3)]
    for of_part in (held_out, trained):
        assert {len(batches) for batches, _ in of_part} == {length for _, length in of_part}
        assert len({length for _, length in of_part}) == 1
    together = [cell for batches, _ in trained for batch in batches for cell in batch]
    assert len(set(together)) == len(together) == (n_cells // 48 * 48 or n_cells)


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, start=(0, 0), **processes):
        batches = BatchOrder(
            100, 10, seed=seed, drop_last=True, epoch=lambda: epoch, start=start, **processes
        )
        return [list(batch) for batch in batches]

    assert order(0, 3) == order(0, 3) != order(0, 4) != order(1, 4)
    assert order(0, 3, start=(3, 4)) == order(0, 3)[4:]
    assert order(0, 0, start=(3, 4)) == order(0, 3)[4:]  # before the trainer knows its epoch
    assert order(0, 4, start=(3, 4)) == order(0, 4)
    halves = [
        BatchOrder(100, 5, seed=0, drop_last=True, process=p, n_processes=2).batches(3)
        for p in range(2)
    ]
    assert [[*a, *b] for a, b in zip(*halves, strict=True)] == order(0, 3)


def test_fewer_cells_than_devices_are_refused():
    with pytest.raises(ValueError, match="3 cells to hold out cannot be divided among 4 devices"):
        BatchOrder(3, 8, seed=None, drop_last=False, n_processes=4)
    with pytest.raises(ValueError, match="7 cells to train on cannot be divided"):
        BatchOrder(7, 8, seed=0, drop_last=True, n_processes=4)
