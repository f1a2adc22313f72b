"""What the commands sparse show and guarantees do."""

from pathlib import Path

import numpy as np

from triptych import store
from triptych.bench import figure
from triptych.bench.sections import Curves, Series
from triptych.check import InputError, real
from triptych.cli.console import Console
from triptych.cli.place import check_place
from triptych.cli.sparse_run import SHIPPED, coded_picture, dictionary_of
from triptych.data import raster
from triptych.sparse.coherence import (
    babel,
    basis_pursuit_bound,
    coherence_per_shift,
    mutual_coherence,
    uniqueness_bound,
    welch_bound,
)
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.guarantees import guarantees

ACROSS, SHOWN = 24, 200  # atoms a row; places of the Babel curve


def shown(voice: Console, model: str, out: Path | None) -> None:
    """Write the pictures of a dictionary and print its numbers. Raises InputError."""
    dictionary = dictionary_of(model)
    if out is None and not Path(model).is_dir():
        raise InputError(
            "out must name a folder for the pictures, as the model is no folder of its own; give --out FOLDER"
        )
    folder = Path(model) if out is None else out
    check_place("out", folder)
    _drawable(dictionary)
    mu, curve = mutual_coherence(dictionary), babel(dictionary)
    per_shift = coherence_per_shift(dictionary).numpy()
    store.write_bytes(
        folder / "atoms.png", figure.filters(dictionary.atoms.numpy(), columns=min(ACROSS, dictionary.n_atoms))
    )
    heat = np.rint(255 * np.clip(per_shift, 0, 1)).astype(np.uint8)
    store.write_bytes(folder / "coherence.png", figure.images(heat[None, None]))
    places = list(range(1, min(SHOWN, len(curve)) + 1))
    sums = [float(x) for x in curve[: len(places)]]
    section = Curves(
        [Series("Babel", [float(k) for k in places], sums)],
        title="Babel function",
        x_label="atoms k",
        y_label="largest sum of k correlations",
    )
    store.write_bytes(folder / "babel.png", figure.curves(section))
    facts = {
        "model": model,
        "atoms": dictionary.n_atoms,
        "channels": dictionary.channels,
        "size": list(dictionary.size),
        "stride": dictionary.stride,
        "coherence": mu,
        "welch_bound": welch_bound(dictionary),
        "uniqueness_bound": uniqueness_bound(mu),
        "basis_pursuit_bound": basis_pursuit_bound(mu),
        "pictures": str(folder),
    }
    tall, wide = dictionary.size
    rows = [
        ("atoms", f"{dictionary.n_atoms} of {dictionary.channels} x {tall} x {wide}, stride {dictionary.stride}"),
        ("mutual coherence", f"{mu:.4f} (at least {facts['welch_bound']:.4f} for any such dictionary)"),
        ("codes are unique below", f"{facts['uniqueness_bound']:.2f} non-zeros a stripe"),
        ("l1 finds no wrong atom up to", f"{facts['basis_pursuit_bound']:.2f} non-zeros a stripe"),
        ("Babel function at 1, 2, 3", ", ".join(f"{value:.3f}" for value in sums[:3])),
    ]
    voice.table([model, ""], rows)
    voice.finish(facts, f"wrote atoms.png, coherence.png (white is 1) and babel.png in {folder}")


def promised(voice: Console, model: str, image: Path, noise: float, reg: float) -> None:
    """Say what the theorems promise for the code of a picture. Raises InputError."""
    real("noise", noise, low=0.0)
    real("reg", reg, above=0.0, high=1.0)
    dictionary, picture = dictionary_of(model), raster.read(image)
    coding, found, _ = coded_picture(dictionary, picture, reg, 1e-2)
    verdicts = guarantees(dictionary, found.codes, noise)
    names = ["the picture"] if len(verdicts) == 1 else ["red", "green", "blue"]
    voice.say(f"{image}: {picture.mode}; its low frequencies were split off, the theorems speak of what is left")
    facts = []
    for name, one, nonzeros in zip(names, verdicts, found.codes.nonzeros.tolist()):
        voice.say(f"\n{name}, {nonzeros:,} coefficients:\n{one.verdict()}")
        facts.append(
            {
                "channel": name,
                "nonzeros": nonzeros,
                "stripe": one.stripe,
                "coherence": one.coherence,
                "unique": one.unique,
                "omp": one.omp,
                "basis_pursuit": one.basis_pursuit,
                "verdict": one.verdict(),
            }
        )
    voice.finish({"model": model, "image": str(image), "noise": noise, "lambda": coding.lam().tolist(), "codes": facts})


def _drawable(dictionary: ConvDictionary) -> None:
    """Raise InputError for atoms that no picture shows."""
    if len(dictionary.size) != 2 or dictionary.channels not in (1, 3):
        raise InputError(
            f"model must have atoms of 1 or 3 channels and two axes to be drawn, got {tuple(dictionary.atoms.shape)}; "
            f"take another, such as {SHIPPED}"
        )
