"""Unsupervised codes of MNIST: what few atoms of the deepest layer explain, and digits classified by a linear SVM on the codes.

Dictionaries of three layers, the deeper two sparse, are learned without labels; layer 2 is coded on D_1 D_2, layer 3 on D_1 D_2 D_3.
Beside them a model of two layers that was learned as one of two, dense. Differs: fewer digits and atoms than the paper's at the smaller
scale; the published errors are as reported elsewhere, not read again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context, Experiment, Row, Scale
from triptych.bench.row import Metrics
from triptych.bench.sections import Curves, Section, Series
from triptych.bench.table import Column, Line, compare

if TYPE_CHECKING:
    from torch import Tensor

    from triptych.sparse.deep.estimator import MultiLayerSparseCoder

PAPER = "Sulam, Papyan, Romano & Elad, Multi-Layer Convolutional Sparse Modeling, IEEE TSP 2018"
CELLS = {
    "pixels": "pixels",
    "one layer": "one layer",
    "two layers": "two layers, dense, learned as two",
    "layer 2": "layer 2 of the model",
    "layers 2 and 3": "layers 2 and 3 of the model",
    "terms": "few atoms",
}
PUBLISHED = {"layer 2": 1.30, "layers 2 and 3": 1.15}
LAYERS = {Scale.SMOKE: "8x3,12x3,24x4", Scale.LAPTOP: "32x7s2,128x5,512x7", Scale.PAPER: "32x7s2,128x5,1024x7"}
TWO = {Scale.SMOKE: "8x3,12x3", Scale.LAPTOP: "32x7s2,128x5", Scale.PAPER: "32x7s2,128x5"}
ONE = {Scale.SMOKE: "16x4", Scale.LAPTOP: "128x8s2", Scale.PAPER: "128x8s2"}
DENSITY = {Scale.SMOKE: 0.1, Scale.LAPTOP: 0.01, Scale.PAPER: 0.01}
LEARNED = {Scale.SMOKE: 300, Scale.LAPTOP: 10_000, Scale.PAPER: 60_000}
CLASSIFIED = {Scale.SMOKE: 300, Scale.LAPTOP: 20_000, Scale.PAPER: 60_000}
TESTED = {Scale.SMOKE: 200, Scale.LAPTOP: 10_000, Scale.PAPER: 10_000}
VISITS = {Scale.SMOKE: 4, Scale.LAPTOP: 10, Scale.PAPER: 10}
STEPS = 60  # of the codes that are classified
TERMS = (1, 2, 5, 10, 20, 30, 50)
APPROXIMATED = {Scale.SMOKE: 10, Scale.LAPTOP: 200, Scale.PAPER: 1000}
GRID = (0.001, 0.003, 0.01, 0.03, 0.1)  # C of the SVM, by a fifth of the training digits


@dataclass(frozen=True)
class Cell:
    """What is classified, or 'terms'."""

    features: str


def cells(scale: Scale) -> list[Cell]:
    """All."""
    del scale
    return [Cell(features) for features in CELLS]


def published(cell: Cell) -> Metrics | None:
    """The error that is reported, in percent."""
    return {"error_percent": PUBLISHED[cell.features]} if cell.features in PUBLISHED else None


def measure(cell: Cell, context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    """Learn what the cell needs without labels; classify, or approximate."""
    train, labels, test, truth = _sets(context)
    if cell.features == "terms":
        return _terms(context, train, test)
    start = time.process_time()
    parts = [_features(cell.features, context, train, x) for x in (train[: CLASSIFIED[context.scale]], test)]
    learned = time.process_time() - start
    error, C = _svm(parts[0], labels[: CLASSIFIED[context.scale]], parts[1], truth)
    return {
        "error_percent": error,
        "C": C,
        "features": parts[0].shape[1],
        "share_not_0": float((parts[1] != 0).mean()),
        "coding_cpu_seconds": learned,
    }, {}


def _sets(context: Context) -> "tuple[Tensor, Any, Tensor, Any]":
    """Training images in [0, 1] in a seeded order, labels, test images, labels."""
    import torch

    from triptych.data import load, permute_split, splits

    source, scale = context.data.path or context.data.name, context.scale
    most = max(LEARNED[scale], CLASSIFIED[scale])
    if "train" in splits(source):
        train, test = load(source, split="train"), load(source, split="test")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(context.seed))[:most]
        both = (train.floats()[order], train.labels[order], test.floats(), test.labels)  # pyright: ignore[reportOptionalSubscript]
    else:
        train, test = permute_split(load(source), (most, TESTED[scale]), context.seed)
        both = (train.floats(), train.labels, test.floats(), test.labels)
    x, y, x_test, y_test = both
    return x, y.numpy(), x_test[: TESTED[scale]], y_test[: TESTED[scale]].numpy()  # pyright: ignore[reportOptionalMemberAccess, reportOptionalSubscript]


def _coder(context: Context, layers: str, density: float, train: "Tensor") -> "MultiLayerSparseCoder":
    """Learned from the first training digits, without labels; the same for every cell of a seed."""
    from triptych.sparse.deep.estimator import MultiLayerSparseCoder

    scale = context.scale
    coder = MultiLayerSparseCoder(layers, density=density, max_iter=VISITS[scale], random_state=context.seed)
    return coder.fit(train[: LEARNED[scale]].numpy())


_KNOWN: dict[str, Any] = {}  # what a cell's process has learned: training and test digits are coded with the same


def _features(features: str, context: Context, train: "Tensor", x: "Tensor") -> Any:
    """Rows (n, numbers) of what is classified."""
    import numpy as np

    if features == "pixels":
        return x.flatten(1).numpy()
    layers = {"one layer": ONE, "two layers": TWO}.get(features, LAYERS)[context.scale]
    if layers not in _KNOWN:
        _KNOWN[layers] = _coder(context, layers, 1.0 if features == "two layers" else DENSITY[context.scale], train)
    coder = _KNOWN[layers]
    if features == "one layer":
        return _codes(coder, 1, x)
    if features in ("layer 2", "two layers"):
        return _codes(coder, 2, x)
    return np.concatenate([_codes(coder, 2, x), _codes(coder, 3, x)], 1)


def _codes(coder: "MultiLayerSparseCoder", count: int, x: "Tensor") -> Any:
    """Codes on the first ``count`` layers joined, (n, numbers)."""
    import torch

    from triptych.sparse.deep import MultiLayerDictionary
    from triptych.sparse.deep.learning import deepest

    model = MultiLayerDictionary(coder.dictionary_.layers[:count])
    found = [deepest(model, part, coder.reg_, True, STEPS)[0].flatten(1).half() for part in x.split(250)]
    return torch.cat(found).numpy()


def _svm(x: Any, y: Any, x_test: Any, y_test: Any) -> tuple[float, float]:
    """Test error of a linear SVM in percent, C by validation on a fifth of the training digits."""
    import warnings

    import numpy as np
    from scipy.sparse import csr_array
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    scale = np.asarray(np.abs(x).max(), np.float32)
    rows, test = (csr_array(np.asarray(part, np.float32) / scale) for part in (x, x_test))
    cut = len(y) * 4 // 5
    best = (101.0, GRID[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in (c * 100 for c in GRID):
            machine = LinearSVC(C=C, max_iter=200).fit(rows[:cut], y[:cut])
            best = min(best, (100 * float((machine.predict(rows[cut:]) != y[cut:]).mean()), C))
        machine = LinearSVC(C=best[1], max_iter=400).fit(rows, y)
    return 100 * float((machine.predict(test) != y_test).mean()), best[1]


def _terms(context: Context, train: "Tensor", test: "Tensor") -> tuple[dict[str, Any], dict[str, Any]]:
    """Relative error of digits by how many atoms of the deepest layer explain them: sparse and dense dictionaries, and PCA."""
    import torch

    from triptych.sparse import Coding, omp
    from triptych.sparse.deep.estimator import MultiLayerSparseCoder

    scale, x = context.scale, test[: APPROXIMATED[context.scale]]
    curves: dict[str, list[float]] = {}
    metrics: dict[str, Any] = {"signals": len(x)}
    for name, density in (("sparse", DENSITY[scale]), ("dense", 1.0)):
        coder = MultiLayerSparseCoder(LAYERS[scale], density=density, max_iter=VISITS[scale], random_state=context.seed)
        coder.fit(train[: LEARNED[scale]].numpy())
        coding = Coding(coder.dictionary_.effective(), x)
        curves[name] = []
        for count in TERMS:
            left = omp(coding, n_nonzero=count).residual.float()
            curves[name].append(float((left / x.flatten(1).norm(dim=1)).mean()))
        metrics[f"density_{name}_2"], metrics[f"density_{name}_3"] = coder.dictionary_.density()[1:]
        metrics[f"objective_{name}"] = -coder.score(x.numpy())
    flat = train[: LEARNED[scale]].flatten(1)
    basis = torch.linalg.svd(flat[:5000], full_matrices=False).Vh
    curves["principal components"] = []
    for count in TERMS:
        part = x.flatten(1) @ basis[:count].T @ basis[:count]
        curves["principal components"].append(
            float(((part - x.flatten(1)).norm(dim=1) / x.flatten(1).norm(dim=1)).mean())
        )
    for name, values in curves.items():
        metrics[f"error_10_{name.split()[0]}"] = values[TERMS.index(10)]
        metrics[f"error_20_{name.split()[0]}"] = values[TERMS.index(20)]
    return metrics, {"curves": curves}


def render(rows: Sequence[Row]) -> list[Section]:
    """Errors beside what is reported; the curves of few atoms."""
    columns = [
        Column("error_percent", "test error, %"),
        Column("features", "numbers", ",.0f"),
        Column("share_not_0", "of them not 0", ".1%"),
        Column("coding_cpu_seconds", "learning and coding, CPU s", ".0f"),
    ]
    lines = [
        Line(name, {"features": key}, {"error_percent": PUBLISHED[key]} if key in PUBLISHED else {})
        for key, name in CELLS.items()
        if key != "terms"
    ]
    classified = [row for row in rows if row.cell["features"] != "terms"]
    sections: list[Section] = [compare(classified, lines, columns, title="Linear SVM on codes", note=_NOTE)]
    terms = sorted((row for row in rows if row.cell["features"] == "terms"), key=lambda row: row.seed)
    if terms:
        curves = terms[0].artefact("curves")
        series = [Series(name, [float(t) for t in TERMS], values) for name, values in curves.items()]
        title = "Relative error by the number of atoms, orthogonal matching pursuit on the deepest layer"
        sections.append(Curves(series, title, "atoms", "relative error", log_x=True))
    return sections


_NOTE = (
    "Published errors: reported of the paper, not read again; its dictionaries and its classifier are learned from 60,000 digits. Codes "
    "are learned without labels; the SVM's C is chosen on a fifth of its training digits."
)

EXPERIMENT = Experiment(
    name="sulam2018.unsupervised",
    paper=PAPER,
    shows="codes of MNIST learned without labels: few-atom approximation, and a linear SVM on them",
    version=2,
    cells=cells,
    measure=measure,
    render=render,
    published=published,
    data="mnist",
)
