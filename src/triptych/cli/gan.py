"""gan train, sample, walk, arithmetic, score, neighbours, audit, selftest: adversarial networks, trained, looked at and judged."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from triptych.cli.console import Json, Whole
from triptych.cli.gan_options import Choice, Drawn, Flag, Game, Judging, Keeping, Machine, Reading, Seeing, Way

app = App(name="gan", help="Train adversarial networks and look at what they make.")
app.command("triptych.cli.selftest:selftest", name="selftest", help="Check every loss against what theory says of it.")

READING, GAME, MACHINE, KEEPING = Reading(), Game(), Machine(), Keeping()  # every option left away
DRAWN, CHOICE, WAY, JUDGING, SEEING = Drawn(), Choice(), Way(), Judging(), Seeing()
Numbers = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@app.command
def train(
    recipe: str | None = None,
    *,
    reading: Reading = READING,
    game: Game = GAME,
    machine: Machine = MACHINE,
    keeping: Keeping = KEEPING,
    dry_run: Flag = False,
    json: Json = False,
) -> None:
    """Train on images by a paper's recipe, into a folder that can be resumed, sampled and reported.

    Parameters
    ----------
    recipe
        goodfellow, dcgan, lsgan, wgan, wgan-gp or wgan-gp-resnet; with `--resume` that of the run.
    dry_run
        Say what would be trained, its memory and about how long it takes; write nothing.
    """
    from triptych.cli.gan_train import Wish, dry, trained

    wish = Wish(recipe, reading, game, machine, keeping)
    (dry if dry_run else trained)(wish, json)


@app.command
def sample(run: Path, *, out: Path, choice: Choice = CHOICE, drawn: Drawn = DRAWN, json: Json = False) -> None:
    """Write images that a run's generator makes; image i of a seed is the same however many are asked for.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    out
        A .png file for a grid, a .npz or .npy file for the pixels, or a new folder for one PNG an image.
    """
    from triptych.cli.gan_sample import sampled

    sampled(run, out, choice, drawn, json)


@app.command
def walk(run: Path, *, out: Path, way: Way = WAY, drawn: Drawn = DRAWN, json: Json = False) -> None:
    """Write a film of a closed walk through the generator's noise.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    out
        A .gif file, or a .mp4 file where the program ffmpeg is installed.
    """
    from triptych.cli.gan_sample import walked

    walked(run, out, way, drawn, json)


@app.command
def arithmetic(
    run: Path,
    *,
    out: Path,
    plus: Numbers = (),
    minus: Numbers = (),
    label: str | None = None,
    drawn: Drawn = DRAWN,
    json: Json = False,
) -> None:
    """Add and subtract means of noise, and draw the terms and what comes of them.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    out
        A .png file: one row a term, its images and their mean at the end; in the last row the result and variations of it.
    plus
        Image numbers of the seed, divided by commas, whose mean is added; may be given again.
    minus
        Image numbers whose mean is subtracted; may be given again.
    label
        The class, by name or number, of a conditional run; the first where none is given.
    """
    from triptych.cli.gan_sample import added

    added(run, out, (plus, minus), label, drawn, json)


@app.command
def score(
    run: Path,
    *,
    metrics: str | None = None,
    judging: Judging = JUDGING,
    seeing: Seeing = SEEING,
    drawn: Drawn = DRAWN,
    json: Json = False,
) -> None:
    """Score a run's images against real ones; every score is of the features that stand beside it. Kept in the run's folder.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    metrics
        Of fid, kid, is, pr, swd, ms-ssim and parzen, divided by commas; all that there can be but parzen where none are given.
    """
    from triptych.cli.gan_score import scored

    scored(run, judging, seeing, metrics, drawn, json)


@app.command
def neighbours(
    run: Path,
    *,
    out: Path | None = None,
    judging: Judging = JUDGING,
    seeing: Seeing = SEEING,
    crop: str | None = None,
    k: Whole = 3,
    drawn: Drawn = DRAWN,
    json: Json = False,
) -> None:
    """Draw a run's images over the real ones that are most like them, by pixels and by features.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    out
        A .png file; neighbours.png in the run's folder where none is given.
    crop
        Compare within a window x,y,w,h in pixels, so that a background does not count.
    k
        Neighbours of each image.
    """
    from triptych.cli.gan_compare import neighbours

    neighbours(run, out, judging, seeing, crop, k, drawn, json)


@app.command
def audit(
    run: Path,
    *,
    held_out: str | None = None,
    out: Path | None = None,
    judging: Judging = JUDGING,
    seeing: Seeing = SEEING,
    shift: Whole = 2,
    drawn: Drawn = DRAWN,
    json: Json = False,
) -> None:
    """Tell whether a run has memorised: whether its images are nearer to training images than to others, with a p-value.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    held_out
        Images that the run was not trained on, of the same kind as `--data` down to chance; those that it held out itself where none
        are given.
    out
        A .png file of suspicious images; audit.png in the run's folder where none is given.
    shift
        Pixels, of 32, by which a copy may have been moved.
    """
    from triptych.cli.gan_compare import audited

    audited(run, out, judging, seeing, held_out, shift, drawn, json)


@app.command
def recover(
    run: Path,
    *,
    held_out: str | None = None,
    out: Path | None = None,
    judging: Judging = JUDGING,
    steps: Whole = 100,
    drawn: Drawn = DRAWN,
    json: Json = False,
) -> None:
    """Find the noise whose image is most like a picture, for training and held-out pictures, and say which are found better.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    held_out
        Pictures that the run was not trained on; those that it held out itself where none are given.
    out
        A .png file; recovered.png in the run's folder where none is given.
    steps
        Steps of L-BFGS on the noise, from each of four starts.
    """
    from triptych.cli.gan_compare import recovered

    recovered(run, out, judging, held_out, steps, drawn, json)


@app.command
def export(
    run: Path, *, onnx: Path | None = None, folder: Path | None = None, drawn: Drawn = DRAWN, json: Json = False
) -> None:
    """Write a run's generator for others: an ONNX file, checked in onnxruntime, or a folder with a model card.

    Parameters
    ----------
    run
        A folder that `triptych gan train` wrote.
    onnx
        A .onnx file; needs the extra onnx.
    folder
        A new folder for model.safetensors, config.json and README.md, which `gan sample` and `gan walk` take in the place of a run.
    """
    from triptych.cli.gan_export import exported

    exported(run, onnx, folder, drawn, json)


@app.command(name="import")
def import_(file: Path, *, out: Path, json: Json = False) -> None:
    """Make a run of a generator that pytorch/examples' DCGAN trained; no code in the file is run.

    Parameters
    ----------
    file
        netG_epoch_N.pth, or the same tensors as .safetensors.
    out
        A new folder for the run, for `gan sample`, `walk`, `score`, `neighbours` and `export`.
    """
    from triptych.cli.gan_export import taken_in

    taken_in(file, out, json)
