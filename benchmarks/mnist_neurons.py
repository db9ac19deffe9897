"""Neurons kept in networks trained on MNIST, an MLP of two layers of 256 and a small CNN: annealed against classical methods.

    ANNEALSUBNET_DATA=folder python benchmarks/mnist_neurons.py --out out/mnist_neurons

Writes rows a network and seed (CSV), table.md, a figure a network, and config.json; see `neurons.py` for the protocol.
"""

from neurons import main

if __name__ == "__main__":
    main(__doc__.splitlines()[0], ["mnist-mlp", "mnist-cnn"], out="out/mnist_neurons")
