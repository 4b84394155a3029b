"""Files for MultiQC hold the counts of a sample."""

import json

import pytest

from scvi_sctab.report import multiqc_contents


def test_a_sample_has_a_row_and_a_bar(findings):
    frame = findings(n_cells=200).annotation
    contents = json.loads(json.dumps(multiqc_contents("s1", frame)))
    assert set(contents) == {"statistics_mqc.json", "types_mqc.json"}
    types = contents["types_mqc.json"]
    assert types["plot_type"] == "bargraph"
    assert types["data"]["s1"] == frame["label"].value_counts().to_dict()
    statistics = contents["statistics_mqc.json"]
    row = statistics["data"]["s1"]
    assert row["cells"] == 200
    shares = 100 * frame["status"].value_counts(normalize=True)
    assert {name: row[name] for name in shares.index} == pytest.approx(dict(shares), abs=0.01)
    assert sum(row[name] for name in shares.index) == pytest.approx(100, abs=0.03)
    assert row["low_quality"] > 0
    assert [name for column in statistics["pconfig"] for name in column] == list(row)


def test_without_a_calibration_no_status_is_stated(findings):
    frame = findings().annotation[["label", "probability"]]
    row = multiqc_contents("s1", frame)["statistics_mqc.json"]["data"]["s1"]
    assert set(row) == {"cells", "types", "probability"}
