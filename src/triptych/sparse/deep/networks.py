"""Networks whose layers are a pursuit: unrolled multi-layer sparse coding with a linear head, trained on labels.

With g_0 = x, dictionaries W_i, steps c_i and biases b_i, the first pass is g_i = ReLU(c_i W_i* g_{i-1} + b_i), by B for
"ml-lista"; then, T times,

    "feed-forward"   nothing
    "layered"        every layer T times g_i <- ReLU(g_i - c_i W_i* (W_i g_i - g_{i-1}) + b_i) before the next      (layered BP)
    "ml-ista"        hat_i = W_{i+1} ... W_L g_L;   g_i <- ReLU(hat_i - c_i W_i* (W_i hat_i - g_{i-1}) + b_i),   i = 1 .. L
    "ml-fista"       the same from g_L with momentum
    "ml-lista"       hat_i by other dictionaries B:   g_i <- ReLU(hat_i - W_i* W_i hat_i + B_i* g_{i-1} + b_i)
    "free"           g_i <- ReLU(g_i - V_i* (W_i g_i - g_{i-1}) + b_i) for all i, T times, with W, V, b of each round its own

(V of a round is W of the next.) Sulam, Aberdam, Beck & Elad, IEEE TPAMI 2020, section 5. All but the last two have as many
parameters as the feed-forward network.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from triptych import store
from triptych.check import InputError, choice, whole, wrong
from triptych.sparse.deep.dictionary import MultiLayerDictionary
from triptych.sparse.deep.learning import LayerShape
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.layer import lipschitz_bound

KINDS = ("feed-forward", "layered", "ml-ista", "ml-fista", "ml-lista", "free")
KIND = "sparse-net"
FIRST, NEXT = 50, 2  # iterations of the power method: anew, and in training from the last vector on


@dataclass(frozen=True)
class NetSpec:
    """What a `MultiLayerNet` is built from: its kind, layers, channels of the input, padding of every layer, rounds T, classes.

    ``unit``: every W_i is divided by its norm ‖W_i‖ (on signals of the shape at hand), so that a round with step 1 never goes uphill,
    however large the weights grow.
    """

    kind: str
    layers: tuple[LayerShape, ...]
    channels: int = 1
    padding: tuple[int, ...] | None = None
    rounds: int = 6
    classes: int = 10
    ndim: int = 2
    unit: bool = False

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)
        if not self.layers or not all(isinstance(layer, LayerShape) for layer in self.layers):
            raise wrong("layers", "a tuple of at least one LayerShape", self.layers)
        whole("channels", self.channels)
        whole("rounds", self.rounds, low=0)
        whole("classes", self.classes)
        whole("ndim", self.ndim, high=2)
        if self.padding is not None and len(self.padding) != len(self.layers):
            raise wrong("padding", f"{len(self.layers)} whole numbers, one a layer", self.padding)

    @property
    def around(self) -> tuple[int, ...]:
        """The padding of every layer."""
        return self.padding or (0,) * len(self.layers)


class MultiLayerNet(nn.Module):
    """Codes of many layers, unrolled, and a linear classifier on the deepest, averaged over its places.

    Shapes: ``(b, c, *shape)`` -> (b, classes); `codes` gives (g_1, ..., g_L). Parameters: ``weight`` (one ``(k_i, k_{i-1}, *size)`` a layer and
    round that has its own), ``step`` c_i, ``bias`` b_i, ``head``; "ml-lista" has ``back`` B_i as well. First values: normal
    weights of deviation ``scale`` / sqrt(numbers of an atom), biases 0, steps 1 or, with rounds, 1 / ‖W_i‖² where that is less.
    Raises InputError for wrong values.
    """

    def __init__(self, spec: NetSpec, scale: float = 0.1, head: bool = True) -> None:
        super().__init__()
        self.spec = spec
        own = spec.rounds + 1 if spec.kind == "free" else 1
        self.weight = nn.ParameterList(w for _ in range(own) for w in _random(spec, scale))
        self.bias = nn.ParameterList(
            nn.Parameter(torch.zeros(layer.atoms)) for _ in range(own) for layer in spec.layers
        )
        stepped = spec.kind not in ("free", "ml-lista")
        steps = _first_steps(spec, list(self.weight)) if stepped else []
        self.step = nn.ParameterList(nn.Parameter(c) for c in steps) if stepped else None
        self.back = nn.ParameterList(_random(spec, scale)) if spec.kind == "ml-lista" else None
        self._vectors: dict[tuple[int, int], Tensor] = {}
        self.head = nn.Linear(spec.layers[-1].atoms, spec.classes) if head else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b, classes) of signals ``(b, c, *shape)``; without a head the deepest code."""
        deep = self.codes(x)[-1]
        return deep if isinstance(self.head, nn.Identity) else self.head(deep.flatten(2).mean(2))

    def codes(self, x: Tensor) -> tuple[Tensor, ...]:
        """(g_1, ..., g_L) after all rounds."""
        run = {"feed-forward": self._forward, "layered": self._layered, "free": self._free}.get(
            self.spec.kind, self._whole
        )
        return run(x)

    def model(self, shape: Sequence[int], own: int = 0) -> MultiLayerDictionary:
        """The dictionaries W of a round for signals of a shape in space, carrying gradients."""
        n = len(self.spec.layers)
        model = _model(self.spec, list(self.weight)[own * n : (own + 1) * n])
        if not self.spec.unit:
            return model
        atoms, shapes = [], (tuple(shape), *model.code_shapes(shape))
        for i, D in enumerate(model.layers, 1):
            with torch.no_grad(), torch.autocast(D.atoms.device.type, enabled=False):
                v = self._top(model, i, own, shapes)
            with torch.autocast(D.atoms.device.type, enabled=False):
                atoms.append(D.atoms / model.down(i, v, shapes[i - 1]).norm().clamp_min(1e-12))
        return _model(self.spec, atoms)

    def _top(self, model: MultiLayerDictionary, i: int, own: int, shapes: Sequence[tuple[int, ...]]) -> Tensor:
        """The code of layer i, of norm 1, that its dictionary makes longest: the power method, in training from the last one on."""
        kept = self._vectors.get((own, i)) if self.training else None
        fresh = kept is None or (kept.shape[2:], kept.device) != (shapes[i], model.layers[0].atoms.device)
        if kept is None or fresh:
            rng = torch.Generator().manual_seed(0)
            kept = torch.randn(1, model.n_atoms[i - 1], *shapes[i], generator=rng).to(model.layers[0].atoms)
        v = kept
        for _ in range(FIRST if fresh else NEXT):
            v = model.up(i, model.down(i, v, shapes[i - 1]))
            v = v / v.norm().clamp_min(1e-30)
        if self.training:  # in place, so that a captured graph goes on from its own last one
            self._vectors[own, i] = v.clone() if fresh else kept.copy_(v)
        return v

    def _steps(self) -> list[Tensor]:
        assert self.step is not None
        return list(self.step)

    def _forward(self, x: Tensor, model: MultiLayerDictionary | None = None) -> tuple[Tensor, ...]:
        """One pass, with steps where the network has them."""
        model, found = self.model(x.shape[2:]) if model is None else model, []
        steps = [1.0] * len(model) if self.step is None else self._steps()
        for i, (c, b) in enumerate(zip(steps, self.bias), 1):
            x = torch.relu(c * model.up(i, x) + _beside(b, x))
            found.append(x)
        return tuple(found)

    def _layered(self, x: Tensor) -> tuple[Tensor, ...]:
        """Every layer to the end before the next."""
        model, found = self.model(x.shape[2:]), []
        for i, (c, b) in enumerate(zip(self._steps(), self.bias), 1):
            g, bias, space = torch.relu(c * model.up(i, x) + _beside(b, x)), _beside(b, x), x.shape[2:]
            for _ in range(self.spec.rounds):
                g = torch.relu(g - c * model.up(i, model.down(i, g, space) - x) + bias)
            found.append(g)
            x = g
        return tuple(found)

    def _whole(self, x: Tensor) -> tuple[Tensor, ...]:
        """ML-ISTA, ML-FISTA and ML-LISTA: all layers in every round, from the deepest code."""
        model, kind, t = self.model(x.shape[2:]), self.spec.kind, 1.0
        back = model if self.back is None else _model(self.spec, list(self.back))
        found = list(self._forward(x, back))
        old = found[-1]
        for _ in range(self.spec.rounds):
            before, t = t, (1 + (1 + 4 * t * t) ** 0.5) / 2
            v = found[-1] + (before - 1) / t * (found[-1] - old) if kind == "ml-fista" else found[-1]
            old, hats, below, found = found[-1], back.cascade(v, x.shape[2:]), x, []
            for i, b in enumerate(self.bias, 1):
                hat, space = hats[i], below.shape[2:]
                if kind == "ml-lista":
                    u = hat - model.up(i, model.down(i, hat, space)) + back.up(i, below)
                else:
                    u = hat - self._steps()[i - 1] * model.up(i, hats[i - 1] - below)
                below = torch.relu(u + _beside(b, x))
                found.append(below)
        return tuple(found)

    def _free(self, x: Tensor) -> tuple[Tensor, ...]:
        """Rounds with weights of their own."""
        n, now = len(self.spec.layers), self.model(x.shape[2:])
        found, biases = list(self._forward(x, now)), list(self.bias)
        for t in range(1, self.spec.rounds + 1):
            before, now, below = now, self.model(x.shape[2:], t), x
            for i in range(1, n + 1):
                g, bias = found[i - 1], _beside(biases[t * n + i - 1], x)
                below = torch.relu(g - now.up(i, before.down(i, g, below.shape[2:]) - below) + bias)
                found[i - 1] = below
        return tuple(found)

    def save(self, folder: str | Path) -> Path:
        """Write what it was built from and its parameters as a folder, beside and renamed."""
        tensors = {name: value.detach() for name, value in self.state_dict().items()}
        meta = {"spec": asdict(self.spec), "head": not isinstance(self.head, nn.Identity)}
        return store.save(folder, tensors, meta, kind=KIND)

    @classmethod
    def load(cls, folder: str | Path) -> "MultiLayerNet":
        """Read what `save` wrote. Raises InputError for anything else, and for any damage."""
        tensors, meta = store.load(folder, kind=KIND)
        try:
            given: dict[str, Any] = dict(meta["spec"])
            given["layers"] = tuple(LayerShape(**layer) for layer in given["layers"])
            given["padding"] = None if given["padding"] is None else tuple(given["padding"])
            net = cls(NetSpec(**given), head=bool(meta["head"]))
            net = net.to(next(iter(tensors.values())).dtype)
            net.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{folder} is no network of this version ({reason}); train and save it again") from error
        if not all(bool(p.isfinite().all()) for p in net.parameters()):
            raise InputError(f"{folder} must hold finite weights, but some are not; train and save it again")
        return net.eval()


