"""What is not counts is named: what it looks like, where, and the cure."""

import re

import numpy as np
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse

from scvi_sctab.data import NotCountsError, check_counts, get_matrix, prepare_query, read_counts

CELLS = ["c0", "c1", "c2"]
GENES = ["g0", "g1"]


def counts():
    return np.array([[0.0, 3.0], [5.0, 0.0], [1.0, 900.0]])


def as_dense(x):
    return x


FORMS = [as_dense, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16])
def test_counts_of_every_form_and_dtype_pass(form, dtype):
    check_counts(form(counts().astype(dtype)), CELLS, GENES)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"`X` holds NaN .*cell 'c1', gene 'g1'.*Set them to 0"),
        (np.inf, r"`X` holds infinite values.*inf in cell 'c1', gene 'g1'"),
        (-1.5, r"`X` looks scaled.*-1.5 in cell 'c1', gene 'g1'.*`layer=`"),
        (0.5, r"`X` looks like estimated.*0.5 in cell 'c1', gene 'g1'.*If they are, round them"),
    ],
)
def test_the_offending_value_is_named_with_its_cell_and_gene(form, value, message):
    bad = counts()
    bad[1, 1] = value
    with pytest.raises(NotCountsError, match=message):
        check_counts(form(bad), CELLS, GENES)


def test_log_normalised_values_are_told_from_normalised_ones():
    x = np.log1p(counts() / counts().sum(axis=1, keepdims=True) * 1e4)
    with pytest.raises(NotCountsError, match=r"`layers\['a'\]` looks log-normalised"):
        check_counts(x, CELLS, GENES, source="layers['a']")


def test_negative_integers_are_refused():
    bad = counts().astype(int)
    bad[2, 0] = -4
    with pytest.raises(NotCountsError, match="-4 in cell 'c2', gene 'g0'"):
        check_counts(bad, CELLS, GENES)


def test_the_layer_that_holds_counts_is_suggested(reference):
    reference.layers["raw_counts"] = reference.X.copy()
    reference.X = reference.X.log1p()
    with pytest.raises(
        NotCountsError,
        match="`adata.layers\\['raw_counts'\\]` holds counts; pass `layer='raw_counts'`.$",
    ):
        list(read_counts(reference))


def test_raw_is_suggested_where_it_holds_counts(reference):
    reference.raw = reference.copy()
    reference.X = reference.X.log1p()
    with pytest.raises(
        NotCountsError, match=r"`adata.raw.X` holds counts; pass `adata.raw.to_adata\(\)`"
    ):
        list(read_counts(reference))


def test_a_layer_that_does_not_exist_is_named_with_those_that_do(reference):
    reference.layers["counts"] = reference.X
    with pytest.raises(KeyError, match=r"no layer 'count'; `adata.layers` has \['counts'\]"):
        list(read_counts(reference, layer="count"))


def test_bad_values_beyond_the_first_block_are_found(reference):
    x = reference.X.copy()
    x.data[-1] = 0.5
    reference.X = x
    with pytest.raises(NotCountsError, match=reference.obs_names[-1]):
        list(read_counts(reference, block_size=100))


@pytest.mark.parametrize(
    "dtype", [np.float16, np.longdouble, object, np.int8, np.uint32, np.float64]
)
def test_counts_of_any_number_type_are_read_as_float32(reference, dtype):
    expected = reference.X.toarray()
    expected[expected > 100] = 100
    reference.X = expected.astype(dtype)
    blocks = list(read_counts(reference, block_size=500))
    assert all(block.dtype == np.float32 for block in blocks)
    np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), expected)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 1, 65_537, 131_072, 199_998, 199_999])
def test_a_single_bad_value_is_found_anywhere_in_a_big_block(value, dtype, place):
    values = np.random.default_rng(0).integers(0, 2**24, 200_000).astype(dtype)
    values[place] = value
    row, column = divmod(place, 400)
    with pytest.raises(NotCountsError, match=f"in cell 'c{row}', gene 'g{column}'"):
        check_counts(
            values.reshape(500, 400), [f"c{i}" for i in range(500)], [f"g{i}" for i in range(400)]
        )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5 + 1e-12, "5.000000000001"), (41.000000001, "41.000000001"), (-1e-12, "-1e-12")],
)
def test_what_only_double_precision_sees_is_shown_with_enough_digits(value, shown):
    bad = counts()
    bad[1, 0] = value
    match = rf"`X` holds counts with rounding noise .*: {re.escape(shown)} in cell 'c1', gene 'g0'"
    with pytest.raises(NotCountsError, match=match):
        check_counts(bad, CELLS, GENES)


