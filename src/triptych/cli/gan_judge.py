"""What gan score, neighbours and audit share: a run's generator, the images that it is judged by, the extractor and its cached features."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from triptych import cache, store
from triptych.check import InputError, choice, whole
from triptych.cli.console import Console
from triptych.cli.gan_options import Seeing
from triptych.data import load
from triptych.data.recognise import splits
from triptych.engine import start
from triptych.gan.checkpoint import step_of
from triptych.gan.folder import Run
from triptych.gan.held_out import HeldOut
from triptych.gan.recipe import Recipe
from triptych.gan.run import load_generator
from triptych.gan.sample import BLOCK, Sampler
from triptych.images import Images, check_apart
from triptych.metrics.features import Extractor, Pixels, Seen, extract

CPU = torch.device("cpu")
EXTRACTORS = ("ccnn", "pixels", "inception", "vgg")


@dataclass(frozen=True, eq=False)
class Judged:
    """A run as it is judged: its sampler at a step, and how its images are read."""

    run: Run
    recipe: Recipe
    sampler: Sampler
    step: int

    @classmethod
    def open(cls, folder: Path, step: int | None, device: str | None = "cpu") -> "Judged":
        """A run of images, its generator on a device; None is a GPU where there is one. Raises InputError."""
        chosen = start(device).device
        run = Run.open(folder)
        recipe, generator = load_generator(folder, step)
        return cls(run, recipe, Sampler(recipe, generator.to(chosen)), step_of(run.checkpoint(step)))

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.sampler.generator.parameters()).device

    def images(self, data: str | None, split: str | None = None, prefer: str = "train") -> Images:
        """Images read as the run's own were: by default those that it was trained with, all of them; of others a split, where none is named
        the preferred one if there is one. Raises InputError.
        """
        told, own = self.run.config.get("data", {}), data is None
        if data is None and split is not None:
            raise InputError(
                "split must be left away where --data is, as the run's own images are read as the run read them"
            )
        if data is None:
            data = told.get("path")
            if data is None:
                raise InputError(f"data must be named, as {self.run.folder} does not say what it was trained on")
            split, limit = told.get("split"), told.get("limit")
        else:
            split, limit = split or (prefer if prefer in splits(data) else None), None
        side = told.get("side")
        if side is None and len(set(self.recipe.shape[1:])) == 1 and "side" not in told:
            side = self.recipe.shape[1]  # an imported run says of no images how they were read
        images = load(data, side=side, fit=told.get("fit") or "crop", split=split, limit=limit)
        if images.shape[1:] != self.recipe.shape:
            got, expected = (" x ".join(map(str, shape)) for shape in (images.shape[1:], self.recipe.shape))
            raise InputError(f"images of {data} must be of {expected}, as the run's are, got {got}")
        if self.recipe.classes and list(images.classes) != list(told.get("classes", images.classes)):
            raise InputError(f"images of {data} must have the classes of the run, {', '.join(told['classes'][:10])}")
        if self.recipe.classes and images.labels is not None and len(images.classes) > self.recipe.classes:
            raise InputError(
                f"images of {data} must have the run's {self.recipe.classes} classes, got {len(images.classes)}"
            )
        if own:
            self._same(images, told.get("checksum"), data)
        return images

    def apart(self, data: str | None, held_out: str | None, split: str | None = None) -> tuple[Images, Images]:
        """Images that the run was trained on, and images that it was not. Raises InputError where there are none of these."""
        images, told = self.images(data, split), self.run.config.get("held_out")
        if held_out is not None:
            other = self.images(held_out, prefer="test")
            index = (
                None if data is not None or not told or told["checksum"] else HeldOut.tenth(images, self.recipe.batch)
            )
            images = images if index is None else images.take(index.train_index)  # pyright: ignore
            check_apart(other.pixels, images.pixels)
            return images, other
        if not told:
            raise InputError("held-out must name images that the run was not trained on, as it held out none itself")
        if told["checksum"]:
            other = self.images(told["from"], prefer="test")
            self._same(other, told["checksum"], told["from"])
            check_apart(other.pixels, images.pixels)
            return images, other
        found = HeldOut.tenth(images, self.recipe.batch)
        if data is not None or found is None:
            raise InputError("held-out must be named where other data are than those of the run")
        if found.twice():
            raise InputError(
                f"{told['from']} that the run held out must be others than its training images, but {found.twice():,} of {found.count:,} are in "
                "both, pixel for pixel; remove what is there twice (`triptych data deduplicate`) and train anew, or name others by --held-out"
            )
        return images.take(found.train_index), images.take(found.index)  # pyright: ignore[reportArgumentType]

    def _same(self, images: Images, checksum: str | None, place: str) -> None:
        """Refuse images that are others than those that the run had: what was trained on can then not be told."""
        if checksum is not None and f"sha256:{images.checksum()}" != checksum:
            raise InputError(
                f"{place} must hold the images that the run had, but it holds others now; name the images to compare with by --data (and "
                "others, where they are asked for, by --held-out)"
            )

    def generated(self, voice: Console, n: int, seed: int, like: Images | None = None) -> Tensor:
        """``generated`` of the run's sampler, with a bar."""
        with voice.progress("images", n) as progress:
            return generated(self.sampler, n, seed, like, progress.advance)


