"""Models and reports of surgery are short tables in a notebook."""

from html.parser import HTMLParser

from scvi_sctab import SCTAB
from scvi_sctab.model._surgery_report import SurgeryReport


class Cells(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.texts = []
        self.feed(html)

    def handle_data(self, data):
        self.texts.append(data)


def pairs(html):
    texts = Cells(html).texts
    return dict(zip(texts[1::2], texts[2::2], strict=False))


def test_a_model_is_a_table_and_prints_nothing(model, capsys):
    bundle = model._repr_mimebundle_()
    assert capsys.readouterr().out == ""
    assert bundle["text/plain"] == "SCTAB"
    found = pairs(bundle["text/html"])
    assert found["genes"] == "300"
    assert found["trained"] == "yes"
    assert found["labels"].startswith(f"{len(model.labels)}: {model.labels[0]}, ")
    assert found["calibrated"] == f"on {len(model.calibration.truth)} held-out cells"


def test_names_of_labels_are_no_tags(reference):
    reference.obs["cell_type"] = reference.obs["cell_type"].cat.rename_categories({"B": "<b>B"})
    SCTAB.setup_anndata(reference, labels_key="cell_type")
    html = SCTAB(reference)._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;B" in html


def test_a_report_of_surgery_has_its_facts_and_warnings():
    report = SurgeryReport(
        "batch", 1000, 10, 300, [f"G{i}" for i in range(150)], {"b": ["x"]}, {}, []
    )
    found = pairs(report._repr_html_())
    assert found["policy 'batch'"] == "10 of 1,000 parameters are trained (1.00%)"
    assert found["genes"] == "50.0% of 300 are in the query"
    assert "not trained on the query yet" in report._repr_html_()
    assert "150 of 300 genes are missing" in report._repr_html_()
    for name, text in report.facts:
        assert f"{name}: {text}" in str(report)
