"""What a model will see, as text for people, before money is spent: examples with their trained parts told apart, and counts.

It reads the same cache, the same rows and the same order as training does. No model, no device, no JAX.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alif_jax.data.cache import Source
from alif_jax.data.pack import Batches
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED
from alif_jax.tokenizer import Tokenizer

HEAD, TAIL = 320, 120  # tokens of an example that are shown: its begin, and its end
SAMPLE = 500  # records a language for the fertility: enough for two digits
BAR = 40  # columns
ISOLATE, END_ISOLATE = "\u2068", "\u2069"  # without them a line of Urdu reorders the marks and tags around it
GREEN, DIM, BLUE, PLAIN = "\033[32m", "\033[2m", "\033[34m", "\033[0m"
CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}  # ␛ for ESC, and so on


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens of an example that are shown alike: plain text, or one added token (`<|user|>`)."""

    text: str
    trained: bool
    added: bool


def report(batches: Batches, tokenizer: Tokenizer, *, examples: int = 3, colour: bool = False) -> str:
    """All of it. examples: how many are shown; colour: ANSI colours, else ⟦…⟧ around what is trained."""
    parts = [show_examples(batches, tokenizer, examples, colour=colour)] if examples > 0 else []
    parts += [lengths(batches), sources(batches), rows(batches), fertility(batches.examples.sources, tokenizer)]
    return "\n\n".join(parts)


# --- examples


def show_examples(batches: Batches, tokenizer: Tokenizer, count: int, *, colour: bool = False) -> str:
    """The first examples of the run, of each source in turn."""
    examples = batches.examples
    legend = f"{GREEN}trained{PLAIN}, {DIM}not trained{PLAIN}, {BLUE}added tokens{PLAIN}" if colour else "⟦trained⟧"
    lines = [f"examples: {legend}"]
    for i in _first_of_each_source(batches, count):
        table, codes = examples.groups
        group = table[codes[i]]
        tokens, flags = examples.tokens_of(i)
        lines.append(
            f"\n── {group['source']}, {group['task']}, {group['language']}: record {examples.id_of(i)}, "
            f"{len(tokens):,} tokens, {examples.trained[i]:,} trained"
        )
        lines.append(show(pieces(tokens, flags, tokenizer), colour=colour))
    return "\n".join(lines)


def _first_of_each_source(batches: Batches, count: int) -> list[int]:
    order = batches.plan(0).order
    of_source = batches.examples.source[order]
    by_source = [order[of_source == s].tolist() for s in np.unique(of_source)]
    turns = [members[turn] for turn in range(count) for members in by_source if turn < len(members)]
    return turns[:count]


def pieces(tokens: np.ndarray, flags: np.ndarray, tokenizer: Tokenizer) -> Iterator[Piece]:
    """An example cut where the mask changes and around added tokens; of a long one the middle is left out.

    The first token of a row's segment is nobody's target, so it is shown as not trained.
    """
    trained = (flags & FLAG_TRAINED) > 0
    trained[:1] = False
    for begin, end in [(0, len(tokens))] if len(tokens) <= HEAD + TAIL else [(0, HEAD), (len(tokens) - TAIL, len(tokens))]:
        if begin:
            yield Piece(f"\n… {begin - HEAD:,} tokens …\n", False, True)
        yield from _pieces(tokens[begin:end].tolist(), trained[begin:end].tolist(), tokenizer)


def _pieces(tokens: list[int], trained: list[bool], tokenizer: Tokenizer) -> Iterator[Piece]:
    added = tokenizer.core.get_added_tokens_decoder()
    run: list[int] = []
    for at, token in enumerate(tokens):
        if token in added:
            yield Piece(added[token].content, trained[at], True)
            continue
        run.append(token)
        if at + 1 == len(tokens) or tokens[at + 1] in added or trained[at + 1] != trained[at]:
            yield Piece(tokenizer.core.decode(run, skip_special_tokens=False), trained[at], False)
            run = []


def show(parts: Iterator[Piece], *, colour: bool = False) -> str:
    """The pieces one after the other, each line of each isolated from its neighbours' direction of writing.

    Without colours ⟦ and ⟧ stand around what is trained, once for neighbouring pieces of a line:

        <|user|>↵        سلام<|end_of_turn|><|assistant|>↵        ⟦وعلیکم السلام<|end_of_turn|>⟧
    """
    lines: list[list[Piece]] = [[]]
    for piece in parts:
        for i, text in enumerate(piece.text.translate(CONTROLS).split("\n")):
            if i:
                lines.append([])
            if text:
                lines[-1].append(Piece(text, piece.trained, piece.added))
    return "\n".join("│ " + _show_line(line, colour) for line in lines)


def _show_line(line: Sequence[Piece], colour: bool) -> str:
    if colour:
        codes = [GREEN if piece.trained else BLUE if piece.added else DIM for piece in line]
        return "".join(f"{code}{ISOLATE}{piece.text}{END_ISOLATE}{PLAIN}" for code, piece in zip(codes, line, strict=True))
    text, inside = "", False
    for piece in line:
        if piece.trained != inside:
            text += "⟦" if piece.trained else "⟧"
            inside = piece.trained
        text += f"{ISOLATE}{piece.text}{END_ISOLATE}"
    return text + ("⟧" if inside else "")


