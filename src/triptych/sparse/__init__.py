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
from triptych.sparse.restore import Restored, denoise, inpaint, split
from triptych.sparse.shipped import load_dictionary

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
    "Restored",
    "Synthesis",
    "WorkingSet",
    "admm",
    "certified_radius",
    "denoise",
    "fold",
    "greedy",
    "guarantees",
    "inpaint",
    "load_dictionary",
    "may_enter",
    "omp",
    "pursue",
    "slices",
    "split",
    "working_set",
]
