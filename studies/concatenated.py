"""Whether encoders of several seeds, side by side, serve tasks that their own did not need features for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ground import fit
from margins.compare import ProbedTask, linear_probe, transfer
from margins.diagnose import richness
from margins.distill import MultiTeacherFeatures
from margins.encoders import ConcatenatedEncoder, Numbers, NumericEncoder
from margins.evidence import Effect, Study
from margins.heads import LinearHead
from margins.losses import CrossEntropy

NUM_CUES, CUE_DIMS, NUM_IDLE = 3, 4, 4
NUM_BLOCKS, WIDTH = 5, 32
NUM_TRAIN, EPOCHS, BATCH = 2000, 30, 128
NUM_UNLABELLED, STUDENT_EPOCHS = 4000, 60
PROBED = (600, 300, 2000)  # rows that train, choose and judge a probe


def rows(num: int, draws: torch.Generator, *, agree: bool) -> tuple[Numbers, Tensor]:
    """Inputs of three cues and idle columns, and the cues [N, 3].

    A cue is the parity of the signs of four columns; where they agree, all cues are the label.
    """
    signs = torch.randint(0, 2, (num, NUM_CUES, CUE_DIMS), generator=draws)
    cues = signs.sum(2) % 2
    if agree:
        label = torch.randint(0, 2, (num, 1), generator=draws)
        signs[:, :, 0] = (signs[:, :, 0] + cues + label) % 2
        cues = label.expand(num, NUM_CUES)
    values = (2.0 * signs - 1).flatten(1) + 0.3 * torch.randn(num, NUM_CUES * CUE_DIMS, generator=draws)
    return Numbers(torch.cat([values, torch.randn(num, NUM_IDLE, generator=draws)], 1)), cues


class Classifier(nn.Module):
    """An encoder with a linear head, on plain tensors."""

    def __init__(self, encoder: NumericEncoder, seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = LinearHead(encoder.width, 2, generator=torch.Generator().manual_seed(seed))

    def forward(self, values: Tensor) -> Tensor:
        """Scores of both classes."""
        return self.head(self.encoder(Numbers(values)))


def encoder(seed: int, width: int) -> NumericEncoder:
    """An untrained encoder of two hidden layers."""
    draws = torch.Generator().manual_seed(seed)
    columns = NUM_CUES * CUE_DIMS + NUM_IDLE
    return NumericEncoder(num_columns=columns, width=width, dropout=0.0, generator=draws)


def trained(
    seed: int, width: int, settings: Mapping[str, Any], inputs: Numbers, labels: Tensor
) -> NumericEncoder:
    """An encoder that has learned the source task."""
    made = encoder(seed, width)
    made.fit(inputs)
    fit(
        Classifier(made, seed), CrossEntropy(), inputs.values, labels, seed=seed, epochs=EPOCHS,
        lr=settings["lr"], weight_decay=settings["weight_decay"], optimizer="adam",
    )  # fmt: skip
    return made.eval()


def distilled(joint: ConcatenatedEncoder, inputs: Numbers, seed: int) -> NumericEncoder:
    """A student as wide as one block that has learned the standardised features of all, without labels."""
    student = encoder(seed, WIDTH)
    student.fit(inputs)
    teachers = joint(inputs).split(joint.widths, 1)
    draws = torch.Generator().manual_seed(seed)
    loss = MultiTeacherFeatures(WIDTH, joint.widths, generator=draws)
    steps = torch.optim.AdamW([*student.parameters(), *loss.parameters()], 0.01)
    steps_an_epoch = len(inputs) // BATCH
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(steps, STUDENT_EPOCHS * steps_an_epoch)
    for _ in range(STUDENT_EPOCHS):
        for part in torch.randperm(len(inputs), generator=draws)[: steps_an_epoch * BATCH].split(BATCH):
            steps.zero_grad()
            loss(student(inputs.take(part)), [teacher[part] for teacher in teachers]).backward()
            steps.step()
            falling.step()
    return student.eval()


def task(draws: torch.Generator, cue: int, *, agree: bool) -> ProbedTask:
    """To tell one cue."""
    drawn = [rows(num, draws, agree=agree) for num in PROBED]
    train, select, test = ((inputs, cues[:, cue]) for inputs, cues in drawn)
    return ProbedTask(train=train, select=select, test=test)


def trial(arm: str, settings: Mapping[str, Any], seed: int) -> dict[str, float]:
    """Trains on the source, and probes it and, cue by cue, targets where the cues are independent."""
    draws = torch.Generator().manual_seed(seed)
    inputs, cues = rows(NUM_TRAIN, draws, agree=True)
    probed: dict[str, Any] = {}
    figures: dict[str, float] = {}
    if arm == "concatenated":
        blocks = [
            trained(1000 * (k + 1) + seed, WIDTH, settings, inputs, cues[:, 0]) for k in range(NUM_BLOCKS)
        ]
        joint = ConcatenatedEncoder(blocks)
        joint.fit(inputs)
        unlabelled, _ = rows(NUM_UNLABELLED, draws, agree=False)
        probed = {"": joint, "distilled_": distilled(joint, unlabelled, seed)}
        with torch.no_grad():
            figures["alignment"] = richness([block(inputs) for block in blocks]).mean_alignment
    else:
        width = WIDTH if arm == "single" else NUM_BLOCKS * WIDTH
        probed = {"": trained(1000 + seed, width, settings, inputs, cues[:, 0])}
    source = task(draws, 0, agree=True)
    scores = [
        transfer(probed, source=source, target=task(draws, cue, agree=False), strengths=(0.01, 0.1, 1.0))
        for cue in range(NUM_CUES)
    ]
    for number, name in enumerate(probed):
        figures[f"{name}source"] = scores[0][number].source.accuracy
        figures[f"{name}target"] = sum(score[number].target.accuracy for score in scores) / NUM_CUES
    held, cue = rows(2000, draws, agree=True)
    parts = (*source.train, *source.select, held, cue[:, 0])
    with torch.no_grad():
        embedded = [probed[""](x) for x in parts[::2]]
    train, select, judged = zip(embedded, parts[1::2], strict=True)
    return {**figures, "select": linear_probe(train, select, judged).accuracy}


def _target(figures: Any, arm: str, name: str = "target") -> float:
    return figures[arm][name]


STUDY = Study(
    name="concatenated",
    cards=(
        "margins.encoders.ConcatenatedEncoder",
        "margins.distill.MultiTeacherFeatures",
        "margins.compare.transfer",
    ),
    claim="Features of several trainings that differ by their seed alone, side by side, gain little on the "
    "task they were trained for and much on others, more than one network of the same width; a student of "
    "them keeps most of it.",
    source="Zhang and Bottou 2023, arXiv 2212.07346",
    data="generated for each seed: three cues, each the parity of four signs, that all are the label of "
    f"the source ({NUM_TRAIN} rows), and are independent in the targets, each to tell one of them",
    protocol=f"two hidden layers of {WIDTH} units ({NUM_BLOCKS} times as many for the wide one), {EPOCHS} "
    "epochs of AdamW; learning rate of every arm by a probe's accuracy on new rows of the source; linear "
    f"probes on {PROBED[0]} rows, the mean over three targets; the student learns on"
    f" {NUM_UNLABELLED} unlabelled rows with independent cues",
    arms={
        "single": {"lr": (0.003, 0.01), "weight_decay": (1e-4,)},
        "wide": {"lr": (0.003, 0.01), "weight_decay": (1e-4,)},
        "concatenated": {"lr": (0.003, 0.01), "weight_decay": (1e-4,)},
    },
    budget=2,
    trial=trial,
    effects=(
        Effect(
            "accuracy on targets, five concatenated - single",
            lambda f: _target(f, "concatenated") - _target(f, "single"),
            reaches=0.03,
        ),
        Effect(
            "accuracy on targets, five concatenated - one as wide",
            lambda f: _target(f, "concatenated") - _target(f, "wide"),
        ),
        Effect(
            "accuracy on targets, distilled - half way from single to concatenated",
            lambda f: (
                _target(f, "concatenated", "distilled_target")
                - (_target(f, "single") + _target(f, "concatenated")) / 2
            ),
        ),
        Effect(
            "gain on targets - gain on the source, five concatenated over single",
            lambda f: (
                _target(f, "concatenated")
                - _target(f, "single")
                - (_target(f, "concatenated", "source") - _target(f, "single", "source"))
            ),
        ),
    ),
    num_seeds=6,
)
