"""Triptych: convolutional networks one can reason about, in three panels.

Public names are resolved on first use (PEP 562), so that ``import triptych`` does not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from triptych.ccnn.estimator import CCNNClassifier
    from triptych.data import load
    from triptych.images import Images
    from triptych.sparse.deep.estimator import MultiLayerSparseCoder
    from triptych.sparse.estimator import ConvolutionalDictionaryLearning

_HOMES = {
    "CCNNClassifier": "triptych.ccnn.estimator",
    "ConvolutionalDictionaryLearning": "triptych.sparse.estimator",
    "Images": "triptych.images",
    "MultiLayerSparseCoder": "triptych.sparse.deep.estimator",
    "load": "triptych.data",
}

__all__ = [
    "CCNNClassifier",
    "ConvolutionalDictionaryLearning",
    "Images",
    "MultiLayerSparseCoder",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'triptych' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, resolved or not."""
    return sorted(set(globals()) | set(__all__))
