"""Dictionaries of many layers learned from signals: the first dense, the deeper ones sparse, so that all codes are.

minimise over unit atoms and codes    Σ ½ ‖D_1 ... D_L g - y‖² + λ ‖g‖₁,    every deeper atom with few non-zeros

by turns: deepest codes of a batch (accelerated proximal gradient on the effective dictionary), then one step of Adam on the
atoms of all layers, of which the largest entries are kept. How many are kept falls from all to what is asked for.

Sulam, Papyan, Romano & Elad, IEEE TSP 2018, Algorithm 3. Differs: the number of non-zeros of an atom is a constraint and not a
penalty; entries that are not kept go on learning, and may come back.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

import torch
from torch import Tensor

from triptych.check import InputError, real, whole
from triptych.convex import soft_threshold
from triptych.sparse.deep.coding import Cascade, as_matrix, matrix_is_less
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.exact import operator_norm
from triptych.sparse.dictionary import ConvDictionary

STEPS = 40  # accelerated proximal steps on the codes of a batch
BETAS, TINY = (0.9, 0.99), 1e-8
PRUNED = 0.6  # of all steps: by then atoms are as sparse as asked for
VISITS = 1 << 20  # more than there can be, so that no two of two seeds are in the same order


@dataclass(frozen=True)
class LayerShape:
    """A layer to learn: atoms, samples of an atom on every axis, stride, and the share of an atom's entries that may be not 0."""

    atoms: int
    size: int
    stride: int = 1
    density: float = 1.0

    def __post_init__(self) -> None:
        whole("atoms", self.atoms)
        whole("size", self.size)
        whole("stride", self.stride)
        real("density", self.density, above=0.0, high=1.0)


@dataclass(frozen=True)
class Plan:
    """How to learn: λ, whether codes are at least 0, signals a batch, Adam's rate at first (it falls to a twentieth), all steps."""

    lam: float
    nonnegative: bool
    batch: int
    rate: float
    steps: int
    seed: int


@dataclass(eq=False)
class DeepState:
    """Where learning is: entries of all atoms, kept or not; Adam's two means; steps made; uses of every deepest atom."""

    layers: tuple[LayerShape, ...]
    entries: tuple[Tensor, ...]
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    step: int
    used: Tensor

    def copy(self) -> "DeepState":
        """The same, to be changed: a step that is interrupted leaves nothing half done."""
        entries, first, second = (tuple(t.clone() for t in part) for part in (self.entries, self.first, self.second))
        return DeepState(self.layers, entries, first, second, self.step, self.used.clone())

    def dictionary(self, plan: Plan) -> MultiLayerDictionary:
        """The atoms as they are now: the largest entries, of norm 1."""
        atoms = [_kept(w, count) for w, count in zip(self.entries, self.counts(plan))]
        return MultiLayerDictionary(tuple(ConvDictionary(a, layer.stride) for a, layer in zip(atoms, self.layers)))

    def counts(self, plan: Plan) -> list[int]:
        """How many entries of an atom of every layer are kept now: from all down to what is asked for."""
        done = min(1.0, self.step / max(1.0, PRUNED * plan.steps))
        found = []
        for w, layer in zip(self.entries, self.layers):
            full = w[0].numel()
            last = max(1, int(layer.density * full))
            found.append(last + ceil((full - last) * (1 - done) ** 3))
        return found


def begun(layers: Sequence[LayerShape], channels: int, ndim: int, seed: int, dtype: torch.dtype) -> DeepState:
    """Random atoms."""
    rng, entries, c = torch.Generator().manual_seed(seed), [], channels
    for layer in layers:
        w = torch.randn(layer.atoms, c, *(layer.size,) * ndim, generator=rng, dtype=torch.float64)
        entries.append(_unit(w).to(dtype))
        c = layer.atoms
    zeros = tuple(torch.zeros_like(w) for w in entries)
    used = torch.zeros(layers[-1].atoms, dtype=torch.int64)
    return DeepState(tuple(layers), tuple(entries), zeros, tuple(z.clone() for z in zeros), 0, used)


def order(n: int, batch: int, seed: int, step: int) -> Tensor:
    """The signals of a step: visit after visit in a random order, a function of seed and step alone."""
    per = ceil(n / batch)
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed * VISITS + step // per))
    return shuffled[(step % per) * batch : (step % per + 1) * batch]


def learnt(state: DeepState, signals: Tensor, plan: Plan) -> tuple[DeepState, float]:
    """The state after a step from a batch of signals ``(b, c, *shape)``, and the mean objective of its codes before it."""
    state = state.copy()
    model = state.dictionary(plan)
    codes, objective = deepest(model, signals, plan.lam, plan.nonnegative)
    state.used += (codes != 0).sum((0, *range(2, codes.ndim)))
    leaves = [D.atoms.detach().requires_grad_() for D in model.layers]
    through = replace(model, layers=tuple(replace(D, atoms=a) for D, a in zip(model.layers, leaves)))
    off = through.synthesise(codes, signals.shape[2:]) - signals
    gradients = torch.autograd.grad(off.square().sum() / (2 * len(signals)), leaves)
    state.step += 1
    rate = plan.rate * (0.05 + 0.95 * (1 - min(1.0, state.step / plan.steps)))
    for w, m, v, g in zip(state.entries, state.first, state.second, gradients):
        m.mul_(BETAS[0]).add_(g, alpha=1 - BETAS[0])
        v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
        up, down = 1 - BETAS[0] ** state.step, 1 - BETAS[1] ** state.step
        # A common scale for a layer's entries: an entry's own would make all of them of one size, and none to leave out.
        scale = (v.mean() / down).sqrt() + TINY
        w.sub_(m, alpha=rate / up / float(scale))
        w.copy_(_unit(w))
    return state, objective


