"""What each layer of a network still knows of several labels of the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.data.extras import extra
from margins.diagnose.checking import as_rows, check_count, check_labels, check_positive
from margins.errors import MarginsError, describe


@dataclass(frozen=True, kw_only=True)
class LayerProbe:
    """What a layer holds.

    Args:
        layer: its name.
        effective_rank: exponential of the entropy of the singular values of its centred features: how many
            directions they really fill.
        accuracy: by attribute, the share of test rows that a linear probe gets right.
        chance: by attribute, the share of test rows of the commonest class of training.
        alignment: by attribute, the share in [0, 1] of the spread of its class means that lies in the leading
            directions of the features.
    """

    layer: str
    effective_rank: float
    accuracy: Mapping[str, float]
    chance: Mapping[str, float]
    alignment: Mapping[str, float]


@carded(
    Card(
        name="Layer probe",
        summary="which layer to keep: what can still be read from each, of coarse, fine and spurious labels",
        paper="Xue et al., Investigating the Benefits of Projection Head for Representation Learning, 2024, "
        "arXiv 2403.11391",
        kind="diagnostic",
        stations=("after training",),
        targets=("classes",),
        entry=52,
        tests=(
            "tests/test_disposable.py::test_a_probe_finds_the_label_in_the_layer_that_keeps_it",
            "tests/test_disposable.py::test_alignment_is_the_share_of_the_means_in_the_leading_directions",
        ),
        study="disposable_head",
    )
)
def layer_probe(
    features: Mapping[str, Float[Tensor, "rows _"]],
    attributes: Mapping[str, Int[Tensor, " rows"]],
    *,
    is_test: Bool[Tensor, " rows"],
    num_leading: int = 5,
    regularisation: float = 1.0,
    standardise: bool = True,
) -> list[LayerProbe]:
    r"""Accuracy of linear probes on several layers for several attributes, and the shape of each layer.

    Use it before and behind a disposable head, to see what the head forgets, and with a spurious attribute,
    to see where it is dropped. Do not compare probes of layers of very different widths on few rows: the
    wider one fits them better.

    A probe is a logistic regression. On standardised features it says what is there; on features as they are
    it also needs it to be large, as a user without a scaler does, and finds much less behind a contrastive
    loss. The effective rank is $\exp(-\sum_i p_i \log
    p_i)$ with $p_i$ the singular values of the centred features over their sum. The alignment of an attribute
    is $\sum_k \pi_k \|V^\top (\mu_k - \mu)\|^2 / \sum_k \pi_k \|\mu_k - \mu\|^2$ with V the leading right
    singular vectors, $\mu_k$ the class means and $\pi_k$ the classes' shares. Rank and alignment are those of
    the training rows.

    Args:
        features: [N, d] of each layer, the same rows in each; see `layer_outputs`.
        attributes: [N] integers of each, at least 0.
        is_test: [N] rows that are judged; the probe learns on the others.
        num_leading: directions that count as leading, at most the width of each layer.
        regularisation: inverse strength of the penalty on the probe's weights, > 0.
        standardise: whether probes see each feature with mean 0 and deviation 1.

    Returns:
        one a layer, in their order.

    Raises:
        MarginsError: other shapes, no test or training rows, or an attribute of one class only.

    References:
        Xue et al. 2024, arXiv 2403.11391; Roy, Vetterli, The Effective Rank, EUSIPCO 2007.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> layers = {"kept": torch.eye(2)[labels], "dropped": torch.arange(80.0).view(40, 2) // 4}
        >>> found = layer_probe(layers, {"parity": labels}, is_test=torch.arange(40) >= 20, num_leading=1)
        >>> [probe.accuracy["parity"] for probe in found]
        [1.0, 0.5]
    """
    num_rows = len(is_test)
    if is_test.dtype != torch.bool or is_test.ndim != 1 or not 0 < int(is_test.sum()) < num_rows:
        raise MarginsError("is_test", expected="[N] booleans of both kinds", received=describe(is_test))
    check_count("num_leading", num_leading)
    check_positive("regularisation", regularisation)
    for name, labels in attributes.items():
        check_labels(f"attributes[{name!r}]", labels, num_rows)
        if len(labels[~is_test].unique()) < 2:
            raise MarginsError(f"attributes[{name!r}]", expected="two classes or more", received="one")
    probe = partial(_probe, regularisation=regularisation, standardise=standardise)
    return [_probed(name, given, attributes, is_test, num_leading, probe) for name, given in features.items()]


@torch.no_grad()
def layer_outputs(network: nn.Module, layers: Iterable[str], inputs: Any) -> dict[str, Tensor]:
    """What named parts of a network give for these inputs, flattened to [N, d]; in evaluation mode.

    Args:
        network: called with the inputs, all at once.
        layers: names as in `network.named_modules()`, of parts that are called once and give one tensor.
        inputs: of the network.

    Raises:
        MarginsError: no such part, or one that was not called or gave no tensor.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.ReLU())
        >>> layer_outputs(network, ["0", "1"], torch.tensor([[[-1.0, 2.0]]]))
        {'0': tensor([[-1.,  2.]]), '1': tensor([[0., 2.]])}
    """
    parts, found = dict(network.named_modules()), dict[str, Tensor]()
    names, modes = list(layers), {part: part.training for part in parts.values()}
    for name in names:
        if name not in parts:
            raise MarginsError("layers", expected=f"among {', '.join(parts)}", received=repr(name))

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found[name] = output.detach().flatten(1)

        return hook

    hooks = [parts[name].register_forward_hook(keep(name)) for name in names]
    try:
        network.eval()
        network(inputs)
    finally:
        for part, was_training in modes.items():
            part.training = was_training
        for hook in hooks:
            hook.remove()
    for name in names:
        if name not in found:
            raise MarginsError("layers", expected="parts that give a tensor", received=f"{name!r} did not")
    return {name: found[name] for name in names}


def _probed(
    name: str,
    given: Tensor,
    attributes: Mapping[str, Tensor],
    is_test: Tensor,
    num_leading: int,
    probe: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> LayerProbe:
    rows = as_rows(f"features[{name!r}]", given)
    if given.ndim != 2 or len(rows) != len(is_test) or rows.shape[1] < num_leading:
        raise MarginsError(
            f"features[{name!r}]", expected=f"[N, d] = [{len(is_test)}, d] with d >= {num_leading}",
            received=describe(given),
        )  # fmt: skip
    train = rows[~is_test]
    centred = train - train.mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    accuracy, chance, alignment = dict[str, float](), dict[str, float](), dict[str, float]()
    for attribute, labels in attributes.items():
        known, tested = labels[~is_test], labels[is_test]
        guess = probe(train, known, rows[is_test])
        accuracy[attribute] = float((guess == tested).double().mean())
        chance[attribute] = float((tested == known.mode().values).double().mean())
        alignment[attribute] = _alignment(centred, known, directions[:num_leading])
    return LayerProbe(
        layer=name, effective_rank=_effective_rank(values), accuracy=accuracy, chance=chance,
        alignment=alignment,
    )  # fmt: skip


def _probe(
    train: Tensor, labels: Tensor, test: Tensor, *, regularisation: float, standardise: bool
) -> Tensor:
    with extra("tool"):
        from sklearn.linear_model import LogisticRegression
    mean, deviation = train.mean(0), train.std(0)
    # A feature that does not vary in training says nothing; rounding must not be blown up.
    varies = deviation > 1e-9 * (1 + mean.abs())
    factor = torch.where(varies, 1 / deviation.clamp(min=1e-300), 0.0) if standardise else varies.double()
    probe = LogisticRegression(C=regularisation, max_iter=2000)
    probe.fit(((train - mean) * factor).cpu().numpy(), labels.cpu().numpy())
    guess = probe.predict(((test - mean) * factor).cpu().numpy())
    return torch.from_numpy(guess).to(labels)


def _effective_rank(values: Tensor) -> float:
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return math.exp(-float(torch.special.xlogy(shares, shares).sum()))


def _alignment(centred: Tensor, labels: Tensor, directions: Tensor) -> float:
    shifts = torch.stack([centred[labels == k].mean(0) for k in labels.unique()])
    shares = torch.stack([(labels == k).double().mean() for k in labels.unique()])
    whole = float(shares @ shifts.square().sum(1))
    return float(shares @ (shifts @ directions.T).square().sum(1)) / whole if whole > 0 else 0.0
