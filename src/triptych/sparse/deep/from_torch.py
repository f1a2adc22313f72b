"""A trained convolutional network read as a multi-layer model: its forward pass is the first step of a pursuit, for what problem?

With D_i the dictionary whose analysis is layer i's convolution and b_i its bias, ReLU(D_i* z + b_i) is one proximal gradient step of
size 1, from G = 0, on

    minimise over G >= 0     ½ ‖z - D_i G‖² - ⟨b_i, G⟩

Papyan, Romano & Elad, JMLR 2017. Whether that step goes anywhere near the minimum, whether the bias is a threshold at all
(b < 0), and whether the theorems could apply, depends on the weights: the report says so, layer by layer.
"""

import copy
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from triptych.check import InputError, whole, wrong
from triptych.convex import LeastSquares, Problem, Status, fista, per_problem, solve
from triptych.sparse.coherence import mutual_coherence, uniqueness_bound
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.forward import layered_thresholding
from triptych.sparse.deep.pursue import Layer
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.fold import fold
from triptych.sparse.layer import lipschitz_bound
from triptych.sparse.norms import l0_stripe
from triptych.sparse.pursuits.auto import SEARCH

RELU = (F.relu, torch.relu, F.relu_, torch.relu_)
STILL = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity)  # nothing, in evaluation
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class LayerReport:
    """What one convolution is as a layer of the model, on some signals; means over them where they differ.

    Attributes
    ----------
    lipschitz : ‖D‖²; the step 1 of the forward pass is safe up to 1, and goes uphill at worst above 2.
    coherence, bound : mu of the whole atoms that are not 0, and (1 + 1/mu) / 2, the most non-zeros a stripe for which theory promises anything.
    stripe : non-zeros in the fullest stripe of the forward code, the most over the signals.
    positive : the share of biases above 0, which are no thresholds.
    at_zero, forward, best : the layer's objective at G = 0, at the forward code, and after a pursuit from there.
    lower_bound : of the least objective; minus infinity where positive biases leave none that is cheap to know.
    """

    name: str
    atoms: tuple[int, ...]
    stride: int
    padding: int
    lipschitz: float
    coherence: float
    bound: float
    stripe: int
    nonzeros: float
    positive: float
    at_zero: float
    forward: float
    best: float
    lower_bound: float
    settled: bool


@dataclass(frozen=True, eq=False)
class Converted:
    """A stack of convolutions, biases and ReLUs as a model.

    Attributes
    ----------
    model : its dictionaries and paddings.
    bias : (k_i,) of every layer.
    names : of the convolutions in the network.
    ended : where the stack ends, in words: what comes after is no layer of such a model.
    scale : what the codes of every layer are to be multiplied by to be the network's own.
    """

    model: MultiLayerDictionary
    bias: tuple[Tensor, ...]
    names: tuple[str, ...]
    ended: str
    scale: tuple[float, ...]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The codes (G_1, ..., G_L) of the forward pass: the network's own activations over ``scale``."""
        return layered_thresholding(self.model, x, [-b for b in self.bias])

    def rescale(self) -> "Converted":
        """The same network with ‖D_i‖ <= 1 in every layer, as ReLU(t v) = t ReLU(v) allows: step 1 is then a descent step.

        By a bound on the norms that holds for signals of any shape.
        """
        layers, bias, scale, total = [], [], [], 1.0
        for D, b, own in zip(self.model.layers, self.bias, self.scale):
            norm = max(float(lipschitz_bound(D)) ** 0.5, 1e-12)
            total *= norm
            layers.append(replace(D, atoms=D.atoms / norm))
            bias.append(b / total)
            scale.append(own * total)
        model = replace(self.model, layers=tuple(layers))
        return Converted(model, tuple(bias), self.names, self.ended, tuple(scale))

    def pursue(self, x: Tensor, steps: int = 300, tol: float = 1e-3) -> tuple[Tensor, ...]:
        """Codes of the same layers with each layer's problem solved further, from the forward code, at most so many steps."""
        below, codes = x, []
        for i in range(1, len(self.model) + 1):
            below = self._layer(i, below, steps, tol).x.to(x)
            codes.append(below)
        return tuple(codes)

    def report(self, x: Tensor, steps: int = 300, tol: float = 1e-3) -> tuple[LayerReport, ...]:
        """Layer by layer what the forward pass of signals ``(b, c, *shape)`` is, as a pursuit. Raises InputError for others."""
        self.model.layers[0].expect("x", x, self.model.channels)
        below, found = x, []
        for i, code in enumerate(self.forward(x), 1):
            D, p, b = self.model.layers[i - 1], self.model.around[i - 1], self.bias[i - 1]
            problem = self._problem(i, below)
            least = self._layer(i, below, steps, tol)
            mu = mutual_coherence(_alive(D))
            value = _value(problem, code)
            found.append(
                LayerReport(
                    name=self.names[i - 1],
                    atoms=tuple(D.atoms.shape),
                    stride=D.stride,
                    padding=p,
                    lipschitz=self.model.lipschitz(i, below.shape[2:]),
                    coherence=mu,
                    bound=uniqueness_bound(mu),
                    stripe=int(l0_stripe(D, code).max()),
                    nonzeros=float((code != 0).flatten(1).sum(1).double().mean()),
                    positive=float((b > 0).double().mean()),
                    at_zero=float(_value(problem, torch.zeros_like(code)).mean()),
                    forward=float(value.mean()),
                    best=float(least.objective.mean()),
                    lower_bound=float(least.lower_bound.mean()),
                    settled=all(status is Status.CONVERGED for status in least.status),
                )
            )
            below = code
        return tuple(found)

    def _problem(self, i: int, below: Tensor) -> Problem:
        """½ ‖z - D_i G‖² - ⟨b_i, G⟩ over G >= 0."""
        cost = -self.bias[i - 1].reshape(-1, *(1,) * (below.ndim - 2))
        return Problem(LeastSquares(below), Layer(self.model, i, tuple(below.shape[2:])), Tilted(cost[None]))

    def _layer(self, i: int, below: Tensor, steps: int, tol: float) -> Any:
        """The layer's problem from its forward code on."""
        start = layered_thresholding(_only(self.model, i), below, [-self.bias[i - 1]])[0]
        return solve(
            self._problem(i, below),
            lambda problem, x: fista(problem, x, SEARCH),
            start,
            tol=tol,
            max_steps=whole("steps", steps),
            relative=True,
            patience=10**6,
        )


