"""What the published theorems of one layer promise for a dictionary, a code and a level of noise, computed and in words."""

from dataclasses import dataclass
from math import ceil, inf, prod, sqrt

from torch import Tensor

from triptych.check import InputError, real
from triptych.sparse.codes import Codes
from triptych.sparse.coherence import basis_pursuit_bound, mutual_coherence, uniqueness_bound
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.norms import l0_stripe


@dataclass(frozen=True)
class Guarantees:
    """The quantities of the theorems for one code x of a noisy signal D x + e, atoms normalised.

    Attributes
    ----------
    coherence : mu, the mutual coherence.
    stripe : ‖x‖_{0,∞}^S, the most non-zeros among the atoms that meet the atoms of one place.
    smallest : the least magnitude of a coefficient that is not 0; infinity for the code 0.
    local_noise : the largest ‖e‖₂ in a patch of an atom's size.
    noise : ‖e‖₂ of the whole signal.
    """

    coherence: float
    stripe: int
    smallest: float
    local_noise: float
    noise: float

    @property
    def uniqueness_bound(self) -> float:
        """Codes with fewer non-zeros in every stripe are the sparsest of their signal."""
        return uniqueness_bound(self.coherence)

    @property
    def omp_bound(self) -> float:
        """OMP finds the atoms of codes with fewer non-zeros in every stripe."""
        if not self.coherence:  # the condition times mu: 0 < 1/2 - local_noise / smallest
            return inf if 2 * self.local_noise < self.smallest else -inf
        return self.uniqueness_bound - self.local_noise / (self.coherence * self.smallest)

    @property
    def basis_pursuit_bound(self) -> float:
        """With at most so many non-zeros in every stripe, basis pursuit finds no wrong atom."""
        return basis_pursuit_bound(self.coherence)

    @property
    def unique(self) -> bool:
        """Whether no other code with as sparse stripes has the same signal. Papyan, Sulam & Elad, IEEE TSP 2017, part I."""
        return self.stripe < self.uniqueness_bound

    @property
    def omp(self) -> bool:
        """Whether OMP, stopped after ‖x‖₀ steps, finds exactly the atoms of x. Same, part II."""
        return self.stripe < self.omp_bound

    @property
    def basis_pursuit(self) -> bool:
        """Whether basis pursuit with an absolute reg of `reg` has one minimiser, all of whose atoms are of x. Same, part II.

        Without noise: in the limit of reg -> 0.
        """
        return self.stripe <= self.basis_pursuit_bound

    @property
    def reg(self) -> float:
        """The absolute weight of the l1 norm that the theorem on basis pursuit is about: four times the local noise."""
        return 4 * self.local_noise

    @property
    def stability(self) -> float:
        """A bound on ‖x' - x‖₂ for every x' with as sparse stripes and ‖D x' - y‖₂ <= ‖e‖₂; infinity where there is none."""
        return _over(2 * self.noise, 1 - (2 * self.stripe - 1) * self.coherence) if self.unique else inf

    @property
    def omp_error(self) -> float:
        """A bound on ‖x' - x‖₂ for the code x' of OMP; infinity where there is none."""
        return _over(self.noise, 1 - (self.stripe - 1) * self.coherence) if self.omp else inf

    @property
    def basis_pursuit_error(self) -> float:
        """A bound on ‖x' - x‖_∞ for the code x' of basis pursuit; atoms of x above it are found. Infinity where there is none."""
        return 7.5 * self.local_noise if self.basis_pursuit else inf

    def verdict(self) -> str:
        """One sentence a promise: what holds, with its numbers, or why nothing can be said."""
        has = f"{self.stripe} non-zeros in its fullest stripe"
        lines = [f"The dictionary's coherence is {self.coherence:.3f}; the code has {has}."]
        few = "not promised, which does not say that it fails"
        if self.unique:
            lines.append(
                f"No other code as sparse has this signal (fewer than {self.uniqueness_bound:.2f} are needed)."
            )
        else:
            lines.append(f"Uniqueness: {few}; it takes fewer than {self.uniqueness_bound:.2f}.")
        if self.omp:
            lines.append(f"OMP finds exactly these atoms, and errs by at most {self.omp_error:.3g} in the l2 norm.")
        else:
            lines.append(f"Recovery by OMP: {few}; it takes fewer than {max(self.omp_bound, 0):.2f}.")
        if self.basis_pursuit:
            error = f"errs by less than {self.basis_pursuit_error:.3g} a coefficient"
            how = f"with a weight of {self.reg:.3g} " if self.local_noise else "as its weight falls to 0 "
            lines.append(f"Basis pursuit {how}finds no wrong atom" + (f" and {error}." if self.local_noise else "."))
        else:
            lines.append(f"Recovery by basis pursuit: {few}; it takes at most {self.basis_pursuit_bound:.2f}.")
        return "\n".join(lines)


def guarantees(
    D: ConvDictionary, code: Tensor | Codes, local_noise: float = 0.0, noise: float | None = None
) -> tuple[Guarantees, ...]:
    """The guarantees of every code of ``(b, k, *code_shape)``, dense or sparse, for noise of at most so much.

    ``local_noise`` bounds ‖e‖₂ in every patch of an atom's size, in the units of the signal; ``noise`` bounds it in the whole
    signal, and None takes what follows: the local bound times the root of the number of patches that cover the signal. Atoms
    need not be normalised: coefficients are multiplied by their norms. Raises InputError for what does not fit, where an
    atom is 0, and for circular signals in which an atom meets another on both sides.
    """
    if not isinstance(code, Codes):
        D.expect("code", code, D.n_atoms)
        code = Codes.of(code)
    code.expect(D)
    local_noise = real("local_noise", local_noise, low=0.0)
    shape = D.signal_shape(code.shape[1:])
    if D.boundary == "circular" and any(2 * n - 1 > N for N, n in zip(shape, D.size)):
        raise InputError(
            f"circular signals must be at least {' x '.join(str(2 * n - 1) for n in D.size)}, twice an atom's size less 1, "
            f"got {' x '.join(map(str, shape))}; the coherence of smaller ones is not that of the dictionary"
        )
    cover = prod(ceil(N / n) for N, n in zip(shape, D.size))
    noise = local_noise * sqrt(cover) if noise is None else real("noise", noise, low=local_noise)
    mu = mutual_coherence(D)
    norms, places = D.norms.double(), prod(code.shape[1:])
    smallest = []
    for index, value in zip(code.index, code.value):
        scaled = (value.double().abs() * norms[index // places])[value != 0]
        smallest.append(float(scaled.min()) if len(scaled) else inf)
    return tuple(
        Guarantees(mu, stripe, least, local_noise, noise)
        for stripe, least in zip(l0_stripe(D, code).tolist(), smallest)
    )


def _over(error: float, squared: float) -> float:
    """error / sqrt(squared), infinity where that is not positive."""
    return error / sqrt(squared) if squared > 0 else inf