def test_counts_of_a_foreign_byte_order_are_read(reference):
    expected = reference.X.toarray()
    reference.X = expected.astype(">f8")
    np.testing.assert_array_equal(next(read_counts(reference)).toarray(), expected)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_blocks_of_chosen_cells_are_their_rows_in_order(reference, form):
    expected = reference.X.toarray()
    reference.X = form(expected)
    cells = np.random.default_rng(0).permutation(reference.n_obs)[:300]
    blocks = list(read_counts(reference, indices=cells, block_size=100))
    np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), expected[cells])
    assert all(sparse.csr_matrix(block).has_canonical_format for block in blocks)


def refused(adata, layer=None):
    """The message of the error that reading counts ends in."""
    with pytest.raises(NotCountsError) as error:
        list(read_counts(adata, layer))
    return str(error.value)


def after_pasting(message, adata, start):
    """``adata`` after the line in backticks that follows ``start`` in the message."""
    (line,) = re.findall(rf"{start}[^`]*`(.*?)`", message)
    scope = {"adata": adata}
    exec(line, scope)
    return scope["adata"]


NOISE = {
    "a little more": lambda x: np.where(x > 0, x + 1e-9, 0),
    "the last bit": lambda x: np.where(x > 0, x * (1 + 3e-16), 0),
    "a little below 0": lambda x: np.where(x == 0, -1e-12, x),
    "single precision": lambda x: np.where(x > 0, x * 1.0000003, 0).astype(np.float32),
    "half a thousandth": lambda x: np.where(x > 0, x - 0.0005, 0),
}


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(
    "form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]
)
@pytest.mark.parametrize("layer", [None, "soup x"])
def test_rounding_noise_is_called_so_and_the_line_to_type_rounds_it(reference, noise, form, layer):
    expected = reference.X.toarray()
    noisy = form(NOISE[noise](expected.astype(np.float64)))
    if layer is None:
        reference.X = noisy
    else:
        reference.layers[layer] = noisy
        reference.X = None
    message = refused(reference, layer)
    assert "holds counts with rounding noise (all within 0.001 of a whole number)" in message
    rounded = after_pasting(message, reference, "Round them: ")
    blocks = list(read_counts(rounded, layer))
    np.testing.assert_array_equal(sparse.vstack(blocks).toarray(), expected)


def test_noise_of_objects_and_of_matrices_on_disk_is_rounded_by_other_lines(reference, tmp_path):
    expected = reference.X.toarray()
    objects = reference.copy()
    objects.X = (expected + 1e-9).astype(object)
    rounded = after_pasting(refused(objects), objects, "Round them: ")
    np.testing.assert_array_equal(sparse.vstack(list(read_counts(rounded))).toarray(), expected)
    for name, form in (("dense", np.asarray), ("sparse", sparse.csr_matrix)):
        AnnData(form(NOISE["a little more"](expected.astype(float)))).write_h5ad(tmp_path / name)
        message = refused(read_h5ad(tmp_path / name, backed="r"))
        rounded = after_pasting(message, read_h5ad(tmp_path / name, backed="r"), "Round them: ")
        np.testing.assert_array_equal(
            sparse.vstack(list(read_counts(rounded))).toarray(), expected
        )


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("layer", [None, "a"])
def test_missing_values_are_filled_by_the_line_to_type(reference, form, layer):
    x = reference.X.toarray()
    x[3, 7] = np.nan
    reference.layers["a"] = reference.X = form(x)
    filled = after_pasting(refused(reference, layer), reference, "Set them to 0: ")
    assert sparse.vstack(list(read_counts(filled, layer))).toarray()[3, 7] == 0


