"""What the commands of group sparse do with many layers: learn, show, guarantees, from-torch."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from sklearn.utils import check_random_state
from torch import Tensor, nn

from triptych import store
from triptych.bench import figure
from triptych.check import InputError, real, whole, wrong
from triptych.cli.console import Console
from triptych.cli.place import check_place
from triptych.cli.sparse_learn import Plan, described, signals_of
from triptych.cli.sparse_run import planes
from triptych.data import load, raster
from triptych.sparse.coherence import mutual_coherence, uniqueness_bound
from triptych.sparse.deep import LayerReport, deep_guarantees, deepest_codes, from_torch
from triptych.sparse.deep.estimator import MultiLayerSparseCoder
from triptych.sparse.deep.from_torch import Converted
from triptych.sparse.deep.model import KIND
from triptych.sparse.deep.sample import Sample
from triptych.sparse.restore import split

PIXEL = 255.0
ALONE = {"atoms": 64, "size": 8, "stride": 1}  # what is for one layer, and its defaults
SHOWN = 256  # atoms of a layer that a picture shows
ACROSS = 16


def is_deep(model: str) -> bool:
    """Whether a word of the command line is the folder of a model of many layers."""
    return Path(model).is_dir() and store.kind_of(Path(model)) == KIND


def learned_layers(voice: Console, plan: Plan, resume: bool) -> None:
    """Learn dictionaries of many layers, and write the model after every visit. Raises InputError."""
    check_place("out", plan.out)
    real("reg", plan.reg, above=0.0, high=1.0)
    for name, default in ALONE.items():
        if getattr(plan, name) != default:
            raise InputError(f"{name} is for one layer; leave it away with --layers, which says it for each")
    coder = _resumed(plan) if resume else _begun(plan)
    signals = signals_of(plan) / PIXEL
    n = described(voice, plan, signals)

    def told(visit: int, objective: float) -> None:
        coder.save(plan.out)
        voice.say(f"visit {visit}: objective {objective:.6g}")

    coder.set_params(verbose=told)
    coder.fit(signals)
    coder.set_params(verbose=0)
    coder.save(plan.out)
    facts = layer_facts(coder)
    voice.table(["layer", "atoms", "size", "stride", "not 0, %", "coherence"], [_row(fact) for fact in facts])
    told_all = {
        "out": str(plan.out),
        "pictures": n,
        "side": plan.side,
        "layers": facts,
        "lambda": coder.reg_,
        "visits": coder.n_iter_,
        "objective": coder.objective_,
        "low_frequencies": "kept" if plan.keep_low else "split off",
    }
    voice.finish(
        told_all, f"wrote {plan.out} after {coder.n_iter_} visits; no optimum is claimed: learning is not convex"
    )


def _begun(plan: Plan) -> MultiLayerSparseCoder:
    """A coder that has seen nothing. Raises InputError where something would be written over."""
    if plan.out.is_dir() and any(plan.out.iterdir()):
        raise InputError(
            f"out must be a new or empty folder, but {plan.out} holds something; choose another, or --resume a model"
        )
    assert plan.layers is not None
    return MultiLayerSparseCoder(
        plan.layers, density=plan.density, reg=plan.reg, max_iter=plan.visits, random_state=plan.seed, warm_start=True
    )


def _resumed(plan: Plan) -> MultiLayerSparseCoder:
    """The coder that a stopped run left. Raises InputError where it was another run's."""
    coder = MultiLayerSparseCoder.load(plan.out)
    asked = {"layers": plan.layers, "density": plan.density, "reg": plan.reg, "max_iter": plan.visits}
    if coder._seed != int(check_random_state(plan.seed).randint(2**31 - 1)):
        raise InputError(f"resume must be with the settings of the run: another seed, got {plan.seed}")
    for name, value in asked.items():
        if getattr(coder, name) != value:
            raise InputError(
                f"resume must be with the settings of the run: {name.replace('max_iter', 'visits')} {getattr(coder, name)}, got {value}"
            )
    return coder.set_params(warm_start=True)


def layer_facts(coder: MultiLayerSparseCoder) -> list[dict]:
    """What each layer is, in numbers."""
    model, found = coder.dictionary_, []
    for i, (D, density) in enumerate(zip(model.layers, model.density()), 1):
        mu, effective = mutual_coherence(D), model.effective(i)
        found.append(
            {
                "layer": i,
                "atoms": D.n_atoms,
                "size": list(D.size),
                "stride": D.stride,
                "density": density,
                "coherence": mu,
                "uniqueness_bound": uniqueness_bound(mu),
                "effective_size": list(effective.size),
                "effective_stride": effective.stride,
            }
        )
    return found


def _row(fact: dict) -> tuple[str, ...]:
    size = " x ".join(str(n) for n in fact["size"])
    return (
        str(fact["layer"]),
        str(fact["atoms"]),
        size,
        str(fact["stride"]),
        f"{100 * fact['density']:.2f}",
        f"{fact['coherence']:.3f}",
    )