@dataclass(frozen=True, eq=False)
class Tilted:
    """⟨cost, x⟩ over x >= 0, for costs ``(1, k, 1, ...)`` of either sign; +inf elsewhere."""

    cost: Tensor

    def value(self, x: Tensor) -> Tensor:
        """The term, (b,)."""
        inside = x.flatten(1).amin(1) >= 0
        value = (self.cost.to(x) * x).flatten(1).sum(1)
        return torch.where(inside, value, torch.tensor(inf, dtype=x.dtype))

    def prox(self, v: Tensor, step: float | Tensor) -> Tensor:
        """max(v - step · cost, 0)."""
        return (v - per_problem(step, v) * self.cost.to(v)).clamp_min(0)

    def conjugate(self, u: Tensor) -> Tensor:
        """0 where u <= cost, else +inf."""
        outside = (u > self.cost.to(u)).flatten(1).any(1)
        return torch.where(outside, torch.tensor(inf, dtype=u.dtype), torch.tensor(0.0, dtype=u.dtype))

    def shrink(self, u: Tensor) -> Tensor:
        """The largest c <= 1 with c u <= cost, where all costs are at least 0; 1 where none is known."""
        cost = self.cost.to(u).expand_as(u)
        ratio = torch.where(u > cost, cost.clamp_min(0) / u.clamp_min(torch.finfo(u.dtype).tiny), 1.0)
        least = ratio.flatten(1).amin(1)
        return torch.where(least < 1, least * (1 - 4 * torch.finfo(u.dtype).eps), least)


def from_torch(net: nn.Module) -> Converted:
    """The convolutions at the beginning of a network, each with its bias and ReLU, and BatchNorm between, as a model.

    The network is traced and read from its input on, in evaluation, until something is no convolution, BatchNorm, ReLU or dropout,
    such as pooling or a linear layer: ``ended`` says what. Weights are copied. Raises InputError where not even the first layer is
    of that form, and for convolutions that are no dictionary (groups, dilation, unequal strides or paddings).
    """
    if not isinstance(net, nn.Module):
        raise wrong("net", "a torch.nn.Module", type(net).__name__)
    layers, ended = _stack(net)
    if not layers:
        raise InputError(f"net must begin with a convolution, its bias and a ReLU; it does not: {ended}")
    folded = [fold(conv, norm) for _, conv, norm in layers]  # pyright: ignore[reportArgumentType]
    for (name, _, _), one in zip(layers, folded):
        if len(set(one.padding)) != 1:
            raise InputError(f"{name} must have the same padding on both axes, got {one.padding}")
    model = MultiLayerDictionary(tuple(one.dictionary for one in folded), tuple(one.padding[0] for one in folded))
    bias = tuple(one.bias for one in folded)
    return Converted(model, bias, tuple(name for name, _, _ in layers), ended, (1.0,) * len(layers))


