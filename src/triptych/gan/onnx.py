"""A generator as an ONNX file, checked in onnxruntime against torch before it is kept."""

import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from triptych.check import InputError
from triptych.gan.draw import Draw
from triptych.gan.recipe import Recipe
from triptych.gan.sample import DOUBLE
from triptych.gan.train import generate
from triptych.store import write_bytes

CHECKED = (1, 3, 16)  # batches
AGREES = 1e-4


class Pictures(nn.Module):
    """z (n, size), and labels (n,) where there are classes, to images (n, c, h, w) in [0, 1]."""

    def __init__(self, recipe: Recipe, generator: nn.Module) -> None:
        super().__init__()
        self.recipe, self.generator = recipe, generator

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [0, 1]."""
        x = generate(self.generator, z, labels)
        scale = self.recipe.scale
        if scale == "dequantised":
            x = (x + 1) * (128 / 255)
        elif scale == "signed":
            x = (x + 1) / 2
        return x.clamp(0, 1)


def export_onnx(recipe: Recipe, generator: nn.Module, file: str | Path) -> float:
    """Write an ONNX file with inputs z (n, size) float32 and, where there are classes, labels (n,) int64, and the output images
    (n, c, h, w) in [0, 1], n any number; the largest difference to torch over batches of 1, 3 and 16.

    Raises InputError where onnx, onnxscript or onnxruntime is not installed, the recipe is of points, or the two disagree by more than 1e-4.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("onnx must be installed for --onnx; run: pip install 'triptych[onnx]'") from None
    if len(recipe.shape) != 3:
        raise InputError("the run must be one of images to be exported, but it generates points")
    pictures = Pictures(recipe, generator).eval()
    data = _exported(pictures, _inputs(recipe, 2))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in CHECKED:
        given = _inputs(recipe, n)
        with torch.no_grad():
            ours = pictures(*given)
        feed = {i.name: x.numpy() for i, x in zip(session.get_inputs(), given)}
        (theirs,) = session.run(None, feed)
        worst = max(worst, float((ours - torch.from_numpy(theirs)).abs().max()))
    if not worst <= AGREES:
        raise InputError(
            f"the ONNX file must agree with torch to {AGREES:g}, but it differs by {worst:.2g}; nothing was written"
        )
    write_bytes(file, data)
    return worst


def _inputs(recipe: Recipe, n: int) -> tuple[Tensor, ...]:
    """Some z and labels."""
    z = recipe.rules.latent.sample(Draw(0, 0, 0, n, "onnx/"), like=DOUBLE).float()
    return (z, torch.arange(n) % recipe.classes) if recipe.classes else (z,)


def _exported(pictures: Pictures, given: tuple[Tensor, ...]) -> bytes:
    """The file's bytes; what the exporter says on the way is not for users."""
    names = ["z", "labels"][: len(given)]
    n = torch.export.Dim("n", min=1)
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                pictures,
                given,
                dynamo=True,
                input_names=names,
                output_names=["images"],
                dynamic_shapes=tuple({0: n} for _ in given),
                verbose=False,
            )
    finally:
        log.setLevel(before)
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "generator.onnx"
        program.save(file, external_data=False)
        return file.read_bytes()