def shown_layers(voice: Console, model: Path, out: Path | None) -> None:
    """Write each layer's atoms as they look in a picture, and print its numbers. Raises InputError."""
    coder, folder = MultiLayerSparseCoder.load(model), model if out is None else out
    check_place("out", folder)
    names = []
    for i, png in enumerate(effective_pictures(coder), 1):
        names.append(f"atoms-{i}.png")
        store.write_bytes(folder / names[-1], png)
    facts = layer_facts(coder)
    voice.table(["layer", "atoms", "size", "stride", "not 0, %", "coherence"], [_row(fact) for fact in facts])
    told = {"model": str(model), "layers": facts, "pictures": str(folder)}
    voice.finish(
        told, f"wrote {', '.join(names)} in {folder}: at most {SHOWN} atoms of each layer as they look in a picture"
    )


def effective_pictures(coder: MultiLayerSparseCoder) -> list[bytes]:
    """PNG of the first atoms of each layer, laid in a picture: of D_1, D_1 D_2, ... Raises InputError for lines."""
    model, found = coder.dictionary_, []
    if len(model.layers[0].size) != 2 or model.channels not in (1, 3):
        raise InputError(
            f"model must have atoms of 1 or 3 channels and two axes to be drawn, got {model.channels} channels"
        )
    for i in range(1, len(model) + 1):
        atoms = model.effective(i).atoms[:SHOWN]
        found.append(figure.filters(atoms.numpy(), columns=min(ACROSS, len(atoms))))
    return found


def drawn(voice: Console, model: Path, out: Path, n: int, nonzeros: int | None, columns: int, seed: int) -> None:
    """Write a picture of signals drawn from a model, and say how sparse each layer is. Raises InputError."""
    whole("n", n)
    whole("columns", columns)
    if out.suffix != ".png":
        raise wrong("out", "a file that ends in .png", str(out))
    if not is_deep(str(model)):
        raise InputError(
            f"model must be a folder that `triptych sparse learn --layers` wrote, and {model} is none; learn one with --layers"
        )
    coder = MultiLayerSparseCoder.load(model)
    if len(coder.signal_shape_) != 3 or coder.signal_shape_[0] not in (1, 3):
        raise InputError(f"model must be of pictures of 1 or 3 channels to be drawn, got signals {coder.signal_shape_}")
    found = coder.sample(n, nonzeros=nonzeros, random_state=seed)
    store.write_bytes(out, grey(found.signals, columns))
    voice.say(sparsity(found))
    told = {"nonzeros": found.nonzeros.tolist(), "stripes": found.stripes.tolist(), "picture": str(out)}
    voice.finish({"model": str(model), "seed": seed, **told}, f"wrote {out}: {n} signals")


def sparsity(found: Sample) -> str:
    """How sparse every layer of what was drawn is, in words."""
    counts, stripes = found.nonzeros.double().mean(0).tolist(), found.stripes.amax(0).tolist()
    parts = [
        f"layer {i}: {n:,.0f} coefficients that are not 0 on average, at most {s:,} in a stripe"
        for i, (n, s) in enumerate(zip(counts, stripes), 1)
    ]
    return f"Deepest codes at random places, and what they make of themselves; {'; '.join(parts)}."


def grey(x: Tensor, columns: int) -> bytes:
    """Signals on one common scale, the least black and the largest white."""
    low, high = float(x.min()), float(x.max())
    values = np.rint(255 * (x.numpy() - low) / max(high - low, 1e-30)).astype(np.uint8)
    return figure.images(values, columns=columns)


def promised_layers(voice: Console, model: Path, image: Path, noise: float, reg: float, keep_low: bool) -> None:
    """Say what the theorems of many layers promise for the codes of a picture. Raises InputError."""
    real("noise", noise, low=0.0)
    real("reg", reg, above=0.0, high=1.0)
    coder, picture = MultiLayerSparseCoder.load(model), raster.read(image)
    dictionary = coder.dictionary_
    values = planes(picture, dictionary.channels)
    values = (values if keep_low else split(values)[1]) / PIXEL
    seen = dictionary.analyse(values).flatten(1)
    largest = float((seen if coder.nonnegative else seen.abs()).max())
    found = deepest_codes(dictionary, values, reg * max(largest, 1e-12), coder.nonnegative, 1e-2)
    codes = dictionary.cascade(found.x.float(), values.shape[2:])[1:]
    low = "taken as it is" if keep_low else "its low frequencies were split off, the theorems speak of what is left"
    voice.say(f"{image}: {picture.mode}; {low}")
    names = ["the picture"] if len(values) == 1 else ["red", "green", "blue"]
    facts = []
    kind = "nonnegative" if coder.nonnegative else "soft"
    for i, (name, one) in enumerate(zip(names, deep_guarantees(dictionary, codes, noise / PIXEL, kind=kind))):
        counts = [int((code[i] != 0).sum()) for code in codes]
        voice.say(f"\n{name}, {', '.join(f'{n:,}' for n in counts)} coefficients that are not 0:\n{one.verdict()}")
        facts.append(
            {
                "channel": name,
                "nonzeros": counts,
                "stripes": [layer.stripe for layer in one.layers],
                "coherence": [layer.coherence for layer in one.layers],
                "unique": one.unique,
                "thresholding": one.thresholding,
                "basis_pursuit": one.basis_pursuit,
                "verdict": one.verdict(),
            }
        )
    voice.finish({"model": str(model), "image": str(image), "noise": noise, "codes": facts})