def _random(spec: NetSpec, scale: float) -> list[nn.Parameter]:
    """Normal weights of every layer."""
    found, c = [], spec.channels
    for layer in spec.layers:
        w = torch.randn(layer.atoms, c, *(layer.size,) * spec.ndim)
        found.append(nn.Parameter(scale / w[0].numel() ** 0.5 * w))
        c = layer.atoms
    return found


def _first_steps(spec: NetSpec, weight: Sequence[Tensor]) -> list[Tensor]:
    """1, or what keeps a round from going uphill."""
    if spec.kind == "feed-forward" or not spec.rounds or spec.unit:
        return [torch.ones(()) for _ in spec.layers]
    with torch.no_grad():
        return [(1 / lipschitz_bound(D)).clamp_max(1).float() for D in _model(spec, weight).layers]


def _model(spec: NetSpec, atoms: Sequence[Tensor]) -> MultiLayerDictionary:
    """Dictionaries of given atoms."""
    return MultiLayerDictionary(
        tuple(ConvDictionary(a, layer.stride) for a, layer in zip(atoms, spec.layers)), spec.around
    )


def _beside(b: Tensor, x: Tensor) -> Tensor:
    """A bias (k,) beside codes ``(b, k, ...)``."""
    return b.reshape(-1, *(1,) * (x.ndim - 2))