def revived(state: DeepState, signals: Tensor, plan: Plan) -> DeepState:
    """The state in which every deepest atom that no code used since the last call is what the layers before it see of a badly
    coded signal.
    """
    state = state.copy()
    idle = (state.used == 0).nonzero().squeeze(1)
    state.used.zero_()
    if not len(idle):
        return state
    model = state.dictionary(plan)
    codes, _ = deepest(model, signals, plan.lam, plan.nonnegative)
    left = signals - model.synthesise(codes, signals.shape[2:])
    worst = left.flatten(1).norm(dim=1).argsort(descending=True)
    seen = left
    for i in range(1, len(model)):
        seen = model.up(i, seen)
    rng, size = torch.Generator().manual_seed(plan.seed + state.step), state.entries[-1].shape[2:]
    for j, atom in enumerate(idle.tolist()):
        patch = seen[worst[j % len(worst)]]
        for axis, n in enumerate(size, 1):
            at = int(torch.randint(patch.shape[axis] - n + 1, (1,), generator=rng))
            patch = patch.narrow(axis, at, n)
        if bool(patch.any()):
            state.entries[-1][atom] = patch / patch.norm()
            state.first[-1][atom] = 0
    return state


def deepest(
    model: MultiLayerDictionary, signals: Tensor, lam: float, nonnegative: bool, steps: int = STEPS
) -> tuple[Tensor, float]:
    """Codes ``(b, k_L, *code_shape)`` near argmin ½ ‖D^(L) g - y‖² + λ ‖g‖₁, and their mean objective."""
    forward, adjoint, lipschitz, shape = _maps(model, signals)
    step = 1 / lipschitz
    x = signals.new_zeros(len(signals), prod(shape))
    v, t, y = x, 1.0, signals.flatten(1)
    for _ in range(steps):
        u = v - step * adjoint(forward(v) - y)
        new = (u - step * lam).clamp_min(0) if nonnegative else soft_threshold(u, step * lam)
        if bool(((v - new) * (new - x)).sum() > 0):
            t = 1.0
        following = (1 + (1 + 4 * t * t) ** 0.5) / 2
        v = new + ((t - 1) / following) * (new - x)
        x, t = new, following
    objective = (forward(x) - y).square().sum(1) / 2 + lam * x.abs().sum(1)
    return x.reshape(len(x), *shape), float(objective.mean())


Flat = Callable[[Tensor], Tensor]


def _maps(model: MultiLayerDictionary, signals: Tensor) -> tuple[Flat, Flat, float, tuple[int, ...]]:
    """The effective dictionary on flat codes, its adjoint, ‖·‖², and the shape of a code: as a matrix where that is less work."""
    space = tuple(signals.shape[2:])
    shape = (model.n_atoms[-1], *model.code_shapes(space)[-1])
    if matrix_is_less(model, space):
        K = as_matrix(lambda codes: model.synthesise(codes, space), shape, signals.device, signals.dtype)
        return (lambda x: x @ K.T), (lambda z: z @ K), float(torch.linalg.matrix_norm(K, 2)) ** 2 * 1.0001, shape
    whole_map = Cascade(model, space)
    scales = (1.0,) + (0.0,) * (len(model) - 1)
    norm = operator_norm(whole_map, signals.new_zeros(1, *shape), scales)
    return (
        lambda x: model.synthesise(x.reshape(-1, *shape), space).flatten(1),
        lambda z: model.analyse(z.reshape(-1, *signals.shape[1:])).flatten(1),
        1.05 * norm**2,
        shape,
    )


def _kept(w: Tensor, count: int) -> Tensor:
    """Unit atoms of the ``count`` largest entries of each."""
    flat = w.flatten(1)
    if count >= flat.shape[1]:
        return _unit(w)
    least = flat.abs().kthvalue(flat.shape[1] - count + 1, dim=1, keepdim=True).values
    return _unit(torch.where(flat.abs() >= least, flat, 0.0).reshape(w.shape))


def _unit(w: Tensor) -> Tensor:
    """Atoms over their norms."""
    norms = w.flatten(1).norm(dim=1).clamp_min(1e-12)
    return w / norms.reshape(-1, *(1,) * (w.ndim - 1))


def parsed(text: str) -> tuple[LayerShape, ...]:
    """Layers of a text like "32x7s2,128x5,1024x7": atoms x size s stride, from the signal inwards. Raises InputError."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)x(\d+)(?:s(\d+))?(?:d(\d*\.?\d+))?\s*", part)
        if match is None:
            raise InputError(
                f'layers must be like "32x7s2,128x5" (atoms x size s stride, from the image inwards), got {text!r}'
            )
        atoms, size, stride, density = match.groups()
        found.append(LayerShape(int(atoms), int(size), int(stride or 1), float(density or 1.0)))
    return tuple(found)
