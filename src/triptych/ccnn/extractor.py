"""Features for metrics where no others are named: the maps of a convexified network, whose training ends at a certified optimum."""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from triptych import cache, store
from triptych.ccnn.estimator import CCNNClassifier
from triptych.check import InputError
from triptych.images import Images

TRAINED = 10_000  # images at most
SIDE = 32  # pixels that a network sees at most
LEAST = 10  # images a class, on average, for features to be learned from labels: people's names, one picture each, teach none
PLACES = 3  # places of a map on an axis that are kept
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Maps:
    """Features (n, d), and class logits (n, classes)."""

    features: Tensor
    logits: Tensor


@dataclass(frozen=True, eq=False)
class CCNNExtractor:
    """A fitted classifier as an extractor: its last maps, averaged to 3 x 3 places, and its logits.

    Images of other sides are resized to the classifier's, colour to grey and back where that differs. ``digest``: of the files that it
    was read from, by which features that are kept know their network.
    """

    classifier: CCNNClassifier
    name: str
    digest: str = ""

    def __call__(self, images: Tensor) -> Maps:
        """Features of images, uint8 (n, c, h, w)."""
        x = self.fitted(images)
        maps = torch.from_numpy(self.classifier.transform(x))
        places = (min(PLACES, maps.shape[2]), min(PLACES, maps.shape[3]))
        logits = torch.from_numpy(self.classifier.predict_proba(x)).clamp_min(1e-300).log()
        return Maps(F.adaptive_avg_pool2d(maps, places).flatten(1), logits)

    def fitted(self, images: Tensor) -> Tensor:
        """Images as the classifier was trained on, uint8 (n, c, h, w)."""
        c, *space = self.classifier.image_shape_
        x = images.float()
        if x.shape[1] == 4:
            raise InputError("images must have 1 or 3 channels for this extractor, got 4; name another")
        if c == 1 and x.shape[1] == 3:
            x = (x * torch.tensor(GREY)[:, None, None]).sum(1, keepdim=True)
        if c == 3 and x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if list(x.shape[2:]) != space:
            down = x.shape[2] > space[0] or x.shape[3] > space[1]
            x = F.interpolate(x, size=space, mode="bilinear", align_corners=False, antialias=down)
        return x.round().clamp(0, 255).byte()


def teaches(images: Images) -> bool:
    """Whether labels are such as to learn features from: two classes at least, of ten images or more of those that are trained on."""
    if images.labels is None:
        return False
    classes = len(images.labels.unique())
    return classes > 1 and min(len(images), TRAINED) >= LEAST * classes


def kept_extractor(images: Images, seed: int = 0) -> CCNNExtractor:
    """The ``default_extractor`` of images, trained once and kept in the cache folder. Raises InputError as that does."""
    key = hashlib.sha256(f"2 {seed} {images.checksum()}".encode()).hexdigest()[:16]
    place = cache.folder() / "extractors" / key
    if not (place / "name.json").is_file():
        found = default_extractor(images, seed)
        with store.filled(place) as folder:
            found.classifier.save(folder / "model")
            store.write_json(folder / "name.json", {"name": found.name})
    digest = hashlib.sha256()
    for file in sorted((place / "model").iterdir()):
        digest.update(f"{file.name} {store.sha256(file)}".encode())
    name = store.read_json(place / "name.json")["name"]
    return CCNNExtractor(CCNNClassifier.load(place / "model"), name, digest.hexdigest())


def default_extractor(images: Images, seed: int = 0) -> CCNNExtractor:
    """The extractor of one layer with default settings, trained on up to 10,000 of labelled images of at most 32 pixels a side.

    Raises InputError where they have no labels or one class.
    """
    if images.labels is None or len(images.labels.unique()) < 2:
        raise InputError("images must be of at least two classes to train features on them; name an extractor instead")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:TRAINED]
    chosen = images.take(order)
    x = chosen.pixels
    if max(x.shape[2:]) > SIDE:
        scale = SIDE / max(x.shape[2:])
        size = [max(1, round(n * scale)) for n in x.shape[2:]]
        x = F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
        x = x.round().clamp(0, 255).byte()
    if x.shape[1] == 4:
        x = x[:, :3].contiguous()
    labels = chosen.labels
    assert labels is not None
    classifier = CCNNClassifier(random_state=seed).fit(x.numpy(), labels.numpy())
    gap = float(classifier.relative_gap_[-1])
    side = " x ".join(map(str, x.shape[2:]))
    return CCNNExtractor(
        classifier,
        f"CCNN of {len(labels.unique())} classes, {len(chosen):,} images of {side} ({images.checksum()[:8]}), certified gap {gap:.0e}",
    )
