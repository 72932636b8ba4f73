"""Whether encoders of several seeds, side by side, serve tasks that their own did not need features for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from ground import fit
from torch import Tensor, nn

from margins.compare import ProbedTask, transfer
from margins.diagnose import richness
from margins.distill import MultiTeacherFeatures
from margins.encoders import ConcatenatedEncoder, Numbers, NumericEncoder
from margins.evidence import Effect, Study
from margins.heads import LinearHead
from margins.losses import CrossEntropy

NUM_CUES, CUE_DIMS, NUM_IDLE = 3, 3, 6
NUM_BLOCKS, WIDTH = 5, 16
NUM_TRAIN, EPOCHS = 3000, 30
PROBED = (600, 300, 2000)  # rows that train, choose and judge a probe


def rows(num: int, draws: torch.Generator, *, agree: bool) -> tuple[Numbers, Tensor]:
    """Inputs of three cues and idle columns, and the cues [N, 3].

    A cue is the parity of the signs of three columns; where they agree, all cues are the label.
    """
    signs = torch.randint(0, 2, (num, NUM_CUES, CUE_DIMS), generator=draws)
    cues = signs.sum(2) % 2
    if agree:
        label = torch.randint(0, 2, (num, 1), generator=draws)
        signs[:, :, 0] = (signs[:, :, 0] + cues + label) % 2
        cues = label.expand(num, NUM_CUES)
    values = (2.0 * signs - 1).flatten(1) + 0.3 * torch.randn(num, NUM_CUES * CUE_DIMS, generator=draws)
    return Numbers(torch.cat([values, torch.randn(num, NUM_IDLE, generator=draws)], 1)), cues


class _Classifier(nn.Module):
    def __init__(self, encoder: NumericEncoder, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = LinearHead(encoder.width, 2, generator=torch.Generator().manual_seed(seed))

    def forward(self, values: Tensor) -> Tensor:
        return self.head(self.encoder(Numbers(values)))


def encoder(seed: int, width: int) -> NumericEncoder:
    draws = torch.Generator().manual_seed(seed)
    columns = NUM_CUES * CUE_DIMS + NUM_IDLE
    return NumericEncoder(num_columns=columns, width=width, dropout=0.0, generator=draws)


def trained(seed: int, width: int, settings: Mapping[str, Any], inputs: Numbers, labels: Tensor) -> NumericEncoder:
    """An encoder that has learned the source task."""
    made = encoder(seed, width)
    made.fit(inputs)
    fit(
        _Classifier(made, seed), CrossEntropy(), inputs.values, labels, seed=seed, epochs=EPOCHS,
        lr=settings["lr"], weight_decay=settings["weight_decay"], optimizer="adam",
    )  # fmt: skip
    return made.eval()
