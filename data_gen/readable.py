"""Numbers as people read them, on the live screen and in estimates. Nothing is read back from these texts."""

import math


def tokens(count: float) -> str:
    """950 → "950", 84_210 → "84.2k", 1_234_567 → "1.23M": three digits, thousands and millions by their letter."""
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if count >= limit * 0.9995:  # 999,999 is 1.00M and not 1000k
            scaled = count / (1e3 if letter == "k" else limit)
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{letter}"
    return f"{count:,.0f}"


def dollars(amount: float) -> str:
    """0.01234 → "$0.0123", 12.345 → "$12.35", 5 → "$5.00"; what is not nothing does not read as nothing."""
    if 0 < amount < 0.00005:
        return "<$0.0001"
    digits = 4 if round(amount, 4) < 1 and round(amount, 4) != round(amount, 2) else 2
    return f"${amount:,.{digits}f}"


def duration(seconds: float) -> str:
    """42 → "42 s", 200 → "3 min 20 s", 7500 → "2 h 05 min", 100_000 → "1 d 3 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def roughly(seconds: float) -> str:
    """A guess needs no seconds beside its minutes: 754 → "13 min", 7500 → "2 h 05 min"."""
    minutes = math.ceil(seconds / 60)
    return duration(seconds) if seconds < 120 else f"{minutes} min" if minutes < 60 else duration(60 * minutes)


def percent(part: float, whole: float) -> str:
    """Never "100%" before the whole is there: (999, 1000) → "99%"."""
    return f"{int(100 * part / whole) if whole > 0 else 100}%"
