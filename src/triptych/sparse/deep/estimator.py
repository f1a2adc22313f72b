"""`MultiLayerSparseCoder`: dictionaries of many layers learned from signals, as a scikit-learn estimator."""

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from triptych.check import InputError, choice, real, whole, wrong
from triptych.sparse.codes import Codes
from triptych.sparse.deep import model
from triptych.sparse.deep.coding import MultiLayerCoding
from triptych.sparse.deep.learning import LayerShape, Plan, begun, learnt, order, parsed, revived
from triptych.sparse.deep.pursue import deepest_codes
from triptych.sparse.deep.sample import Sample, sample
from triptych.sparse.inputs import as_rows, as_signals, rows_of, shape_of_signals

SCALES = ("signal", "absolute")
TOGETHER = 250  # signals that are coded at a time
EXAMPLES = 8  # signals that are kept
REVIVAL = 0.6  # of all visits: until then idle atoms are made anew


class MultiLayerSparseCoder(TransformerMixin, BaseEstimator):
    """Dictionaries D_1, ..., D_L such that every signal is D_1 D_2 ... D_L g with a sparse g, and sparse codes in between.

    minimise over unit atoms and codes    Σ ½ ‖D_1 ... D_L g - y‖² + λ ‖g‖₁,    atoms of D_2, ..., D_L with few non-zeros

    Parameters
    ----------
    layers : str or tuple of LayerShape, default="32x4,64x3"
        Atoms x size s stride of every layer, from the signal inwards, "32x7s2,128x5".
    density : float, default=0.02
        The share of an atom's entries that may be other than 0, in all layers but the first; a LayerShape with a density of its
        own below 1 keeps that.
    reg : float, default=0.03
        λ; of ``reg_scale`` "signal" as a fraction of the mean norm of the training signals, "absolute": λ itself.
    reg_scale : {"signal", "absolute"}, default="signal"
    nonnegative : bool, default=True
        Whether deepest codes are at least 0.
    max_iter : int, default=10
        Visits to every signal in `fit`.
    batch_size : int, default=250
        Signals between two steps of the atoms.
    rate : float, default=0.05
        The first step size, relative to the norm of an atom; it falls to a twentieth.
    code_tol : float, default=0.02
        Certified relative gap of the codes of `transform` and of `score`.
    signal_shape : tuple of int or None, default=None
        Shape of the signals that are the rows of X, (c, n) or (c, h, w); None: as `ConvolutionalDictionaryLearning` takes it.
    warm_start : bool, default=False
        Whether `fit` goes on from where one with the same parameters and signals was interrupted: to the same numbers.
    random_state : int, RandomState or None, default=None
        Seed of the first atoms and of the order of the signals.
    verbose : int or callable, default=0
        1 prints a line a visit on standard error; a function is called with (number of visits, mean objective).

    Attributes
    ----------
    dictionary_ : MultiLayerDictionary
        What was learned.
    reg_ : float
        λ.
    objective_ : list of float
        The mean objective of the signals of each visit, each with the atoms of its moment.
    n_iter_ : int
        Visits.
    signal_shape_ : tuple
        (c, n) or (c, h, w) of the training signals.
    n_samples_ : int
        How many there were.
    examples_ : Tensor
        The first of them, to be shown.

    Notes
    -----
    Codes alone are a convex problem and are certified; learning is not convex, and its result is no optimum. Raises InputError (a
    ValueError) where X or a parameter is wrong.

    References
    ----------
    Sulam, Papyan, Romano & Elad, Multi-Layer Convolutional Sparse Modeling: Pursuit and Dictionary Learning, IEEE TSP 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from triptych import MultiLayerSparseCoder
    >>> X = load_digits().images[:200] / 16
    >>> coder = MultiLayerSparseCoder("16x3,24x3", density=0.2, max_iter=2, random_state=0).fit(X)
    >>> coder.transform(X).shape
    (200, 384)
    """

    n_features_in_: int

    def __init__(
        self,
        layers: str | Sequence[LayerShape] = "32x4,64x3",
        *,
        density: float = 0.02,
        reg: float = 0.03,
        reg_scale: str = "signal",
        nonnegative: bool = True,
        max_iter: int = 10,
        batch_size: int = 250,
        rate: float = 0.05,
        code_tol: float = 0.02,
        signal_shape: tuple[int, ...] | None = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int | Callable[[int, float], None] = 0,
    ) -> None:
        self.layers = layers
        self.density = density
        self.reg = reg
        self.reg_scale = reg_scale
        self.nonnegative = nonnegative
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.rate = rate
        self.code_tol = code_tol
        self.signal_shape = signal_shape
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "MultiLayerSparseCoder":
        """Learn from signals X, NumPy or torch, ``(n, d)``, ``(n, h, w)`` or ``(n, c, h, w)``, or `Images`."""
        whole("max_iter", self.max_iter)
        if not callable(self.verbose):
            whole("verbose", self.verbose, low=0, remedy="0 is silent, 1 prints, a function is called")
        going = self.warm_start and hasattr(self, "_state")
        signals = self._given(X, reset=not going)
        if not going:
            self._begin(signals)
        elif not self._resumable:
            raise InputError(
                "this model was saved without what fit goes on from; save it resumable, or fit without warm_start"
            )
        elif len(signals) != self.n_samples_ or not torch.equal(signals[:EXAMPLES].to(self.examples_), self.examples_):
            raise InputError(
                f"warm_start needs the signals that fit had, {self.n_samples_} of them; use warm_start=False"
            )
        plan = self._plan(len(signals))
        per = math.ceil(len(signals) / plan.batch)
        while self._state.step < plan.steps:
            part = order(len(signals), plan.batch, plan.seed, self._state.step)
            state, objective = learnt(self._state, signals[part], plan)
            visit, log = [*self._visit, objective * len(part)], self.objective_
            if over := state.step % per == 0:
                if state.step < REVIVAL * plan.steps:
                    state = revived(state, signals[order(len(signals), plan.batch, plan.seed, state.step)], plan)
                visit, log = [], [*log, sum(visit) / len(signals)]
            self._state, self._visit, self.objective_ = state, visit, log  # all or nothing, whatever interrupts
            if over:
                self._went(plan)
        self._describe(plan)
        return self

    def codes(self, X: Any) -> tuple[Tensor, ...]:
        """(G_1, ..., G_L) of signals, each ``(n, k_i, *code_shape_i)``, G_{i-1} = D_i G_i. Warns where ``code_tol`` was not reached."""
        check_is_fitted(self)
        signals = self._given(X)
        deep = self._coded(signals)[0]
        return self.dictionary_.cascade(deep, signals.shape[2:])[1:]

    def transform(self, X: Any) -> csr_array:
        """The deepest codes of signals as sparse rows, (n, k_L · places)."""
        check_is_fitted(self)
        return rows_of(Codes.of(self._coded(self._given(X))[0]))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """D_1 ... D_L g of codes as `transform` gives them, sparse or dense: signals in the shape of those of fit."""
        check_is_fitted(self)
        space = self.signal_shape_[1:]
        shape = (self.dictionary_.n_atoms[-1], *self.dictionary_.code_shapes(space)[-1])
        rows = X.toarray() if issparse(X) else np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != math.prod(shape) or rows.dtype.kind not in "fiu":
            raise wrong("X", f"an array (n, {math.prod(shape)}) of codes", f"{rows.dtype} {rows.shape}")
        codes = torch.from_numpy(np.ascontiguousarray(rows)).to(self._dtype).reshape(-1, *shape)
        signals = [self.dictionary_.synthesise(part, space) for part in codes.split(TOGETHER)]
        return torch.cat(signals).numpy().reshape(len(rows), *self._form)

    def score(self, X: Any, y: Any = None) -> float:
        """Minus the mean objective of signals, ½ ‖D_1 ... D_L g - y‖² + λ ‖g‖₁, at certified codes: higher is better."""
        check_is_fitted(self)
        return -float(self._coded(self._given(X))[1].mean())

    def sample(self, n_samples: int = 1, *, nonzeros: int | None = None, random_state: Any = None) -> Sample:
        """Draw signals of the training signals' shape from the model: a deepest code with so many non-zeros at random places, and
        what it makes of itself, layer by layer.

        ``nonzeros`` None: as many as the codes of ``examples_`` have on average. Magnitudes are uniform between the first and the last
        decile of theirs. Places and magnitudes are independent, which those of real signals are not.
        """
        check_is_fitted(self)
        space = self.signal_shape_[1:]
        code = self._coded(self.examples_)[0]
        sizes = code[code != 0].abs().double()
        if not len(sizes):
            raise InputError(
                "the codes of this model's examples are 0, so that nothing can be drawn like them; learn with a smaller reg"
            )
        least, most = torch.quantile(sizes, torch.tensor([0.1, 0.9], dtype=torch.float64)).tolist()
        usual = max(1, round(len(sizes) / len(code)))
        rng = torch.Generator().manual_seed(int(check_random_state(random_state).randint(2**31 - 1)))
        return sample(
            self.dictionary_,
            n_samples,
            self.dictionary_.code_shapes(space)[-1],
            nonzeros=usual if nonzeros is None else nonzeros,
            least=least,
            most=most,
            nonnegative=self.nonnegative,
            shape=space,
            rng=rng,
        )

    def coding(self, X: Any) -> MultiLayerCoding:
        """Multi-layer basis pursuit of signals in these dictionaries, with λ for the deepest layer and 0 before, to be changed."""
        check_is_fitted(self)
        reg = (*(0.0,) * (len(self.dictionary_) - 1), self.reg_)
        return MultiLayerCoding(self.dictionary_, self._given(X), reg, "absolute", self.nonnegative)

    def save(self, folder: str | Path, resumable: bool = True) -> Path:
        """Save as a folder of safetensors and JSON, written beside and renamed; what `fit` goes on from only if ``resumable``."""
        check_is_fitted(self)
        return model.save(self, folder, resumable)

    @classmethod
    def load(cls, folder: str | Path) -> "MultiLayerSparseCoder":
        """Load what `save` wrote. Raises InputError for anything else, and for any damage."""
        return model.load(cls, folder)

    @property
    def _dtype(self) -> torch.dtype:
        return self.dictionary_.layers[0].atoms.dtype

    def _shapes(self) -> tuple[LayerShape, ...]:
        """The layers, with the density of those that have none of their own."""
        density = real("density", self.density, above=0.0, high=1.0)
        if isinstance(self.layers, str):
            layers = parsed(self.layers)
        else:
            layers = tuple(self.layers)
            if not layers or not all(isinstance(layer, LayerShape) for layer in layers):
                raise wrong("layers", 'a text like "32x7s2,128x5" or a tuple of LayerShape', self.layers)
        deeper = [
            LayerShape(layer.atoms, layer.size, layer.stride, density) if layer.density == 1.0 else layer
            for layer in layers[1:]
        ]
        return (layers[0], *deeper)

    def _plan(self, n: int) -> Plan:
        batch = min(whole("batch_size", self.batch_size), n)
        steps = self.max_iter * math.ceil(n / batch)
        return Plan(self.reg_, self.nonnegative, batch, real("rate", self.rate, above=0.0), steps, self._seed)

    def _given(self, X: Any, reset: bool = False) -> Tensor:
        """Signals ``(n, c, *shape)``, checked; their shape is learned where ``reset``."""
        given, form = as_rows(X)
        rows: Any = validate_data(self, given, dtype=[np.float64, np.float32], reset=reset)
        form = form or rows.shape[1:]
        if reset:
            self.signal_shape_, self._form = shape_of_signals(form, self.signal_shape), form
        elif math.prod(form) != math.prod(self.signal_shape_) or (len(form) > 1 and form != self._form):
            raise InputError(f"signals must have the shape of the training signals, {self._form}, got {form}")
        signals = as_signals(rows, self.signal_shape_)
        return signals if reset or not hasattr(self, "dictionary_") else signals.to(self._dtype)

    def _begin(self, signals: Tensor) -> None:
        """The first atoms and λ."""
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        reg, shapes = real("reg", self.reg, above=0.0), self._shapes()
        choice("reg_scale", self.reg_scale, SCALES)
        if self.reg_scale == "signal":
            reg *= float(signals.flatten(1).norm(dim=1).mean())
        if not reg > 0:
            raise InputError("X must hold a signal that is not 0; there is nothing to learn from")
        self.reg_ = reg
        state = begun(shapes, self.signal_shape_[0], len(self.signal_shape_) - 1, self._seed, signals.dtype)
        state.dictionary(self._plan(len(signals))).code_shapes(self.signal_shape_[1:])
        self._state, self.objective_, self._visit, self._resumable = state, [], [], True
        self.examples_, self.n_samples_ = signals[:EXAMPLES].clone(), len(signals)
        self._describe(self._plan(len(signals)))

    def _went(self, plan: Plan) -> None:
        """A visit is over."""
        self._describe(plan)
        objective = self.objective_[-1]
        if callable(self.verbose):
            self.verbose(self.n_iter_, objective)
        elif self.verbose:
            print(f"visit {self.n_iter_}: objective {objective:.6g}", file=sys.stderr)

    def _describe(self, plan: Plan) -> None:
        """Set the attributes that summarise the state."""
        self.dictionary_ = self._state.dictionary(plan)
        self.n_iter_ = len(self.objective_)

    def _coded(self, signals: Tensor) -> tuple[Tensor, Tensor]:
        """Deepest codes ``(n, k_L, ...)`` and objectives (n,) of signals."""
        tol, codes, objectives, late = real("code_tol", self.code_tol, above=0.0), [], [], 0
        for part in signals.split(TOGETHER):
            found = deepest_codes(self.dictionary_, part, self.reg_, self.nonnegative, tol)
            codes.append(found.x.to(signals.dtype))
            objectives.append(found.objective)
            late += sum(status.name != "CONVERGED" for status in found.status)
        if late:
            warnings.warn(
                f"{late} of {len(signals)} codes are not certified to code_tol={self.code_tol:g}; raise it",
                ConvergenceWarning,
                stacklevel=4,
            )
        return torch.cat(codes), torch.cat(objectives)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
