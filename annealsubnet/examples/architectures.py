"""The example networks as Flax NNX modules: multilayer perceptrons, a small convolutional network, and ResNet20.

Every module takes images (height, width, channels) as they are and returns logits. Layers that pruning papers call by
a name have that name here, so that tables and masks read like the papers.

References:
    S. P. Singh and D. Alistarh, *WoodFisher*, NeurIPS 2020 (MLPNet; ResNet20 with 1×1 convolutions in shortcuts).
    Y. Guo, A. Yao, Y. Chen, *Dynamic network surgery for efficient DNNs*, NeurIPS 2016 (LeNet-300-100).
    K. He, X. Zhang, S. Ren, J. Sun, *Deep residual learning for image recognition*, CVPR 2016.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike


class MLP(nnx.Module):
    """Dense layers with ReLU between them, called fc1, fc2, … as in the papers.

    Args:
        input_shape: of one example; it is flattened.
        widths: outputs of each layer, the number of classes last.
        use_bias: whether the layers have biases.
        rngs: draws the weights.
    """

    def __init__(self, input_shape: tuple[int, ...], widths: tuple[int, ...], *, use_bias: bool = True, rngs: nnx.Rngs):
        fan_in = math.prod(input_shape)
        for number, width in enumerate(widths, 1):
            setattr(self, f"fc{number}", nnx.Linear(fan_in, width, use_bias=use_bias, rngs=rngs))
            fan_in = width
        self.depth = len(widths)

    def __call__(self, inputs: ArrayLike) -> jax.Array:
        """Logits [examples, classes]."""
        x = jnp.asarray(inputs)
        x = x.reshape(x.shape[0], -1)
        for number in range(1, self.depth):
            x = nnx.relu(getattr(self, f"fc{number}")(x))
        return getattr(self, f"fc{self.depth}")(x)


class CNN(nnx.Module):
    """Two 3×3 convolutions, each with BatchNorm, ReLU and 2×2 average-pooling, then two dense layers.

    (The gradient of max-pooling takes 20 times as long as that of average-pooling on a CPU, half of a training step.)

    Args:
        input_shape: (height, width, channels).
        channels: outputs of the two convolutions.
        hidden: neurons of the first dense layer.
        num_classes: outputs of the second.
        rngs: draws the weights.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        *,
        channels: tuple[int, int] = (16, 32),
        hidden: int = 64,
        num_classes: int = 10,
        rngs: nnx.Rngs,
    ):
        height, width, colors = input_shape
        first, second = channels
        self.conv1 = nnx.Conv(colors, first, (3, 3), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(first, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(first, second, (3, 3), use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(second, momentum=0.9, rngs=rngs)
        self.fc1 = nnx.Linear((height // 4) * (width // 4) * second, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, inputs: ArrayLike) -> jax.Array:
        """Logits [examples, classes]."""
        x = nnx.avg_pool(nnx.relu(self.bn1(self.conv1(jnp.asarray(inputs)))), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.relu(self.bn2(self.conv2(x))), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        return self.fc2(nnx.relu(self.fc1(x)))


class ResidualBlock(nnx.Module):
    """Two 3×3 convolutions with BatchNorm, added to the input, or to its 1×1 convolution where the shape changes."""

    def __init__(self, fan_in: int, channels: int, stride: int, *, rngs: nnx.Rngs):
        one = ((1, 1), (1, 1))  # PyTorch's padding; "SAME" would pad a strided convolution on one side only
        self.conv1 = nnx.Conv(fan_in, channels, (3, 3), stride, padding=one, use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), padding=one, use_bias=False, rngs=rngs)
        self.bn2 = nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.changes_shape = stride != 1 or fan_in != channels
        if self.changes_shape:
            self.shortcut = nnx.Conv(fan_in, channels, (1, 1), stride, padding="VALID", use_bias=False, rngs=rngs)
            self.shortcut_bn = nnx.BatchNorm(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """The block's outputs [examples, height / stride, width / stride, channels]."""
        x = nnx.relu(self.bn1(self.conv1(inputs)))
        x = self.bn2(self.conv2(x))
        return nnx.relu(x + (self.shortcut_bn(self.shortcut(inputs)) if self.changes_shape else inputs))


class ResNet20(nnx.Module):
    """ResNet20 for 32×32 images: a convolution, three stages of three residual blocks, a dense layer."""

    def __init__(self, *, num_classes: int = 10, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(3, 16, (3, 3), padding=((1, 1), (1, 1)), use_bias=False, rngs=rngs)
        self.bn1 = nnx.BatchNorm(16, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.layer1 = self._stage(16, 16, 1, rngs)
        self.layer2 = self._stage(16, 32, 2, rngs)
        self.layer3 = self._stage(32, 64, 2, rngs)
        self.fc = nnx.Linear(64, num_classes, rngs=rngs)

    @staticmethod
    def _stage(fan_in: int, channels: int, stride: int, rngs: nnx.Rngs) -> nnx.List:
        shapes = [(fan_in, stride), (channels, 1), (channels, 1)]
        return nnx.List([ResidualBlock(inputs, channels, step, rngs=rngs) for inputs, step in shapes])

    def __call__(self, inputs: ArrayLike) -> jax.Array:
        """Logits [examples, classes]."""
        x = nnx.relu(self.bn1(self.conv1(jnp.asarray(inputs))))
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                x = block(x)
        return self.fc(x.mean(axis=(1, 2)))