# --- counts


def lengths(batches: Batches) -> str:
    """How long the whole records are, in steps of a factor of 2, up to the row length in any case."""
    whole = np.concatenate([np.diff(source.offsets) for source in batches.examples.sources])
    limit = batches.row_length
    edges = sorted({limit, *(2**k for k in range(4, 32))})
    bins = np.digitize(whole, edges, right=True)
    counts = np.bincount(bins, minlength=len(edges) + 1)
    first, last = int(np.flatnonzero(counts)[0]), int(np.flatnonzero(counts)[-1])
    lines = [f"records by length in tokens (median {np.median(whole):,.0f}, mean {whole.mean():,.0f}, longest {whole.max():,})"]
    for k in range(first, last + 1):
        bar = "█" * round(BAR * counts[k] / counts.max())
        long = "  longer than a row" if k and edges[k - 1] >= limit else ""
        lines.append(f"  ≤ {edges[k]:>10,} {counts[k]:>10,} {counts[k] / len(whole):>6.1%} {bar}{long}")
    return "\n".join(lines)


def sources(batches: Batches) -> str:
    """By the records' own source: how many, what is trained of them, what was too long. And the shares of a mix."""
    examples = batches.examples
    table, codes = examples.groups
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4, np.int64))  # records, examples, tokens, trained
    for source in examples.sources:
        for code, count in enumerate(np.bincount(source.codes, minlength=len(source.groups))):
            totals[source.groups[code]["source"]][0] += count
    sums = [np.bincount(codes, weights, len(table)) for weights in (None, examples.lengths, examples.trained)]
    for code, group in enumerate(table):
        totals[group["source"]][1:] += [int(column[code]) for column in sums]
    lines = [f"{'source':24} {'records':>10} {'examples':>10} {'tokens':>13} {'trained':>13} {'':>5}  too long for a row"]
    for name, (records, count, tokens, trained) in sorted(totals.items()):
        said = ", ".join(f"{count:,} {rule}" for rule, count in examples.shortened.get(name, {}).items())
        lines.append(
            f"{name:24} {records:>10,} {count:>10,} {tokens:>13,} {trained:>13,} {trained / max(tokens, 1):>5.0%}  {said or '–'}"
        )
    if len(examples.sources) > 1:
        lines.append(f"\n{'the run takes':24} {'share':>10} {'examples':>10} {'tokens':>13} {'trained':>13} {'epochs':>7}")
        lines += [
            f"{share['name'][-24:]:24} {share['share']:>10.1%} {share['examples']:>10,} {share['tokens']:>13,} "
            f"{share['trained']:>13,} {share['epochs']:>7.2f}"
            for share in batches.shares()
        ]
    return "\n".join(lines)


def rows(batches: Batches) -> str:
    """How full the rows of the first epoch are: what is not filled is paid for and teaches nothing."""
    stats = batches.stats()
    left_out = f", {stats['left_out']:,} examples left out of the run" if stats["left_out"] else ""
    return (
        f"rows           {stats['rows']:,} of {batches.row_length:,} tokens an epoch, {stats['examples'] / stats['rows']:.1f} "
        f"examples a row{left_out}\n"
        f"non-pad share  {stats['fill']:.1%}\n"
        f"trained        {stats['trained']:,} of {stats['tokens']:,} tokens ({stats['trained'] / stats['tokens']:.1%})\n"
        f"steps          {batches.steps:,} of {batches.batch_size:,} rows"
    )


def fertility(given: Sequence[Source], tokenizer: Tokenizer, sample: int = SAMPLE) -> str:
    """Tokens a word (what stands between spaces) and a byte, by language, of documents and answers; prompts are left out."""
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(4, np.int64))  # records, tokens, words, bytes
    added = np.asarray(sorted(tokenizer.core.get_added_tokens_decoder()), np.int64)
    for source in given:
        languages = [group["language"] for group in source.groups]
        for language in sorted(set(languages)):
            of_language = np.isin(source.codes, [code for code, name in enumerate(languages) if name == language])
            for i in np.flatnonzero(of_language)[: max(0, sample - int(counts[language][0]))]:
                here = slice(source.offsets[i], source.offsets[i + 1])
                tokens = source.tokens[here][(source.flags[here] & FLAG_RESPONSE) > 0]
                tokens = tokens[~np.isin(tokens, added)]
                text = tokenizer.decode(tokens.tolist())
                counts[language] += (1, len(tokens), len(text.split()), len(text.encode()))
    lines = [f"{'language':24} {'records':>10} {'tokens a word':>14} {'tokens a byte':>14}   (documents and answers)"]
    for language, (records, tokens, words, text_bytes) in sorted(counts.items()):
        lines.append(f"{language:24} {records:>10,} {tokens / max(words, 1):>14.2f} {tokens / max(text_bytes, 1):>14.3f}")
    return "\n".join(lines)
