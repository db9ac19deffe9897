"""Model: the user's own network, in whatever form it came, as flat parameters and one pure function.

    call(params, inputs) -> outputs

emits a tap around each of its layers. `export` gives parameters back in the form that came in.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from annealsubnet.trees import flatten

Params = Mapping[str, jax.Array]


@dataclass(frozen=True)
class Model:
    """A network that nobody has run yet.

    Attributes:
        form: "nnx", "linen" or "function".
        params: every parameter by its path.
        call: `(params, inputs) -> outputs`, pure.
        export: `params -> ` a new object in the user's form: an `nnx.Module`, Linen variables, a parameter tree.
        source: what the user gave (the module, for `shrink`).
        example: inputs that `call` accepts, or their `jax.ShapeDtypeStruct`; None if only batches will tell.
        programs: what has been compiled of `call` so far, which lives and dies with the model.
    """

    form: str
    params: Params
    call: Callable[[Params, Any], jax.Array]
    export: Callable[[Params], Any]
    source: Any
    example: Any = None
    programs: dict[Hashable, Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)

    def replace(self, trained: Any) -> "Model":
        """The same model with the parameters of `trained`, an object in the form that `export` returns.

        Raises:
            ValueError: if its parameters have other names or shapes.
        """
        params = parameters_of(trained)
        if set(self.params) - set(params) and isinstance(trained, Mapping) and "params" in trained:
            params = arrays(trained["params"])
        found = {path: params[path].shape for path in self.params if path in params}
        wanted = {path: value.shape for path, value in self.params.items()}
        if found != wanted:
            odd = sorted(path for path in wanted if found.get(path) != wanted[path])
            raise ValueError(
                f"The given parameters do not fit this model: {odd[0]!r} is {found.get(odd[0], 'missing')}, "
                f"not {wanted[odd[0]]} ({len(odd)} differ)."
            )
        return replace(self, params={path: params[path] for path in self.params})

    def __repr__(self) -> str:
        size = sum(value.size for value in self.params.values())
        return f"Model(form={self.form!r}, {len(self.params)} parameter arrays, {size:,} values)"


def arrays(tree: Any) -> dict[str, jax.Array]:
    """Every leaf of a parameter tree by its path, as a JAX array (checkpoints hold NumPy's)."""
    return {path: jnp.asarray(leaf) for path, leaf in flatten(tree).items()}


def parameters_of(tree: Any) -> dict[str, jax.Array]:
    """The flat parameters of an `nnx.Module` or of a plain tree."""
    from flax import nnx

    return arrays(nnx.state(tree, nnx.Param) if isinstance(tree, nnx.Module) else tree)
