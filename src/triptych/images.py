"""Images: pictures as bytes, their labels and the names of the classes; what every reader makes and every trainer takes."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triptych.check import InputError, choice, whole, wrong

MOST_CLASSES = (
    65_536  # numbers as labels name every class up to the largest: a stray 4,000,000,000 must not make as many
)
MOST_IN_BOTH = 0.1  # of held-out images
CHANNELS = (1, 3, 4)  # the channel counts by which an axis of channels is recognised: grey, RGB, RGBA


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Images as uint8 pixels (n, c, h, w), int64 labels (n,) or None, and the class names that labels index.

    Raises InputError where shapes, types, label range or names do not fit together.
    """

    pixels: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that pixels, labels and class names belong together."""
        pixels, labels = self.pixels, self.labels
        if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise wrong(
                "pixels", "a uint8 tensor (n, c, h, w)", _described(pixels), "Images.from_arrays takes other arrays"
            )
        if 0 in pixels.shape:
            raise wrong("pixels", "at least one image of at least one pixel", _described(pixels))
        if not all(isinstance(name, str) for name in self.classes) or len(set(self.classes)) != len(self.classes):
            raise wrong("classes", "distinct names", self.classes)
        if labels is None:
            return
        if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
            raise wrong("labels", "an int64 tensor (n,)", _described(labels), "Images.from_arrays takes other labels")
        if len(labels) != len(pixels):
            raise InputError(
                f"there are {len(pixels):,} images but {len(labels):,} labels; give one label for each image"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.classes):
            raise wrong("labels", f"from 0 to {len(self.classes) - 1}, one of the classes", low if low < 0 else high)

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        n, c, h, w = self.shape
        return (
            f"Images({n} x {c} x {h} x {w}, {'unlabelled' if self.labels is None else f'{len(self.classes)} classes'})"
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape (n, c, h, w)."""
        n, c, h, w = self.pixels.shape
        return n, c, h, w

    def take(self, index: Tensor | np.ndarray | Sequence[int] | slice | range) -> "Images":
        """The images at an index (k,) of whole numbers, a mask (n,) or a slice. Raises InputError where it leaves the set."""
        if isinstance(index, slice):
            chosen: Any = index
        else:
            chosen = torch.as_tensor(np.asarray(index))
            if chosen.ndim != 1 or chosen.is_floating_point() or chosen.is_complex() or not len(chosen):
                raise wrong("index", "a slice, a mask or a non-empty row of whole numbers", index)
        try:
            pixels = self.pixels[chosen]
            labels = None if self.labels is None else self.labels[chosen]
        except IndexError:
            raise wrong("index", f"within the {len(self):,} images", index) from None
        return Images(pixels, labels, self.classes)

    @classmethod
    def from_arrays(
        cls, x: Any, y: Any = None, classes: Sequence[str] | None = None, *, channels: str = "auto"
    ) -> "Images":
        """Images from an array x of NumPy, torch or lists: (n, h, w), (n, c, h, w) or (n, h, w, c), and labels y (n,).

        ``channels`` says where the channels lie: "first", "last", or "auto": on the one of axes 1 and 3 that has size 1, 3
        or 4, and an error where both have or none. uint8 is taken as it is and shares x's memory where it
        can, other whole numbers must lie in 0..255, floats in [0, 1] become round(255 x), bools 0 and 255. Labels are
        whole numbers from 0, which stay as they are, or names, which are numbered in sorted order or by ``classes``.
        Raises InputError.
        """
        pixels = torch.from_numpy(np.require(_channels_first(_bytes(x), channels), np.uint8, ["C", "W"]))
        if y is None:
            return cls(pixels, None, tuple(classes or ()))
        labels, names = _numbered(y, classes)
        return cls(pixels, labels, names)

    @classmethod
    def from_dataset(cls, dataset: Any) -> "Images":
        """Images from a torch ``Dataset`` of (image, label) or image items, an image being PIL, array or tensor (c, h, w).

        Class names are ``dataset.classes`` where that exists, as in torchvision. Items are read one at a time. Raises
        InputError where items differ in shape or hold other values than uint8 or floats in [0, 1].
        """
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise wrong(
                "dataset", "a map-style data set with a length", dataset, "collect an iterable one in a list first"
            )
        n = whole("len(dataset)", len(dataset))
        pixels: Tensor | None = None
        labels: list[Any] = []
        for i in range(n):
            item = dataset[i]
            image, label = (item[0], item[1]) if isinstance(item, tuple | list) and len(item) > 1 else (item, None)
            one = _one(image, i)
            if pixels is None:
                pixels = torch.empty((n, *one.shape), dtype=torch.uint8)
            if one.shape != pixels.shape[1:]:
                raise InputError(
                    f"item {i} of the data set has shape {tuple(one.shape)}, item 0 {tuple(pixels.shape[1:])}; "
                    "resize all items to one shape"
                )
            pixels[i] = one
            labels.append(label.item() if isinstance(label, Tensor | np.generic) else label)
        known = getattr(dataset, "classes", None)
        y = None if any(label is None for label in labels) else labels
        return cls.from_arrays(pixels, y, None if known is None else [str(name) for name in known], channels="first")

    def floats(self) -> Tensor:
        """The pixels divided by 255: float32 (n, c, h, w) in [0, 1]."""
        return self.pixels.float() / 255

    def batch(self, seed: int, seen: int, n: int, among: Tensor | None = None) -> "Images":
        """The n images that follow after ``seen`` images of the endless stream that ``seed`` defines.

        Each epoch is one permutation, seeded by (seed, epoch); a batch may run over its end. A pure function: a run that
        knows how many images it has seen goes on where it stopped. The stream is of all images, or of those at the index
        ``among`` (m,).
        """
        total = len(self) if among is None else len(among)
        whole("seed", seed, low=0)
        whole("seen", seen, low=0)
        first, last = seen // total, (seen + whole("n", n) - 1) // total
        stream = torch.cat([_epoch(seed, epoch, total) for epoch in range(first, last + 1)])
        start = seen - first * total
        chosen = stream[start : start + n]
        return self.take(chosen if among is None else among[chosen])

    def checksum(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the shape, the pixels and, where there are any, the labels."""
        digest = hashlib.sha256(f"{self.shape} {self.labels is not None}".encode())
        for rows in self.pixels.split(4096):
            digest.update(rows.contiguous().cpu().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().cpu().numpy().astype("<i8").data)
        return digest.hexdigest()


def check_apart(held_out: Tensor, train: Tensor) -> None:
    """Refuse held-out images of which ``many_in_both`` are training images too; both are uint8 (n, c, h, w). Raises InputError."""
    if both := many_in_both(held_out, train):
        raise InputError(
            f"held-out images must be others than the training images, but {both:,} of {len(held_out):,} are in both, pixel for pixel; "
            "name others, or remove what is there twice (`triptych data deduplicate`)"
        )


def many_in_both(held_out: Tensor, train: Tensor) -> int:
    """How many of the held-out images are, pixel for pixel, training images; both are uint8 (n, c, h, w).

    0 where they are no more than a tenth: a set has a few pictures twice, so that some of them fall on either side.
    """
    wanted = Counter(_digests(held_out))
    both = sum(wanted[digest] for digest in {digest for digest in _digests(train) if digest in wanted})
    return both if both > MOST_IN_BOTH * len(held_out) else 0


def _digests(pixels: Tensor) -> Iterator[bytes]:
    """A digest of each image."""
    for part in pixels.split(4096):
        for row in part.cpu().contiguous().flatten(1).numpy():
            yield hashlib.blake2b(row.data, digest_size=16).digest()


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, n: int) -> Tensor:
    """The order (n,) of one epoch."""
    # A hash, not seed + epoch: else run 1's first epoch would be run 0's second.
    key = hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8]
    return torch.randperm(n, generator=torch.Generator().manual_seed(int.from_bytes(key, "little")))


def _described(value: Any) -> str:
    """An array or tensor by its type and shape, anything else by its type."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.dtype} {tuple(value.shape)}"
    return type(value).__name__


def _array(x: Any, name: str) -> np.ndarray:
    """Anything array-like as a NumPy array."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    try:
        array = np.asarray(x)
    except ValueError:  # rows of unequal length
        raise wrong(name, "an array of one shape", _described(x)) from None
    return array


def _bytes(x: Any) -> np.ndarray:
    """An array of pixels as uint8."""
    array = _array(x, "x")
    kind = array.dtype.kind
    if kind not in "buif":
        raise wrong("x", "an array of numbers", _described(array))
    if not array.size:
        raise wrong("x", "at least one image of at least one pixel", _described(array))
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min()), float(array.max())
    if kind in "ui":
        if low < 0 or high > 255:
            raise wrong("x", "whole numbers from 0 to 255", f"{low:g} to {high:g}", "scale them first")
        return array.astype(np.uint8)
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # so that NaN is refused as well
        raise wrong("x", "floats from 0 to 1", f"{low:g} to {high:g}", "scale them first, or give bytes from 0 to 255")
    return np.rint(array.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)


def _channels_first(array: np.ndarray, channels: str) -> np.ndarray:
    """The same images as (n, c, h, w)."""
    choice("channels", channels, ("auto", "first", "last"))
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        remedy = "reshape it" if array.ndim == 2 else "a single image is x[None]"
        raise wrong("x", "(n, h, w), (n, c, h, w) or (n, h, w, c)", _described(array), remedy)
    if channels == "auto":
        axes = [axis for axis in (1, 3) if array.shape[axis] in CHANNELS]
        if len(axes) != 1:
            remedy = 'say channels="first" or channels="last"'
            raise wrong("x", "an array with 1, 3 or 4 channels on either axis 1 or axis 3", _described(array), remedy)
        channels = "first" if axes == [1] else "last"
    return array if channels == "first" else np.moveaxis(array, 3, 1)


def _numbered(y: Any, classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels (n,) as whole numbers, and the names that they index."""
    array = _array(y, "y")
    if array.ndim != 1 or array.dtype.kind not in "uibUO" or not len(array):
        raise wrong("y", "a row of whole numbers or of names", _described(array))
    if array.dtype.kind in "UO":
        if not all(isinstance(label, str) for label in array.tolist()):
            raise wrong("y", "a row of whole numbers or of names", _described(array))
        names = tuple(sorted(set(array.tolist()))) if classes is None else tuple(classes)
        place = {name: number for number, name in enumerate(names)}
        unknown = set(array.tolist()) - set(place)
        if unknown:
            raise InputError(f"y holds {sorted(unknown)[0]!r}, which is not one of the classes {', '.join(names)}")
        return torch.tensor([place[label] for label in array.tolist()]), names
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= MOST_CLASSES:
        expected = f"from 0 to {MOST_CLASSES - 1}"
        raise wrong("y", expected, low if low < 0 else high, "give names as strings where labels are other numbers")
    names = tuple(str(number) for number in range(high + 1)) if classes is None else tuple(classes)
    return torch.from_numpy(array.astype(np.int64)), names


def _one(image: Any, i: int) -> Tensor:
    """Item i's image as a uint8 tensor (c, h, w)."""
    if hasattr(image, "convert") and hasattr(image, "getbands"):  # PIL, without importing it
        array, channels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB")), "last"
    else:
        array, channels = _array(image, f"item {i}"), "auto" if isinstance(image, np.ndarray) else "first"
    try:
        return Images.from_arrays(array[None], channels=channels).pixels[0]
    except InputError as error:
        raise InputError(f"item {i} of the data set cannot be used: {error}") from None
