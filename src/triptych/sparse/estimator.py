"""`ConvolutionalDictionaryLearning`: a convolutional dictionary learned from signals, as a scikit-learn estimator."""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
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
from triptych.sparse import model
from triptych.sparse.codes import Codes
from triptych.sparse.coding import SCALES, Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.inputs import as_rows, as_signals, rows_of, shape_of_signals
from triptych.sparse.learning.learn import Effort, Signals, State, begun, epochs, streamed
from triptych.sparse.learning.start import patches
from triptych.sparse.pursue import pursue

TOGETHER = 32  # signals that are coded at a time


class ConvolutionalDictionaryLearning(TransformerMixin, BaseEstimator):
    """A convolutional dictionary: few small atoms, learned so that every signal is a sum of few of them, laid anywhere.

    minimise over atoms of norm 1 and codes    Σ ½ ‖mask · (D x - y)‖² + λ ‖x‖₁

    Parameters
    ----------
    n_atoms : int, default=64
        How many atoms.
    size : int or tuple of int, default=8
        Samples of an atom on every axis.
    stride : int, default=1
        Samples between two places of an atom.
    boundary : {"valid", "circular"}, default="valid"
        Atoms lie whole within the signal, or the ends of the signal meet.
    reg : float, default=0.1
        λ, of ``reg_scale`` "lambda_max" as a fraction of the least λ at which all codes of all training signals are 0
        with the initial atoms; "absolute": λ itself.
    reg_scale : {"lambda_max", "absolute"}, default="lambda_max"
    nonnegative : bool, default=False
        Whether codes are at least 0.
    rank_one : bool, default=False
        Whether an atom is one shape in space times a weight for every channel.
    max_iter : int, default=20
        Most visits to every signal in `fit`.
    tol : float, default=1e-3
        `fit` ends where a visit to all lowers the objective by less than this fraction.
    batch_size : int, default=1
        Signals between two updates of the atoms.
    forget : float, default=1.0
        How fast `partial_fit` forgets: before the t-th part all sums are multiplied by (1 - 1/t) ** forget.
    code_tol : float, default=1e-3
        Certified relative gap of the codes of `transform` and of `score`.
    signal_shape : tuple of int or None, default=None
        Shape of the signals that are the rows of X, (c, n) or (c, h, w); None: (n,) numbers are a signal of one axis, (h, w)
        grey pictures, (c, h, w) pictures of c channels.
    initial : array (n_atoms, c, *size), ConvDictionary or None, default=None
        The first atoms; None: patches of the training signals.
    warm_start : bool, default=False
        Whether `fit` goes on from where the last one, on the same signals, ended: to the numbers of one that never stopped.
    random_state : int, RandomState or None, default=None
        Seed of the first atoms and of the order of the signals.
    verbose : int or callable, default=0
        1 prints a line a visit on standard error; a function is called with (number of visits, objective).

    Attributes
    ----------
    dictionary_ : ConvDictionary
        What was learned.
    components_ : ndarray ``(n_atoms, c, *size)``
        Its atoms.
    reg_ : float
        λ.
    objective_ : list of float
        The objective after every visit of all signals, codes as they are then: it never rises.
    n_iter_ : int
        Visits.
    converged_ : bool
        Whether ``tol`` ended `fit`.
    signal_shape_ : tuple
        (c, n) or (c, h, w) of the training signals.

    Notes
    -----
    Codes alone are a convex problem and are certified; learning is not convex, and its result is no optimum: another seed
    gives other atoms. Raises InputError (a ValueError) where X or a parameter is wrong.

    References
    ----------
    Mairal, Bach, Ponce & Sapiro, Online Learning for Matrix Factorization and Sparse Coding, JMLR 2010; Garcia-Cardona &
    Wohlberg, Convolutional Dictionary Learning, IEEE TCI 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from triptych import ConvolutionalDictionaryLearning
    >>> X = load_digits().images[:100]
    >>> learner = ConvolutionalDictionaryLearning(8, size=4, random_state=0).fit(X)
    >>> codes = learner.transform(X)
    >>> codes.shape
    (100, 200)
    """

    n_features_in_: int

    def __init__(
        self,
        n_atoms: int = 64,
        *,
        size: int | Sequence[int] = 8,
        stride: int = 1,
        boundary: str = "valid",
        reg: float = 0.1,
        reg_scale: str = "lambda_max",
        nonnegative: bool = False,
        rank_one: bool = False,
        max_iter: int = 20,
        tol: float = 1e-3,
        batch_size: int = 1,
        forget: float = 1.0,
        code_tol: float = 1e-3,
        signal_shape: tuple[int, ...] | None = None,
        initial: Any = None,
        warm_start: bool = False,
        random_state: Any = None,
        verbose: int | Callable[[int, float], None] = 0,
    ) -> None:
        self.n_atoms = n_atoms
        self.size = size
        self.stride = stride
        self.boundary = boundary
        self.reg = reg
        self.reg_scale = reg_scale
        self.nonnegative = nonnegative
        self.rank_one = rank_one
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.forget = forget
        self.code_tol = code_tol
        self.signal_shape = signal_shape
        self.initial = initial
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, mask: Any = None) -> "ConvolutionalDictionaryLearning":
        """Learn from signals X, NumPy or torch, ``(n, d)``, ``(n, h, w)`` or ``(n, c, h, w)``, or `Images`.

        ``mask`` has the shape of X, or of one signal, and is 1 where a sample is known; what is not known may be NaN. Warns
        (ConvergenceWarning) where ``max_iter`` visits did not suffice for ``tol``.
        """
        tol, most = real("tol", self.tol, low=0.0), whole("max_iter", self.max_iter)
        going = self.warm_start and hasattr(self, "_state")
        data = self._given(X, mask, reset=not going)
        if going:
            if len(self._state.codes) != len(data):
                if self._state.codes.index == []:
                    raise InputError(
                        "this model was saved without its codes; save it resumable, or fit without warm_start"
                    )
                raise InputError(
                    f"warm_start needs the signals that fit had, {len(self._state.codes)} of them, got {len(data)}; "
                    "use partial_fit for others, or warm_start=False"
                )
        else:
            data = self._begin(data)
        visits = epochs(data, self._state, self._effort(), self.rank_one, self._seed)
        while not self._settled(tol) and self._state.epoch < most:
            self._went(next(visits))
        if not self.converged_:
            warnings.warn(
                f"fit stopped after {self.n_iter_} visits to every signal with the objective still falling by more than "
                f"tol={tol:g} of it a visit; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X: Any, y: Any = None, mask: Any = None) -> "ConvolutionalDictionaryLearning":
        """Go on learning from signals that are seen once; the first call chooses the first atoms and λ by what it is given."""
        first = not hasattr(self, "_state")
        data = self._given(X, mask, reset=first)
        if first:
            data = self._begin(data)
        forget = real("forget", self.forget, low=0.0)
        self._went(streamed(data, self._state, self._effort(), self.rank_one, forget))
        return self

    def codes(self, X: Any, mask: Any = None) -> Codes:
        """The codes of signals, sparse: ``(n, n_atoms, *code_shape)``. Warns where ``code_tol`` was not reached."""
        check_is_fitted(self)
        return self._coded(self._given(X, mask))[0]

    def transform(self, X: Any, mask: Any = None) -> csr_array:
        """The codes of signals as rows, (n, n_atoms · places): basis pursuit with λ = ``reg_``."""
        return rows_of(self.codes(X, mask))

    def inverse_transform(self, X: Any) -> np.ndarray:
        """D x of codes as `transform` gives them, sparse or dense: signals in the shape of those of fit."""
        check_is_fitted(self)
        shape = (self.dictionary_.n_atoms, *self.dictionary_.code_shape(self.signal_shape_[1:]))
        rows = X.toarray() if issparse(X) else np.asarray(X)
        if rows.ndim != 2 or rows.shape[1] != prod(shape) or rows.dtype.kind not in "fiu":
            raise wrong("X", f"an array (n, {prod(shape)}) of codes", f"{rows.dtype} {rows.shape}")
        codes = torch.from_numpy(np.ascontiguousarray(rows)).to(self.dictionary_.atoms.dtype).reshape(-1, *shape)
        signals = [self.dictionary_.synthesise(part, self.signal_shape_[1:]) for part in codes.split(TOGETHER)]
        return torch.cat(signals).numpy().reshape(len(rows), *self._form)

    def score(self, X: Any, y: Any = None, mask: Any = None) -> float:
        """Minus the mean objective of signals, ½ ‖mask · (D x - y)‖² + λ ‖x‖₁, at certified codes: higher is better."""
        check_is_fitted(self)
        return -float(self._coded(self._given(X, mask))[1].mean())

    def save(self, folder: str | Path, resumable: bool = True) -> Path:
        """Save as a folder of safetensors and JSON, written beside and renamed; the codes of fit only if ``resumable``."""
        check_is_fitted(self)
        return model.save(self, folder, resumable)

    @classmethod
    def load(cls, folder: str | Path) -> "ConvolutionalDictionaryLearning":
        """Load what `save` wrote. Raises InputError for anything else, and for any damage."""
        return model.load(cls, folder)

    def _given(self, X: Any, mask: Any, reset: bool = False) -> Signals:
        """Signals and mask, checked; the shape of the signals is learned where ``reset``."""
        given, form = as_rows(X)
        finite: Any = True if mask is None else "allow-nan"
        rows: Any = validate_data(self, given, dtype=[np.float64, np.float32], reset=reset, ensure_all_finite=finite)
        form = form or rows.shape[1:]
        if reset:
            self.signal_shape_, self._form = shape_of_signals(form, self.signal_shape), form
        elif prod(form) != prod(self.signal_shape_) or (len(form) > 1 and form != self._form):
            raise InputError(f"signals must have the shape of the training signals, {self._form}, got {form}")
        signals = as_signals(rows, self.signal_shape_)
        known = None
        if mask is not None:
            known = as_rows(mask)[0]
            known = np.asarray(known, rows.dtype)
            if known.size not in (rows.size, rows.shape[1]):
                raise wrong("mask", f"of the shape of X, or of one signal, {form}", np.shape(mask))
            known = as_signals(known.reshape(-1, rows.shape[1]), self.signal_shape_)
        return Signals(signals, getattr(self, "reg_", 1.0), known, self.nonnegative)

    def _begin(self, data: Signals) -> Signals:
        """The first atoms, λ and state; the signals with that λ."""
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        space = self.signal_shape_[1:]
        size = (self.size,) * len(space) if isinstance(self.size, int | np.integer) else tuple(self.size)
        if len(size) != len(space):
            raise wrong("size", f"a whole number, or {len(space)} of them, one an axis of the signals", self.size)
        size = tuple(whole("size", n) for n in size)
        k, reg = whole("n_atoms", self.n_atoms), real("reg", self.reg, above=0.0)
        choice("reg_scale", self.reg_scale, SCALES)
        if self.initial is None:
            blank = torch.zeros(k, self.signal_shape_[0], *size, dtype=data.signals.dtype)
            ConvDictionary(blank, self.stride, self.boundary).code_shape(space)
            atoms = patches(data, k, size, self._seed)
        else:
            atoms = self.initial.atoms if isinstance(self.initial, ConvDictionary) else torch.as_tensor(self.initial)
            if tuple(atoms.shape) != (k, self.signal_shape_[0], *size):
                raise wrong("initial", f"atoms of shape {(k, self.signal_shape_[0], *size)}", tuple(atoms.shape))
        dictionary = ConvDictionary(atoms.to(data.signals.dtype), self.stride, self.boundary).normalise()
        if self.reg_scale == "lambda_max":
            largest = Coding(dictionary, data.signals, mask=data.mask, nonnegative=self.nonnegative).lambda_max()
            reg *= float(largest.max())
        if not reg > 0:
            raise InputError("X must hold a signal that is not 0 where it is known; there is nothing to learn from")
        self.reg_ = reg
        self._state = begun(dictionary, data)
        self.objective_: list[float] = []
        self.converged_ = False
        return replace(data, lam=reg)

    def _settled(self, tol: float) -> bool:
        """Whether the last visit lowered the objective by no more than a fraction."""
        log = self.objective_
        self.converged_ = len(log) > 1 and log[-2] - log[-1] <= tol * log[-1]
        return self.converged_

    def _effort(self) -> Effort:
        if not callable(self.verbose):
            whole("verbose", self.verbose, low=0, remedy="0 is silent, 1 prints, a function is called")
        return Effort(batch=whole("batch_size", self.batch_size))

    def _went(self, state: State) -> None:
        """Take over a new state, and tell of it."""
        self._state = state
        self.objective_.append(state.objective)
        self._describe()
        if callable(self.verbose):
            self.verbose(state.epoch, self.objective_[-1])
        elif self.verbose:
            print(f"visit {state.epoch}: objective {self.objective_[-1]:.6g}", file=sys.stderr)

    def _describe(self) -> None:
        """Set the attributes that summarise the state."""
        self.dictionary_ = self._state.dictionary
        self.components_ = self.dictionary_.atoms.numpy()
        self.n_iter_ = len(self.objective_)

    def _coded(self, data: Signals) -> tuple[Codes, Tensor]:
        """Codes and objectives (n,) of signals."""
        index, value, objective, late = [], [], [], 0
        for part in torch.arange(len(data)).split(TOGETHER):
            mask = data.mask if data.mask is None or len(data.mask) == 1 else data.mask[part]
            one = Signals(data.signals[part], self.reg_, mask, self.nonnegative)
            found = pursue(one.coding(self.dictionary_), "working_set", tol=real("code_tol", self.code_tol, above=0.0))
            index += found.codes.index
            value += found.codes.value
            objective.append(found.solution.objective)
            late += sum(status.name != "CONVERGED" for status in found.solution.status)
        if late:
            warnings.warn(
                f"{late} of {len(data)} codes are not certified to code_tol={self.code_tol:g}; raise it",
                ConvergenceWarning,
                stacklevel=4,
            )
        shape = (self.dictionary_.n_atoms, *self.dictionary_.code_shape(self.signal_shape_[1:]))
        return Codes(shape, index, value), torch.cat(objective)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
