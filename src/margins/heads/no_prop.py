"""A classifier whose blocks learn by themselves, each to take noise off a label; no gradient goes between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import generator_on, linear
from margins.errors import MarginsError, describe
from margins.heads.noise_schedule import posterior_coefficients, signal_shares
from margins.targets.checks import check_labels, check_range

MakeEncoder = Callable[[torch.Generator], nn.Module]


@dataclass(frozen=True, kw_only=True, eq=False)
class NoPropPrediction:
    """What a `NoProp` says of rows.

    Args:
        probabilities: [N, K] of its output classifier, the mean over draws.
        spread: [N, K] their standard deviation over draws; zeros of a single one.
        by_block: [T, N, K] what each block would say if it were the last, the mean over draws.
    """

    probabilities: Float[Tensor, "N K"]
    spread: Float[Tensor, "N K"]
    by_block: Float[Tensor, "T N K"]


class DenoisingBlock(nn.Module):
    """A class distribution from an input and a noisy label, by an encoder of its own.

    Args:
        encoder: inputs to features [B, width].
        width: of the features and the hidden layer.
        label_width: D, of the label.
        num_classes: K.
        generator: draws the first weights.
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        label_width: int,
        num_classes: int,
        *,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.of_label = linear(label_width, width, generator=generator)
        self.hidden = linear(2 * width, width, generator=generator)
        self.out = linear(width, num_classes, generator=generator)

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """Logits [..., K] of the encoder's features [B, width] and noisy labels [..., B, D]."""
        heard = torch.relu(self.of_label(label))
        both = torch.cat([features.expand(*heard.shape[:-1], -1), heard], -1)
        return self.out(torch.relu(self.hidden(both)))


