"""Many layers of convolutional sparse coding: dictionaries of dictionaries, pursuits through all of them, guarantees."""

from triptych.sparse.deep.alternating import alternating, certifier
from triptych.sparse.deep.certified import StableCodes, coding_lipschitz, stable_codes
from triptych.sparse.deep.coding import Cascade, LayerLoss, MultiLayerCoding, Table
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.exact import primal_dual
from triptych.sparse.deep.forward import layered_thresholding
from triptych.sparse.deep.from_torch import Converted, LayerReport, from_torch, model_penalty
from triptych.sparse.deep.guarantees import DeepGuarantees, LayerGuarantees, deep_guarantees
from triptych.sparse.deep.holistic import Holistic, holistic
from triptych.sparse.deep.ista import ml_fista, ml_ista
from triptych.sparse.deep.learning import LayerShape
from triptych.sparse.deep.networks import MultiLayerNet, NetSpec
from triptych.sparse.deep.projection import Fit, Projected, project
from triptych.sparse.deep.pursue import MultiLayerPursuit, deepest_codes, pursue_layers
from triptych.sparse.deep.sample import Sample, sample

__all__ = [
    "Cascade",
    "Converted",
    "DeepGuarantees",
    "Fit",
    "Holistic",
    "LayerGuarantees",
    "LayerLoss",
    "LayerReport",
    "LayerShape",
    "MultiLayerCoding",
    "MultiLayerDictionary",
    "MultiLayerNet",
    "MultiLayerPursuit",
    "NetSpec",
    "Projected",
    "Sample",
    "StableCodes",
    "Table",
    "alternating",
    "certifier",
    "coding_lipschitz",
    "deep_guarantees",
    "deepest_codes",
    "from_torch",
    "holistic",
    "layered_thresholding",
    "ml_fista",
    "ml_ista",
    "model_penalty",
    "primal_dual",
    "project",
    "pursue_layers",
    "sample",
    "stable_codes",
]
