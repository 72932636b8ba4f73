"""The gradient of a spherical layer's weights, never written out: W K + 1 r' + what listed classes get."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


class LayerGradient:
    """The gradient by W [C, w] of everything that was differentiated since it was last cleared.

    With inputs H, upstream gradients a of sums of squares and b of sums, and those of listed scores, it is
    W K + 1 r' + Y: K = H' diag(2 a) H is [w, w], r = H' b is [w], and Y has a row only for listed classes.

    Args:
        width: w.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self.curvature: Float[Tensor, "width width"] | None = None
        self.lift: Float[Tensor, " width"] | None = None
        self._columns: list[Tensor] = []
        self._rows: list[Tensor] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing was differentiated."""
        return self.curvature is None and not self._columns

    def clear(self) -> None:
        """Forgets everything."""
        self.curvature = self.lift = None
        self._columns, self._rows = [], []

    def add_moments(self, inputs: Float[Tensor, "n width"], of_sums: Tensor, of_squares: Tensor) -> None:
        """Takes in the upstream gradients [n] of the sums and the sums of squares of some rows."""
        curvature, lift = inputs.T @ (2 * of_squares[:, None] * inputs), of_sums @ inputs
        self.curvature = curvature if self.curvature is None else self.curvature + curvature
        self.lift = lift if self.lift is None else self.lift + lift

    def add_listed(self, columns: Int[Tensor, " n"], rows: Float[Tensor, "n width"]) -> None:
        """Takes in rows of the gradient of listed classes; a class may come more than once."""
        self._columns.append(columns)
        self._rows.append(rows)

    def scale(self, factor: Tensor | float) -> None:
        """Multiplies the gradient."""
        if self.curvature is not None and self.lift is not None:
            self.curvature, self.lift = self.curvature * factor, self.lift * factor
        self._rows = [rows * factor for rows in self._rows]

    def shared(self, like: Tensor) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"]]:
        """K and r; zeros where no sum was differentiated."""
        if self.curvature is None or self.lift is None:
            return like.new_zeros(self._width, self._width), like.new_zeros(self._width)
        return self.curvature, self.lift

    def listed(self, like: Tensor) -> tuple[Int[Tensor, " n"], Float[Tensor, "n width"]]:
        """The listed classes, each once, and the rows of Y."""
        if not self._columns:
            return like.new_zeros(0, dtype=torch.long), like.new_zeros(0, self._width)
        columns, place = torch.unique(torch.cat(self._columns), return_inverse=True)
        rows = torch.cat(self._rows)
        return columns, rows.new_zeros(len(columns), self._width).index_add(0, place, rows)
