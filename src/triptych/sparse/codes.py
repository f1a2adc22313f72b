"""Codes that are kept sparse: of millions of coefficients, the few that are not 0."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from triptych.check import wrong
from triptych.sparse.dictionary import ConvDictionary


@dataclass(eq=False)
class Codes:
    """Codes ``(b, k, *code_shape)`` as, a problem, where they are not 0 and what they are there.

    Parameters
    ----------
    shape : ``(k, *code_shape)``.
    index : b tensors (m,) int64: places in the flat code of that shape.
    value : b tensors (m,).
    """

    shape: tuple[int, ...]
    index: list[Tensor]
    value: list[Tensor]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, mask: Tensor) -> "Codes":
        """The problems of a mask (b,)."""
        kept = [i for i, stays in enumerate(mask.tolist()) if stays]
        return Codes(self.shape, [self.index[i] for i in kept], [self.value[i] for i in kept])

    def __setitem__(self, problems: Tensor, codes: "Codes") -> None:
        """Put the codes of some problems, given by their numbers."""
        for i, index, value in zip(problems.tolist(), codes.index, codes.value):
            self.index[i], self.value[i] = index, value

    def clone(self) -> "Codes":
        """Codes whose problems can be put without changing these; coefficients are shared."""
        return Codes(self.shape, list(self.index), list(self.value))

    @property
    def nonzeros(self) -> Tensor:
        """‖code‖₀, (b,) int64."""
        return torch.tensor([int((value != 0).sum()) for value in self.value])

    def expect(self, D: ConvDictionary) -> None:
        """Raise InputError where these are no codes of a dictionary."""
        if self.shape[0] != D.n_atoms or len(self.shape) != 1 + len(D.size):
            raise wrong("codes", f"of {D.n_atoms} atoms on {len(D.size)} axes", f"shape {self.shape}")

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """The codes as one tensor ``(b, k, *code_shape)``, in their own dtype where none is named."""
        dtype = dtype or (self.value[0].dtype if self.value else torch.get_default_dtype())
        device = self.value[0].device if self.value else None
        out = torch.zeros(len(self), prod(self.shape), dtype=dtype, device=device)
        for row, index, value in zip(out, self.index, self.value):
            row[index] = value.to(dtype)
        return out.reshape(-1, *self.shape)

    @classmethod
    def of(cls, dense: Tensor) -> "Codes":
        """The sparse codes of a tensor ``(b, k, *code_shape)``. Raises InputError for other shapes."""
        if dense.ndim not in (3, 4):
            raise wrong("codes", "a tensor (b, k, n) or (b, k, n1, n2)", tuple(dense.shape))
        flat = dense.flatten(1)
        index = [row.nonzero().squeeze(1) for row in flat]
        return cls(tuple(dense.shape[1:]), index, [row[i] for row, i in zip(flat, index)])