def soup(x):
    """Counts after subtracting a tenth of what the ambient profile explains."""
    ambient = x.sum(axis=0) / x.sum()
    return np.clip(x - 0.1 * x.sum(axis=1, keepdims=True) * ambient, 0, None) * (x > 0)


def decontaminated(x):
    """Counts of which a share is left that differs by cell and gene."""
    return x * np.random.default_rng(0).uniform(0.7, 1, x.shape)


def multimapped(x):
    """Reads that map to two genes, half a count for each, in a tenth of places."""
    return x + 0.5 * ((np.random.default_rng(0).random(x.shape) < 0.1) & (x > 0))


def estimated(x):
    """Expected counts of an EM algorithm: most whole, some not."""
    some = (np.random.default_rng(0).random(x.shape) < 0.3) & (x > 0)
    return np.where(some, x * np.random.default_rng(1).uniform(0.5, 1.5, x.shape), x)


ESTIMATED = [soup, decontaminated, multimapped, estimated]


def toy():
    """Few genes with few counts each: nothing exceeds the largest log-normalised value."""
    return np.random.default_rng(0).poisson(1.2, (300, 60)).clip(0, 8).astype(float)


def genes_of(reference):
    return reference.X.toarray().astype(float)


@pytest.mark.parametrize("change", ESTIMATED)
@pytest.mark.parametrize("source", ["toy", "real"])
def test_estimated_counts_are_told_from_normalised_ones_and_rounded(reference, change, source):
    x = toy() if source == "toy" else genes_of(reference)
    adata = AnnData(sparse.csr_matrix(change(x)))
    message = refused(adata)
    assert "looks like estimated or corrected counts (fractions, and totals that differ" in message
    assert "Pass the raw counts instead: name their layer" in message
    rounded = after_pasting(message, adata, "If they are, round them: ")
    np.testing.assert_array_equal(
        sparse.vstack(list(read_counts(rounded))).toarray(), np.rint(change(x)).astype(np.float32)
    )


def to_total(x, total):
    return x / np.maximum(x.sum(axis=1, keepdims=True), 1) * total


def smoothed(x):
    """Logarithms averaged over cells, as imputation leaves them."""
    logs = np.log1p(to_total(x, 1e4))
    return (logs + np.roll(logs, 1, axis=0) + np.roll(logs, 2, axis=0)) / 3


def per_million(x):
    lengths = np.random.default_rng(0).uniform(0.3, 8, x.shape[1])
    return to_total(x / lengths, 1e6)


NORMALISED = {
    "to 10,000": (lambda x: to_total(x, 1e4), r"looks normalised \(each cell adds up to 10,000\)"),
    "to the median": (
        lambda x: to_total(x, np.median(x.sum(axis=1))),
        r"normalised \(each cell adds",
    ),
    "to 1, some genes": (lambda x: to_total(x, 1)[:, ::2], "looks .*normalised"),
    "to 1": (lambda x: to_total(x, 1), r"looks normalised \(each cell adds up to 1\)"),
    "TPM": (per_million, r"looks normalised \(each cell adds up to 1,?e?"),
    "to 10,000, some genes": (
        lambda x: to_total(x, 1e4)[:, ::2],
        "normalised .*multiples of the smal",
    ),
    "log1p": (lambda x: np.log1p(to_total(x, 1e4)), "looks log-normalised"),
    "log1p, some genes": (lambda x: np.log1p(to_total(x, 1e4))[:, ::2], "looks log-normalised"),
    "log1p, single": (lambda x: np.log1p(to_total(x, 1e4)).astype("float32"), "log-normalised"),
    "log1p of counts": (np.log1p, "looks log-normalised"),
    "log2 of CPM": (lambda x: np.log2(1 + to_total(x, 1e6)), "looks log-transformed"),
    "log10 of CPM": (lambda x: np.log10(1 + to_total(x, 1e6)), "looks log-normalised"),
    "imputed logs": (smoothed, "looks log-normalised"),
}


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("source", ["toy", "real"])
def test_normalised_values_are_never_advised_to_be_rounded(reference, name, source):
    change, match = NORMALISED[name]
    x = toy() if source == "toy" else genes_of(reference)
    message = refused(AnnData(sparse.csr_matrix(change(x))))
    assert re.search(match, message), message
    assert "round" not in message


