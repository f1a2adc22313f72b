"""What is said of a fitted or saved model: its certificate, its settings, its filters, how it was made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych import store
from triptych.bench import figure
from triptych.bench.sections import Command, Curves, Entry, Facts, Heading, Picture, Section, Series, Table, Text
from triptych.ccnn.estimator import CCNNClassifier
from triptych.ccnn.layer import ConvexLayer
from triptych.ccnn.model import KIND
from triptych.ccnn.pictures import drawable, filter_pictures
from triptych.check import InputError
from triptych.cli import place

RECORD = "fit.json"
FILTERS = "filters.png"
ACROSS = 8  # filters a row
HEADERS = ("layer", "objective", "lower bound", "gap", "gap, % of log {}", "nuclear norm", "rank", "steps", "solver, s")
ORDER = "Strongest first; each is scaled by its own largest weight, and grey is zero."


def check_place(name: str, path: Path, *, suffixes: Sequence[str] = ()) -> None:
    """Raise InputError unless a model can be written at a path or, where there are suffixes, a file with one of them."""
    place.check_place(name, path, suffixes=suffixes)
    if not suffixes and path.is_dir() and any(path.iterdir()) and (kind := store.kind_of(path)) != KIND:
        holds = "other files" if kind is None else repr(kind)
        raise InputError(f"{name} must be a new folder or a model, but {path} holds {holds}; choose another name")


def layer_facts(classifier: CCNNClassifier) -> list[dict[str, Any]]:
    """What is certified of each layer, in numbers: losses in nats, the solver's seconds; no rank where it interpolates."""
    facts = []
    for number, (layer, solution) in enumerate(zip(classifier.layers_, classifier.solution_), start=1):
        i = number - 1
        objective, gap = float(classifier.objective_[i]), float(classifier.gap_[i])
        facts.append(
            {
                "layer": number,
                "objective": objective,
                "lower_bound": float(classifier.lower_bound_[i]),
                "gap": gap,
                "relative_gap": float(classifier.relative_gap_[i]),
                "gap_over_objective": gap / objective if objective > 0 else 0.0,
                "interpolates": bool(classifier.interpolates_[i]),
                "radius": layer.settings.radius,
                "nuclear_norm": float(classifier.nuclear_norm_[i]),
                "rank": None if classifier.interpolates_[i] else int(classifier.rank_[i]),
                "filters": layer.filters.shape[1],
                "converged": solution.converged,
                "status": solution.status[0].value,
                "steps": int(solution.steps),
                "seconds": solution.history[-1].seconds or None,  # a saved model keeps none
            }
        )
    return facts


def certificate_table(facts: Sequence[Mapping[str, Any]], classes: int) -> tuple[list[str], list[list[str]]]:
    """The headers and rows of the table of certificates; its last column, seconds, where they are known."""
    rows = [
        [
            str(fact["layer"]),
            f"{fact['objective']:.6f}",
            f"{fact['lower_bound']:.6f}",
            f"{fact['gap']:.6f}",
            f"{100 * fact['relative_gap']:.4f}",
            f"{fact['nuclear_norm']:.2f}",
            "interpolates" if fact["interpolates"] else str(fact["rank"]),
            str(fact["steps"]),
            *([] if fact["seconds"] is None else [f"{fact['seconds']:.1f}"]),
        ]
        for fact in facts
    ]
    return [header.format(classes) for header in HEADERS[: len(rows[0])]], rows


def upright_table(facts: Sequence[Mapping[str, Any]], classes: int) -> tuple[list[str], list[list[str]]]:
    """The same table with a column a layer: a terminal of 80 characters has no room for nine columns."""
    headers, rows = certificate_table(facts, classes)
    (name, *quantities), columns = headers, list(zip(*rows))
    lines = [[quantity, *values] for quantity, values in zip(quantities, columns[1:])]
    return ["", *(f"{name} {number}" for number in columns[0])], lines


def in_words(fact: Mapping[str, Any], classes: int) -> str:
    """The certificate of a layer in words."""
    objective, bound = fact["objective"], fact["lower_bound"]
    ball = f"nuclear norm {fact['radius']:g} or less"
    least = f"no solution of {ball} can have one below {bound:.4g}" if bound > 0 else "a loss cannot be below zero"
    text = (
        f"Layer {fact['layer']}: the mean loss of the training images is {objective:.4g} nats, and {least}; "
        f"the gap is {100 * fact['relative_gap']:.2g} % of log {classes}. "
    )
    if not fact["converged"]:
        text += f"It stopped early: {fact['status']}. "
    if fact["interpolates"]:
        share = f"{100 * fact['gap_over_objective']:.0f} % of the objective"
        why = (
            f"It interpolates: the loss is so near zero that the gap is {share}"
            if fact["converged"]
            else f"The gap is {share}"
        )
        return f"{text}{why}, and the rank says nothing about the optimum."
    return f"{text}Its rank is {fact['rank']}: so many filters, shared by all positions, make the solution."


