"""What users hand to the estimator, made into signals ``(n, c, *shape)``, and codes made into rows."""

import math
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from triptych.check import wrong
from triptych.images import Images
from triptych.sparse.codes import Codes


def as_rows(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """X with each signal as one row, and the shape of a signal; None where X came as rows.

    Raises InputError for arrays of other dimensions; what is no array is left to scikit-learn's own checks.
    """
    if isinstance(X, Images):
        X = X.pixels.numpy()
    elif isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()  # NumPy has no bfloat16
    elif isinstance(X, list | tuple) and np.ndim(X) > 2:
        X = np.asarray(X)
    if not isinstance(X, np.ndarray) or X.ndim <= 2:
        return X, None
    if X.ndim > 4 or 0 in X.shape[1:]:
        raise wrong("X", "signals (n, d), (n, h, w) or (n, c, h, w) of at least one sample", f"shape {X.shape}")
    return X.reshape(len(X), -1), tuple(X.shape[1:])


def shape_of_signals(form: tuple[int, ...], asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape (c, n) or (c, h, w) of signals that come as (d,), (h, w) or (c, h, w); ``asked`` decides where it is given."""
    if asked is None:
        return form if len(form) == 3 else (1, *form)
    sizes = tuple(asked) if isinstance(asked, tuple | list) else ()
    right = all(isinstance(n, int | np.integer) and not isinstance(n, bool) and n > 0 for n in sizes)
    if len(sizes) not in (2, 3) or not right or math.prod(sizes) != math.prod(form):
        raise wrong(
            "signal_shape", f"(c, n) or (c, h, w) with {math.prod(form)} entries, those of a signal of X", asked
        )
    return tuple(int(n) for n in sizes)


def as_signals(rows: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Rows (n, d) as signals ``(n, c, *shape)``."""
    rows = np.ascontiguousarray(rows)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).reshape(len(rows), *shape)


def rows_of(codes: Codes) -> csr_array:
    """Codes as sparse rows, (b, k · places)."""
    pointers = np.cumsum([0, *(len(index) for index in codes.index)])
    order = [index.argsort() for index in codes.index]
    columns = np.concatenate([index[i].numpy() for index, i in zip(codes.index, order)])
    small = np.iinfo(np.int32).max >= max(pointers[-1], math.prod(codes.shape))
    kind = np.int32 if small else np.int64  # scikit-learn's own estimators take 32 bits alone
    values = np.concatenate([value[i].numpy() for value, i in zip(codes.value, order)])
    return csr_array((values, columns.astype(kind), pointers.astype(kind)), shape=(len(codes), math.prod(codes.shape)))
