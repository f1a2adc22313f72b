"""What the commands sparse encode, denoise and inpaint do."""

import time
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from triptych import store
from triptych.check import InputError, choice, real, whole
from triptych.cli.console import Console
from triptych.cli.place import check_place
from triptych.data import raster
from triptych.data.raster import Raster
from triptych.sparse.codes import Codes
from triptych.sparse.coding import Coding
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.pursue import Pursuit, pursue
from triptych.sparse.restore import METHODS, Restored, split
from triptych.sparse.restore import denoise as denoise_images
from triptych.sparse.restore import inpaint as inpaint_images
from triptych.sparse.shipped import load_dictionary

SHIPPED = "kodak"
BAND = 1 << 24  # coefficients of dense codes that are held at a time
LOW = {
    "shifts": "the mean of every patch, its low frequency, was split off before coding and put back",
    "plain": "the low frequencies were split off before coding and put back",
    "unfolding": "the mean of the picture was split off before coding and put back; atoms of the network carry low frequencies",
}


def dictionary_of(model: str) -> ConvDictionary:
    """The dictionary of a word of the command line: a path, or kodak. Raises InputError."""
    if model == SHIPPED and not Path(model).exists():
        return load_dictionary()
    if not Path(model).exists():
        raise InputError(
            f"model must be a folder or file of a dictionary, or {SHIPPED} for the one that ships with triptych, "
            f"but there is no {model}"
        )
    return load_dictionary(model)


def planes(picture: Raster, channels: int) -> Tensor:
    """A picture as signals (b, channels, h, w) on the scale 0 to 255: its channels one by one where a model has one.

    Raises InputError where a model has others.
    """
    values = torch.from_numpy(picture.values)[None]
    if channels == 1:
        return values.transpose(0, 1)
    if channels != values.shape[1]:
        raise InputError(
            f"image must have the {channels} channels of the model, it is {picture.mode}; take another model"
        )
    return values


def coded_picture(
    dictionary: ConvDictionary, picture: Raster, reg: float, tol: float
) -> tuple[Coding, Pursuit, Tensor]:
    """A picture's high frequencies as a coding problem, its codes, and the low frequencies (b, c, h, w).

    Channels are coded one by one where the dictionary has one.
    """
    values = planes(picture, dictionary.channels)
    if len(dictionary.size) != 2:
        raise InputError("model must be a dictionary of pictures, its atoms are lines; take another")
    dictionary.code_shape(values.shape[2:])
    low, high = split(values)
    coding = Coding(dictionary, high, real("reg", reg, above=0.0, high=1.0))
    return coding, pursue(coding, tol=real("tol", tol, above=0.0)), low


def encoded(voice: Console, image: Path, out: Path, model: str, stride: int | None, reg: float, tol: float) -> None:
    """Write the codes of a picture. Raises InputError."""
    check_place("out", out, suffixes=(".safetensors",))
    real("reg", reg, above=0.0, high=1.0)
    real("tol", tol, above=0.0)
    dictionary, picture = dictionary_of(model), raster.read(image)
    own = 1 if model == SHIPPED else dictionary.stride
    stride = own if stride is None else whole("stride", stride)
    dictionary = replace(dictionary, stride=stride, boundary="valid")  # a picture's edges do not meet
    coding, found, low = coded_picture(dictionary, picture, reg, tol)
    error = float((_synthesised(dictionary, found.codes, coding.shape) - coding.signals).square().mean())
    psnr = 10 * np.log10(255**2 / error) if error else None
    gap = float((found.gap / found.solution.objective).max())
    nonzeros = int(found.codes.nonzeros.sum())
    store.write_tensors(
        out,
        {
            "low": low,
            "index": torch.cat(found.codes.index),
            "value": torch.cat(found.codes.value),
            "lengths": torch.tensor([len(index) for index in found.codes.index]),
            "code_shape": torch.tensor(found.codes.shape),
            "atoms": dictionary.atoms,
            "stride": torch.tensor(dictionary.stride),
        },
    )
    samples = picture.values.size
    voice.say(f"{image}: {picture.mode}, {_by(picture)}; {dictionary.n_atoms} atoms at stride {dictionary.stride}")
    voice.say("the low frequencies were split off, and are in the file: image = low + D codes")
    voice.say(
        f"{nonzeros:,} coefficients for {samples:,} samples; {'no error' if psnr is None else f'PSNR {psnr:.2f} dB'}; "
        f"certified: no code has an objective lower by more than {100 * gap:.2g} %"
    )
    voice.finish(
        {
            "image": str(image),
            "out": str(out),
            "model": model,
            "stride": dictionary.stride,
            "nonzeros": nonzeros,
            "samples": samples,
            "psnr": psnr,
            "relative_gap": gap,
            "objective": found.solution.objective.tolist(),
            "low_frequencies": "split off, in the file",
        },
        f"wrote {out}",
    )


