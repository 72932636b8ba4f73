"""Attention of labels, of slots and of sets, item by item, and the losses that go with it."""

import math

import numpy as np

from reference.rows import read_rows, sigmoid, softplus


def label_attention(states, known, w1, b1, w2, b2, out_weight, out_bias):
    """logit_l = w_l . V_l + b_l, V = A E, A = softmax over tokens of W2 tanh(W1 E + b1) + b2; one document.

    states (S, d), known (S,). Returns logits (L,) and attention (L, S), zero at unknown tokens; a document
    without tokens has V = 0.
    """
    energies = []
    for state in states:
        inner = [math.tanh(x) for x in _affine(w1, b1, state)]
        energies.append(_affine(w2, b2, inner))
    return _label_logits(states, known, energies, out_weight, out_bias)


def label_embedding_attention(states, known, u, embeddings, out_weight, out_bias):
    """As ``label_attention`` with A = softmax over tokens of tanh(U E) . e_l, e_l the label's embedding."""
    energies = []
    for state in states:
        inner = [math.tanh(x) for x in _affine(u, None, state)]
        energies.append([_dot(e, inner) for e in embeddings])
    return _label_logits(states, known, energies, out_weight, out_bias)


def _label_logits(states, known, energies, out_weight, out_bias):
    logits, attention = [], []
    for label in range(len(out_weight)):
        a = masked_softmax([row[label] for row in energies], known)
        v = [
            math.fsum(x * float(s[k]) for x, s in zip(a, states, strict=True)) for k in range(len(states[0]))
        ]
        logits.append(_dot(out_weight[label], v) + float(out_bias[label]))
        attention.append(a)
    return logits, attention


def ldam_margins(counts, *, strength=3.0):
    """strength / n_l^(1/4), and strength itself for a label without a positive."""
    return [strength / max(float(n), 1.0) ** 0.25 for n in counts]


def multi_label_ldam(scores, target, known, weight, margin, *, counts, strength=3.0):
    """sum over known j of w_j (softplus(z_j) - t_j z_j), z_j = s_j - t_j margin_j of ``ldam_margins``."""
    shifts = ldam_margins(counts, strength=strength)
    values = []
    for row in read_rows(scores, target, known, weight, margin):
        total = []
        for e in row:
            z = e.score - e.target * shifts[e.index]
            total.append(e.weight * (softplus(z) - e.target * z))
        values.append(math.fsum(total))
    return values


def slot_attention_step(tokens, slots, w_key, w_value, w_query, gru, *, norms=None):
    """One step: attention over slots, its mean of the values over tokens, a GRU from the old slots.

    k = W_k LN(X) / sqrt(d), v = W_v LN(X), q = W_q LN(slots); a_ns = softmax over slots of k_n . q_s, plus
    1e-8, divided by its sum over the tokens; update_s = sum_n a_ns v_n; slot_s = GRU(update_s, slot_s). No
    biases in W. d is the width of the slots. ``gru`` is (W_ih, W_hh, b_ih, b_hh), gates r, z, n. ``norms``
    may give ((gain, bias) of the tokens', (gain, bias) of the slots' LayerNorm). Returns new slots (S, d), a
    (N, S).
    """
    norms = ((None, None), (None, None)) if norms is None else norms
    size = len(slots[0])
    normal = [layer_norm(x, *norms[0]) for x in tokens]
    keys = [[x / math.sqrt(size) for x in _affine(w_key, None, n)] for n in normal]
    values = [_affine(w_value, None, n) for n in normal]
    queries = [_affine(w_query, None, layer_norm(s, *norms[1])) for s in slots]
    attention = []
    for key in keys:
        row = masked_softmax([_dot(key, query) for query in queries], [True] * len(slots))
        attention.append([x + 1e-8 for x in row])
    sums = [math.fsum(column) for column in zip(*attention, strict=True)]
    attention = [[x / s for x, s in zip(row, sums, strict=True)] for row in attention]
    updated = []
    for s, slot in enumerate(slots):
        update = [
            math.fsum(row[s] * value[k] for row, value in zip(attention, values, strict=True))
            for k in range(len(values[0]))
        ]
        updated.append(gru_cell(update, slot, *gru))
    return updated, attention


def gru_cell(x, hidden, w_input, w_hidden, b_input, b_hidden):
    """h' = (1 - z) n + z h, n = tanh(in + r hn): gates r, z, n; hn = W_hn h + b_hn stands under r."""
    size = len(hidden)
    inner, outer = _affine(w_input, b_input, x), _affine(w_hidden, b_hidden, hidden)
    out = []
    for k in range(size):
        r, z = sigmoid(inner[k] + outer[k]), sigmoid(inner[size + k] + outer[size + k])
        n = math.tanh(inner[2 * size + k] + r * outer[2 * size + k])
        out.append((1.0 - z) * n + z * float(hidden[k]))
    return out


