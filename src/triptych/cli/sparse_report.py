"""The sections of a report on a model of many layers: atoms, effective atoms, codes and reconstructions layer by layer."""

from pathlib import Path

import torch

from triptych.bench import figure
from triptych.bench.sections import Curves, Entry, Facts, Heading, Picture, Section, Series, Table, Text
from triptych.cli.sparse_layers import effective_pictures, grey, layer_facts, sparsity
from triptych.sparse.deep.estimator import MultiLayerSparseCoder

STRONGEST = 16  # channels of a code that are shown
DRAWN = 16  # signals of the model that are


def model_sections(folder: Path) -> list[Section]:
    """The sections of a saved model. Raises InputError where it is damaged."""
    coder = MultiLayerSparseCoder.load(folder)
    facts = layer_facts(coder)
    header = ["layer", "atoms", "size", "stride", "not 0, %", "coherence", "unique below", "looks as large as"]
    rows = [
        [
            Entry(str(f["layer"])),
            Entry(str(f["atoms"])),
            Entry(" x ".join(map(str, f["size"]))),
            Entry(str(f["stride"])),
            Entry(f"{100 * f['density']:.2f}"),
            Entry(f"{f['coherence']:.3f}"),
            Entry(f"{f['uniqueness_bound']:.2f}"),
            Entry(" x ".join(map(str, f["effective_size"]))),
        ]
        for f in facts
    ]
    told = (
        f"{len(facts)} layers learned in {coder.n_iter_} visits to every signal. Learning is not convex: no optimum is claimed. "
        "Unique below: with fewer non-zeros in every stripe a layer's code is the only one so sparse."
    )
    sections: list[Section] = [Text(told), Table(header, rows, title="The layers")]
    if len(coder.objective_) > 1:
        visits = [float(i) for i in range(1, len(coder.objective_) + 1)]
        sections.append(
            Curves(
                [Series("objective", visits, coder.objective_)],
                "Objective by visit",
                "visit",
                "mean objective",
                log_y=True,
            )
        )
    if len(coder.signal_shape_) == 3 and coder.signal_shape_[0] in (1, 3):
        sections += [*_atoms(coder), *_examples(coder), *_drawn(coder)]
    parameters = [(name, str(value)) for name, value in coder.get_params().items() if name != "verbose"]
    return [*sections, Heading("Settings"), Facts([*parameters, ("λ", f"{coder.reg_:.6g}")])]


def _atoms(coder: MultiLayerSparseCoder) -> list[Section]:
    """Each layer's atoms as they look in a picture."""
    found: list[Section] = [Heading("Atoms")]
    for i, png in enumerate(effective_pictures(coder), 1):
        name = "D_1" if i == 1 else " ".join(f"D_{j}" for j in range(1, i + 1))
        count = coder.dictionary_.n_atoms[i - 1]
        found.append(
            Picture(
                png, f"atoms of layer {i} in a picture", f"Layer {i}: atoms of {name}, {count} in all", "Grey is zero."
            )
        )
    return found


def _examples(coder: MultiLayerSparseCoder) -> list[Section]:
    """Training signals, what the deepest code makes of itself, and each layer's codes of the first."""
    x = coder.examples_
    deep = coder._coded(x)[0]
    back, *codes = coder.dictionary_.cascade(deep, x.shape[2:])
    both = torch.cat([x, back])
    off = (back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1).clamp_min(1e-30)
    told = f"Above the signals, below what their deepest codes make: relative error {float(off.mean()):.3f} on average."
    found: list[Section] = [
        Heading("Codes and reconstructions"),
        Picture(grey(both, len(x)), "signals above their reconstructions", "Signals and reconstructions", told),
    ]
    for i, code in enumerate(codes, 1):
        one = code[0]
        share = f"{int((one != 0).sum()):,} of {one.numel():,} coefficients are not 0"
        if one[0].numel() == 1:  # one place: a bar a coefficient
            series = Series("code", [float(j) for j in range(len(one))], one.flatten().tolist())
            found.append(
                Curves([series], f"Layer {i}: the code of the first signal", "atom", "coefficient", caption=share)
            )
            continue
        order = one.abs().flatten(1).sum(1).argsort(descending=True)[:STRONGEST]
        caption = f"{share}; the {len(order)} channels with most of it, grey is zero."
        picture = figure.filters(one[order][:, None].numpy(), columns=8)
        found.append(
            Picture(picture, f"channels of the code of layer {i}", f"Layer {i}: the code of the first signal", caption)
        )
    return found


def _drawn(coder: MultiLayerSparseCoder) -> list[Section]:
    """Signals of the model itself; none where its examples' codes are 0."""
    if not bool((coder._coded(coder.examples_)[0] != 0).any()):
        return []
    found = coder.sample(DRAWN, random_state=0)
    picture = grey(found.signals, DRAWN // 2)
    return [
        Heading("Signals of the model"),
        Picture(picture, "signals drawn from the model", "Drawn, not coded", sparsity(found)),
    ]
