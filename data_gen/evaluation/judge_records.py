"""judge.json: the comparisons of an evaluation's directory, read, written and shown as text. It imports nothing that takes time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_gen import UsageError
from data_gen.evaluation.results import replace_text

RECORDS = "judge.json"
_SAME = ("kind", "model", "against", "judge", "tasks")  # a comparison made again has these in common


def read_judge(directory: str) -> list[dict[str, Any]]:
    """The comparisons in an evaluation's directory; [] where nothing was judged. Raises UsageError on a damaged judge.json."""
    path = Path(directory, RECORDS)
    try:
        comparisons = json.loads(path.read_text(encoding="utf-8"))["comparisons"]
        if not all(isinstance(one, dict) and one["kind"] in ("pairwise", "single") for one in comparisons):
            raise ValueError("a comparison of another kind")
        return list(comparisons)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no file of comparisons ({error!r}); move it away, then judge again") from error


def store(directory: str, record: dict[str, Any]) -> None:
    """Puts a comparison into judge.json, in place of the same one made before."""
    others = [one for one in read_judge(directory) if any(one.get(name) != record.get(name) for name in _SAME)]
    text = json.dumps({"comparisons": [*others, record]}, ensure_ascii=False, indent=1) + "\n"
    replace_text(Path(directory, RECORDS), text)


def table(records: Sequence[dict[str, Any]]) -> str:
    """A few lines a comparison: what it comes to, the judge's steadiness, and each category."""
    lines = []
    for one in records:
        name = "win_rate" if one["kind"] == "pairwise" else "mean"
        scale = 100 if one["kind"] == "pairwise" else 1
        title = f"{one['model']} against {one['against']}" if one["against"] else one["model"]
        lines.append(f"{title}, judged by {one['judge']}: {one['judged']:,} of {one['prompts']:,} prompts")
        rows = {"win rate" if one["kind"] == "pairwise" else "mark": one} | one["by_category"]
        width = max(map(len, rows))
        for label, row in rows.items():
            value, low, high = (scale * row[key] for key in (name, "low", "high"))
            lines.append(f"  {label:<{width}}  {value:5.1f}  [{low:.1f}, {high:.1f}]  {row['judged']:,}")
        if one["kind"] == "pairwise":
            lines.append("  " + _steadiness(one))
    return "\n".join(lines)


def _steadiness(one: dict[str, Any]) -> str:
    shares = {
        "at equal length": one["length_controlled"],
        "both orders agree": one["position_consistency"],
        "where not, the first place won": one["first_place_share"],
    }
    words = one["mean_words"]
    said = [f"{one['wins']:,} won, {one['losses']:,} lost, {one['ties']:,} ties ({one['identical']:,} identical)"]
    said += [f"{what} {100 * share:.1f} %" for what, share in shares.items() if share is not None]
    return "; ".join([*said, f"words: {words['model']:.0f} against {words['against']:.0f}"])
