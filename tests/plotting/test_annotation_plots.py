"""Plots of annotations show counts, flows and expression as the frames hold them."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scvi_sctab.plotting import (
    plot_annotations,
    plot_composition,
    plot_marker_dots,
    plot_sankey,
)


def names_of(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_bars_are_the_shares_of_each_sample():
    labels = pd.Series(["B", "B", "T", "T", "T", None], name="label")
    samples = pd.Series(["s1", "s1", "s1", "s2", "s2", "s2"])
    ax = plot_composition(labels, samples)
    assert names_of(ax.yaxis) == ["s1 (n = 3)", "s2 (n = 2)"]
    shares = [[bar.get_width() for bar in bars] for bars in ax.containers]
    np.testing.assert_allclose(shares, [[1 / 3, 1], [2 / 3, 0]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["T", "B"]
    with pytest.raises(ValueError, match="No cell has a label and a sample"):
        plot_composition(labels[:0], samples[:0])


def test_flows_have_the_height_of_their_cells():
    left = pd.Series(["a"] * 6 + ["b"] * 2, name="leiden")
    right = pd.Series(["T"] * 5 + ["B"] * 3, name="label")
    ax = plot_sankey(left, right)
    flows = [patch.get_path().vertices for patch in ax.patches if len(patch.get_path()) == 9]
    heights = sorted(float(corners[7, 1] - corners[0, 1]) for corners in flows)
    np.testing.assert_allclose(np.array(heights) / sum(heights), [1 / 8, 2 / 8, 5 / 8])
    written = {text.get_text() for text in ax.texts}
    assert written == {"a", "b", "T", "B", "leiden", "label"}
    with pytest.raises(ValueError, match="No cell has both labels"):
        plot_sankey(left, pd.Series([None] * 8))


def test_dots_are_shares_and_means_of_the_groups():
    expression = pd.DataFrame({"CD3D": [2.0, 4.0, 0.0, 0.0], "MS4A1": [0.0, 0.0, 3.0, 1.0]})
    groups = pd.Series(["T", "T", "B", "B"])
    ax = plot_marker_dots(expression, groups, {"T": ["CD3D", "absent"], "B": ["MS4A1", "CD3D"]})
    assert names_of(ax.yaxis) == ["B", "T"]
    assert names_of(ax.xaxis) == ["CD3D", "MS4A1"]
    (points,) = ax.collections
    np.testing.assert_allclose(points.get_array(), [0, 1, 1, 0])
    np.testing.assert_allclose(points.get_sizes() / max(points.get_sizes()), [0, 1, 1, 0])
    markers = pd.DataFrame({"group": ["B"], "gene": ["MS4A1"]})
    assert names_of(plot_marker_dots(expression, groups, markers).xaxis) == ["MS4A1"]
    with pytest.raises(ValueError, match="no marker is a column of `expression`, which has"):
        plot_marker_dots(expression, groups, {"T": ["absent"]})


def test_groups_of_dots_are_aligned_by_the_names_of_cells():
    cells = list("wxyz")
    expression = pd.DataFrame({"CD3D": [2.0, 4.0, 0.0, 0.0]}, index=cells)
    groups = pd.Series(["T", "T", "B", "B"], index=cells)
    (points,) = plot_marker_dots(expression, groups[::-1]).collections
    np.testing.assert_allclose(points.get_array(), [0, 1])
    (points,) = plot_marker_dots(expression, groups[["w", "z"]]).collections
    np.testing.assert_allclose(points.get_array(), [0, 1])
    with pytest.raises(ValueError, match="no cell has a group"):
        plot_marker_dots(expression, groups.reset_index(drop=True))


def test_ambiguous_cells_are_pale_and_novel_ones_are_crosses():
    frame = pd.DataFrame(
        {
            "label": pd.Categorical(["B", "B", "T", "T"]),
            "status": ["confident", "ambiguous", "novel", "confident"],
        }
    )
    places = np.arange(8.0).reshape(4, 2)
    ax = plot_annotations(places, frame, colors={"B": "#0072b2", "T": "#e69f00"})
    drawn = ax.collections[0]
    found = {
        tuple(place): color
        for place, color in zip(drawn.get_offsets(), drawn.get_facecolors(), strict=True)
    }
    assert set(found) == {(0.0, 1.0), (2.0, 3.0), (6.0, 7.0)}
    assert to_hex(found[0.0, 1.0]) == to_hex(found[2.0, 3.0]) == "#0072b2"
    assert found[2.0, 3.0][3] < found[0.0, 1.0][3] == 1
    assert any(
        tuple(c.get_offsets()[0]) == (4.0, 5.0) for c in ax.collections if len(c.get_offsets())
    )
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["B", "T", "pale: ambiguous", "novel"]
    with pytest.raises(ValueError, match="does not give two for each of"):
        plot_annotations(places[:2], frame)
    with pytest.raises(ValueError, match="no column 'label'"):
        plot_annotations(places, frame[["status"]])


def test_axes_that_are_given_are_drawn_on():
    labels = pd.Series(["B", "T", "T"], name="label")
    for draw in (
        lambda ax: plot_composition(labels, pd.Series(["s", "s", "u"]), ax),
        lambda ax: plot_sankey(labels, labels, ax),
        lambda ax: plot_marker_dots(pd.DataFrame({"G": [0.0, 1.0, 2.0]}), labels, ax=ax),
        lambda ax: plot_annotations(np.zeros((3, 2)), labels.to_frame(), ax),
    ):
        ax = plt.figure().subplots()
        assert draw(ax) is ax


@pytest.mark.parametrize("n_labels", [8, 30])
def test_long_names_are_readable(n_labels, long_labels, assert_readable):
    names = np.array(long_labels(n_labels))
    rng = np.random.default_rng(0)
    labels = pd.Series(names[rng.integers(n_labels, size=600)])
    samples = pd.Series(np.array(["s1", "s2"])[np.arange(600) % 2])
    assert_readable(plot_composition(labels, samples).figure)
