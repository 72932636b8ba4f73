"""The page on speed, from benchmarks/results.csv: the latest row of each case, in tables and drawn."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.csv"
Row = dict[str, str]
Bar = tuple[str, float | None, str]
MACHINE = "machine"
_LABEL, _PLOT, _RIGHT, _LINE, _HEAD = 210, 330, 130, 22, 30


def drawn() -> str:
    """How many times over the machine's limit each contender is, drawn for each device."""
    return "\n\n".join(
        f"{heading}{drawing(cases)}"
        for heading, rows in _by_device(latest(read()))
        if (cases := _bars([row for row in rows if row["machine_limit_ms"]]))
    ) or "No case with a limit has been measured yet."  # fmt: skip


def tables() -> str:
    """The figures of every case, a table for each loss."""
    parts: list[str] = []
    for heading, rows in _by_device([row for row in latest(read()) if row["name"] != MACHINE]):
        parts.append(heading.strip())
        for name in dict.fromkeys(row["name"] for row in rows):
            found = [row for row in rows if row["name"] == name]
            commits = dict.fromkeys(f"`{row['commit']}`" for row in found)
            parts.append(f"**{name}**, commit {', '.join(commits)}")
            parts.append(_table_of(found))
    return "\n\n".join(['<div class="speed-tables" markdown>', *parts, "</div>"])


def machine() -> str:
    """What the machine can do."""
    rows = [row for row in latest(read()) if row["name"] == MACHINE]
    cells = [
        [row["size"], f"{_short(float(row['rate']))} {row['rate_of']}", row["device"], f"`{row['commit']}`"]
        for row in rows
    ]
    return _table(["what", "rate", "machine", "commit"], cells) if rows else "Not measured yet."


def on_cuda() -> str:
    """Whether anything was measured on CUDA."""
    devices = dict.fromkeys(row["device"] for row in read() if "nvidia" in row["device"].lower())
    if devices:
        return f"Measured on {', '.join(devices)}; see its tables."
    return (
        "**Speed on CUDA is unmeasured.** Everything here was measured on processors: no figure of this page "
        "speaks of a graphics card, where the fused kernels of Liger and cut cross-entropy exist."
    )


def read() -> list[Row]:
    """All rows of the results; columns that a row does not have are empty."""
    path = Path(os.environ.get("BENCHMARK_RESULTS", RESULTS))
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, restval=""))
    wanted = (
        "machine_limit_ms",
        "ours_times_limit",
        "peer_times_limit",
        "gradients_mib",
        "peer_version",
        "note",
    )
    return [dict.fromkeys((*wanted, "rate", "rate_of", "peer_runs"), "") | row for row in rows]


def latest(rows: Sequence[Row]) -> list[Row]:
    """The rows of the last measurement of each case on each device, in the order of the file.

    A peer that the last measurement did not have is gone with the older rows.
    """
    last: dict[tuple[str, ...], str] = {}
    for row in rows:
        case = (row["device"], row["name"], row["size"])
        last[case] = max(last.get(case, ""), row["date"])
    return [row for row in rows if row["date"] == last[row["device"], row["name"], row["size"]]]


def drawing(cases: dict[str, list[Bar]]) -> str:
    """Bars on a logarithmic axis, from the limit at 1 to each value; without a value, words alone."""
    values = [value for bars in cases.values() for _, value, _ in bars if value]
    low, high = axis(values)

    def place(value: float) -> float:
        return _LABEL + _PLOT * (math.log10(value) - low) / (high - low)

    shapes: list[str] = []
    top = _HEAD
    for case, bars in cases.items():
        shapes.append(f'<text x="0" y="{top + 15}" class="case">{escape(case)}</text>')
        top += _LINE
        for name, value, words in bars:
            shapes.append(f'<text x="{_LABEL - 8}" y="{top + 14}" class="who">{escape(name)}</text>')
            left, right = sorted((place(value or 1.0), place(1.0)))
            width = max(right - left, 1.5)
            if value:
                size = f'x="{left:.1f}" y="{top + 3}" width="{width:.1f}" height="{_LINE - 7}"'
                shapes.append(f'<rect {size} class="{"ours" if name == "margins" else "peer"}"/>')
            shapes.append(f'<text x="{left + width + 6:.1f}" y="{top + 14}">{escape(words)}</text>')
            top += _LINE
        top += 8
    total = _LABEL + _PLOT + _RIGHT
    return (
        f'<svg class="speed" viewBox="0 0 {total} {top + 6}" role="img" '
        'aria-label="Times over the limit of the machine, on a logarithmic axis; tables follow">\n'
        + "\n".join([*_grid(low, high, top), *shapes])
        + "\n</svg>"
    )


