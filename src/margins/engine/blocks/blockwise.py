"""The blockwise evaluator: scores are made block by block, and again in backward; none are kept.

Memory beyond inputs and their gradients is that of a few blocks. Value and gradient equal the dense ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from margins.engine.blocks.layout import Layout, tensors_with_gradient
from margins.engine.blocks.plan import BlockPlan, planned
from margins.engine.blocks.scaling import unit_once
from margins.engine.blocks.scan import Blocks, Scan, ScanJob
from margins.engine.blocks.whole_rows import summed
from margins.engine.evaluators import Evaluator, Pass, SumOfRows
from margins.engine.score_rules import Cosine, Dot, as_product, pairs_are_finer
from margins.engine.sources import Factored, Source
from margins.engine.statistics import Program, Statistic
from margins.errors import MarginsError, values_are_readable
from margins.targets import Positives, Targets

_OF_A_BATCH = 4  # up to so many candidates an anchor are taken for items of a batch


@dataclass(frozen=True)
class Blockwise(Evaluator):
    """Scores made in blocks from embeddings and candidates, recomputed in backward.

    A block is `row_block_size` anchors times `block_size` candidates. Left out, the sizes follow the
    processor's cache; `plan` tells them, and the memory they take, before anything is allocated.

    Args:
        block_size: candidates a block, at least 1; None chooses.
        row_block_size: anchors a block, at least 1; None chooses.
        keep_bytes: scores that take no more than this are kept for later stages and for backward instead of
            being made again, under rules that are inner products. None: 16 MiB, or 0 where a size is given;
            and where a batch is large and its vectors are long, the scores of some whole rows at a time.

    Example:
        >>> plan = Blockwise().plan(256, 1_000_000, 128)
        >>> plan.bytes < 32 * 2**20
        True
    """

    block_size: int | None = None
    row_block_size: int | None = None
    keep_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in ("block_size", "row_block_size"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise MarginsError(name, expected="at least 1, or None", received=str(size))
        if self.keep_bytes is not None and self.keep_bytes < 0:
            raise MarginsError("keep_bytes", expected="at least 0, or None", received=str(self.keep_bytes))

    def plan(
        self,
        num_anchors: int,
        num_candidates: int,
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> BlockPlan:
        """The blocks that would be made, and the memory that they would take.

        Args:
            num_anchors: B.
            num_candidates: C.
            dim: length of an embedding.
            dtype: in which scores are computed.
            device: where.

        Raises:
            MarginsError: a block of the sizes asked for does not fit the free memory.
        """
        return planned(
            num_anchors, num_candidates, dim, dtype=dtype, device=torch.device(device),
            block_size=self.block_size, row_block_size=self.row_block_size, keep_bytes=self.keep_bytes,
        )  # fmt: skip

    def start(self, program: Program, here: Pass) -> Pass:
        """The vectors of a batch are scaled once, not in every block.

        Very many candidates are scaled block by block instead, which keeps no copy of them.
        """
        if isinstance(here.source, Factored):
            here.source = _scaled(here.source)
        return super().start(program, here)

    def takes_half(self, source: Factored) -> bool:
        """Products do, where nothing else reads the vectors."""
        return as_product(source.rule) is not None and not pairs_are_finer(source.rule)

    def whole_rows(self, source: Source, targets: Targets) -> SumOfRows | None:
        """Some whole rows at a time, as the plan says, for products that need a gradient."""
        if not isinstance(source, Factored) or as_product(source.rule) is None or not torch.is_grad_enabled():
            return None
        learns = source.embeddings.requires_grad or source.candidates.requires_grad
        rows = self._plan_of(source, targets).rows_at_once
        if rows is None or not learns or tensors_with_gradient(targets):
            return None
        inner = Blockwise(keep_bytes=rows * source.shape[1] * source.like.element_size())
        scaled = _scaled(source)
        own = scaled if self.takes_half(scaled) else scaled.widened()
        return lambda value_of, side: summed(value_of, inner, own, targets, side, rows)

    def listing(self, targets: Targets) -> Positives | None:
        """Also matches by label are listed, where they are rare."""
        return targets.few_positives()

    def scan(self, statistics: tuple[Statistic, ...], here: Pass) -> list[Float[Tensor, " anchors"]]:
        """The statistics, accumulated over blocks; the listed positives' scores are read off on the way."""
        source = here.source
        if not isinstance(source, Factored):
            raise MarginsError(
                "evaluator",
                expected="embeddings and candidates for the blockwise evaluator",
                received="a matrix of scores",
                fix="call loss.on_candidates(...) or loss.on_embeddings(...), or use Dense()",
            )
        layout, tensors = Layout.of(source, here)
        like, learns = source.like, torch.is_grad_enabled()
        reads = here.listing is not None and here.listed_scores is None and not pairs_are_finer(source.rule)
        if here.prepared is None:  # the same for every stage
            here.prepared = Blocks.of(self._plan_of(source, here.targets), here.targets, here.listing)
        job = ScanJob(statistics, layout, here.prepared, here.listing, reads)
        outside = layout.outside_tensors(job.statistics, tensors) if learns else ()
        *found, listed = Scan.apply(job, *tensors, *outside)  # pyright: ignore[reportGeneralTypeIssues]
        if reads and (learns or not any(t.requires_grad for t in tensors)):
            here.listed_scores = listed
        _check(found, like)
        return found

    def _plan_of(self, source: Factored, targets: Targets) -> BlockPlan:
        (num_anchors, num_candidates), like = source.shape, source.like

        def plan(sizes: Blockwise) -> BlockPlan:
            dim = source.embeddings.shape[1]
            return sizes.plan(num_anchors, num_candidates, dim, dtype=like.dtype, device=like.device)

        chosen = plan(self)
        if chosen.rows < num_anchors and tensors_with_gradient(targets):
            # Gradients are brought back to the tensors of whole targets: their rows are not cut.
            columns = max(1, chosen.rows * chosen.columns // num_anchors)
            return plan(Blockwise(self.block_size or columns, num_anchors, self.keep_bytes))
        return chosen


def _scaled(source: Factored) -> Factored:
    """Cosines of a batch as products of vectors that are scaled once."""
    own, others = source.embeddings, source.candidates
    if not isinstance(source.rule, Cosine) or others.shape[0] > _OF_A_BATCH * own.shape[0]:
        return source
    scaled = unit_once(own)
    return Factored(Dot(), scaled, scaled if others is own else unit_once(others), source.bias)


def _check(found: list[Tensor], like: Tensor) -> None:
    """Scores may overflow though what they are made of is finite; then a statistic shows it."""
    for values in found:
        if values_are_readable(like) and bool(values.isnan().any()):
            row = int(values.isnan().nonzero()[0, 0])
            raise MarginsError(
                "scores", expected="finite numbers", received=f"scores that are not, in row {row}",
                fix="embeddings or candidates are too large: look at their norms",
            )  # fmt: skip
