"""A linear layer under losses of the sum of scores, their squares and a few listed ones, slowly.

`Dense` takes every step of gradient descent on all of W. `Factored` holds W = V U + 1 w' and takes the
same steps by the rules of Vincent, de Brebisson and Bouthillier 2015 (arXiv 1412.7091), with U's inverse kept
beside it and the Gram matrix of the output's gradients written out. Loops, float64.
"""

from __future__ import annotations

import numpy as np

Listed = list[tuple[int, int, float]]
"""Row, column and upstream gradient of each listed score; an entry may be listed more than once."""


def forward(
    weight: np.ndarray, inputs: np.ndarray, listed: Listed
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Listed scores, sums and sums of squares of the scores of each row."""
    num_rows, num_classes = len(inputs), len(weight)
    chosen = np.array([float(weight[c] @ inputs[i]) for i, c, _ in listed])
    sums, squares = np.zeros(num_rows), np.zeros(num_rows)
    for i in range(num_rows):
        for c in range(num_classes):
            score = float(weight[c] @ inputs[i])
            sums[i] += score
            squares[i] += score * score
    return chosen, sums, squares


def gradients(
    weight: np.ndarray, inputs: np.ndarray, listed: Listed, of_sums: np.ndarray, of_squares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients by the inputs and by the weight, one score after the other."""
    by_inputs, by_weight = np.zeros_like(inputs), np.zeros_like(weight)
    for i in range(len(inputs)):
        for c in range(len(weight)):
            score = float(weight[c] @ inputs[i])
            upstream = of_sums[i] + 2 * of_squares[i] * score
            upstream += sum(g for row, column, g in listed if (row, column) == (i, c))
            by_inputs[i] += upstream * weight[c]
            by_weight[c] += upstream * inputs[i]
    return by_inputs, by_weight


class Dense:
    """The layer with all its weights."""

    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight.astype(np.float64).copy()

    def step(
        self,
        inputs: np.ndarray,
        listed: Listed,
        of_sums: np.ndarray,
        of_squares: np.ndarray,
        *,
        rate: float,
        decay: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """One step; returns the gradient by the inputs, before it. `decay` is one number or one a column."""
        by_inputs, by_weight = gradients(self.weight, inputs, listed, of_sums, of_squares)
        self.weight = self.weight - rate * (by_weight + decay * self.weight)
        return by_inputs


class Factored:
    """W = V U + 1 w', with U's inverse, Q = W'W and the column sums of W."""

    def __init__(self, weight: np.ndarray) -> None:
        self.v = weight.astype(np.float64).copy()
        width = weight.shape[1]
        self.u, self.u_inverse, self.omega = np.eye(width), np.eye(width), np.zeros(width)
        self.q, self.total = self.v.T @ self.v, self.v.sum(0)

    @property
    def weight(self) -> np.ndarray:
        """The dense weights."""
        return self.v @ self.u + self.omega

    def forward(self, inputs: np.ndarray, listed: Listed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Listed scores, sums and sums of squares."""
        chosen = np.zeros(len(listed))
        for k, (i, c, _) in enumerate(listed):
            chosen[k] = self.v[c] @ (self.u @ inputs[i]) + inputs[i] @ self.omega
        sums = np.array([x @ self.total for x in inputs])
        squares = np.array([x @ self.q @ x for x in inputs])
        return chosen, sums, squares

    def step(
        self,
        inputs: np.ndarray,
        listed: Listed,
        of_sums: np.ndarray,
        of_squares: np.ndarray,
        *,
        rate: float,
        decay: float = 0.0,
    ) -> np.ndarray:
        """One step; returns the gradient by the inputs, before it."""
        num_rows, num_classes = len(inputs), len(self.v)
        doubled = 2 * of_squares[:, None]
        through_q = inputs @ self.q
        of_listed = np.zeros((num_classes, num_rows))  # Y
        for i, c, upstream in listed:
            of_listed[c, i] += upstream
        row_sums = of_listed.sum(0)
        z = (of_listed.T @ self.v) @ self.u + np.outer(row_sums, self.omega) + np.outer(of_sums, self.total)
        by_inputs = doubled * through_q + z
        g = doubled * inputs
        m = doubled * (inputs @ through_q.T) * doubled.T + num_classes * np.outer(of_sums, of_sums)
        m += of_listed.T @ of_listed + np.outer(of_sums, row_sums) + np.outer(row_sums, of_sums)
        m += g @ z.T + z @ g.T
        # The entry gives the steps without decay; with it W shrinks first, and the gradient is W's before.
        keep = 1 - rate * decay
        rate = rate / keep
        self.q = self.q - rate * (by_inputs.T @ inputs + inputs.T @ by_inputs)
        self.q += rate**2 * (inputs.T @ m @ inputs)
        self.total = self.total - rate * inputs.T @ (
            doubled[:, 0] * (inputs @ self.total) + num_classes * of_sums + row_sums
        )
        self.omega = self.omega - rate * inputs.T @ (doubled[:, 0] * (inputs @ self.omega) + of_sums)
        self.u = self.u - rate * (inputs @ self.u.T).T @ g
        inner = np.linalg.inv(np.eye(num_rows) - rate * g @ inputs.T)
        self.u_inverse = self.u_inverse + rate * inputs.T @ inner @ g @ self.u_inverse
        for i, c, upstream in listed:
            self.v[c] -= rate * upstream * (inputs[i] @ self.u_inverse)
        self._shrink(keep)
        return by_inputs

    def _shrink(self, factor: float) -> None:
        """L2 decay: W times a number."""
        self.u, self.u_inverse, self.omega = self.u * factor, self.u_inverse / factor, self.omega * factor
        self.q, self.total = self.q * factor**2, self.total * factor
