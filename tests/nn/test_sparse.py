"""Everything on sparse cells against the same on dense ones."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from scipy import sparse
from torch.autograd import gradcheck

from scvi_sctab.data import to_tensor
from scvi_sctab.nn import (
    CSR,
    GeneLinear,
    LinearEncoder,
    MLPEncoder,
    TabNetEncoder,
    augment,
    entmax15,
    normalize_counts,
    sparsemax,
)
from scvi_sctab.nn._sparse_attention import attend, score_variance
from scvi_sctab.sparse import (
    csr_lookup,
    csr_matmul,
    csr_moments,
    csr_shifted_matmul,
    csr_transposed_matmul,
)

N_GENES = 700


def make_cells(n_cells=60, n_genes=N_GENES, density=0.15, dtype=torch.float64, seed=0):
    """Expression with an empty cell, a full one, and genes that no cell or every cell has."""
    generator = torch.Generator().manual_seed(seed)
    x = 5 * torch.rand(n_cells, n_genes, generator=generator, dtype=dtype)
    x *= torch.rand(n_cells, n_genes, generator=generator) < density
    x[:, 3], x[:, -1] = 0, 1.5
    x[min(7, n_cells - 1)], x[min(5, n_cells - 1)] = 0.5, 0
    return x


def to_csr(x):
    return CSR.from_torch(to_tensor(sparse.csr_matrix(x.numpy())))


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _with_threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread():
    yield from _with_threads(1)


@pytest.fixture
def two_threads():
    yield from _with_threads(2)


# At 400 wide the kernels take 245 genes at a time, as they do with the published network. One
# thread has all genes in one part, and so several blocks of them.
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("width", [1, 8, 33, 400])
def test_products_are_those_of_dense_matrices(width):
    x, weight, grad = make_cells(), randn(N_GENES, width), randn(60, width, seed=2)
    torch.testing.assert_close(csr_matmul(to_csr(x), weight), x @ weight)
    torch.testing.assert_close(csr_transposed_matmul(to_csr(x), grad), x.t() @ grad)
    torch.testing.assert_close(to_csr(x).to_dense(), x, rtol=0, atol=0)


def test_products_pass_gradcheck_in_values_and_weights():
    x = to_csr(make_cells(6, 11, density=0.4))
    values, weight = x.values.clone().requires_grad_(), randn(11, 5).requires_grad_()
    assert gradcheck(lambda v, w: csr_matmul(x.with_values(v), w), (values, weight))


def test_a_shifted_product_is_the_dense_one_and_passes_gradcheck():
    x, arguments = make_cells(6, 11, density=0.4), (randn(11), randn(11, seed=2), randn(11, 5))
    scale, shift, weight = (argument.requires_grad_() for argument in arguments)
    product = csr_shifted_matmul(to_csr(x), scale, shift, weight)
    torch.testing.assert_close(product, (x * scale + shift) @ weight)
    assert gradcheck(lambda *a: csr_shifted_matmul(to_csr(x), *a), (scale, shift, weight))


@pytest.mark.parametrize("width", [5, 400])
def test_the_gradients_of_a_shifted_product_are_the_dense_ones(width):
    leaves = [randn(N_GENES), randn(N_GENES, seed=2), randn(N_GENES, width, seed=3)]
    x, grad = make_cells(), randn(60, width, seed=4)
    gradients = []
    for multiply in (
        lambda s, t, w: (x * s + t) @ w,
        lambda *arguments: csr_shifted_matmul(to_csr(x), *arguments),
    ):
        arguments = [leaf.clone().requires_grad_() for leaf in leaves]
        multiply(*arguments).backward(grad)
        gradients.append([argument.grad for argument in arguments])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.usefixtures("two_threads")
def test_moments_count_the_zeros():
    x = make_cells(600)  # more than one part of the rows
    mean, variance = csr_moments(to_csr(x))
    torch.testing.assert_close(mean, x.mean(dim=0))
    torch.testing.assert_close(variance, x.var(dim=0, unbiased=False))


def test_lookup_finds_values_and_zeros():
    x, mask = make_cells(), make_cells(density=0.05, seed=3)
    expected = x[mask != 0]
    torch.testing.assert_close(csr_lookup(to_csr(x), to_csr(mask)), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("power", "dense"), [(2, entmax15), (1, sparsemax)])
@pytest.mark.parametrize("n_cells", [1, 63, 150])
def test_attention_is_the_dense_one(power, dense, n_cells):
    hidden, weight = randn(n_cells, 6), randn(N_GENES, 6, seed=2)
    scale, shift = randn(N_GENES, seed=4), randn(N_GENES, seed=3)
    mask = attend(hidden, weight, scale, shift, power)
    expected = dense(hidden @ weight.t() * scale + shift)
    torch.testing.assert_close(mask.to_dense(), expected)
    assert (mask.values > 0).all()
    assert len(mask.values) == (expected > 0).sum()


@pytest.mark.parametrize("power", [1, 2])
def test_attention_passes_gradcheck(power):
    arguments = [randn(4, 3), randn(9, 3, seed=2), randn(9, seed=4), randn(9, seed=3)]
    leaves = [argument.requires_grad_() for argument in arguments]
    assert gradcheck(lambda *a: attend(*a, power).to_dense(), leaves, eps=1e-7)


@pytest.mark.usefixtures("two_threads")
def test_the_variance_of_scores_is_that_of_a_sample_and_passes_gradcheck():
    hidden, weight = randn(50, 3), randn(N_GENES, 3, seed=2)
    covariance = torch.cov(hidden.t(), correction=0)
    expected = (hidden @ weight.t()).var(dim=0, correction=0)
    torch.testing.assert_close(score_variance(weight, covariance), expected)
    leaves = [weight[:9].clone().requires_grad_(), hidden.requires_grad_()]
    # By way of the sample, which keeps its covariance symmetric.
    assert gradcheck(lambda w, h: score_variance(w, h.t() @ h / len(h)), leaves)


LAYOUTS = {
    "as published": {},
    "sparsemax": {"mask_type": "sparsemax"},
    "no shared layers": {"n_shared": 0},
    "no layers of its own": {"n_independent": 0},
    "two steps": {"n_steps": 2},
}


def make_pair(**layout):
    """Build two encoders with the same weights, no two of which are alike."""
    torch.manual_seed(0)
    arguments = {"n_d": 6, "n_a": 5, "n_independent": 2, "n_shared": 2, "virtual_batch_size": 25}
    pair = [TabNetEncoder(N_GENES, **{**arguments, **layout}).double() for _ in range(2)]
    for parameter in pair[0].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    pair[1].load_state_dict(pair[0].state_dict())
    return pair


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_training_step_of_tabnet_is_the_dense_one(layout):
    pair, x, weight = make_pair(**layout), make_cells(), randn(60, 6)
    outputs = []
    for encoder, cells in zip(pair, (x, to_csr(x)), strict=True):
        output = encoder.train()(cells)
        ((output.embedding * weight).sum() + output.mask_loss).backward()
        outputs.append(output)
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-9, atol=1e-9)
    for (name, dense), other in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        torch.testing.assert_close(other.grad, dense.grad, rtol=1e-7, atol=1e-8, msg=name)
    torch.testing.assert_close(dict(pair[1].named_buffers()), dict(pair[0].named_buffers()))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str
)
def test_evaluation_of_tabnet_is_the_dense_one(layout, dtype, tolerance):
    pair, x = make_pair(**layout), make_cells(dtype=dtype)
    for encoder in pair:
        encoder.to(dtype).eval()
    with torch.no_grad():
        dense, other = pair[0](x), pair[1](to_csr(x))
        attention = pair[0].attention(x), pair[1].attention(to_csr(x))
    torch.testing.assert_close(other, dense, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        attention[1] if "n_steps" in layout else attention[1].to_dense(),
        attention[0],
        rtol=tolerance,
        atol=tolerance,
    )


# torch.compile looks at what it is handed in the middle of a network.
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)
def test_a_compiled_network_takes_sparse_and_dense_cells():
    encoder, same = make_pair()
    compiled = torch.compile(same, backend="aot_eager")
    for cells in (to_csr(make_cells()), make_cells()):
        outputs = [network(cells) for network in (encoder, compiled)]
        torch.testing.assert_close(outputs[1], outputs[0])
        outputs[1].embedding.sum().backward()
    assert all(parameter.grad is not None for parameter in same.parameters())


@pytest.mark.parametrize("encoder", [MLPEncoder, LinearEncoder])
def test_other_encoders_take_sparse_cells(encoder):
    torch.manual_seed(0)
    module, x = encoder(N_GENES).double().eval(), make_cells()
    torch.testing.assert_close(module(to_csr(x)), module(x))


def test_weights_of_genes_lie_gene_by_gene_and_keep_doing_so():
    layer, other = GeneLinear(30, 4), GeneLinear(30, 4)
    other.load_state_dict(torch.nn.Linear(30, 4).state_dict())
    layer(make_cells(5, 30, dtype=torch.float32)).sum().backward()
    for weight in (layer.weight, other.weight, layer.weight.grad):
        assert weight.shape == (4, 30)
        assert weight.t().is_contiguous()


def test_sparse_counts_are_normalised_as_dense_ones_to_the_bit():
    counts = make_cells(dtype=torch.float32).ceil()
    normalised = normalize_counts(to_tensor(sparse.csr_matrix(counts.numpy())))
    assert isinstance(normalised, CSR)
    assert torch.equal(normalised.to_dense(), normalize_counts(counts))


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.bfloat16])
def test_sparse_counts_may_be_integers_or_of_half_precision(dtype):
    counts = make_cells(dtype=torch.float32).ceil()
    whole = to_tensor(sparse.csr_matrix(counts.numpy()))
    parts = whole.crow_indices(), whole.col_indices(), whole.values().to(dtype)
    other = torch.sparse_csr_tensor(*parts, whole.shape, check_invariants=False)
    assert torch.equal(normalize_counts(other).to_dense(), normalize_counts(counts))


@pytest.mark.parametrize("columns", [[2, 1], [1, 1], [1, 4], [-1, 2]])
def test_columns_out_of_order_are_refused(columns):
    to_csr(torch.eye(2))  # torch has said that CSR is in beta
    parts = torch.tensor([0, 2]), torch.tensor(columns), torch.ones(2)
    counts = torch.sparse_csr_tensor(*parts, (1, 4), check_invariants=False)
    with pytest.raises(ValueError, match=r"must increase and exist.*sum_duplicates"):
        normalize_counts(counts)


def test_precisions_that_do_not_fit_and_gradients_that_would_be_lost_are_refused():
    x = to_csr(make_cells())
    with pytest.raises(TypeError, match=r"torch.bfloat16 and torch.float64.*precision=32"):
        csr_matmul(x, randn(N_GENES, 3).bfloat16())
    with pytest.raises(RuntimeError, match="cannot have a gradient"):
        csr_moments(x.with_values(x.values.requires_grad_()))


def test_mixed_precision_changes_the_sparse_network_not_at_all():
    pair, x = make_pair(), to_csr(make_cells())
    plain = pair[0](x).embedding
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = pair[1](x).embedding
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)


def test_counts_are_left_alone():
    counts = to_tensor(sparse.csr_matrix(make_cells(dtype=torch.float32).ceil().numpy()))
    before = counts.values().clone()
    normalize_counts(counts)
    assert torch.equal(counts.values(), before)


def test_sparse_cells_are_augmented_as_dense_ones():
    x = make_cells(dtype=torch.float32) * 2
    vectors = 3 * randn(20, N_GENES).float() * (randn(20, N_GENES, seed=4) > 1)
    states = [torch.Generator().manual_seed(5) for _ in range(2)]
    dense = augment(x, vectors, states[0])
    other = augment(to_csr(x), CSR.from_dense(vectors), states[1])
    torch.testing.assert_close(other.to_dense(), dense, rtol=1e-6, atol=0)
    for mixed in ((to_csr(x), vectors), (x, CSR.from_dense(vectors))):
        moved = augment(*mixed, torch.Generator().manual_seed(5))
        moved = moved.to_dense() if isinstance(moved, CSR) else moved
        torch.testing.assert_close(moved, dense, rtol=1e-6, atol=0)
    assert dense.max() == 9
    assert (other.values > 0).all()
    assert (dense != x).any(dim=1).all()


@pytest.mark.usefixtures("two_threads")
def test_several_python_threads_may_run_the_network_at_once():
    encoder, _ = make_pair()
    x = to_csr(make_cells())
    encoder.eval()

    def embed(_):
        with torch.no_grad():
            return encoder(x).embedding

    with ThreadPoolExecutor(4) as pool:
        embeddings = list(pool.map(embed, range(12)))
    # Their number of threads differs, and with it the order of sums.
    for embedding in embeddings[1:]:
        torch.testing.assert_close(embedding, embeddings[0], rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("two_threads")
def test_evaluation_does_not_depend_on_threads_or_the_size_of_the_batch():
    encoder, _ = make_pair()
    encoder.eval()
    x = make_cells()
    with torch.no_grad():
        together = encoder(to_csr(x)).embedding
        one_by_one = torch.cat([encoder(to_csr(cell[None])).embedding for cell in x])
        torch.set_num_threads(1)
        alone = encoder(to_csr(x)).embedding
    torch.testing.assert_close(one_by_one, together)
    torch.testing.assert_close(alone, together)
