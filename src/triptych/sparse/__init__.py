"""Convolutional sparse coding: dictionaries, and pursuits whose answers are certified."""

from triptych.sparse.coding import Coding, Masked
from triptych.sparse.dictionary import ConvDictionary, Synthesis
from triptych.sparse.fold import Folded, fold
from triptych.sparse.pursuits.working_set import WorkingSet, solver, working_set

__all__ = ["Coding", "ConvDictionary", "Folded", "Masked", "Synthesis", "WorkingSet", "fold", "solver", "working_set"]
