"""How numbers look, so that the page, its plots and the command line write them alike."""

from __future__ import annotations

MINUS = "\u2212"
NARROW_SPACE = "\u202f"


def score(value: float) -> str:
    """Write a score, or a size in the metric's unit, with four decimals.

    Example:
        >>> score(0.91236)
        '0.9124'
    """
    return f"{_unsigned_zero(value):.4f}".replace("-", MINUS)


def signed(value: float) -> str:
    """Write a difference, always with its sign but for what rounds to zero.

    Example:
        >>> signed(0.0123), signed(-0.00001)
        ('+0.0123', '0.0000')
    """
    rounded = _unsigned_zero(value)
    return f"{rounded:+.4f}".replace("-", MINUS) if rounded else score(0.0)


def interval(low: float, high: float) -> str:
    """Write both ends of an interval of differences.

    Example:
        >>> interval(0.001, 0.02)
        '+0.0010 to +0.0200'
    """
    return f"{signed(low)} to {signed(high)}"


def p_value(value: float) -> str:
    """Write a p value, never as zero.

    Example:
        >>> p_value(0.03125), p_value(0.0)
        ('0.0312', '< 0.0001')
    """
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def count(value: int) -> str:
    """Write a whole number with its thousands set apart.

    Example:
        >>> count(10003).replace(NARROW_SPACE, " ")
        '10 003'
    """
    return f"{value:,}".replace(",", NARROW_SPACE)


def duration(seconds: float) -> str:
    """Write a time span in the two units that matter.

    Example:
        >>> duration(0.42), duration(41.3), duration(200), duration(7300)
        ('0.4 s', '41 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(share: float) -> str:
    """Write a share as a percentage without needless decimals.

    Example:
        >>> percent(0.95)
        '95\u202f%'
    """
    return f"{100 * share:g}{NARROW_SPACE}%"


def unbroken(text: str) -> str:
    r"""Tie what belongs together, such as `q = 0.7` and `95 %`, so that no line ends inside it.

    Example:
        >>> unbroken("GCE (q = 0.7), 95 % interval").replace("\N{NO-BREAK SPACE}", "_")
        'GCE (q_=_0.7), 95_% interval'
    """
    return text.replace(" = ", "\u00a0=\u00a0").replace(" %", "\u00a0%")


def _unsigned_zero(value: float) -> float:
    """Round to four decimals and drop the sign of a zero."""
    return round(value, 4) + 0.0