@carded(
    Card(
        name="NoProp",
        summary="a deep classifier without end-to-end gradients: memory of one block, answers after each",
        paper="Li, Teh, Pascanu, NoProp: Training Neural Networks without Back-propagation or "
        "Forward-propagation, 2025, arXiv 2503.24322",
        kind="training",
        stations=("step", "score"),
        targets=("classes",),
        entry=140,
        tests=(
            "tests/test_no_prop.py::test_coefficients_are_the_reference_and_keep_the_law_of_the_noise",
            "tests/test_no_prop.py::test_a_label_that_is_known_goes_through_all_blocks_as_its_marginals_say",
            "tests/test_no_prop.py::test_the_loss_of_a_block_gives_no_other_block_a_gradient",
            "tests/test_no_prop.py::test_the_memory_of_a_step_does_not_grow_with_the_number_of_blocks",
        ),
        recipe={"encoder": {"name": "embeddings"}, "head": {"name": "no_prop"}, "step": {"name": "no_prop"}},
        study="no_prop",
    )
)
class NoProp(nn.Module):
    r"""A chain of blocks, each of which is trained to give a label back out of a noisy one and the input.

    Labels are vectors $u_y$; $\bar\alpha_0 < \dots < \bar\alpha_T$ are shares of signal. Block t is given
    $z \sim N(\sqrt{\bar\alpha_{t-1}} u_y, (1 - \bar\alpha_{t-1}) I)$, says
    $\hat u = \mathrm{softmax}(f_t(x, z)) W$ and has the loss
    $\frac T2 \eta (\mathrm{SNR}_t - \mathrm{SNR}_{t-1}) \|\hat u - u_y\|^2$,
    $\mathrm{SNR} = \bar\alpha / (1 - \bar\alpha)$: it never waits for another block. In use $z_0$ is noise,
    $z_t = a_t \hat u_t + b_t z_{t-1} + \sqrt{c_t} \epsilon$, and a linear classifier reads $z_T$.

    Use it where the activations of a deep network do not fit into memory, blocks are to be trained in several
    places, or an answer may be asked for early. Do not use it for accuracy: with the same size and time
    back-propagation is as good or better, and T blocks cost T encoders in use. It is in discrete time, and
    trains on tensors that are in memory.

    Args:
        make_encoder: a new encoder of inputs [B, ...] to features [B, width]; its weights are to be drawn
            from the generator that it is given. Called once a block.
        width: of the features.
        num_classes: K.
        num_blocks: T, at least 1.
        embeddings: [K, D] vectors of the classes; one-hot when None. `class_prototypes` makes some.
        learn_embeddings: whether these are trained too, all terms giving them a gradient.
        signal: $\bar\alpha_0$ and $\bar\alpha_T$, rising, inside (0, 1); on a sine between them.
        strength: $\eta$ > 0.
        generator: draws the first weights.

    Raises:
        MarginsError: a number out of its range, or embeddings of another shape.

    References:
        Li, Teh, Pascanu 2025, arXiv 2503.24322 (the variant in discrete time, NoProp-DT).

    Example:
        >>> def make_encoder(generator):
        ...     return nn.Sequential(linear(2, 16, generator=generator), nn.ReLU())
        >>> model = NoProp(make_encoder, 16, 2, num_blocks=3, generator=torch.Generator().manual_seed(0))
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
        >>> _ = model.fit(x, (x[:, 0] > 0).long(), epochs=20, batch_size=20)
        >>> model.predict(torch.tensor([[2.0, 0.0], [-2.0, 0.0]]))
        tensor([1, 0])
    """

    alpha_bar: Tensor
    weights: Tensor
    embeddings: Tensor

    def __init__(
        self,
        make_encoder: MakeEncoder,
        width: int,
        num_classes: int,
        *,
        num_blocks: int = 10,
        embeddings: Float[Tensor, "K D"] | None = None,
        learn_embeddings: bool = False,
        signal: tuple[float, float] = (0.01, 0.99),
        strength: float = 0.1,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("num_classes", num_classes), ("num_blocks", num_blocks)):
            if value < 1:
                raise MarginsError(name, expected="at least 1", received=str(value))
        if not (strength > 0 and math.isfinite(strength)):
            raise MarginsError("strength", expected="a number above 0", received=str(strength))
        vectors = torch.eye(num_classes) if embeddings is None else _checked(embeddings, num_classes)
        if learn_embeddings:
            self.embeddings = nn.Parameter(vectors)
        else:
            self.register_buffer("embeddings", vectors)
        self.learn_embeddings, self.num_classes = learn_embeddings, num_classes
        alpha_bar = signal_shares(num_blocks, first=signal[0], last=signal[1])
        self.register_buffer("alpha_bar", alpha_bar.float())
        snr = alpha_bar / (1 - alpha_bar)
        self.register_buffer("weights", (num_blocks / 2 * strength * snr.diff()).float())
        label_width = vectors.shape[1]
        self.blocks = nn.ModuleList(
            DenoisingBlock(make_encoder(generator), width, label_width, num_classes, generator=generator)
            for _ in range(num_blocks)
        )
        self.readout = linear(label_width, num_classes, generator=generator)

    @property
    def num_blocks(self) -> int:
        """T."""
        return len(self.blocks)

    def block_loss(
        self,
        block: int,
        inputs: Tensor,
        labels: Int[Tensor, " B"],
        *,
        generator: torch.Generator,
        weight: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean loss of one block, which no other block takes part in.

        Args:
            block: 1 to T.
            inputs: [B, ...].
            labels: [B] integers in [0, K).
            generator: draws the noise.
            weight: [B] of rows; 1 each when None. The mean is over rows, whatever they weigh.
        """
        true = self.embeddings[labels]
        noisy = self._noisy(true, block - 1, generator)
        part = self.blocks[block - 1]
        assert isinstance(part, DenoisingBlock)  # noqa: S101 - the list holds no other
        said = part(part.encoder(inputs), noisy).softmax(-1) @ self.embeddings
        return self.weights[block - 1] * _mean((said - true).square().sum(1), weight)

    def readout_loss(
        self,
        labels: Int[Tensor, " B"],
        *,
        generator: torch.Generator,
        weight: Float[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        r"""The cross-entropy of the output classifier; and what keeps learned embeddings short.

        That is the divergence of the first marginal from pure noise,
        $\mathrm{KL}(N(\sqrt{\bar\alpha_0} u_y, (1 - \bar\alpha_0) I) \,\|\, N(0, I))$.

        Args:
            labels: [B] integers in [0, K).
            generator: draws the noise.
            weight: [B] of rows, as for `block_loss`.
        """
        true = self.embeddings[labels]
        scores = self.readout(self._noisy(true, self.num_blocks, generator))
        loss = nn.functional.cross_entropy(scores, labels, reduction="none")
        if self.learn_embeddings:
            first = self.alpha_bar[0]
            constant = true.shape[1] * (-first - torch.log1p(-first))
            loss = loss + 0.5 * (first * true.square().sum(1) + constant)
        return _mean(loss, weight)

    def each_loss(
        self,
        inputs: Tensor,
        labels: Int[Tensor, " B"],
        *,
        generator: torch.Generator,
        weight: Float[Tensor, " B"] | None = None,
    ) -> Iterator[Float[Tensor, ""]]:
        """The losses of the blocks and of the output classifier, each made when it is asked for.

        Take the gradient of one and let it go before the next: activations of one block are held at a time.
        Arguments as for `block_loss`.
        """
        for block in range(1, self.num_blocks + 1):
            yield self.block_loss(block, inputs, labels, generator=generator, weight=weight)
        yield self.readout_loss(labels, generator=generator, weight=weight)

    def take_step(
        self,
        optimizer: torch.optim.Optimizer,
        inputs: Tensor,
        labels: Int[Tensor, " B"],
        *,
        generator: torch.Generator,
    ) -> float:
        """One step of all blocks, one after the other: activations of one block are held at a time.

        Returns:
            the sum of all losses.
        """
        optimizer.zero_grad()
        total = 0.0
        for loss in self.each_loss(inputs, labels, generator=generator):
            loss.backward()
            total += float(loss.detach())
            del loss
        optimizer.step()
        return total

    def fit(
        self,
        inputs: Tensor,
        labels: Int[Tensor, " N"],
        *,
        epochs: int,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
        seed: int = 0,
    ) -> list[float]:
        """Trains by AdamW; learned embeddings do not decay.

        Args:
            inputs: [N, ...] on the device of the model.
            labels: [N] integers in [0, K).
            epochs: passes, at least 1.
            batch_size: rows a step, at least 1.
            learning_rate: > 0.
            weight_decay: >= 0.
            seed: of the order of rows and the noise.

        Returns:
            the mean loss of each pass, summed over blocks.

        Raises:
            MarginsError: labels that do not fit, or a number below 1.
        """
        self._check(inputs, labels)
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("rows", len(inputs))):
            if value < 1:
                raise MarginsError(name, expected="at least 1", received=str(value))
        decayed = [p for p in self.parameters() if p is not self.embeddings]
        own = [{"params": [self.embeddings], "weight_decay": 0.0}] if self.learn_embeddings else []
        optimizer = torch.optim.AdamW(
            [{"params": decayed}, *own], lr=learning_rate, weight_decay=weight_decay
        )
        draws = torch.Generator().manual_seed(seed)
        history = list[float]()
        self.train()
        for _ in range(epochs):
            steps = torch.randperm(len(inputs), generator=draws).to(inputs.device).split(batch_size)
            losses = [self.take_step(optimizer, inputs[r], labels[r], generator=draws) for r in steps]
            history.append(sum(losses) / len(losses))
        self.eval()
        return history

    @torch.no_grad()
    def predicted(
        self, inputs: Tensor, *, num_draws: int = 1, seed: int = 0, alike: bool = False
    ) -> NoPropPrediction:
        """Probabilities, their spread over draws of the noise, and what each block says.

        Args:
            inputs: [N, ...].
            num_draws: >= 1; more are steadier and tell how sure the chain is, at the cost of the labels'
                part alone: features are computed once.
            seed: of the noise, so that the same call says the same.
            alike: whether all rows get the same noise, so that what is said of a row does not depend on the
                rows beside it.
        """
        if num_draws < 1:
            raise MarginsError("num_draws", expected="at least 1", received=str(num_draws))
        a, b, c = (k.to(self.alpha_bar) for k in posterior_coefficients(self.alpha_bar.double()))
        generator = generator_on(self.alpha_bar.device, torch.Generator().manual_seed(seed))
        shape = (num_draws, 1 if alike else len(inputs), self.embeddings.shape[1])
        label, by_block = _normal(shape, self.alpha_bar, generator), list[Tensor]()
        label = label.expand(-1, len(inputs), -1)
        for t, part in enumerate(self.blocks):
            assert isinstance(part, DenoisingBlock)  # noqa: S101 - the list holds no other
            said = part(part.encoder(inputs), label).softmax(-1)
            by_block.append(said.mean(0))
            noise = _normal(shape, self.alpha_bar, generator)
            label = a[t] * (said @ self.embeddings) + b[t] * label + c[t].sqrt() * noise
        final = self.readout(label).softmax(-1)
        return NoPropPrediction(
            probabilities=final.mean(0), spread=final.std(0, correction=0), by_block=torch.stack(by_block)
        )

    def predict_proba(self, inputs: Tensor, *, num_draws: int = 1, seed: int = 0) -> Float[Tensor, "N K"]:
        """Probabilities [N, K]; arguments as for `predicted`."""
        return self.predicted(inputs, num_draws=num_draws, seed=seed).probabilities

    def predict(self, inputs: Tensor, *, num_draws: int = 1, seed: int = 0) -> Int[Tensor, " N"]:
        """The likeliest class of each row; arguments as for `predicted`."""
        return self.predict_proba(inputs, num_draws=num_draws, seed=seed).argmax(1)

    def _noisy(self, true: Tensor, place: int, generator: torch.Generator) -> Tensor:
        """A draw of the label as it is known after `place` blocks, of the true one."""
        share = self.alpha_bar[place]
        return share.sqrt() * true + (1 - share).sqrt() * _normal(true.shape, true, generator)

    def _check(self, inputs: Tensor, labels: Tensor) -> None:
        check_labels("labels", labels)
        if len(labels) != len(inputs):
            raise MarginsError("labels", expected=f"[N] = [{len(inputs)}]", received=describe(labels))
        check_range("labels", labels, self.num_classes)


def class_prototypes(
    inputs: Float[Tensor, "N D"], labels: Int[Tensor, " N"], num_classes: int
) -> Float[Tensor, "K D"]:
    """The row of each class whose median distance to the others of its class is the smallest.

    Args:
        inputs: [N, D].
        labels: [N] integers in [0, K); every class has a row.
        num_classes: K.

    Raises:
        MarginsError: a class without a row.

    Example:
        >>> class_prototypes(torch.tensor([[0.0], [2.0], [3.0], [5.0]]), torch.tensor([0, 0, 0, 1]), 2)
        tensor([[2.],
                [5.]])
    """
    check_labels("labels", labels)
    check_range("labels", labels, num_classes)
    found = list[Tensor]()
    for k in range(num_classes):
        own = inputs[labels == k]
        if not len(own):
            raise MarginsError("labels", expected="a row of every class", received=f"none of class {k}")
        found.append(own[torch.cdist(own, own).median(1).values.argmin()])
    return torch.stack(found)


def _mean(losses: Tensor, weight: Tensor | None) -> Tensor:
    return (losses if weight is None else losses * weight).mean()


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = generator_on(like.device, generator)
    return torch.randn(shape, generator=drawn, device=like.device, dtype=like.dtype)


def _checked(embeddings: Tensor, num_classes: int) -> Tensor:
    if embeddings.ndim != 2 or len(embeddings) != num_classes or not embeddings.is_floating_point():
        raise MarginsError(
            "embeddings", expected=f"[{num_classes}, D] floats, a row a class", received=describe(embeddings)
        )
    return embeddings.detach().float().clone()