def generated(
    sampler: Sampler, n: int, seed: int, like: Images | None = None, progress: Callable[[int], object] | None = None
) -> Tensor:
    """The first n images of a seed; of a conditional run with classes in turn, or with the labels of ``like`` in a random order."""
    labels = sampler.labels(0, n)
    if labels is not None and like is not None and like.labels is not None:
        order = torch.randperm(len(like), generator=torch.Generator().manual_seed(seed))
        labels = like.labels[order[torch.arange(n) % len(like)]]
    found = []
    for first in range(0, n, BLOCK):
        z = sampler.z(seed, first, min(BLOCK, n - first))
        found.append(sampler.images(z, None if labels is None else labels[first : first + BLOCK]))
        if progress is not None:
            progress(len(z))
    return torch.cat(found)


def extractor(voice: Console, seeing: Seeing, images: Images, device: torch.device = CPU) -> Extractor:
    """The extractor that is asked for; deep networks on a device. Raises InputError."""
    kind = choice("features", seeing.features, EXTRACTORS)
    if kind in ("ccnn", "pixels") and seeing.weights is not None:
        raise InputError(f"weights must be left away, as features of {kind} need none")
    if kind == "pixels":
        return Pixels(32)
    if kind == "ccnn":
        return _ccnn(voice, images)
    weights = seeing.weights or _fetched(kind)
    if kind == "inception":
        from triptych.metrics.inception import InceptionExtractor

        return InceptionExtractor(weights, device=device)
    from triptych.metrics.vgg import VGG16Extractor

    return VGG16Extractor(weights, device=device)


def _fetched(kind: str) -> Path:
    """The weights that `triptych data fetch` brought. Raises InputError where there are none."""
    from triptych.metrics.weights import fetched

    name = {"inception": "inception-fid", "vgg": "vgg16"}[kind]
    place = fetched(name)
    if place is None:
        raise InputError(
            f"weights must be the file of the network {kind}, got none; give --weights FILE, or `triptych data fetch {name}`"
        )
    return place


def _ccnn(voice: Console, images: Images) -> Extractor:
    """A certified network trained on the images' own labels, or on the embedded digits where they teach none; kept in the cache folder."""
    from triptych.ccnn.extractor import kept_extractor, teaches

    with voice.progress("a certified network for features", 1) as progress:
        found = kept_extractor(images if teaches(images) else load("digits"))
        progress.advance()
    return found


def features(voice: Console, by: Extractor, images: Tensor, keep: bool) -> Seen:
    """Features of images; those of real ones, ``keep``, are found once and kept in the cache folder.

    Two networks may have one name: the key has what tells them apart. It begins with a number to raise where features change.
    """
    digest = hashlib.sha256(f"2 {by.name} {getattr(by, 'digest', '')} {tuple(images.shape)}".encode())
    digest.update(images.contiguous().numpy().data)
    place = cache.folder() / "features" / f"{digest.hexdigest()[:24]}.safetensors"
    if keep and place.is_file():
        kept = store.read_tensors(place)
        return Seen(kept["features"], kept.get("logits"))
    found, logits = [], []
    with voice.progress(f"features by {by.name}", len(images)) as progress:
        for part in images.split(256):
            seen = extract(by, part)
            found.append(seen.features)
            logits += [] if seen.logits is None else [seen.logits]
            progress.advance(len(part))
    seen = Seen(torch.cat(found), torch.cat(logits) if logits else None)
    if keep:
        store.write_tensors(
            place, {"features": seen.features, **({} if seen.logits is None else {"logits": seen.logits})}
        )
    return seen


def count(name: str, asked: int | None, most: int, usual: int) -> int:
    """How many images: what is asked for, else what is usual, but no more than there are. Raises InputError."""
    if asked is None:
        return min(usual, most)
    return whole(name, asked, low=2, high=most)


def some(images: Images, n: int, seed: int) -> Tensor:
    """n images, a random draw in the order of the set; all where they are no more."""
    if n >= len(images):
        return images.pixels
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:n]
    return images.pixels[chosen.sort().values]


def known(folder: Path, name: str) -> list[dict[str, Any]]:
    """The entries of a JSON list in a run folder; none where there is no file."""
    path = folder / name
    if not path.is_file():
        return []
    found = store.read_json(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) and "step" in one for one in found):
        raise InputError(f"{path} must be what `triptych gan` wrote, but it is something else; remove it")
    return found


def keep(folder: Path, name: str, entry: dict[str, Any], same: Sequence[str]) -> None:
    """Add an entry to a JSON list in a run folder, in the place of one that is the same in some fields; its scores stay with it.

    The picture in the folder is of the entry that wrote it last, whatever entries are written without one since.
    """
    before = known(folder, name)
    old = [one for one in before if all(one.get(field) == entry.get(field) for field in same)]
    if old and "scores" in entry:
        entry = {**entry, "scores": {**old[-1].get("scores", {}), **entry["scores"]}}
    if old and "picture" in entry and entry["picture"] is None:
        entry = {**entry, "picture": old[-1].get("picture")}
    others = [one for one in before if one not in old]
    if entry.get("picture") is not None:
        others = [{**one, "picture": None} if "picture" in one else one for one in others]
    store.write_json(folder / name, [*others, entry])


def named(path: str | None, judged: Judged) -> str:
    """The name of the data that a run is judged by."""
    told = path if path is not None else str(judged.run.config.get("data", {}).get("name", "its own data"))
    return os.path.basename(os.path.normpath(told)) if path is not None else told
