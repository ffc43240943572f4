"""A model's parameters as decoding wants them: as they are, or on a single CPU each layer's apart (`Llama.unstacked`).

Made once a model; of several models that share arrays, what they share is made once.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from alif_jax.load import Loaded
from alif_jax.model import Llama, Params, Skeleton, in_cpu_cache


class Structure(Protocol):
    """How to put a model together from its arrays, inside a compiled program; compared by identity: a static argument of jit."""

    def model(self, params: Mapping[str, Array], /) -> Llama: ...


@dataclass(frozen=True, eq=False)
class Apart:
    """A model whose layers are apart. leaves: of a name its path in the module and its variable without an array."""

    graphdef: nnx.GraphDef[Llama]
    leaves: dict[str, tuple[tuple[Any, ...], Any]]

    def model(self, params: Mapping[str, Array], /) -> Llama:
        variables = {path: variable.replace(params[name]) for name, (path, variable) in self.leaves.items()}
        return nnx.merge(self.graphdef, nnx.from_flat_state(variables))


@dataclass(frozen=True)
class Weights:
    """cached: whether a CPU's cache holds them; then kernels are as they are, and the head is multiplied row by row."""

    structure: Structure
    params: Params
    cached: bool = False


def _on_one_cpu(loaded: Loaded) -> bool:
    return loaded.mesh.size == 1 and loaded.mesh.devices.flat[0].platform == "cpu"


def weights_of(models: Mapping[str, Loaded]) -> dict[str, Weights]:
    """The weights of each model. On one CPU device they are new arrays, and the loaded ones are not held on to."""
    structures: dict[Hashable, Structure] = {}
    taken: dict[tuple[int, int | None, bool], Array] = {}
    found = {}
    for name, loaded in models.items():
        found[name] = _apart(loaded, structures, taken) if _on_one_cpu(loaded) else _as_loaded(loaded, structures)
    return found


def _as_loaded(loaded: Loaded, structures: dict[Hashable, Structure]) -> Weights:
    return Weights(structures.setdefault(_alike(loaded.skeleton, loaded.skeleton.graphdef), loaded.skeleton), loaded.params)


def _alike(skeleton: Skeleton, graphdef: nnx.GraphDef[Llama]) -> Hashable:
    """Equal for models that one compiled program serves."""
    return graphdef, tuple((name, leaf.shape, str(leaf.dtype)) for name, leaf in skeleton.shapes.items()), skeleton.trainable


def _apart(
    loaded: Loaded, structures: dict[Hashable, Structure], taken: dict[tuple[int, int | None, bool], Array]
) -> Weights:  # fmt: skip
    """taken: the arrays made so far, by what they were made of: (id of the loaded array, layer, whether turned)."""
    cached = in_cpu_cache(loaded.params)
    abstract = nnx.eval_shape(lambda params: loaded.skeleton.model(params).unstacked(turn=not cached), loaded.params)
    turned = {path for path, module in nnx.iter_modules(abstract) if getattr(module, "turned", False)}
    leaves, params = {}, {}
    for path, variable in nnx.to_flat_state(nnx.state(abstract)):
        name, layer = ".".join(map(str, path)), None
        source = name
        if path[0] == "apart":
            layer, source = int(str(path[1])), ".".join(("layers", *map(str, path[2:])))
        array, turn = loaded.params[source], path[-1] == "kernel" and path[:-1] in turned
        if layer is None and not turn:
            params[name] = array
        else:
            key = (id(array), layer, turn)
            if key not in taken:
                one = array if layer is None else array[layer]
                taken[key] = jnp.asarray(one.T) if turn else one
            params[name] = taken[key]
        leaves[name] = (path, variable)
    graphdef = nnx.graphdef(abstract)
    return Weights(structures.setdefault(_alike(loaded.skeleton, graphdef), Apart(graphdef, leaves)), params, cached)


def bytes_of(weights: Mapping[str, Weights]) -> int:
    """What the arrays of all models take together; what they share counts once."""
    arrays = {id(array): array for each in weights.values() for array in each.params.values()}
    return sum(array.nbytes for array in jax.tree.leaves(list(arrays.values())))
