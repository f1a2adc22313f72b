"""Aberdam, Sulam & Elad, Multi-Layer Sparse Coding: The Holistic Way, SIAM J. Math. Data Sci. 2019."""