def _stack(net: nn.Module) -> tuple[list[tuple[str, nn.Module, nn.Module | None]], str]:
    """(name, convolution, BatchNorm or None) of the layers that end in a ReLU, and where the stack ends, in words."""
    steps = _chain(net)
    found: list[tuple[str, nn.Module, nn.Module | None]] = []
    conv, norm, name = None, None, ""
    for kind, label, module in steps:
        if kind == "conv" and conv is None:
            conv, norm, name = module, None, label
        elif kind == "norm" and conv is not None and norm is None:
            norm = module
        elif kind == "relu" and conv is not None:
            found.append((name, conv, norm))
            conv = None
        elif kind == "still" and conv is None:
            continue
        else:
            return (
                found,
                f"it ends before {label}" if conv is None else f"it ends before {name}, which has no ReLU of its own",
            )
    return found, "it goes on to the end" if conv is None else f"it ends before {name}, which has no ReLU of its own"


def _chain(net: nn.Module) -> list[tuple[str, str, nn.Module | None]]:
    """What a network does to its input, step by step: (kind, name, module), until the path branches."""
    try:
        graph = fx.symbolic_trace(copy.deepcopy(net).eval()).graph
        node = next(n for n in graph.nodes if n.op == "placeholder")
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"net must be traceable by torch.fx, but it is not ({reason}); pass its convolutional part"
        ) from error
    modules, found = dict(net.named_modules()), []
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "output":
            break
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        label = str(node.target) if node.op == "call_module" else getattr(node.target, "__name__", str(node.target))
        found.append((_kind(node, module), label if module is None else f"{label} ({type(module).__name__})", module))
    else:
        found.append(("branch", "a branch", None))
    return found


def _kind(node: fx.Node, module: nn.Module | None) -> str:
    """conv, norm, relu, still (nothing in evaluation) or other."""
    if node.op == "call_module":
        table: tuple[tuple[Any, str], ...] = (
            (nn.Conv1d, "conv"),
            (nn.Conv2d, "conv"),
            (NORMS, "norm"),
            (nn.ReLU, "relu"),
        )
        for types, kind in table:
            if isinstance(module, types):
                return kind
        return "still" if isinstance(module, STILL) else "other"
    if (node.op == "call_function" and node.target in RELU) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    ):
        return "relu"
    if node.op == "call_function" and node.target in (F.dropout, F.dropout2d):
        return "other" if _on(node) else "still"
    return "other"


def _on(node: fx.Node) -> bool:
    """Whether a dropout that is called as a function drops in evaluation too: its ``training`` is True unless told."""
    return bool(node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True))


def _alive(D: ConvDictionary) -> ConvDictionary:
    """The atoms that are not 0; all where none is."""
    kept = D.atoms[D.norms > 0]
    return replace(D, atoms=kept) if len(kept) else replace(D, atoms=torch.ones_like(D.atoms[:1]))


def _only(model: MultiLayerDictionary, i: int) -> MultiLayerDictionary:
    """Layer i alone."""
    return MultiLayerDictionary((model.layers[i - 1],), (model.around[i - 1],))


def _value(problem: Problem, x: Tensor) -> Tensor:
    """The objective of x, (b,), in float64."""
    x = x.double()
    return problem.loss.value(problem.map.forward(x)) + problem.term.value(x)


def model_penalty(net: nn.Module, margin: float = 0.01) -> Tensor:
    """How far the convolutions of a network are from layers of a model: Σ (‖atom‖² - 1)² + Σ max(bias + margin, 0), with gradients.

    Added to the loss of training, with some weight, it makes unit atoms and biases that are thresholds, ``margin`` below 0. With a BatchNorm the atoms
    and the bias are those that it makes of the convolution in evaluation, as far as its running statistics hold.
    """
    layers, ended = _stack(net)
    if not layers:
        raise InputError(f"net must begin with a convolution, its bias and a ReLU; it does not: {ended}")
    total: Tensor | float = 0.0
    for name, conv, norm in layers:
        atoms: Tensor = conv.weight.flatten(1)  # pyright: ignore[reportAssignmentType, reportCallIssue]
        bias: Tensor = atoms.new_zeros(len(atoms)) if conv.bias is None else conv.bias  # pyright: ignore[reportAssignmentType]
        if norm is not None:
            scale, shift = _affine(name, norm, atoms)
            atoms, bias = atoms * scale[:, None], scale * bias + shift
        total = total + (atoms.square().sum(1) - 1).square().sum() + (bias + margin).clamp_min(0).sum()
    return total  # pyright: ignore[reportReturnType]


def _affine(name: str, norm: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    """scale and shift of a BatchNorm in evaluation, with gradients. Raises InputError where it has no statistics."""
    assert isinstance(norm, NORMS)
    if norm.running_mean is None or norm.running_var is None:
        raise InputError(
            f"the BatchNorm of {name} must have running statistics, got none; set track_running_stats=True"
        )
    gamma = torch.ones_like(like[:, 0]) if norm.weight is None else norm.weight
    beta = torch.zeros_like(like[:, 0]) if norm.bias is None else norm.bias
    scale = gamma / (norm.running_var + norm.eps).sqrt()
    return scale, beta - scale * norm.running_mean
