"""Attention, logits and contributions of single networks, for a minibatch of cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS

from scvi_sctab._constants import CONDITIONS_KEY, TOTAL_KEY
from scvi_sctab.nn import TabNetEncoder, normalize_counts
from scvi_sctab.sparse import CSR, to_scipy

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from scvi_sctab._types import Network

    Tensors = dict[str, Tensor]


def refuse_latent(networks: Sequence[Network]) -> None:
    """Refuse networks that read a latent space in place of genes.

    Parameters
    ----------
    networks
        Networks of a model.

    Raises
    ------
    ValueError
        If there is such a network.
    """
    if any(network.is_imported for network in networks):
        raise ValueError(
            "Models of CellTypist are explained by their coefficients, "
            "`model.networks[0].encoder.linear.weight`; ask a model that was trained here."
        )
    if not all(network.reads_genes for network in networks):
        raise ValueError(
            "This model reads a latent space, so it attends to no genes; ask one that was "
            "trained on genes."
        )


def attentive_encoder(network: Network) -> TabNetEncoder:
    """Return the encoder of a network with attention to genes.

    Parameters
    ----------
    network
        The network.

    Raises
    ------
    ValueError
        If the encoder has no attention.
    """
    refuse_latent([network])
    if not isinstance(network.encoder, TabNetEncoder):
        raise ValueError(
            f"{type(network.encoder).__name__} has no attention; build the model with "
            "encoder='tabnet'."
        )
    return network.encoder


def expression(tensors: Tensors) -> Tensor | CSR:
    """Compute the log-normalised expression of a minibatch, ``(n_cells, n_genes)``.

    Parameters
    ----------
    tensors
        Raw counts and codes of conditions.
    """
    return normalize_counts(tensors[REGISTRY_KEYS.X_KEY], tensors.get(TOTAL_KEY))


def dense_expression(tensors: Tensors) -> Tensor:
    """Compute the log-normalised expression of a minibatch as dense ``(n_cells, n_genes)``.

    Parameters
    ----------
    tensors
        Raw counts and codes of conditions.
    """
    x = expression(tensors)
    return x.to_dense() if isinstance(x, CSR) else x


def attention_of(
    encoder: TabNetEncoder, x: Tensor | CSR, condition: Tensor | None
) -> sparse.csr_matrix:
    """Compute attention with rows that sum to one, ``(n_cells, n_genes)``.

    Parameters
    ----------
    encoder
        The encoder.
    x
        Log-normalised expression.
    condition
        Embedding of the condition of each cell.
    """
    attention = to_scipy(encoder.attention(x, condition))
    total = np.asarray(attention.sum(axis=1)).ravel()
    attention.data /= np.repeat(np.where(total == 0, 1, total), np.diff(attention.indptr))
    return attention


def logits_of(network: Network, x: Tensor, conditions: Tensor) -> Tensor:
    """Compute logits from log-normalised expression, ``(n_cells, n_labels)``.

    Parameters
    ----------
    network
        The network.
    x
        Log-normalised expression, dense.
    conditions
        Codes of batch and covariates.
    """
    # Not by `inference`, which with gradients also hides and reconstructs random genes.
    z, _ = network.encoder(x, network.condition(conditions))
    return network.generative(x, z, conditions)["logits"]


def centred_logits(
    network: Network, predictable: NDArray[np.bool_], x: Tensor, conditions: Tensor
) -> Tensor:
    """Compute logits minus their mean over predictable labels, ``(n_cells, n_labels)``.

    Parameters
    ----------
    network, x, conditions
        As in :func:`logits_of`.
    predictable
        Labels that can be predicted.
    """
    logits = logits_of(network, x, conditions)
    return logits - logits[:, predictable].mean(dim=1, keepdim=True)


def mean_probabilities(networks: Sequence[Network], x: Tensor, conditions: Tensor) -> Tensor:
    """Average probabilities before calibration over networks, ``(n_cells, n_labels)``.

    Parameters
    ----------
    networks
        The networks.
    x, conditions
        As in :func:`logits_of`.
    """
    parts = [logits_of(network, x, conditions).softmax(dim=1) for network in networks]
    return parts[0] if len(parts) == 1 else torch.stack(parts).mean(dim=0)


def contributions(
    network: Network, predictable: NDArray[np.bool_], tensors: Tensors, codes: NDArray[np.intp]
) -> list[sparse.csr_matrix | None]:
    """Contributions to a label, attention, expression and its square, ``(n_cells, n_genes)`` each.

    Parameters
    ----------
    network
        The network.
    predictable
        Labels that can be predicted.
    tensors
        Raw counts and codes of conditions.
    codes
        Code of the label of each cell, ``(n_cells,)``.

    Returns
    -------
    Contributions to the centred logit, by the linear path if there is one, else by input times
    gradient; attention, if there is any; expression; its square.
    """
    x, condition = expression(tensors), network.condition(tensors[CONDITIONS_KEY])
    expressed = to_scipy(x)
    attention = None
    if isinstance(network.encoder, TabNetEncoder):
        attention = attention_of(network.encoder, x, condition)
    if network.linear_skip is None:
        score = _input_x_gradient(network, predictable, tensors, codes)
        return [score, attention, expressed, expressed.power(2)]
    weight = network.linear_skip.weight.cpu().numpy()
    weight = weight - weight[predictable].mean(axis=0)
    score = expressed.copy()
    rows = np.repeat(np.arange(score.shape[0]), np.diff(score.indptr))
    score.data *= weight[codes[rows], score.indices]
    return [score, attention, expressed, expressed.power(2)]


def _input_x_gradient(
    network: Network, predictable: NDArray[np.bool_], tensors: Tensors, codes: NDArray[np.intp]
) -> sparse.csr_matrix:
    """Multiply expression with the gradient of the centred logit of each cell's label."""
    x, conditions = dense_expression(tensors), tensors[CONDITIONS_KEY]
    with with_gradients():
        x = x.clone().requires_grad_()
        logits = centred_logits(network, predictable, x, conditions.clone())
        of_label = torch.from_numpy(codes).to(x.device)[:, None]
        (gradient,) = torch.autograd.grad(logits.gather(1, of_label).sum(), x)
    return to_scipy(x * gradient)


@contextmanager
def with_gradients() -> Iterator[None]:
    """Compute gradients; inference tensors cannot require gradients: clone them first."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def stack_rows(parts: Iterable[sparse.csr_matrix], n_genes: int) -> sparse.csr_matrix:
    """Concatenate the rows of minibatches, if any, to ``(n_cells, n_genes)``.

    Parameters
    ----------
    parts
        Rows of each minibatch.
    n_genes
        Number of genes.
    """
    empty = sparse.csr_matrix((0, n_genes), dtype=np.float32)
    return sparse.vstack([empty, *parts], format="csr")


def mean_of(values: Sequence[Any]) -> Any:
    """Average sparse matrices over networks.

    Parameters
    ----------
    values
        A matrix per network.
    """
    return values[0] if len(values) == 1 else sum(values) / np.float32(len(values))
