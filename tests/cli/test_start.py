"""Commands start at once, in a process of their own, with a home or without."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from scvi_sctab.cli import _environment

HEAVY = [
    "anndata",
    "lightning",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "scipy",
    "scvi",
    "torch",
]
LOOK = f"""
import sys
from scvi_sctab.cli import main
try:
    main()
finally:
    loaded = [name for name in {HEAVY} if name in sys.modules]
    assert not loaded, loaded
"""
UNTIL_TORCH = """
import sys
from scvi_sctab.cli import main
class Stop:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            sys.exit("torch is imported")
sys.meta_path.insert(0, Stop)
main()
"""
START = "from scvi_sctab.cli import main; main()"
SLOW_WRITER = """
import time
from pathlib import Path
from scvi_sctab.cli import _layouts, main
write = _layouts.Request.write
def slowly(request, annotated, names, folder):
    write(request, annotated, names, folder)
    time.sleep(600)
_layouts.Request.write = slowly
main()
"""


def start(code, *arguments, folder=None, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("line", ["models list", "models show pancreas"])
def test_models_are_listed_without_what_runs_them(line):
    process = start(LOOK, *line.split())
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Pancreatic islets" in out


@pytest.mark.parametrize("line", ["--help", "--version", "annotate --help"])
def test_help_and_version_import_nothing_heavy(line):
    process = start(LOOK, *line.split())
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    if line == "--version":
        assert out.strip().replace(".", "").isdigit()
    else:
        assert "Usage" in out


def test_the_package_names_what_it_imports_later():
    code = (
        "import sys, scvi_sctab\n"
        f"assert not [n for n in {HEAVY} if n in sys.modules]\n"
        "assert set(scvi_sctab.__all__) <= set(dir(scvi_sctab))\n"
        "from scvi_sctab import ontology\n"
        "assert scvi_sctab.ontology is ontology\n"
        "try:\n    scvi_sctab.no_such_name\n"
        "except AttributeError as error:\n    print(error)\n"
    )
    process = start(code)
    out, err = process.communicate(timeout=60)
    assert out == "module 'scvi_sctab' has no attribute 'no_such_name'\n", err


def test_the_version_is_that_of_the_installed_package_and_imports_nothing_heavy():
    code = (
        "import sys, scvi_sctab\n"
        "print(scvi_sctab.__version__)\n"
        f"assert not [n for n in {HEAVY} if n in sys.modules]\n"
    )
    process = start(code)
    out, err = process.communicate(timeout=60)
    assert out.strip() == importlib.metadata.version("scvi-sctab"), err
    assert process.returncode == 0, err


def test_every_public_name_is_there():
    import scvi_sctab

    for name in scvi_sctab.__all__:
        assert getattr(scvi_sctab, name) is not None
    assert scvi_sctab.SCTAB.__name__ == "SCTAB"
    assert "annotate_files" in dir(scvi_sctab)


@pytest.mark.parametrize("is_writable", [True, False])
def test_caches_go_elsewhere_only_where_home_cannot_be_written(is_writable, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        os.environ.pop(name, None)
    monkeypatch.setattr(_environment, "_is_writable", lambda folder: is_writable)
    monkeypatch.setattr(_environment.tempfile, "gettempdir", lambda: str(tmp_path))
    _environment.prepare(threads=3)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    found = {os.environ.get(name) for name in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR")}
    assert found == ({None} if is_writable else {str(next(tmp_path.iterdir()))})


def test_a_cache_that_others_can_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(_environment.tempfile, "gettempdir", lambda: str(tmp_path))
    shared = tmp_path / f"scvi-sctab-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    assert _environment._make_cache() != str(shared)
    shared.chmod(0o700)
    assert _environment._make_cache() == str(shared)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("annotate no.h5ad -m pbmc -o out", "Loading the model pbmc ..."),
        ("inspect no.h5ad -m pbmc", "Loading the model pbmc ..."),
        ("train no.h5ad --labels-key cell_type -o out", "Reading no.h5ad ..."),
    ],
)
def test_a_message_comes_before_what_takes_seconds_to_import(line, note, tmp_path):
    process = start(UNTIL_TORCH, *line.split(), "--json", folder=tmp_path)
    out, err = process.communicate(timeout=60)
    assert err.splitlines() == [note, "torch is imported"]
    assert json.loads(out) == {"event": "note", "text": note}


@pytest.mark.slow(reason="two processes of their own, which import everything")
def test_a_killed_run_leaves_no_file_and_a_run_without_a_home_works(folder, path, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    line = ("annotate", path, "-m", folder, "-o", out, "-q")
    killed = start(SLOW_WRITER, *line)
    deadline = time.monotonic() + 120
    while not list(out.glob(".sctab-*/annotations.csv")) and time.monotonic() < deadline:
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert [file.name for file in out.iterdir() if not file.name.startswith(".sctab-")] == []
    process = start(START, *line, HOME="/proc/nowhere")
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert "\x1b[" not in stderr
    assert sorted(file.name for file in out.iterdir()) == ["annotations.csv", "summary.json"]
