"""The blocks of docs/atlases.md run as they stand."""

import re
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "atlases.md").read_text()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="annbatch needs Python 3.12 or newer")
@pytest.mark.filterwarnings("ignore:.* labels come from one donor only")
@pytest.mark.filterwarnings("ignore:.* differ only in")
@pytest.mark.latest
@pytest.mark.slow(reason="trains on three files, as a reader of the page does")
def test_the_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    for block in blocks:
        exec(block, namespace)
    assert len(namespace["corpus"]) == 5438
    assert namespace["model"].is_trained
    assert namespace["model"].evaluate().loc["accuracy", "f1"] > 0.8
    assert (tmp_path / "atlas_model" / "model.safetensors").exists()
    assert set(namespace["table"]["status"]) == {"done"}
    assert sum(1 for _ in (tmp_path / "annotations").glob("*.parquet")) == 3
    assert 0 < len(namespace["half"]) < len(namespace["train"])
