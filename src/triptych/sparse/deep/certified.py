"""How far a signal may move before a linear classifier on its code of many layers changes its label.

Layers are coded one after another by elastic nets, argmin ½ ‖G_{i-1} - D_i G‖² + λ_i Σ G + ½ ridge_i ‖G‖² over G >= 0. On every
set A of atoms in use that map is linear, (D_A* D_A + ridge)⁻¹ D_A*, of norm at most max_s s / (s² + ridge) <= 1 / (2 sqrt(ridge)); it is
continuous, so that it is Lipschitz with that constant on all signals. A signal that moves by ε moves the code of layer i by at
most ε times the product of the constants up to it, and at the last layer `triptych.sparse.certified_radius` says how far that
code may move; the radius for the signal is that one over the product.

Differs from Romano, Aberdam, Sulam & Elad, JMIV 2020, whose bounds ask for a small coherence: these hold for any dictionary.
"""

from math import sqrt

import torch
from torch import Tensor

from triptych.check import real


def coding_lipschitz(atoms: Tensor, ridge: float) -> float:
    """The largest s / (s² + ridge) over 0 <= s <= ‖D‖ of atoms (k, n): how much farther apart codes are than signals, at most."""
    ridge = real("ridge", ridge, above=0.0)
    top = float(torch.linalg.matrix_norm(atoms.double(), 2))
    return top / (top * top + ridge) if top * top <= ridge else 1 / (2 * sqrt(ridge))
