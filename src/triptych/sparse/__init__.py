"""Convolutional sparse coding: dictionaries, and pursuits whose answers are certified."""

from triptych.sparse.certified import Certified, certified_radius, may_enter
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding, Masked
from triptych.sparse.dictionary import ConvDictionary, Synthesis
from triptych.sparse.fold import Folded, fold
from triptych.sparse.guarantees import Guarantees, guarantees
from triptych.sparse.layer import CSCLayer
from triptych.sparse.pursue import Pursuit, pursue
from triptych.sparse.pursuits.admm import ADMM, admm
from triptych.sparse.pursuits.greedy import greedy
from triptych.sparse.pursuits.omp import Ending, Matched, omp
from triptych.sparse.pursuits.slices import slices
from triptych.sparse.pursuits.working_set import WorkingSet, working_set

__all__ = [
    "ADMM",
    "CSCLayer",
    "Certified",
    "Codes",
    "Coding",
    "ConvDictionary",
    "Ending",
    "Folded",
    "Guarantees",
    "Masked",
    "Matched",
    "Pursuit",
    "Synthesis",
    "WorkingSet",
    "admm",
    "certified_radius",
    "fold",
    "greedy",
    "guarantees",
    "may_enter",
    "omp",
    "pursue",
    "slices",
    "working_set",
]
