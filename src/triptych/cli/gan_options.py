"""The options of the gan commands, in groups; an option that may also stand in a TOML file is None where it is not given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triptych.cli.console import Whole

Flag = Annotated[bool, Parameter(negative="", show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Reading:
    """Which images are trained on.

    Parameters
    ----------
    data
        A file or folder of images, the words digits or stacked_digits, or a fetched set such as mnist; digits where none
        is given.
    side
        Resize to side x side pixels.
    fit
        crop (the default): the shorter side becomes `--side` and the centre is kept; squash: both sides become `--side`.
    split
        The split to train on; train where there is one.
    limit
        The first images only.
    labels
        Train a conditional network, which is given each image's class.
    mirror
        Flip half of the images left to right, each time anew.
    held_out
        Images to measure the run on and never to train on: a file or folder, read as `--data` is, of which the test split if there is
        one; a tenth of the images where none is given; none trains on all.
    """

    data: str | None = None
    side: Whole | None = None
    fit: str | None = None
    split: str | None = None
    limit: Whole | None = None
    labels: bool | None = None
    mirror: bool | None = None
    held_out: str | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Game:
    """How it is trained.

    Parameters
    ----------
    steps
        Generator steps of the whole run; the recipe's own number where none is given.
    batch
        Images a critic step.
    width
        Filters of the first layer (of a perceptron, hidden units); the others follow.
    seed
        The seed of the weights, the noise and the order of the images; 0 where none is given.
    accumulate
        Pieces that a batch is cut into, where memory is short.
    init_from
        The folder of another run of the same networks, to start from its weights.
    config
        A TOML file of settings: these options, and a recipe's own, as config.json of a run names them.
    """

    steps: Whole | None = None
    batch: Whole | None = None
    width: Whole | None = None
    seed: Whole | None = None
    accumulate: Whole | None = None
    init_from: Path | None = None
    config: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Machine:
    """What it runs on.

    Parameters
    ----------
    precision
        float32 (the default); bf16: matrix products in bfloat16, all else in float32; float64.
    device
        cpu, cuda or cuda:N; a GPU where there is one.
    compile
        Compile the generator with torch.compile.
    """

    precision: str | None = None
    device: str | None = None
    compile: bool | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Keeping:
    """What is written.

    Parameters
    ----------
    out
        The folder of the run: a new one, or with `--resume` that of a run.
    checkpoint_every
        Steps from one checkpoint to the next; 500 where none is given.
    grid_every
        Steps from one picture of samples to the next; 500 where none is given.
    log_every
        Steps from one line of metrics.jsonl to the next; 10 where none is given.
    measure_every
        Steps from one measurement on held-out images to the next; 100 where none is given.
    score_every
        Steps from one score to the next, by 1,000 samples and the default features of `gan score`: kernel distance, precision, recall; no
        scores where none is given.
    keep
        Checkpoints that stay; 3 where none is given.
    tensorboard
        Write the same numbers for TensorBoard as well.
    resume
        Go on with the run in `--out` from its newest checkpoint.
    """

    out: Path | None = None
    checkpoint_every: Whole | None = None
    grid_every: Whole | None = None
    log_every: Whole | None = None
    measure_every: Whole | None = None
    score_every: Whole | None = None
    keep: Whole | None = None
    tensorboard: bool | None = None
    resume: Flag = False


@Parameter(name="*")
@dataclass(frozen=True)
class Drawn:
    """What is drawn of a run.

    Parameters
    ----------
    seed
        The seed of the images.
    checkpoint
        The step of the checkpoint; the newest where none is given.
    """

    seed: Whole = 0
    checkpoint: Whole | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Judging:
    """What a run is judged by.

    Parameters
    ----------
    data
        Images to compare with, read at the run's own side: a file or folder, or a fetched set such as mnist; those that the run was
        trained with where none are given.
    split
        The split of `--data`; train where there is one.
    n
        How many generated images, and of real ones as many.
    device
        Where the generator, and Inception-v3 or VGG-16, are: cpu, cuda or cuda:N; a GPU where there is one.
    """

    data: str | None = None
    split: str | None = None
    n: Whole | None = None
    device: str | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Seeing:
    """By which features images are compared.

    Parameters
    ----------
    features
        ccnn: a certified network trained on the images' own labels, on the embedded digits where they have none or fewer than ten images
        a class; pixels; inception or vgg.
    weights
        A .safetensors or .pth file of Inception-v3 or VGG-16, in the names of torchvision; what `triptych data fetch` brought where none is
        given.
    """

    features: str = "ccnn"
    weights: Path | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Choice:
    """Which images are made.

    Parameters
    ----------
    n
        How many, 64 where none is given; with `--each-class` so many of each, 8 where none is given (fewer where a grid would not hold them).
    labels
        Classes, by name or number, divided by commas, which the images take in turn; all of them where none is given.
    each_class
        One row a class, with the same noise down a column.
    truncation
        Keep every entry of the noise below this size: more typical images, less varied ones; 2 is mild, 0.5 strong.
    columns
        Columns of the grid.
    """

    n: Whole | None = None
    labels: str | None = None
    each_class: Flag = False
    truncation: float | None = None
    columns: Whole | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class Way:
    """Which way the walk goes.

    Parameters
    ----------
    kind
        smooth: blurred noise; slerp: great circles from image to image; lerp: straight lines.
    frames
        Frames of the whole round.
    points
        Images that the walk goes through (for smooth, about as many).
    label
        The class, by name or number, of a conditional run; the first where none is given.
    fps
        Frames a second.
    """

    kind: str = "smooth"
    frames: Whole = 120
    points: Whole = 6
    label: str | None = None
    fps: float = 25.0