def layer_norm(x, gain=None, bias=None, *, guard=1e-5):
    """(x - mean) / sqrt(population variance + guard) * gain + bias."""
    x = [float(v) for v in x]
    mean = math.fsum(x) / len(x)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x) + guard)
    gain = [1.0] * len(x) if gain is None else gain
    bias = [0.0] * len(x) if bias is None else bias
    return [(v - mean) / spread * float(g) + float(b) for v, g, b in zip(x, gain, bias, strict=True)]


def cross_attention(tokens, slots, w_query, w_key, w_value, w_out, *, num_heads, biases=None):
    """logits_n = W_out [heads' sums of a_ns v_s] + b: attention of every token over the slots.

    Head h takes coordinates h d/H .. (h+1) d/H of the projections; a = softmax over slots of
    q . k / sqrt(d/H). Returns logits (N, K) and the attribution (N, S), the mean of a over the heads.
    ``biases`` may give those of query, key, value and output.
    """
    biases = (None,) * 4 if biases is None else biases
    keys, values = ([_affine(w, b, s) for s in slots] for w, b in ((w_key, biases[1]), (w_value, biases[2])))
    width = len(keys[0]) // num_heads
    logits, attribution = [], []
    for token in tokens:
        query = _affine(w_query, biases[0], token)
        joined, shares = [], [0.0] * len(slots)
        for h in range(num_heads):
            part = slice(h * width, (h + 1) * width)
            energies = [_dot(query[part], key[part]) / math.sqrt(width) for key in keys]
            a = masked_softmax(energies, [True] * len(slots))
            shares = [x + y / num_heads for x, y in zip(shares, a, strict=True)]
            heads = [value[part] for value in values]
            joined += [math.fsum(x * v[k] for x, v in zip(a, heads, strict=True)) for k in range(width)]
        logits.append(_affine(w_out, biases[3], joined))
        attribution.append(shares)
    return logits, attribution


def explanation_loss(attribution, concepts):
    """S * mean over the valid rows and the S concepts of (a - c / sum c)^2; rows (..., S).

    A row of ``concepts`` with a NaN, or without any concept (0/0), is not valid; no valid row gives 0.
    """
    attribution, concepts = np.asarray(attribution, dtype=np.float64), np.asarray(concepts, dtype=np.float64)
    num_slots = attribution.shape[-1]
    terms = []
    pairs = zip(attribution.reshape(-1, num_slots), concepts.reshape(-1, num_slots), strict=True)
    for a, c in pairs:
        whole = math.fsum(float(x) for x in c)
        if not math.isnan(whole) and whole != 0.0:
            terms += [(float(x) - float(y) / whole) ** 2 for x, y in zip(a, c, strict=True)]
    return num_slots * math.fsum(terms) / len(terms) if terms else 0.0


def attribution_entropy(attribution, *, guard=1e-8):
    """Mean over all entries of -a log(a + guard)."""
    flat = [float(a) for a in np.asarray(attribution, dtype=np.float64).ravel()]
    return -math.fsum(a * math.log(a + guard) for a in flat) / len(flat)


def gated_attention_pool(items, v, u, w, *, known=None):
    """sum_i a_i e_i, a = softmax_i(w . (tanh(V e_i) * sigmoid(U e_i))) over the known items: (pooled, a)."""
    energies = []
    for e in items:
        gated = zip(_affine(v, None, e), _affine(u, None, e), strict=True)
        energies.append(_dot(w, [math.tanh(a) * sigmoid(b) for a, b in gated]))
    return _pooled(items, energies, known)


def attention_pool(items, w, *, known=None):
    """sum_i a_i e_i, a = softmax_i(w . e_i) over the known items: (pooled, a)."""
    return _pooled(items, [_dot(w, e) for e in items], known)


def _pooled(items, energies, known):
    a = masked_softmax(energies, [True] * len(energies) if known is None else known)
    size = len(items[0])
    return [math.fsum(x * float(e[k]) for x, e in zip(a, items, strict=True)) for k in range(size)], a


def masked_softmax(energies, known):
    """exp(e) over its sum among the known; 0 for the others, and everywhere if none is known."""
    chosen = [e for e, k in zip(energies, known, strict=True) if k]
    if not chosen:
        return [0.0] * len(energies)
    top = max(chosen)
    raw = [math.exp(e - top) if k else 0.0 for e, k in zip(energies, known, strict=True)]
    return [x / math.fsum(raw) for x in raw]


def _dot(a, b):
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def _affine(w, b, x):
    b = [0.0] * len(w) if b is None else b
    return [_dot(row, x) + float(c) for row, c in zip(w, b, strict=True)]
