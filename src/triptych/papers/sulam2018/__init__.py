"""Sulam, Papyan, Romano & Elad, Multi-Layer Convolutional Sparse Modeling: Pursuit and Dictionary Learning, IEEE TSP 2018."""