def test_intensities_of_microarrays_are_not_advised_to_be_rounded():
    intensities = np.random.default_rng(0).normal(7.5, 2, (40, 500)).clip(2, 15)
    assert "looks log-transformed" in refused(AnnData(intensities))


def test_noise_is_not_advised_to_be_rounded_where_other_cells_are_normalised(reference):
    x = genes_of(reference)
    x = np.vstack([x] * 5)
    x[:4200] += 1e-9 * (x[:4200] > 0)
    x[4200:] = np.log1p(to_total(x[4200:], 1e4))
    message = refused(AnnData(sparse.csr_matrix(x)))
    assert "looks log-normalised" in message
    assert re.search("in cell '4[2-9]", message)
    assert "round" not in message


def test_corrected_counts_beside_raw_ones_name_both_cures(reference):
    reference.layers["counts"] = reference.X.copy()
    reference.X = sparse.csr_matrix(soup(genes_of(reference)))
    assert re.search("round them: `.*If not: .*pass `layer='counts'`", refused(reference))
    reference.X = reference.layers["counts"] * 1.0000001
    assert re.search("Round them: `.*`; or `.*pass `layer='counts'`", refused(reference))


def test_no_line_to_type_overwrites_what_is_there(reference):
    """Neither ``X``, which is often log-normalised for a reason, nor a layer."""
    counts, logs = reference.X.copy(), reference.X.log1p()
    reference.layers["counts"], reference.X = counts, logs
    assert "adata.X =" not in refused(reference)
    reference.layers["counts"], reference.X = logs, counts
    message = refused(reference, "counts")
    assert "`adata.X` holds counts; set up without `layer`" in message
    (line,) = re.findall(r"for a query: `(.*?)`", message)
    exec(line, {"adata": reference})
    assert reference.layers["counts"] is not reference.layers["raw"]
    (layer,) = re.findall(r"then pass `layer='(.*?)'`", message)
    list(read_counts(reference, layer))


@pytest.fixture(params=[np.asarray, sparse.csr_matrix])
def backed(request, reference, tmp_path):
    reference = reference[:922, :298].copy()
    reference.X = request.param(reference.X.toarray())
    reference.layers["counts"] = reference.X
    reference.write_h5ad(tmp_path / "cells.h5ad")
    return read_h5ad(tmp_path / "cells.h5ad", backed="r")


READ = {
    "get_matrix": lambda adata: get_matrix(adata, None),
    "read_counts": lambda adata: list(read_counts(adata)),
    "prepare_query": lambda adata: prepare_query(adata, list(adata.var_names)),
}


@pytest.mark.parametrize("step", [-1, -3])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("verb", READ)
def test_backed_views_that_anndata_misreads_are_refused_with_a_line_that_works(
    backed, step, axis, verb
):
    read = READ[verb]
    view = backed[::step] if axis == 0 else backed[:, ::step]
    with pytest.raises(ValueError, match=r"misreads backed views with a negative step") as error:
        read(view)
    (line,) = re.findall(r"in memory: `(.*?)`", str(error.value))
    scope = {"adata": view, "backed": backed}
    exec(line, scope)
    read(scope["adata"])
    whole = get_matrix(backed.to_memory(), None)
    expected = whole[::step] if axis == 0 else whole[:, ::step]
    assert abs(get_matrix(scope["adata"], None) - expected).max() == 0
    assert not scope["adata"].is_view


def test_layers_of_such_views_and_other_backed_views_are_read(backed):
    whole = backed.to_memory()
    for view, part in ((backed[::-1], whole[::-1]), (backed[::2, [5, 1]], whole[::2, [5, 1]])):
        blocks = list(read_counts(view, "counts"))
        expected = sparse.csr_matrix(part.layers["counts"])
        assert abs(sparse.vstack(blocks) - expected).max() == 0


def test_a_matrix_of_another_shape_is_refused():
    class Odd:
        shape, layers, is_view, isbacked = (3, 2), {}, False, False
        X = np.ones((2, 2))

    with pytest.raises(ValueError, match=r"`X` of `adata`, .* \(3, 2\), .*its shape is \(2, 2\)"):
        get_matrix(Odd(), None)
