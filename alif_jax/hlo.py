"""The collectives of a compiled program, read from XLA's text of it, partitioned and scheduled.

Small and strict: a collective whose shape, group or number of repetitions cannot be read is named in `unread`, never dropped.
What the text looks like differs by backend (CPU, GPU and libtpu 0.0.51 were looked at):

    loops          CPU and GPU say `known_trip_count`; on TPUs it is worked out from the loop's counter
    asynchronous   `all-gather-start`/`-done`, or wrapped: a computation that `async-start` calls
    TPU fusions    one collective stands in every fusion that its transfer is overlapped with, even inside of loops: counted where
                   it begins (`AsyncCollectiveStart`); an all-reduce inside a fusion `all-reduce-scatter` is a reduce-scatter
    groups         {{0,1},{2,3}}, [2,4]<=[8], or mesh['axis_0'=4,'axis_1'=2] {'axis_0'}
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
SIZES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "s4": 0.5, "u4": 0.5, "token": 0}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?[\]})]) ([a-z][a-z0-9\-]*)\((.*)$")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
SHAPE = re.compile(r"\b([a-z]+[0-9]*(?:e[0-9]+m[0-9]+[a-z]*)?)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """bytes: of the whole tensor (of all-to-all and collective-permute: of one device's part). devices: of one group.

    times: how often it runs in a step. pairs: of a collective-permute, who sends to whom.
    """

    kind: str
    bytes: float
    devices: int
    times: float
    pairs: str = ""


@dataclass(frozen=True)
class Instruction:
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split(")", 1)[0])


@dataclass
class Computation:
    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""


def read_collectives(text: str) -> tuple[tuple[Collective, ...], tuple[str, ...]]:
    """(the collectives that one device takes part in, with how often each runs in a call of the program; names of the unread)."""
    computations, entry = parse(text)
    found: list[Collective] = []
    unread: list[str] = []
    for instruction, where, times in _executed(computations, entry, 1.0, {entry}):
        try:
            if math.isnan(times):
                raise ValueError("how often its loop runs")
            found.append(replace(collective(instruction, where), times=times))
        except ValueError as error:
            unread.append(f"{instruction.opcode} {instruction.name}: {error}")
    return tuple(found), tuple(unread)


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """The program's computations by name, and the name of the one it begins with. Raises ValueError where there is none."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = computations[match[2]] = Computation(match[2])
            entry = match[2] if match[1] else entry
        elif line.rstrip() == "}":  # a kernel's metadata may hold line breaks, and lines that begin with one
            current = None
        elif current is not None and (match := INSTRUCTION.match(line)):
            current.instructions[match[1]] = Instruction(*match.groups())
            current.root = match[1] if line.lstrip().startswith("ROOT ") else current.root
    if not entry:
        raise ValueError("no ENTRY computation in the program's text")
    return computations, entry


def _executed(
    computations: dict[str, Computation], name: str, times: float, above: set[str]
) -> Iterator[tuple[Instruction, str, float]]:
    """(collective, its computation, how often it runs) in a computation and all that it calls."""
    here = computations[name]
    for one in here.instructions.values():
        if one.opcode == "while":
            condition, body = (re.search(rf"{key}=%?([\w.\-]+)", one.rest) for key in ("condition", "body"))
            if condition is None or body is None:
                raise ValueError(f"{one.name}: a loop without a condition or a body")
            trips = trip_count(one, computations, name, condition[1], body[1])
            yield from _executed(computations, body[1], times * trips, above | {body[1]})
        elif _kind(one) and not _in_flight(one, here):
            yield one, name, times
        called = CALLED.findall(one.rest) + [part.strip(" %") for group in BRANCHES.findall(one.rest) for part in group.split(",")]
        for other in called if one.opcode != "while" else ():
            if other in computations and other not in above:
                yield from _executed(computations, other, times, above | {other})


def _in_flight(one: Instruction, here: Computation) -> bool:
    """Whether it was begun elsewhere: on TPUs a transfer stands in every fusion that it is overlapped with, and at its end."""
    users = [other.rest for other in here.instructions.values() if other.opcode == "custom-call" and one.name in other.operands()]
    if any('"AsyncCollectiveStart"' in rest for rest in users):
        return False
    return here.name.startswith("async_collective_fusion") or any('"AsyncCollectiveDone"' in rest for rest in users)


def _kind(one: Instruction) -> str | None:
    kind = one.opcode.removesuffix("-start")
    return kind if kind in KINDS or kind.startswith(("ragged-all", "collective-broadcast", "send", "recv")) else None


def collective(one: Instruction, where: str) -> Collective:
    """One collective of the computation `where`; `times` is 1. Raises ValueError for what it cannot read."""
    kind, started = _kind(one), one.opcode.endswith("-start")
    if kind not in KINDS:
        raise ValueError("a kind that is not read")
    sizes = shape_bytes(one.shape)
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(.*?\})\}", one.rest)
        if pairs is None:
            raise ValueError("no source_target_pairs")
        return Collective(kind, sizes[0] if started else sum(sizes), 2, 1, pairs[1])
    n = group_size(one.rest)
    if started and kind in ("all-gather", "reduce-scatter"):
        return Collective(kind, sum(sizes) * n / (n + 1), n, 1)  # of operands and results: the whole, and one part of n
    if kind == "reduce-scatter":
        return Collective(kind, sum(sizes) * n, n, 1)
    if kind == "all-reduce" and where.startswith("all-reduce-scatter"):
        return Collective("reduce-scatter", sum(sizes), n, 1)
    return Collective(kind, sum(sizes) / (2 if started and kind == "all-to-all" else 1), n, 1)


