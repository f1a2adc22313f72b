"""sparse encode, denoise, inpaint, learn, show, guarantees, from-torch: sparse codes of pictures, and what they are good for."""

from pathlib import Path

from cyclopts import App

from triptych.cli.console import Json, Whole, console

app = App(name="sparse", help="Code pictures sparsely: denoise, fill in, look at dictionaries.")

MODEL = "kodak"


@app.command
def encode(
    image: Path,
    *,
    out: Path,
    model: str = MODEL,
    stride: Whole | None = None,
    reg: float = 0.05,
    tol: float = 1e-2,
    json: Json = False,
) -> None:
    """Write the sparse codes of a picture, with a certificate, and its low frequencies, which are split off before.

    Parameters
    ----------
    image
        A picture: JPEG, PNG, WebP, BMP or GIF.
    out
        The .safetensors file: low (c, h, w) and, a channel after another, index, value and how many; see docs/sparse.md.
    model
        A folder or file of a dictionary; kodak is the one that ships with triptych.
    stride
        Samples between two places of an atom; the model's own where none is given, and 1 with kodak.
    reg
        The weight of the l1 norm, as a fraction of the least at which the code is 0.
    tol
        The certified gap to stop at, as a fraction of the objective.
    """
    from triptych.cli.sparse_run import encoded

    encoded(console(json), image, out, model, stride, reg, tol)


@app.command
def denoise(
    image: Path,
    *,
    out: Path,
    sigma: float | None = None,
    method: str = "shifts",
    model: str = MODEL,
    json: Json = False,
) -> None:
    """Take white noise off a picture; it comes back with its own depth and transparency.

    Parameters
    ----------
    image
        A picture: JPEG, PNG, WebP, BMP or GIF.
    out
        The .png file.
    sigma
        The standard deviation of the noise on the scale 0 to 255, of 16-bit pictures too; estimated where none is given.
    method
        shifts: strided codes averaged over all shifts; unfolding: a trained network of such codes; plain: one code at stride 1,
        to compare.
    model
        A folder or file of a dictionary; kodak is the one that ships with triptych.
    """
    from triptych.cli.sparse_run import denoised

    denoised(console(json), image, out, sigma, method, model)


@app.command
def inpaint(
    image: Path,
    *,
    mask: Path,
    out: Path,
    noise: float = 0.0,
    model: str = MODEL,
    json: Json = False,
) -> None:
    """Fill in what is missing of a picture; what is known stays as it is.

    Parameters
    ----------
    image
        A picture: JPEG, PNG, WebP, BMP or GIF.
    mask
        A picture of the same size: white where the image is known, black where it is missing.
    out
        The .png file.
    noise
        The standard deviation of the noise of what is known, on the scale 0 to 255; it is then taken off as well.
    model
        A folder or file of a dictionary; kodak is the one that ships with triptych.
    """
    from triptych.cli.sparse_run import inpainted

    inpainted(console(json), image, mask, out, noise, model)


@app.command
def learn(
    *,
    data: Path,
    out: Path,
    atoms: Whole = 64,
    size: Whole = 8,
    stride: Whole = 1,
    layers: str | None = None,
    density: float = 0.02,
    reg: float = 0.05,
    side: Whole = 256,
    count: Whole = 200,
    colour: bool = False,
    keep_low: bool = False,
    visits: Whole = 20,
    seed: Whole = 0,
    resume: bool = False,
    json: Json = False,
) -> None:
    """Learn a dictionary from pictures, or dictionaries of many layers. After every visit to all of them the model is written; a
    run that stopped goes on.

    Parameters
    ----------
    data
        A folder of pictures, or any data that triptych reads.
    out
        The folder for the model.
    atoms
        How many atoms.
    size
        Samples of an atom a side.
    stride
        Samples between two places of an atom.
    layers
        Many layers instead: atoms x size s stride of each, from the picture inwards, such as 32x7s2,128x5.
    density
        Of the layers after the first, the share of an atom's entries that may be other than 0.
    reg
        The weight of the l1 norm, as a fraction of the least at which all codes are 0; with layers, of the mean norm of the
        pictures.
    side
        Pixels a side of what is learned from: the middle of every picture.
    count
        The most pictures that are taken, the first in their order.
    colour
        Atoms of three channels; otherwise pictures are made grey.
    keep_low
        Learn from the pictures as they are; otherwise their low frequencies are split off.
    visits
        The most visits to every picture; with layers, how many there are.
    seed
        Of the first atoms and of the order of visits.
    resume
        Go on from the model in ``out``, to the numbers of a run that never stopped.
    """
    from triptych.cli.sparse_learn import Plan, learned

    plan = Plan(data, out, atoms, size, stride, reg, side, count, colour, visits, seed, layers, density, keep_low)
    if layers is not None:
        from triptych.cli.sparse_layers import learned_layers

        learned_layers(console(json), plan, resume)
    else:
        learned(console(json), plan, resume)


