"""What is saved comes back in the form it had, and a file that does not fit is refused by what differs."""

import jax
import numpy as np
import pytest
from flax import nnx

from annealsubnet import load_parameters, save_parameters
from annealsubnet.networks import as_model
from tests.models import EXAMPLES


@pytest.mark.parametrize("form", ["nnx", "linen", "function"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_what_is_saved_comes_back_in_its_form(tmp_path, name, form):
    given = EXAMPLES[name]().forms[form]
    model = as_model(given)
    doubled = model.export({path: 2 * value for path, value in model.params.items()})
    save_parameters(doubled, tmp_path / "pruned.safetensors")
    back = load_parameters(tmp_path / "pruned.safetensors", given)
    assert isinstance(back, nnx.Module) == (form == "nnx")
    assert jax.tree.structure(back) == jax.tree.structure(doubled)
    jax.tree.map(np.testing.assert_array_equal, back, doubled)
    for path, value in model.replace(back).params.items():
        np.testing.assert_array_equal(value, 2 * model.params[path])


def test_statistics_of_batch_norms_are_saved_and_random_streams_are_not(tmp_path):
    class Noisy(nnx.Module):
        def __init__(self, seed):
            self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(seed))
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))

    first, other = Noisy(0), Noisy(1)
    first.norm.mean[...] = first.norm.mean[...] + 5
    save_parameters(first, tmp_path / "file")
    back = load_parameters(tmp_path / "file", other)
    np.testing.assert_array_equal(back.norm.mean[...], np.full(3, 5))
    np.testing.assert_array_equal(other.norm.mean[...], np.zeros(3))
    assert (jax.random.key_data(back.drop.rngs.key[...]) == jax.random.key_data(other.drop.rngs.key[...])).all()


def test_half_precision_is_kept(tmp_path):
    tree = {"kernel": np.arange(4, dtype=jax.numpy.bfloat16)}
    save_parameters(tree, tmp_path / "file")
    assert load_parameters(tmp_path / "file", tree)["kernel"].dtype == jax.numpy.bfloat16


def test_files_that_do_not_fit_are_refused(tmp_path):
    tree = {"fc": {"kernel": np.ones((3, 2), np.float32), "bias": np.ones(2, np.float32)}}
    path = tmp_path / "pruned.safetensors"
    save_parameters(tree, path)
    with pytest.raises(ValueError, match=r"another model: 'fc/kernel' is \(3, 2\) there, \(3, 4\) here"):
        load_parameters(path, {"fc": {"kernel": np.ones((3, 4)), "bias": np.ones(2)}})
    with pytest.raises(ValueError, match=r"'fc/bias' is .* there, missing here; 'out/bias' is missing there"):
        load_parameters(path, {"fc": {"kernel": np.ones((3, 2))}, "out": {"bias": np.ones(2)}})
    contents = path.read_bytes()
    path.write_bytes(contents[:-3])
    with pytest.raises(ValueError, match="truncated"):
        load_parameters(path, tree)
    path.write_bytes(b"\x89PNG and so on")
    with pytest.raises(ValueError, match="no parameter file"):
        load_parameters(path, tree)
    with pytest.raises(FileNotFoundError, match="There is no parameter file"):
        load_parameters(tmp_path / "none", tree)
    tree["fc"]["bias"][1] = np.nan
    save_parameters(tree, path)
    with pytest.raises(ValueError, match="'fc/bias' holds 1 of 2 values that are NaN"):
        load_parameters(path, tree)


def test_a_mask_is_no_parameter_file(tmp_path):
    from annealsubnet.baselines import magnitude

    example = EXAMPLES["mlp"]()
    mask, _ = magnitude(example.nnx, None, keep=0.5, unit="weight", seed=0)
    mask.save(tmp_path / "mask.safetensors")
    with pytest.raises(ValueError, match="no parameter file"):
        load_parameters(tmp_path / "mask.safetensors", example.nnx)