def shape_bytes(shape: str) -> list[float]:
    """Bytes of every array in a (tuple) shape such as `(bf16[8,2]{1,0}, u32[])`; u32[] are an asynchronous start's own."""
    plain = re.sub(r"\{[^{}]*\}|/\*.*?\*/", "", shape)
    sizes = []
    for dtype, dimensions in SHAPE.findall(plain):
        if dtype == "u32" and not dimensions:
            continue
        width = re.fullmatch(r"[suf](8|16|32|64)\w*", dtype)
        if dtype not in SIZES and width is None:
            raise ValueError(f"a dtype that is not read: {dtype}")
        item = SIZES[dtype] if dtype in SIZES else int(width[1]) / 8 if width else 0
        sizes.append(item * math.prod(int(d) for d in dimensions.split(",") if d))
    if not sizes:
        raise ValueError(f"no shape in {shape[:60]}")
    return sizes


def group_size(attributes: str) -> int:
    """Devices of one group. Raises ValueError where the groups are written in another way, or not at all."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", attributes):
        return int(match[2])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        axes = re.findall(r"'(\w+)'(:?)", match[2])
        if axes and all(name in sizes and not part for name, part in axes):
            return math.prod(sizes[name] for name, _ in axes)
    raise ValueError("groups that are not read")


# --- how often a loop runs


def trip_count(loop: Instruction, computations: dict[str, Computation], where: str, condition: str, body: str) -> float:
    """From `known_trip_count`, or of a counter that is compared with a constant: (limit - start) / step. NaN: neither."""
    if match := re.search(r'known_trip_count":\{"n":"(\d+)"\}', loop.rest):
        return float(match[1])
    test = computations[condition].instructions[computations[condition].root]
    if test.opcode != "compare" or "direction=LT" not in test.rest:
        return math.nan
    counter, limit = test.operands()
    element = computations[condition].instructions[counter]
    index = re.search(r"index=(\d+)", element.rest)
    if element.opcode != "get-tuple-element" or index is None:
        return math.nan
    start = _constant(computations[where], _element(computations[where], loop.operands()[0], int(index[1])))
    stop, step = _constant(computations[condition], limit), _step(computations[body], int(index[1]))
    if start is None or stop is None or not step:
        return math.nan
    return float(-((start - stop) // step))


def _element(computation: Computation, name: str, index: int) -> str:
    """The operand of a tuple at an index; "" where the name is no tuple."""
    one = computation.instructions.get(name)
    return one.operands()[index] if one is not None and one.opcode == "tuple" else ""


def _source(computation: Computation, name: str) -> Instruction | None:
    """The instruction behind copies and bitcasts."""
    one = computation.instructions.get(name)
    while one is not None and one.opcode in ("copy", "bitcast", "convert"):
        one = computation.instructions.get(one.operands()[0])
    return one


def _constant(computation: Computation, name: str) -> int | None:
    one = _source(computation, name)
    match = re.match(r"(-?\d+)\)", one.rest) if one is not None and one.opcode == "constant" else None
    return int(match[1]) if match else None


def _step(body: Computation, index: int) -> int | None:
    """What one pass adds to the counter: the root's element is add(the counter, a constant)."""
    one = _source(body, _element(body, body.root, index))
    if one is None or one.opcode != "add":
        return None
    left, right = one.operands()
    if _constant(body, left) is not None:
        left, right = right, left
    counter, step = _source(body, left), _constant(body, right)
    came_in = counter is not None and counter.opcode == "get-tuple-element" and re.search(rf"index={index}\b", counter.rest)
    return step if came_in else None
