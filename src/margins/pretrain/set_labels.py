"""Training an encoder of items on labels of sets of them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from margins.cards import Card, carded
from margins.encoders.base import linear
from margins.encoders.set_pooling import SetPool
from margins.errors import MarginsError
from margins.labels.sets import SetBatch, SetDataset
from margins.losses import CrossEntropy, SupCon
from margins.losses.forms.base import in_range

SetLoss = Literal["cross_entropy", "sup_con"]


@carded(
    Card(
        name="FACILE (pretraining on set labels)",
        summary="an encoder of items from coarse labels of sets, for a fine task with few labels",
        paper="Zhang et al., Enhancing Instance-Level Image Classification with Set-Level Labels, 2024, "
        "arXiv 2311.05659",
        kind="training",
        stations=("plan",),
        targets=("bags",),
        entry=100,
        tests=(
            "tests/test_sets.py::test_a_set_of_one_item_is_that_item_classified",
            "tests/test_sets.py::test_padding_changes_neither_loss_nor_gradient",
        ),
        study="set_labels",
    )
)
class SetLabelPretrain(nn.Module):
    r"""An encoder of items trained so that the pooled items of a set tell its label.

    $L = \ell(g(\mathrm{pool}_i\, e(x_i)), c) + w\,\frac{1}{B} \sum_i \|d(e(x_i)) - x_i\|^2 / |x_i|$, with
    $\ell$ the cross-entropy of a linear classifier $g$, or the supervised contrastive loss of the pooled
    vectors. Then freeze `encoder` and fit a simple classifier on the few items that have fine labels.

    Use it when labels of sets are many, labels of items few, and the set labels depend on what tells the fine
    classes apart. What set labels do not separate, it forgets: on fine classes of which the sets say nothing
    an untrained encoder can be better. Look at `coarse_separation` first; `reconstruction` > 0 keeps more of
    what the labels leave out. Giving every item the label of its set (`SetDataset.copied_labels`) is simpler
    and often as good.

    Args:
        encoder: items [B, ...] to states [B, d].
        pool: states of a set to one vector, of the width d.
        num_labels: C, of sets.
        loss: "cross_entropy" or "sup_con", which needs several sets of a label in a batch.
        temperature: of "sup_con", > 0.
        decoder: states [B, d] to flattened items; needed with `reconstruction`.
        reconstruction: w >= 0.
        generator: draws the classifier's first weights.

    References:
        Zhang et al. 2024, arXiv 2311.05659, algorithm 1.

    Example:
        >>> from margins.encoders import MeanSetPool
        >>> draws = torch.Generator().manual_seed(0)
        >>> items, sets = torch.randn(12, 4, generator=draws), torch.arange(12) // 3
        >>> data = SetDataset(items, sets, torch.tensor([0, 1, 0, 1]))
        >>> net = SetLabelPretrain(nn.Identity(), MeanSetPool(4), num_labels=2, generator=draws)
        >>> losses = net.fit(data, epochs=50, lr=0.1, generator=draws)
        >>> losses[-1] < losses[0]
        True
    """

    def __init__(
        self,
        encoder: nn.Module,
        pool: SetPool,
        *,
        num_labels: int,
        loss: SetLoss = "cross_entropy",
        temperature: float = 0.1,
        decoder: nn.Module | None = None,
        reconstruction: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if loss not in get_args(SetLoss):
            raise MarginsError("loss", expected=f"one of {get_args(SetLoss)}", received=repr(loss))
        if num_labels < 2:
            raise MarginsError("num_labels", expected="at least 2", received=str(num_labels))
        self.reconstruction = in_range("reconstruction", reconstruction, low=0)
        if (decoder is None) == (self.reconstruction > 0):
            raise MarginsError(
                "decoder", expected="one with reconstruction > 0, and only then",
                received=f"reconstruction {reconstruction:g}",
            )  # fmt: skip
        self.encoder, self.pool, self.decoder = encoder, pool, decoder
        self.classifier = linear(pool.width, num_labels, generator=generator)
        self.loss = CrossEntropy() if loss == "cross_entropy" else SupCon(temperature)

    def forward(self, batch: SetBatch) -> Tensor:
        """The loss of some sets."""
        items, _ = batch.flat()
        states = self.encoder(items)
        pooled = self.pool(batch.padded(states), batch.mask)
        if isinstance(self.loss, SupCon):
            total = self.loss.on_embeddings(nn.functional.normalize(pooled, dim=1), batch.labels)
        else:
            total = self.loss(self.classifier(pooled), batch.labels)
        if self.decoder is None:
            return total
        missed = (self.decoder(states) - items.flatten(1)).square().mean()
        return total + self.reconstruction * missed

    def set_logits(self, batch: SetBatch) -> Tensor:
        """[A, C] scores of the labels of sets; nothing trains them with "sup_con"."""
        return self.classifier(self.pool(batch.padded(self.encoder(batch.flat()[0])), batch.mask))

    def item_logits(self, items: Tensor) -> Tensor:
        """[B, C] scores of each item alone: of sets of one."""
        states = self.encoder(items)[:, None, :]
        return self.classifier(self.pool(states, torch.ones(len(items), 1, dtype=torch.bool)))

    def fit(
        self,
        data: SetDataset,
        *,
        epochs: int,
        sets_per_batch: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        generator: torch.Generator,
    ) -> list[float]:
        """Trains in place by AdamW; gives the mean loss of each epoch.

        Args:
            data: sets with labels.
            epochs: passes over the sets, at least 1.
            sets_per_batch: sets a step.
            lr: learning rate.
            weight_decay: decoupled.
            generator: draws the order of sets.
        """
        if epochs < 1:
            raise MarginsError("epochs", expected="at least 1", received=str(epochs))
        optimizer = torch.optim.AdamW(self.parameters(), lr, weight_decay=weight_decay)
        history: list[float] = []
        self.train()
        for _ in range(epochs):
            losses: list[float] = []
            for batch in data.batches(sets_per_batch, generator=generator):
                optimizer.zero_grad()
                loss = self(batch)
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            history.append(sum(losses) / len(losses))
        return history
