"""Sulam, Aberdam, Beck & Elad, On Multi-Layer Basis Pursuit, Efficient Algorithms and Convolutional Neural Networks, 2019."""
