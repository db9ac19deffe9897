"""A smaller Flax NNX module: new arrays in a copy, and the sizes that its layers remember."""

from typing import Any

from flax import nnx

from annealsubnet.networks import Layer
from annealsubnet.shrinking.cuts import Smaller
from annealsubnet.trees import flatten, replace_leaves


def nnx_statistics(model: nnx.Module) -> dict[str, Any]:
    """Statistics of the model's BatchNorms by path."""
    return flatten(nnx.state(model, nnx.BatchStat))


def rebuild_nnx(model: nnx.Module, smaller: Smaller) -> nnx.Module:
    """A copy of the module with smaller arrays."""
    split: Any = nnx.split(model, nnx.Param, ...)
    graph, params, rest = split
    known = flatten(params)
    copy = nnx.merge(graph, replace_leaves(params, smaller.params), replace_leaves(rest, smaller.statistics), copy=True)
    modules: dict[str, Any] = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(copy)}
    for name, layer in smaller.layers.items():
        if layer.bias is not None and layer.bias not in known:
            modules[name].bias = nnx.Param(smaller.params[layer.bias])
            modules[name].use_bias = True
        _resize(modules[name], layer)
    for name, size in smaller.norms.items():
        modules[name].num_features = size
    for module in modules.values():
        if isinstance(module, nnx.MultiHeadAttention):
            _resize_attention(module)
    return copy


def _resize(module: Any, layer: Layer) -> None:
    if isinstance(module, nnx.Conv):
        module.kernel_shape = layer.shape
        module.in_features, module.out_features = layer.shape[-2] * layer.groups, layer.shape[-1]
        module.feature_group_count = layer.groups
    elif isinstance(module, nnx.LinearGeneral):
        module.in_features = layer.shape[: layer.num_input_axes]
        module.out_features = layer.shape[layer.num_input_axes :]
    else:
        module.in_features, module.out_features = layer.shape


def _resize_attention(module: nnx.MultiHeadAttention) -> None:
    """An attention repeats the sizes of its projections."""
    module.num_heads, module.head_dim = module.query.out_features
    module.num_kv_heads = module.key.out_features[0]
    module.qkv_features = module.num_heads * module.head_dim
    (module.in_features,), (module.in_kv_features,) = module.query.in_features, module.key.in_features
    out_features = module.out.out_features
    module.out_features = out_features[0] if isinstance(module.out_features, int) else out_features
