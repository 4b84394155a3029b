"""Prediction holds a block of cells, not the file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


def peak_above_imports(n_cells, folder):
    sys.path.insert(0, str(BENCHMARK.parent))
    try:
        from memory import write_counts
    finally:
        sys.path.pop(0)
    file = folder / f"{n_cells}.h5ad"
    write_counts(file, n_cells)
    command = [sys.executable, str(BENCHMARK), "--file", str(file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])["above_gib"]


@pytest.mark.slow(reason="predicts 12,000 cells with the published network")
def test_peak_memory_stays_under_two_gib_and_does_not_grow_with_the_file(tmp_path):
    few, many = (peak_above_imports(n_cells, tmp_path) for n_cells in (4_000, 12_000))
    assert many < 2
    assert many - few < 0.25