def denoised(voice: Console, image: Path, out: Path, sigma: float | None, method: str, model: str) -> None:
    """Write a picture without its noise. Raises InputError."""
    check_place("out", out, suffixes=(".png",))
    choice("method", method, METHODS)
    if sigma is not None:
        sigma = real("sigma", sigma, low=0.0)
    dictionary, picture = dictionary_of(model), raster.read(image)
    start = time.perf_counter()
    atoms = None if method == "unfolding" and model == SHIPPED else dictionary
    found = denoise_images(torch.from_numpy(picture.values)[None], sigma, atoms, method=method)
    levels = [float(level) for level in found.sigma[0]]
    parts = ", ".join(f"{level:.1f}" for level in levels)
    how = "given" if sigma is not None else "estimated from the picture"
    if sigma is None and len(levels) == 3:
        how += "; of grey and of two differences of colours"
    _finish(
        voice,
        picture,
        image,
        out,
        found,
        start,
        f"sigma {parts if sigma is None else f'{sigma:g}'} ({how})",
        LOW[method],
    )


def inpainted(voice: Console, image: Path, mask: Path, out: Path, noise: float, model: str) -> None:
    """Write a picture with what was missing. Raises InputError."""
    check_place("out", out, suffixes=(".png",))
    real("noise", noise, low=0.0)
    dictionary, picture, known = dictionary_of(model), raster.read(image), raster.read(mask)
    values, white = torch.from_numpy(picture.values)[None], torch.from_numpy(known.values).mean(0)
    if white.shape != values.shape[2:]:
        raise InputError(
            f"mask must have the size of the image, {_by(picture)}, but {mask} has {_by(known)}; make it anew"
        )
    grey = int(((white > 0) & (white < 255)).sum())
    if grey:
        raise InputError(
            f"mask must be white where the image is known and black where it is missing, but {grey:,} pixels of {mask} are "
            "in between; save it as PNG, without smooth edges"
        )
    if not bool((white > 0).any()):
        raise InputError(f"mask must be white somewhere, {mask} is black everywhere: nothing of the image is known")
    missing = float((white == 0).double().mean())
    start = time.perf_counter()
    found = inpaint_images(values, (white > 0)[None, None].float(), dictionary, noise=noise)
    _finish(voice, picture, image, out, found, start, f"{100 * missing:.1f} % was missing", LOW["shifts"])


def _synthesised(dictionary: ConvDictionary, codes: Codes, shape: tuple[int, ...]) -> Tensor:
    """D codes, (b, c, *shape), in bands of rows: dense codes of all of a large picture would not fit the memory."""
    (k, rows, columns), s, n = codes.shape, dictionary.stride, dictionary.size[0]
    out = torch.zeros(len(codes), dictionary.channels, *shape)
    at_once = max(1, BAND // (k * columns))
    for image, index, value in zip(out, codes.index, codes.value):
        row = index // columns % rows
        for top in range(0, rows, at_once):
            here, height = (row >= top) & (row < top + at_once), min(at_once, rows - top)
            band = torch.zeros(k, height, columns)
            band[index[here] // (rows * columns), row[here] - top, index[here] % columns] = value[here]
            part = slice(top * s, (top + height - 1) * s + n)
            image[:, part] += dictionary.synthesise(band[None], (part.stop - part.start, shape[1]))[0]
    return out


def _finish(
    voice: Console, picture: Raster, image: Path, out: Path, found: Restored, start: float, said: str, low: str
) -> None:
    seconds = time.perf_counter() - start
    store.write_bytes(out, raster.png(picture, found.image[0].numpy()))
    if picture.note:
        voice.warn(f"note: {picture.note}")
    voice.say(f"{image}: {picture.mode}, {_by(picture)}; {said}")
    voice.say(low)
    voice.finish(
        {
            "image": str(image),
            "out": str(out),
            "mode": picture.mode,
            "said": said,
            "sigma": found.sigma[0].tolist(),
            "low_frequencies": low,
            "atoms_a_patch": None if isnan(found.atoms) else found.atoms,
            "seconds": seconds,
        },
        f"wrote {out}{'' if isnan(found.atoms) else f': {found.atoms:.2f} atoms a patch'}, {seconds:.1f} s",
    )


def _by(picture: Raster) -> str:
    h, w = picture.values.shape[1:]
    return f"{w} x {h} pixels"