def settings_of(layer: ConvexLayer) -> list[tuple[str, str]]:
    """The settings of a layer in words."""
    s, f = layer.settings, layer.features
    (c, h, w), (tall, wide), (down, across) = f.shape, f.patch, f.grid
    kernel = ", ".join(f"{name} {value:g}" for name, value in vars(s.kernel).items())
    kind = {"nystrom": "Nystrom landmarks", "random": "random features"}[s.method]
    return [
        ("reads", f"{c} x {h} x {w} (channels, height, width)"),
        ("patches", f"{tall} x {wide} pixels"),
        ("contrast normalisation", "none" if s.contrast is None else f"offset {s.contrast:g}"),
        ("whitening", "none" if s.ridge is None else f"ridge {s.ridge:g}"),
        ("kernel", f"{s.kernel.name}{', ' + kernel if kernel else ''}"),
        ("expansion", f"{f.expansion.width} {kind}" if s.kernel.name != "linear" else "exact"),
        ("pooling", f"{f.window} x {f.window} averaged, stride {f.stride}: {down} x {across} positions"),
        ("components", f"{f.components}, divided by eigenvalue^{s.power:g}{', centred' if s.centre else ''}"),
        ("radius of the ball", f"{s.radius:g}"),
        ("filters kept", f"{layer.filters.shape[1]} (at most {s.filters})"),
        ("computed in", str(f.dtype).removeprefix("torch.")),
    ]


def filters_png(classifier: CCNNClassifier) -> bytes:
    """The filters of the first layer as a picture."""
    pictures = drawable(filter_pictures(classifier.layers_[0]))
    return figure.filters(pictures.numpy(), columns=min(len(pictures), ACROSS))


def filters_in_words(classifier: CCNNClassifier) -> str:
    """What the picture of the filters shows, and what it leaves out."""
    count, shape = classifier.layers_[0].filters.shape[1], classifier.layers_[0].features.patch
    text = (
        f"{count} {'filter' if count == 1 else 'filters'} of layer 1: the {shape[0]} x {shape[1]} pixel weights nearest to "
        f"what each responds to. {ORDER}"
    )
    if classifier.layers_[0].features.shape[0] not in (1, 3):
        text += " The mean over the channels is drawn."
    if len(classifier.layers_) > 1:
        text += " Later layers read the maps of the layer before, not pixels, and are not drawn."
    return text


def write_record(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write down beside a saved model how it was made."""
    store.write_json(folder / RECORD, {"sha256": _checksum(folder), **facts})


def read_record(folder: Path) -> dict[str, Any]:
    """How the model in a folder was made; nothing where that was not written down, or of another fit."""
    if not (folder / RECORD).is_file():
        return {}
    record = store.read_json(folder / RECORD)
    return record if isinstance(record, dict) and record.get("sha256") == _checksum(folder) else {}


def model_sections(path: str | Path) -> list[Section]:
    """The sections of a saved model's report: certificate, its course, filters, settings, provenance. Raises InputError."""
    classifier = CCNNClassifier.load(path)
    facts, classes = layer_facts(classifier), len(classifier.classes_)
    headers, rows = certificate_table(facts, classes)
    words = "\n\n".join(in_words(fact, classes) for fact in facts)
    note = "Objective, lower bound and gap are mean logistic losses in nats, computed in float64 apart from the solver."
    if any(fact["interpolates"] for fact in facts):
        note += " Where the gap is above 10 % of the objective, the table says 'interpolates' and quotes no rank."
    drawn = Picture(filters_png(classifier), "The filters of the first layer", caption=filters_in_words(classifier))
    settings = [Facts(settings_of(layer), f"Layer {n}") for n, layer in enumerate(classifier.layers_, start=1)]
    return [
        Heading("Certificate"),
        Text(words),
        Table(headers, [[Entry(text) for text in row] for row in rows], note=note),
        *(_curves(layer, number) for number, layer in enumerate(classifier.layers_, start=1)),
        Heading("Filters"),
        drawn,
        Heading("Settings"),
        *settings,
        Heading("How it was made"),
        *_made(read_record(Path(path)), classifier),
    ]


def _curves(layer: ConvexLayer, number: int) -> Curves:
    history = layer.solution.history
    steps = [check.step for check in history]
    objective = [float(check.objective) for check in history]
    bound = [float(check.lower_bound) for check in history]
    series = [
        Series("objective", steps, objective),
        Series("lower bound", steps, bound),
        Series("gap", steps, [high - low for high, low in zip(objective, bound)]),
    ]
    caption = "The optimum lies between the objective and the lower bound at every step."
    if min(bound) <= 0 < max(bound):
        caption += " The bound is drawn from where it rises above zero."
    shown = [one for one in series if max(y for y in one.y if y is not None) > 0]
    title = f"Layer {number}: the certificate, step by step"
    return Curves(shown, title, "solver's step", "nats", log_y=True, caption=caption)


def _made(record: Mapping[str, Any], classifier: CCNNClassifier) -> list[Section]:
    classes = [str(name) for name in classifier.classes_]
    pairs = [("classes", f"{len(classes)}: {listed(classes, 20)}")]
    if not record:
        return [Text("The model was saved from Python, which writes down no data, seed or machine."), Facts(pairs)]
    data, provenance = record.get("data", {}), record.get("provenance", {})
    pairs += [(name, str(value)) for name, value in data.items() if value is not None]
    pairs += [("seed", str(record["seed"]))] if "seed" in record else []
    for name, value in provenance.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else value
        if value is not None:
            pairs.append((name, str(text)))
    return [*([Command(record["command"])] if "command" in record else []), Facts(pairs)]


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names in a row, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _checksum(folder: Path) -> str:
    return str(store.read_json(folder / store.HEAD)["sha256"])
