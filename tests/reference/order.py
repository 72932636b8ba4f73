"""Sets told in some order: the probability of a set by brute force, and pooling by a recurrent reader.

``step`` is a function of the frozenset of labels already emitted; it gives a mapping (or list) from label to
the probability that it comes next. ``stop``, where given, is the key of the end in that mapping.
"""

import math

import numpy as np

from reference.rows import sigmoid


def orders(labels):
    """All permutations of the labels, as tuples."""
    labels = list(labels)
    if not labels:
        return [()]
    found = []
    for n, first in enumerate(labels):
        found += [(first, *rest) for rest in orders(labels[:n] + labels[n + 1 :])]
    return found


def order_loss(step, order, *, stop=None):
    """-sum_t log P(order_t | the set before it), less log P(stop | the whole set) where there is a stop."""
    total, emitted = [], frozenset()
    for label in order:
        total.append(-math.log(step(emitted)[label]))
        emitted = emitted | {label}
    if stop is not None:
        total.append(-math.log(step(emitted)[stop]))
    return math.fsum(total)


def exact_order_loss(step, labels, *, stop=None):
    """-log sum over all orders of exp(-order_loss)."""
    return -math.log(math.fsum(math.exp(-order_loss(step, order, stop=stop)) for order in orders(labels)))


def sampled_order_probability(step, order):
    """Probability of the order when each step draws among the REMAINING labels in proportion to P.

    That is prod_t P(order_t | before) / sum over remaining l of P(l | before): in general not proportional to
    P(order), whose steps do not renormalise.
    """
    value, emitted, remaining = 1.0, frozenset(), list(order)
    for label in order:
        p = step(emitted)
        value *= p[label] / math.fsum(p[other] for other in remaining)
        emitted = emitted | {label}
        remaining.remove(label)
    return value


def order_posterior(step, order, *, stop=None):
    """P(order) / sum over all orders of the same labels of P."""
    return math.exp(exact_order_loss(step, order, stop=stop) - order_loss(step, order, stop=stop))


def greedy_order(step, labels):
    """At each step the remaining label of highest probability, ties to the earlier one in ``labels``."""
    remaining, emitted, found = list(labels), frozenset(), []
    while remaining:
        p = step(emitted)
        best = max(remaining, key=lambda label, p=p: p[label])
        found.append(best)
        remaining.remove(best)
        emitted = emitted | {best}
    return tuple(found)


def best_order(step, labels):
    """The order of highest probability, by trying all (ties to the first in the order of ``orders``)."""
    return min(orders(labels), key=lambda order: order_loss(step, order))


def lstm_cell(x, hidden, cell, w_input, w_hidden, b_input, b_hidden):
    """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'): returns (h', c').

    Gates W_ih x + b_ih + W_hh h + b_hh in the order i, f, g, o, each as long as h.
    """
    size = len(hidden)
    gates = []
    for r in range(4 * size):
        total = float(b_input[r]) + float(b_hidden[r])
        total += math.fsum(float(w) * float(v) for w, v in zip(w_input[r], x, strict=True))
        total += math.fsum(float(w) * float(v) for w, v in zip(w_hidden[r], hidden, strict=True))
        gates.append(total)
    new_hidden, new_cell = [], []
    for k in range(size):
        i, f, g, o = (gates[k + part * size] for part in range(4))
        c = sigmoid(f) * float(cell[k]) + sigmoid(i) * math.tanh(g)
        new_cell.append(c)
        new_hidden.append(sigmoid(o) * math.tanh(c))
    return new_hidden, new_cell


def set2set(memories, w_input, w_hidden, b_input, b_hidden, *, steps, known=None):
    """q_t = LSTM(q*_{t-1}), a = softmax_i(m_i . q_t), r_t = sum a_i m_i, q*_t = [q_t; r_t]; returns q*_T.

    The LSTM's input is q* (2d), its state (h, c) of size d is its own; all start at 0. steps = 0 gives zeros.
    Items not known are not there; a set without items has r = 0.
    """
    memories = np.asarray(memories, dtype=np.float64)
    size = memories.shape[1]
    items = [m for i, m in enumerate(memories) if known is None or known[i]]
    query, hidden, cell = [0.0] * (2 * size), [0.0] * size, [0.0] * size
    for _ in range(steps):
        hidden, cell = lstm_cell(query, hidden, cell, w_input, w_hidden, b_input, b_hidden)
        energies = [math.fsum(float(a) * b for a, b in zip(m, hidden, strict=True)) for m in items]
        top = max(energies, default=0.0)
        raw = [math.exp(e - top) for e in energies]
        read = [
            math.fsum(a * float(m[k]) for a, m in zip(raw, items, strict=True)) / (math.fsum(raw) or 1.0)
            for k in range(size)
        ]
        query = [*hidden, *read]
    return query