def axis(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten that hold all values and the limit itself.

    Example:
        >>> axis([3.0, 250.0])
        (0, 3)
        >>> axis([0.2, 1.0])
        (-1, 1)
    """
    low = min([0, *(math.floor(math.log10(value)) for value in values)])
    return low, max([1, *(math.ceil(math.log10(value)) for value in values)])


def _grid(low: int, high: int, bottom: float) -> list[str]:
    """A line and a number for each power of ten; that of the limit is stronger."""
    lines: list[str] = []
    for power in range(low, high + 1):
        x = _LABEL + _PLOT * (power - low) / (high - low)
        kind = "limit" if power == 0 else "grid"
        said = "the limit" if power == 0 else f"{10.0**power:,.15g} ×"
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_HEAD - 8}" y2="{bottom}" class="{kind}"/>')
        lines.append(f'<text x="{x:.1f}" y="{_HEAD - 14}" class="tick">{said}</text>')
    return lines


def _bars(rows: Sequence[Row]) -> dict[str, list[Bar]]:
    """The bars of each case: ours, then the peers."""
    cases: dict[str, list[Bar]] = {}
    names = list(dict.fromkeys(row["name"] for row in rows))
    for row in sorted(rows, key=lambda row: names.index(row["name"])):
        bars = cases.setdefault(f"{row['name']}: {row['size']}", [])
        if not bars:
            bars.append(_bar("margins", row["ours_times_limit"], row["ours_p50"], ""))
        if row["peer"]:
            bars.append(_bar(row["peer"], row["peer_times_limit"], row["peer_p50"], row["note"]))
    return cases


def _bar(name: str, times_limit: str, p50: str, note: str) -> Bar:
    if not times_limit:
        return name, None, note.partition(":")[0] or "not measured"
    return name, float(times_limit), f"{_short(float(times_limit))} ×, {_time(p50)}"


def _table_of(rows: Sequence[Row]) -> str:
    """The figures of one loss: for each size the limit, ours and the others."""
    cells: list[list[str]] = []
    for size in dict.fromkeys(row["size"] for row in rows):
        found = [row for row in rows if row["size"] == size]
        limit = _time(found[0]["machine_limit_ms"])
        cells.append(
            [f"**{size}**{': *the limit*' if limit else ''}", limit, "1 ×" if limit else "", "", "", ""]
        )
        cells.append(["margins", *_figures(found[0], "ours"), "", ""])
        cells += [_others(row) for row in found if row["peer"]]
    return _table(["", "time", "over the limit", "memory", "margins takes", "claimed"], cells)


def _others(row: Row) -> list[str]:
    """The line of a peer."""
    version = f", {row['peer_version']}" if row["peer_version"] else ""
    note = f"<br>*{row['note']}*" if row["note"] else ""
    takes = _compared(float(row["ratio_p50"])) if row["ratio_p50"] else ""
    return [row["peer"] + version + note, *_figures(row, "peer"), takes, _claim(row)]


def _figures(row: Row, who: str) -> list[str]:
    """Time, times over the limit, memory."""
    times_limit = row[f"{who}_times_limit"]
    return [
        _time(row[f"{who}_p50"]) or "–",
        f"{_short(float(times_limit))} ×" if times_limit else "",
        f"{_short(_held(row, who))} MiB" if row[f"{who}_peak_mib"] else "",
    ]


def _compared(ratio: float) -> str:
    """The time of ours in that of the other.

    Example:
        >>> _compared(0.25), _compared(0.8), _compared(1.3)
        ('1/4 of it', '0.8 of it', '1.3 of it')
    """
    return f"1/{_short(1 / ratio)} of it" if ratio <= 0.5 else f"{_short(ratio)} of it"


def _claim(row: Row) -> str:
    """What is claimed, and whether it held."""
    claims: list[str] = []
    if row["limit"]:
        limit = float(row["limit"])
        measured = float(row["ratio_p50"] or 0.0) if row["limit_of"] == "ratio" else float(row["ours_p50"])
        said = _compared(limit).removesuffix(" of it") if row["limit_of"] == "ratio" else _time(row["limit"])
        claims.append(f"time ≤ {said}: {'holds' if measured <= limit else '**broken**'}")
    if row.get("memory_limit") and row["ours_peak_mib"]:
        limit, ours = float(row["memory_limit"]), _held(row, "ours")
        is_ratio = row["memory_limit_of"] == "ratio"
        measured = ours / max(_held(row, "peer"), 1e-9) if is_ratio else ours
        said = _compared(limit).removesuffix(" of it") if is_ratio else f"{_short(limit)} MiB"
        claims.append(f"memory ≤ {said}: {'holds' if measured <= limit else '**broken**'}")
    return "<br>".join(claims)


def _held(row: Row, who: str) -> float:
    """Memory beyond the inputs and, where they were counted, their gradients."""
    return max(float(row[f"{who}_peak_mib"] or 0.0) - float(row["gradients_mib"] or 0.0), 0.0)


def _by_device(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """A heading and the rows of each device, the last measured first."""
    devices = dict.fromkeys(row["device"] for row in reversed(rows))
    groups = [(device, [row for row in rows if row["device"] == device]) for device in devices]
    return [(f"On {device}, {found[-1]['versions']}:\n\n", found) for device, found in groups]


def _time(milliseconds: str) -> str:
    """A time in words.

    Example:
        >>> _time("0.1234"), _time("359.05"), _time("8171.3"), _time("")
        ('0.123 ms', '359 ms', '8.17 s', '')
    """
    if not milliseconds:
        return ""
    value = float(milliseconds)
    return f"{_short(value)} ms" if value < 1000 else f"{_short(value / 1000)} s"


def _short(value: float) -> str:
    """Three digits, without an exponent.

    Example:
        >>> _short(0.01234), _short(1053.04), _short(2.5)
        ('0.0123', '1,053', '2.5')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "&#124;") for cell in line) + " |" for line in lines)
