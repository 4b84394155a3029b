"""CPUs that a process may use, read from files as Linux writes them."""

import os

import pytest

from scvi_sctab.sparse._cpus import available_cpus

BOUND = "sched_getaffinity"


@pytest.fixture
def count(tmp_path, monkeypatch):
    """Count the CPUs of a process bound to eight, whose control groups are the given files."""
    monkeypatch.setattr(os, BOUND, lambda _: set(range(8)), raising=False)

    def count(membership, files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return available_cpus(tmp_path / "membership", tmp_path / "cgroup")

    return count


CASES = {
    "no limit": ("0::/\n", {}, 8),
    "an unlimited group of version 2": ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 8),
    "a group of version 2": ("0::/a/b\n", {"a/b/cpu.max": "300000 100000\n"}, 3),
    "a fraction, rounded up": ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
    "less than a CPU": ("0::/a\n", {"a/cpu.max": "20000 100000\n"}, 1),
    "a group above": (
        "0::/a/b\n",
        {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"},
        2,
    ),
    "a container that sees its group as the root": (
        "0::/docker/1234\n",
        {"cpu.max": "200000 100000\n"},
        2,
    ),
    "a group of version 1": (
        "4:memory:/a\n3:cpu,cpuacct:/a\n",
        {
            "cpu,cpuacct/a/cpu.cfs_quota_us": "400000\n",
            "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
    "an unlimited group of version 1": (
        "3:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        8,
    ),
    "a limit above what the process is bound to": (
        "0::/a\n",
        {"a/cpu.max": "9900000 100000\n"},
        8,
    ),
    "a broken file": ("0::/a\n", {"a/cpu.max": ""}, 8),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cpus_of(name, count):
    *files, expected = CASES[name]
    assert count(*files) == expected


def test_where_there_are_no_control_groups_the_cpus_that_the_process_is_bound_to_count(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, BOUND, lambda _: {0, 3, 5}, raising=False)
    assert available_cpus(tmp_path / "none", tmp_path) == 3
    monkeypatch.delattr(os, BOUND)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cpus(tmp_path / "none", tmp_path) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path / "none", tmp_path) == 1
