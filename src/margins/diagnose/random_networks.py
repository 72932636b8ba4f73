"""Test errors of networks that were trained to fit the training rows, each from other first weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from margins.cards import Card, carded
from margins.diagnose.checking import check_count, check_positive
from margins.encoders.base import linear
from margins.encoders.convolution import convolution
from margins.errors import MarginsError, describe

Builder = Callable[[torch.Generator], nn.Module]
"""A generator to an untrained network of inputs to outputs [N, C]; all of one shape."""

_LOOK_EVERY = 10  # steps between two looks at the training error


@dataclass(frozen=True, kw_only=True)
class NetworkErrors:
    """Errors of the networks that fit.

    Args:
        errors: [S] mean squared errors over test rows and outputs.
        num_unfitted: networks that did not fit the training rows in time, and are left out.
        num_steps: that the slowest of the others took.
    """

    errors: Tensor
    num_unfitted: int
    num_steps: int


@carded(
    Card(
        name="Inductive bias of an architecture",
        summary="errors of random networks that fit: what `inductive_bias` makes bits of",
        paper="Boopathy et al., Towards Exact Computation of Inductive Bias, 2024, arXiv 2406.15941",
        kind="diagnostic",
        stations=("before training",),
        targets=("classes", "values"),
        entry=41,
        tests=(
            "tests/test_inductive_bias.py::test_networks_trained_side_by_side_are_those_trained_alone",
            "tests/test_inductive_bias.py::test_networks_that_do_not_fit_are_left_out_and_counted",
        ),
        study="inductive_bias",
    )
)
def network_errors(
    build: Builder,
    inputs: Float[Tensor, "rows ..."],
    targets: Float[Tensor, "rows outputs"],
    test_inputs: Float[Tensor, "others ..."],
    test_targets: Float[Tensor, "others outputs"],
    *,
    num_trials: int = 50,
    learning_rate: float = 1e-3,
    fitted_below: float = 1e-2,
    max_steps: int = 5000,
    at_once: int = 50,
    generator: torch.Generator,
) -> NetworkErrors:
    """Trains networks from random first weights until each fits, and takes its mean squared test error.

    Use it for `inductive_bias` of small networks on some hundred rows, against the same rows for every
    architecture; a random network that fits is what gradient descent finds, so the optimiser's taste is part
    of what is measured. Every network sees all rows at each step of Adam, and stops for itself when its mean
    squared training error, looked at every ten steps, is `fitted_below`. Networks train side by side, so the
    module must do without buffers and without randomness of its own (no batch norm, no dropout).

    Args:
        build: a generator to an untrained network; `mlp` and `cnn` give such.
        inputs: [N, ...] as the network takes them.
        targets: [N, C] one-hot or values.
        test_inputs: [T, ...].
        test_targets: [T, C].
        num_trials: networks, 50 or more for an interval worth looking at.
        learning_rate: of Adam.
        fitted_below: mean squared training error at which a network counts as fitted.
        max_steps: a network that has not fitted by then is left out.
        at_once: networks trained side by side: many for perceptrons, 1 for convolutions on a processor. It
            changes the time alone.
        generator: draws the first weights.

    Raises:
        MarginsError: shapes that do not fit, a module with buffers, or no network that fits.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> x = torch.randn(8, 2, generator=draws)
        >>> found = network_errors(mlp(2, 1, width=16), x, x[:, :1], x, x[:, :1], num_trials=3,
        ...                        learning_rate=0.01, generator=draws)
        >>> found.errors.shape, bool(found.errors.max() < 0.02)
        (torch.Size([3]), True)

    References:
        Boopathy et al. 2024, arXiv 2406.15941.
    """
    check_count("num_trials", num_trials)
    check_count("max_steps", max_steps)
    check_count("at_once", at_once)
    check_positive("learning_rate", learning_rate)
    check_positive("fitted_below", fitted_below)
    for name, rows, values in (("targets", inputs, targets), ("test_targets", test_inputs, test_targets)):
        if values.ndim != 2 or len(values) != len(rows) or not len(rows):
            raise MarginsError(name, expected=f"[{len(rows)}, C] floats", received=describe(values))
    fitted = _Fitting(inputs, targets, test_inputs, test_targets, learning_rate, fitted_below, max_steps)
    found = [
        fitted.together([build(generator) for _ in range(min(at_once, num_trials - start))])
        for start in range(0, num_trials, at_once)
    ]
    errors = torch.cat([errors for errors, _ in found])
    there = torch.isfinite(errors)
    if not bool(there.any()):
        raise MarginsError(
            "build", expected=f"networks that fit {len(inputs)} rows in {max_steps} steps", received="none",
            fix="make them wider, or raise learning_rate or max_steps",
        )  # fmt: skip
    return NetworkErrors(
        errors=errors[there], num_unfitted=int((~there).sum()), num_steps=max(steps for _, steps in found)
    )


def mlp(num_inputs: int, num_outputs: int, *, width: int = 64, depth: int = 2) -> Builder:
    """Perceptrons of `depth` hidden layers of `width` units with ReLU, on flattened inputs.

    Example:
        >>> mlp(4, 2)(torch.Generator())(torch.zeros(3, 2, 2)).shape
        torch.Size([3, 2])
    """
    sizes = [num_inputs, *[width] * check_count("depth", depth)]

    def build(generator: torch.Generator) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for num_in, num_out in pairwise(sizes):
            layers += [linear(num_in, num_out, generator=generator), nn.ReLU()]
        return nn.Sequential(*layers, linear(sizes[-1], num_outputs, generator=generator))

    return build


def cnn(num_channels: int, num_outputs: int, *, width: int = 16, depth: int = 2) -> Builder:
    """Convolutions of 3 x 3 with ReLU, then the mean over places and a linear layer; any image size.

    Example:
        >>> cnn(1, 2)(torch.Generator())(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 2])
    """
    sizes = [num_channels, *[width] * check_count("depth", depth)]

    def build(generator: torch.Generator) -> nn.Module:
        layers: list[nn.Module] = []
        for num_in, num_out in pairwise(sizes):
            layers += [convolution(num_in, num_out, kernel=3, step=1, generator=generator), nn.ReLU()]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers, linear(sizes[-1], num_outputs, generator=generator))

    return build


@dataclass(frozen=True)
class _Fitting:
    inputs: Tensor
    targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    learning_rate: float
    fitted_below: float
    max_steps: int

    def together(self, networks: list[nn.Module]) -> tuple[Tensor, int]:
        """The test error of each network when it first fits, NaN for one that never does; and the steps.

        Adam works entry by entry, so the stacked weights of all networks under the sum of their errors move
        as each would alone.
        """
        if any(True for network in networks for _ in network.buffers()):
            raise MarginsError("build", expected="networks without buffers (batch norm)", received="some")
        weights, _ = stack_module_state(networks)
        steps = torch.optim.Adam(list(weights.values()), lr=self.learning_rate)
        found = torch.full((len(networks),), torch.nan, dtype=torch.float64)

        def errors(weight: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            return (functional_call(networks[0], weight, (inputs,)) - targets).square().mean()

        together = vmap(errors, in_dims=(0, None, None))
        for step in range(self.max_steps + 1):
            train = together(weights, self.inputs, self.targets)
            if step % _LOOK_EVERY == 0:
                new = (train.detach() <= self.fitted_below) & found.isnan()
                if bool(new.any()):
                    with torch.no_grad():
                        test = together(weights, self.test_inputs, self.test_targets)
                    found = torch.where(new, test.double(), found)
                if not bool(found.isnan().any()):
                    return found, step
            steps.zero_grad()
            train.sum().backward()
            steps.step()
        return found, self.max_steps
