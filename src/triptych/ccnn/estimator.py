"""`CCNNClassifier`: convexified convolutional networks as a scikit-learn estimator."""

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from triptych.ccnn import model
from triptych.ccnn.inputs import as_maps, as_rows, check_form, plain, scale_of, shape_of_images
from triptych.ccnn.layer import ConvexLayer, Effort, fit_layer, nuclear_norm_and_rank
from triptych.ccnn.settings import Layer, layers_of
from triptych.check import InputError, choice, real, whole, wrong
from triptych.convex import Certificate

PRECISIONS = {"auto": None, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
INTERPOLATES = 0.1  # gap over objective above which a solution says nothing about the rank


class CCNNClassifier(ClassifierMixin, TransformerMixin, BaseEstimator):
    """A convexified convolutional network: every layer is a convex program, solved to a certified gap, one after another.

    Parameters
    ----------
    layers : int, Layer or sequence of Layer, default=1
        How many layers with default settings, or their settings.
    radius : float or None, default=None
        Radius of the nuclear-norm ball of every layer; None: each layer's own.
    tol : float, default=1e-3
        A layer is solved when its certified gap is at most tol · log(number of classes).
    max_iter : int, default=1000
        Most solver steps a layer.
    image_shape : tuple of int or None, default=None
        (c, h, w) or (h, w) of the images whose pixels are the rows of X; None: square with 1 or 3 channels.
    memory_limit : float, default=4.0
        GiB for the features of one layer; those that do not fit are made again at every step.
    precision : {"auto", "bfloat16", "float32", "float64"}, default="auto"
        What features are computed and stored in; "auto" takes the coarsest that the layer's expansion is safe in, but
        float32 where there are few (at most 2^23 numbers).
    device : str or torch.device, default="cpu"
        Where the features and the solver live.
    random_state : int, RandomState or None, default=None
        Seed of the random features and of the samples that statistics are taken from.
    verbose : int or callable, default=0
        1 prints a line a certificate on standard error; a function is called with (layer, step, certificate).

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, of their own type.
    scale_ : float
        What pixels are divided by: 255 for uint8, else the largest magnitude in the training images.
    image_shape_ : tuple
        (c, h, w) of the training images.
    layers_ : list of ConvexLayer
        The fitted layers.
    solution_ : list of Solution
        Of each layer: status, steps, history of objective and lower bound.
    objective_, lower_bound_, gap_, relative_gap_ : ndarray of shape (n_layers,)
        Mean logistic loss in nats, a lower bound on its least value over the ball, their difference, and that over
        log(n_classes). Computed in float64 from the features as stored.
    nuclear_norm_ : ndarray of shape (n_layers,)
        ‖A‖_* of each layer.
    rank_ : ndarray of shape (n_layers,)
        Singular values of A above 1e-6 of the largest.
    interpolates_ : ndarray of bool of shape (n_layers,)
        Whether the gap is above 10 % of the objective: the rank is then no property of the optimum.
    filters_ : list of ndarray (r, q)
        Filters of each layer, in the coordinates of its features.
    n_iter_ : int
        Most solver steps that a layer took.

    Notes
    -----
    Raises InputError (a ValueError) where X, y or a parameter is wrong. What is convex is each layer, given the ones
    before it; the network as a whole is trained greedily. There is no intercept: features are centred, and class shares
    are expressed through them alone.

    References
    ----------
    Zhang, Liang & Wainwright, Convexified Convolutional Neural Networks, ICML 2017, Algorithms 1 and 2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from triptych import CCNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = CCNNClassifier(random_state=0).fit(X[:1000], y[:1000])
    >>> bool(clf.score(X[1000:], y[1000:]) > 0.9)
    True
    """

    n_features_in_: int

    def __init__(
        self,
        layers: int | Layer | Sequence[Layer] = 1,
        *,
        radius: float | None = None,
        tol: float = 1e-3,
        max_iter: int = 1000,
        image_shape: tuple[int, ...] | None = None,
        memory_limit: float = 4.0,
        precision: str = "auto",
        device: str | torch.device = "cpu",
        random_state: Any = None,
        verbose: int | Callable[[int, int, Certificate], None] = 0,
    ) -> None:
        self.layers = layers
        self.radius = radius
        self.tol = tol
        self.max_iter = max_iter
        self.image_shape = image_shape
        self.memory_limit = memory_limit
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "CCNNClassifier":
        """Train on images X and labels y (n,), layer by layer. Warns (ConvergenceWarning) where ``tol`` is not reached.

        X is (n, d), (n, h, w) or (n, c, h, w), NumPy or torch, or `Images`.
        """
        X, form = as_rows(X)
        X, y = validate_data(self, X, plain(y), dtype="numeric")
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y must hold at least two classes, got one class, {self.classes_.tolist()[0]!r}")
        self.image_shape_ = shape_of_images(form or X.shape[1:], self.image_shape)
        settings = layers_of(self.layers, self.radius, self.image_shape_)
        self.scale_ = scale_of(X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        rng = torch.Generator().manual_seed(seed)
        device = device_of(self.device)
        maps, targets = as_maps(X, self.image_shape_, device), torch.from_numpy(labels).long().to(device)
        scale = 1.0 / self.scale_
        self.layers_: list[ConvexLayer] = []
        for number, layer_settings in enumerate(settings, start=1):
            layer = fit_layer(maps, targets, len(self.classes_), layer_settings, rng, self._effort(number), scale)
            self.layers_.append(layer)
            if number < len(settings):
                maps, scale = layer.transform(maps), layer.map_scale
        self._describe()
        self._warn_unconverged()
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (n, n_classes) of the last layer; for two classes their difference (n,), positive for the second."""
        logits = self._logits(X).double().cpu().numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, X: Any) -> np.ndarray:
        """Labels (n,)."""
        chosen = self._logits(X).argmax(1).cpu().numpy()
        return self.classes_[chosen]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, n_classes): the softmax of the last layer's logits."""
        return torch.softmax(self._logits(X).double(), 1).cpu().numpy()

    def transform(self, X: Any) -> np.ndarray:
        """The last layer's feature maps, float32: (n, r, P0, P1) for images, flattened to rows where X is (n, d)."""
        maps, rows = self._maps(X)
        out = (self.layers_[-1].transform(maps).float() * self.layers_[-1].map_scale).cpu().numpy()
        return out.reshape(len(out), -1) if rows else out

    def save(self, folder: str | Path) -> Path:
        """Save the fitted model as a folder of safetensors and JSON, written beside and renamed."""
        check_is_fitted(self)
        return model.save(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> "CCNNClassifier":
        """Load a model that `save` wrote. Raises InputError for anything else, and for any damage."""
        return model.load(cls, folder)

    def _maps(self, X: Any) -> tuple[Tensor, bool]:
        """The maps that the last layer reads, and whether X came as rows."""
        check_is_fitted(self)
        X, form = as_rows(X)
        check_form(form, self.image_shape_)
        X = validate_data(self, X, dtype="numeric", reset=False)
        if self.scale_ == 255.0 and X.dtype.kind == "f" and X.size and X.min() >= 0 and 0 < X.max() <= 1:
            warnings.warn(
                "X holds numbers from 0 to 1, but the model was trained on pixels from 0 to 255; multiply X by 255",
                UserWarning,
                stacklevel=4,
            )
        maps = as_maps(X, self.image_shape_, device_of(self.device))
        for layer in self.layers_[:-1]:
            maps = layer.transform(maps)
        return maps, form is None

    def _logits(self, X: Any) -> Tensor:
        maps, _ = self._maps(X)
        return self.layers_[-1].logits(maps)

    def _effort(self, number: int) -> Effort:
        if not callable(self.verbose):
            whole("verbose", self.verbose, low=0, remedy="0 is silent, 1 prints, a function is called")

        def progress(step: int, certificate: Certificate) -> None:
            if callable(self.verbose):
                self.verbose(number, step, certificate)
            elif self.verbose:
                relative = float(certificate.gap) / math.log(len(self.classes_))
                print(
                    f"layer {number}, step {step}: objective {float(certificate.objective):.6f}, "
                    f"gap {float(certificate.gap):.6f} ({100 * relative:.3f} % of log {len(self.classes_)})",
                    file=sys.stderr,
                )

        return Effort(
            tol=real("tol", self.tol, above=0.0),
            max_steps=whole("max_iter", self.max_iter),
            memory=int(real("memory_limit", self.memory_limit, low=0.0, high=1e9) * 2**30),
            precision=PRECISIONS[choice("precision", self.precision, PRECISIONS)],
            progress=progress,
        )

    def _describe(self) -> None:
        """Set the attributes that summarise the layers."""
        self.solution_ = [layer.solution for layer in self.layers_]
        self.objective_ = np.array([float(s.objective) for s in self.solution_])
        self.lower_bound_ = np.array([float(s.lower_bound) for s in self.solution_])
        self.gap_ = self.objective_ - self.lower_bound_
        self.relative_gap_ = self.gap_ / math.log(len(self.classes_))
        measured = [nuclear_norm_and_rank(layer.A) for layer in self.layers_]
        self.nuclear_norm_ = np.array([norm for norm, _ in measured])
        self.rank_ = np.array([rank for _, rank in measured])
        self.interpolates_ = self.gap_ > INTERPOLATES * self.objective_
        self.filters_ = [layer.filters.mT.float().cpu().numpy() for layer in self.layers_]
        self.n_iter_ = max(int(s.steps) for s in self.solution_)

    def _warn_unconverged(self) -> None:
        for number, (relative, solution) in enumerate(zip(self.relative_gap_, self.solution_), start=1):
            if not solution.converged:
                warnings.warn(
                    f"layer {number} stopped after {int(solution.steps)} steps at a certified gap of {relative:.2e} of "
                    f"log(number of classes), above tol={self.tol:g}: {solution.status[0].value}; raise max_iter or tol",
                    ConvergenceWarning,
                    stacklevel=3,
                )


def device_of(name: Any) -> torch.device:
    """The torch device of a name. Raises InputError where there is none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, TypeError, AssertionError):
        raise wrong("device", "a torch device that this machine has, such as 'cpu' or 'cuda'", name) from None
    return device
