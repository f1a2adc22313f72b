"""Sets cut and joined."""

import pytest
import torch

from triptych.check import InputError
from triptych.data import concatenate, permute_split
from triptych.images import Images


def numbered(n, classes=None):
    names = tuple(map(str, range(n))) if classes is None else classes
    return Images(torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1), torch.arange(n), names)


def test_a_split_is_disjoint_and_seeded():
    images = numbered(30)
    parts = permute_split(images, (10, 3, 17), 4)
    assert [len(part) for part in parts] == [10, 3, 17]
    drawn = torch.cat([part.labels for part in parts])
    assert sorted(drawn.tolist()) == list(range(30))
    assert drawn.tolist() != list(range(30))
    again = permute_split(images, (10, 3), 4)
    assert [part.checksum() for part in again] == [part.checksum() for part in parts[:2]]
    assert permute_split(images, (10,), 5)[0].checksum() != parts[0].checksum()
    assert torch.equal(parts[2].pixels.flatten().long(), parts[2].labels)


def test_joined_parts_are_the_whole():
    images = numbered(9)
    assert concatenate([images.take(slice(0, 4)), images.take(slice(4, 9))]).checksum() == images.checksum()
    bare = Images(images.pixels)
    assert concatenate([bare, bare]).labels is None


BAD = {
    "too many": (lambda: permute_split(numbered(5), (3, 3), 0), "at most 5 images"),
    "none": (lambda: permute_split(numbered(5), (), 0), "sizes must be"),
    "nothing": (lambda: permute_split(numbered(5), (0, 1), 0), "sizes must be a whole number of at least 1"),
    "seed": (lambda: permute_split(numbered(5), (1,), -1), "seed must be"),
    "no parts": (lambda: concatenate([]), "at least one set"),
    "shapes": (
        lambda: concatenate([Images(numbered(2).pixels), Images(numbered(2).pixels.reshape(1, 1, 2, 1))]),
        "joined",
    ),
    "classes": (lambda: concatenate([numbered(2), numbered(2, ("a", "b"))]), "different classes"),
}


@pytest.mark.parametrize(("make", "expected"), BAD.values(), ids=BAD)
def test_bad_cuts_are_one_sentence(make, expected):
    with pytest.raises(InputError) as caught:
        make()
    assert expected in str(caught.value)
