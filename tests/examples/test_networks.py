"""Named networks and their checkpoints: PyTorch's layouts read exactly, every difference of a foreign file named."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from annealsubnet.examples import NETWORKS, load, load_checkpoint, named_network, network_for
from annealsubnet.examples.ticket_networks import ticket_network

SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def accuracy(model: nnx.Module, batches) -> float:
    predict = nnx.jit(lambda model, inputs: model(inputs).argmax(-1))
    return float(np.mean(np.concatenate([np.asarray(predict(model, inputs)) == labels for inputs, labels in batches])))


def pytorch_mlpnet(**changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"fc1.weight": (40, 784), "fc2.weight": (20, 40), "fc3.weight": (10, 20)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: array for name, array in (arrays | changes).items() if array is not None}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_maps_its_data_to_ten_logits(name):
    network = named_network(name)
    model = nnx.eval_shape(lambda: network.build(seed=0))
    inputs = network.normalize(np.zeros((2, *SHAPES[network.data]), np.uint8))
    outputs = nnx.eval_shape(lambda model, inputs: model(inputs), model, jnp.asarray(inputs))
    assert outputs.shape == (2, 10) and inputs.dtype == np.float32


def test_the_seed_draws_the_weights():
    one, same, other = (named_network("digits-mlp").build(seed=seed).fc1.kernel[...] for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_normalization_is_the_published_one():
    raw = np.array([0, 100, 255], np.uint8)
    assert np.allclose(named_network("mlpnet").normalize(raw), (raw / 255 - 0.1307) / 0.3081, atol=1e-6)
    assert np.allclose(named_network("resnet20").normalize(raw), (raw / 255 - 0.5) / 0.5, atol=1e-6)
    assert np.allclose(named_network("lenet-300-100").normalize(raw), raw / 256, atol=1e-6)


def test_a_lenet_has_the_widths_in_its_name():
    model = ticket_network("lenet-75-25").build(seed=0)
    assert [layer.kernel[...].shape for layer in (model.fc1, model.fc2, model.fc3)] == [(784, 75), (75, 25), (25, 10)]
    with pytest.raises(ValueError, match="as in lenet-75-25"):
        ticket_network("lenet-0-25")


def test_dense_weights_are_transposed(tmp_path):
    arrays = pytorch_mlpnet()
    np.savez(tmp_path / "mlpnet.npz", **arrays)
    save_file(arrays, tmp_path / "mlpnet.safetensors")
    x = np.random.default_rng(1).normal(size=(3, 28, 28, 1)).astype(np.float32)
    hidden = np.maximum(x.reshape(3, -1) @ arrays["fc1.weight"].T, 0)
    expected = np.maximum(hidden @ arrays["fc2.weight"].T, 0) @ arrays["fc3.weight"].T
    for suffix in ("npz", "safetensors"):
        model = load_checkpoint("mlpnet", tmp_path / f"mlpnet.{suffix}")
        assert np.allclose(model(x), expected, rtol=1e-4, atol=1e-3)


def test_convolutions_and_batch_norm_take_their_places(tmp_path):
    """A PyTorch-named file of ResNet20 where every array is told apart by its values."""
    model = nnx.eval_shape(lambda: named_network("resnet20").build(seed=0))
    names = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    arrays, expected = {}, {}
    rng = np.random.default_rng(0)
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        key = ".".join(map(str, path[:-1])).replace("shortcut_bn", "downsample.1").replace("shortcut", "downsample.0")
        value = rng.normal(size=leaf.shape).astype(np.float32)
        expected[path] = value
        layout = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[value.ndim]
        arrays[f"{key}.{names[path[-1]]}"] = value.transpose(layout)
    arrays["bn1.num_batches_tracked"] = np.array(7)
    np.savez(tmp_path / "resnet.npz", **arrays)
    loaded = load_checkpoint("resnet20", tmp_path / "resnet.npz")
    found = dict(nnx.to_flat_state(nnx.state(loaded)))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[path][...], expected[path]) for path in expected)


def test_a_file_with_the_modules_own_names_is_read_as_it_is(tmp_path):
    model = named_network("digits-cnn").build(seed=4)
    own = {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(nnx.state(model))}
    save_file(own, tmp_path / "own.safetensors")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    assert np.array_equal(load_checkpoint("digits-cnn", tmp_path / "own.safetensors")(x), model(x))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fc2.weight": None}, "missing: fc2/kernel"),
        ({"fc9.weight": np.zeros((2, 2))}, "unexpected: fc9/kernel"),
        ({"fc3.weight": np.zeros((10, 21))}, r"of another shape: fc3/kernel of \(21, 10\) instead of \(20, 10\)"),
        ({"fc3.weight": np.full((10, 20), np.inf)}, "infinite values in fc3/kernel"),
        ({"fc1.weight": None, "fc1.bias": np.zeros(40)}, "missing: fc1/kernel; unexpected: fc1/bias"),
    ],
)
def test_a_foreign_checkpoint_is_refused_with_every_difference(tmp_path, changes, message):
    np.savez(tmp_path / "foreign.npz", **pytorch_mlpnet(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint("mlpnet", tmp_path / "foreign.npz")
    assert "foreign.npz" in str(caught.value)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_damaged_checkpoint_is_refused(tmp_path, suffix):
    path = tmp_path / f"damaged.{suffix}"
    np.savez(path, **pytorch_mlpnet()) if suffix == "npz" else save_file(pytorch_mlpnet(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="Cannot read the checkpoint"):
        load_checkpoint("mlpnet", path)


def test_unknown_names_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no network 'alexnet'; use one of digits-mlp"):
        named_network("alexnet")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint("mlpnet", tmp_path / "absent.npz")
    (tmp_path / "weights.pt").touch()
    with pytest.raises(ValueError, match=r"neither in \.npz nor in \.safetensors"):
        load_checkpoint("mlpnet", tmp_path / "weights.pt")


def test_a_file_of_your_own_gets_a_network_that_fits(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 3, size=(60, 4, 2)), rng.integers(3, size=60)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    data = load(tmp_path / "mine.npz", seed=0)
    network = network_for(data)
    inputs = network.normalize(data.train.inputs)
    assert abs(inputs.mean()) < 1e-5 and abs(inputs.std() - 1) < 1e-5
    assert network.build(seed=0)(inputs[:5]).shape == (5, 3)
    assert network_for(load("digits", seed=0)).name == "digits-mlp"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "percent"),
    [
        ("mlpnet", "mlpnet_mnist.npz", 93.97),
        ("lenet-300-100", "dns_lenet300100_dense.npz", 97.72),
        ("resnet20", "woodfisher_resnet20_cifar10.npz", 91.43),
    ],
)
def test_published_checkpoints_have_their_published_accuracy(name, file, percent):
    path = Path(os.environ["ANNEALSUBNET_DATA"]) / "checkpoints" / file
    network = named_network(name)
    batches = load(network.data, seed=0).batches("test", 1000, normalize=network.normalize)
    assert 100 * accuracy(load_checkpoint(name, path), batches) == pytest.approx(percent, abs=0.011)
