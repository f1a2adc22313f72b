"""Labelled images to learn from, in a seeded order, and images to test on."""

from typing import TYPE_CHECKING, Any

from triptych.bench.experiment import Context

if TYPE_CHECKING:
    from triptych.images import Images


def sets(context: Context, tested: int) -> "tuple[Images, Images]":
    """The data's own splits where it has them, else a seeded permutation cut in two."""
    import torch

    from triptych.data import load, permute_split, splits

    source: Any = context.data.path or context.data.name
    if "test" in splits(source):
        train, test = load(source, split="train"), load(source, split="test")
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(context.seed))
        return train.take(order), test.take(slice(0, tested))
    every = load(source)
    train, test = permute_split(every, (len(every) - tested, tested), context.seed)
    return train, test
