"""Sets of images cut and joined."""

from collections.abc import Sequence

import torch

from triptych.check import InputError, whole, wrong
from triptych.images import Images


def permute_split(images: Images, sizes: Sequence[int], seed: int) -> tuple[Images, ...]:
    """Disjoint sets of the given sizes, cut one after another from one permutation seeded by ``seed``.

    Raises InputError where they need more images than there are.
    """
    sizes = [whole("sizes", size) for size in sizes]
    if not sizes or sum(sizes) > len(images):
        raise wrong("sizes", f"sizes that add up to at most {len(images):,} images", sizes)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(whole("seed", seed, low=0)))
    return tuple(images.take(part) for part in order[: sum(sizes)].split(sizes))


def concatenate(parts: Sequence[Images]) -> Images:
    """All images of several sets in turn. Raises InputError where shapes, class names or being labelled differ."""
    if not parts:
        raise wrong("parts", "at least one set of images", parts)
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.shape[1:] != first.shape[1:]:
            raise InputError(
                f"sets of {first.shape[1:]} and {part.shape[1:]} pixels cannot be joined; resize them to one side"
            )
        if part.classes != first.classes or (part.labels is None) != (first.labels is None):
            raise InputError("sets with different classes cannot be joined; give them the same class names")
    labels = [part.labels for part in parts if part.labels is not None]
    pixels = torch.cat([part.pixels for part in parts])
    return Images(pixels, torch.cat(labels) if labels else None, first.classes)