def converted(
    voice: Console, weights: Path, net: str, data: Path, count: int, side: int | None, steps: int, rescale: bool
) -> None:
    """Say layer by layer what the forward pass of a trained network is. Raises InputError."""
    whole("count", count)
    if weights.suffix != ".safetensors":
        raise InputError(
            f"weights must be a .safetensors file of the network's state_dict, got {weights}; save them as one"
        )
    module = _made(net)
    _filled(module, store.read_tensors(weights), weights, net)
    found = from_torch(module)
    images = load(data, limit=count) if side is None else load(data, limit=count, side=side)
    x = images.pixels[:count].float() / PIXEL
    if x.shape[1] != found.model.channels:
        raise InputError(f"data must have the {found.model.channels} channels of the network, {data} has {x.shape[1]}")
    found = found.rescale() if rescale else found
    layers = found.report(x, steps)
    for i, layer in enumerate(layers, 1):
        voice.say(f"\nLayer {i}, {layer.name}:\n{in_words(layer)}")
    voice.say(f"\nOf the network, {found.ended}: what comes after is no layer of such a model.")
    facts = [{name: _finite(value) for name, value in vars(layer).items()} for layer in layers]
    voice.finish(
        {"weights": str(weights), "net": net, "ended": found.ended, "pictures": len(x), "layers": facts},
        _summary(found, layers),
    )


def _made(net: str) -> nn.Module:
    """The network of a word module:function. Raises InputError."""
    name, colon, function = net.partition(":")
    if not colon or not name or not function:
        raise InputError(f"net must be module:function, which makes the network, got {net!r}")
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = getattr(import_module(name), function)()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        raise InputError(f"net must be module:function that makes a network, but {net} did not ({reason})") from error
    finally:
        sys.path[:] = before
    if not isinstance(made, nn.Module):
        raise InputError(f"net must make a torch.nn.Module, but {net} made a {type(made).__name__}")
    return made.eval()


def _filled(module: nn.Module, tensors: dict[str, Tensor], weights: Path, net: str) -> None:
    """Put weights into a network. Raises InputError where they are another's."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"weights must be the state_dict of {net}, but {weights} is not ({reason})") from error


def in_words(layer: LayerReport) -> str:
    """What a layer is as a step of a pursuit, in some sentences."""
    k, c, *size = layer.atoms
    lines = [f"{k} atoms of {c} x {' x '.join(map(str, size))}, stride {layer.stride}, padding {layer.padding}."]
    if layer.lipschitz <= 1.05:
        lines.append(f"‖D‖² is {layer.lipschitz:.2f}: the step of the forward pass, 1, is a descent step.")
    else:
        lines.append(f"‖D‖² is {layer.lipschitz:.2f}: the step of the forward pass, 1, is too long by so much.")
    lines.append(
        f"Coherence {layer.coherence:.3f}: theory speaks of fewer than {layer.bound:.2f} non-zeros a stripe; the forward code has "
        f"up to {layer.stripe:,}."
    )
    lines.append(f"{100 * layer.positive:.0f} % of the biases are above 0, which are no thresholds.")
    worse = " (higher than that of no code at all)" if layer.forward > layer.at_zero else ""
    lines.append(f"Objective: {layer.at_zero:.4g} without a code, {layer.forward:.4g} with the forward code{worse}.")
    if layer.lower_bound == -float("inf"):
        what = "the problem may have no minimum, as positive biases reward codes for their size"
        lines.append(f"A pursuit from there reaches {layer.best:.4g}; {what}.")
    else:
        lines.append(f"A pursuit from there reaches {layer.best:.4g}; none is below {layer.lower_bound:.4g}.")
    return "\n".join(lines)


def _summary(found: Converted, layers: tuple[LayerReport, ...]) -> str:
    """One line on all layers."""
    good = sum(layer.stripe < layer.bound and not layer.padding for layer in layers)
    return f"{len(layers)} layers; the published condition of uniqueness holds for {good} of them on these pictures"


def _finite(value: object) -> object:
    """What JSON can hold."""
    if isinstance(value, float) and value in (float("inf"), -float("inf")):
        return None
    return list(value) if isinstance(value, tuple) else value
