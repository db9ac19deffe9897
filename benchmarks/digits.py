"""Neurons kept in networks trained on scikit-learn's digits, an MLP and a small CNN: annealed against classical methods.

    python benchmarks/digits.py --out out/digits

Writes rows a network and seed (CSV), table.md, a figure a network, and config.json; see `neurons.py` for the protocol.
"""

from neurons import main

if __name__ == "__main__":
    main(__doc__.splitlines()[0], ["digits-mlp", "digits-cnn"], out="out/digits")