@app.command
def show(model: str = MODEL, *, out: Path | None = None, json: Json = False) -> None:
    """Show a dictionary: its atoms, its coherence and its Babel curve, in numbers and as pictures; of many layers, each layer's
    atoms as they look in a picture.

    Parameters
    ----------
    model
        A folder or file of a dictionary; kodak is the one that ships with triptych.
    out
        The folder for the pictures; the model's own folder where none is given.
    """
    from triptych.cli.sparse_layers import is_deep, shown_layers
    from triptych.cli.sparse_show import shown

    if is_deep(model):
        shown_layers(console(json), Path(model), out)
    else:
        shown(console(json), model, out)


@app.command
def sample(
    model: Path,
    *,
    out: Path,
    n: Whole = 64,
    nonzeros: Whole | None = None,
    columns: Whole = 8,
    seed: Whole = 0,
    json: Json = False,
) -> None:
    """Draw signals from a model of many layers: deepest codes with a few coefficients, and the pictures that they make.

    Parameters
    ----------
    model
        A folder that `triptych sparse learn --layers` wrote.
    out
        The picture to write, .png.
    n
        How many signals.
    nonzeros
        Coefficients of a deepest code that are not 0; as many as training signals have where none is given.
    columns
        Signals in a row.
    seed
        The seed.
    """
    from triptych.cli.sparse_layers import drawn

    drawn(console(json), model, out, n, nonzeros, columns, seed)


@app.command
def guarantees(
    model: str, image: Path, *, noise: float = 0.0, reg: float = 0.05, keep_low: bool = False, json: Json = False
) -> None:
    """Code a picture and say in words what the theorems promise for a signal with that code.

    Parameters
    ----------
    model
        A folder or file of a dictionary; kodak is the one that ships with triptych.
    image
        A picture: JPEG, PNG, WebP, BMP or GIF.
    noise
        The norm of the noise in any patch of an atom's size, on the scale 0 to 255.
    reg
        The weight of the l1 norm, as a fraction of the least at which the code is 0.
    keep_low
        Code the picture as it is; otherwise its low frequencies are split off. For models of many layers.
    """
    from triptych.cli.sparse_layers import is_deep, promised_layers
    from triptych.cli.sparse_show import promised

    if is_deep(model):
        promised_layers(console(json), Path(model), image, noise, reg, keep_low)
        return

    promised(console(json), model, image, noise, reg)


@app.command(name="from-torch")
def from_torch(
    weights: Path,
    *,
    net: str,
    data: Path,
    count: Whole = 16,
    side: Whole | None = None,
    steps: Whole = 300,
    rescale: bool = False,
    json: Json = False,
) -> None:
    """Read a trained network's convolutions as a model of many layers, and say what its forward pass is as a pursuit.

    Parameters
    ----------
    weights
        The .safetensors file of the network's state_dict.
    net
        module:function that makes the network without weights; the module is looked for in the current folder too.
    data
        Pictures to look at, anything that triptych reads; pixels are taken from 0 to 1.
    count
        How many pictures, the first in their order.
    side
        Pixels a side; the pictures' own where none is given.
    steps
        The most steps of the better pursuit of each layer.
    rescale
        Scale the layers to norms of at most 1 first, which leaves the network what it is: its step is then safe.
    """
    from triptych.cli.sparse_layers import converted

    converted(console(json), weights, net, data, count, side, steps, rescale)
