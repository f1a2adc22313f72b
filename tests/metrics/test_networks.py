"""Inception-v3 and VGG-16: torchvision's names, forward passes written out in torch's functions; files of weights."""

import hashlib
import json
import math
import os
import pickle
import re
import zipfile
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from triptych.check import InputError
from triptych.metrics import inception, vgg, weights
from triptych.metrics.inception import Inception, InceptionExtractor
from triptych.metrics.vgg import VGG16, VGG16Extractor
from triptych.metrics.weights import KNOWN, fetch_weights, read_weights
from triptych.store import write_tensors

# SHA-256 of the lines "name shape" of state_dict(), AuxLogits left out, as torchvision 0.28.0 has them.
TORCHVISION = {
    "inception": "f3a329f258a780ee046d15be9ad7adac539783c27df436585fa25d9c6a854e9c",
    "vgg": "35c4623e0cd4a39d764245620458692bdde46e98a422e65f0794d679138ab391",
}


def own(build, *arguments):
    """The names and shapes of a network, without its memory."""
    with torch.device("meta"):
        return build(*arguments).state_dict()


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_state(names, seed=0):
    """Weights that keep the scale of what passes, each a window sliding over few random numbers: small in a file."""
    state = {}
    for name, like in names.items():
        shape, noise = tuple(like.shape), generator(seed + len(state))
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=noise) + 0.5
        elif len(shape) == 1:
            state[name] = 0.2 * torch.randn(shape, generator=noise) + (1 if name.endswith("bn.weight") else 0)
        else:
            inputs = math.prod(shape[1:])
            row = torch.randn(7 * shape[0] + inputs, generator=noise) * math.sqrt(2 / inputs)
            state[name] = row.as_strided((shape[0], inputs), (7, 1)).unflatten(1, shape[1:])
    return state


def images(n, *shape, seed=0):
    return torch.randint(0, 256, (n, *shape), generator=generator(seed), dtype=torch.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of random weights: both forms of Inception-v3, and VGG-16."""
    folder = tmp_path_factory.mktemp("weights")
    states = {
        "fid": random_state(own(Inception, "fid")),
        "torchvision": random_state(own(Inception, "torchvision"))
        | {"AuxLogits.conv0.conv.weight": torch.ones(1), "AuxLogits.fc.bias": torch.ones(1)},
        "vgg": random_state(own(VGG16)),
    }
    for name, state in states.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: (folder / f"{name}.pth", state) for name, state in states.items()}


# Names and shapes


@pytest.mark.parametrize(("build", "name"), [(lambda: Inception("torchvision"), "inception"), (VGG16, "vgg")])
def test_names_and_shapes_are_torchvisions(build, name):
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in own(build).items())
    assert hashlib.sha256(lines.encode()).hexdigest() == TORCHVISION[name]


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: Inception("torchvision"), 23_834_568),
        (lambda: Inception("fid"), 23_834_568 + 8 * 2049),
        (lambda: Inception("fid", 10), 23_834_568 - 990 * 2049),
        (VGG16, 138_357_544),
    ],
)
def test_the_number_of_parameters_is_the_published_one(build, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in build().parameters()) == count


def test_units_of_every_block_of_inception():
    names = own(Inception, "fid")
    units = Counter(name.split(".")[0] for name in names if name.endswith("conv.weight"))
    stem = dict.fromkeys(("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3"), 1)
    mixed = {"5b": 7, "5c": 7, "5d": 7, "6a": 4, "6b": 10, "6c": 10, "6d": 10, "6e": 10, "7a": 6, "7b": 9, "7c": 9}
    assert units == {f"Conv2d_{k}": n for k, n in stem.items()} | {f"Mixed_{k}": n for k, n in mixed.items()}
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch1x1.bn.running_mean": (64,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "fc.weight": (1008, 2048),
    }
    assert {name: tuple(names[name].shape) for name in shapes} == shapes


# Forward passes


class Written:
    """Inception-v3 as calls of torch's functions on the tensors of a state dict."""

    def __init__(self, state, form):
        self.state, self.form = state, form

    def unit(self, x, name, padding=0, stride=1):
        of = {key: self.state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        y = F.conv2d(x, self.state[f"{name}.conv.weight"], stride=stride, padding=padding)
        return F.batch_norm(y, **of, eps=0.001).relu()

    def average(self, x):
        """Sums over 3 x 3, divided by 9, in the fid form by how many of the 9 places are in the image."""
        sums = F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1) * 9
        inside = F.avg_pool2d(F.pad(torch.ones_like(x), (1, 1, 1, 1)), 3, 1) * 9
        return sums / (inside if self.form == "fid" else 9)

    def fine(self, x, b):
        five = self.unit(self.unit(x, f"{b}.branch5x5_1"), f"{b}.branch5x5_2", 2)
        three = self.unit(self.unit(x, f"{b}.branch3x3dbl_1"), f"{b}.branch3x3dbl_2", 1)
        three = self.unit(three, f"{b}.branch3x3dbl_3", 1)
        pooled = self.unit(self.average(x), f"{b}.branch_pool")
        return torch.cat([self.unit(x, f"{b}.branch1x1"), five, three, pooled], 1)

    def to_middle(self, x, b):
        three = self.unit(self.unit(x, f"{b}.branch3x3dbl_1"), f"{b}.branch3x3dbl_2", 1)
        three = self.unit(three, f"{b}.branch3x3dbl_3", stride=2)
        return torch.cat([self.unit(x, f"{b}.branch3x3", stride=2), three, F.max_pool2d(x, 3, 2)], 1)

    def middle(self, x, b):
        wide, tall = (0, 3), (3, 0)
        seven, twice = x, x
        for place, padding in enumerate((0, wide, tall), 1):
            seven = self.unit(seven, f"{b}.branch7x7_{place}", padding)
        for place, padding in enumerate((0, tall, wide, tall, wide), 1):
            twice = self.unit(twice, f"{b}.branch7x7dbl_{place}", padding)
        pooled = self.unit(self.average(x), f"{b}.branch_pool")
        return torch.cat([self.unit(x, f"{b}.branch1x1"), seven, twice, pooled], 1)

    def to_coarse(self, x, b):
        three = self.unit(self.unit(x, f"{b}.branch3x3_1"), f"{b}.branch3x3_2", stride=2)
        seven = self.unit(self.unit(x, f"{b}.branch7x7x3_1"), f"{b}.branch7x7x3_2", (0, 3))
        seven = self.unit(self.unit(seven, f"{b}.branch7x7x3_3", (3, 0)), f"{b}.branch7x7x3_4", stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def coarse(self, x, b):
        once = self.unit(x, f"{b}.branch3x3_1")
        twice = self.unit(self.unit(x, f"{b}.branch3x3dbl_1"), f"{b}.branch3x3dbl_2", 1)
        forks = [self.unit(y, f"{b}.{end}a", (0, 1)) for y, end in ((once, "branch3x3_2"), (twice, "branch3x3dbl_3"))]
        ends = [self.unit(y, f"{b}.{end}b", (1, 0)) for y, end in ((once, "branch3x3_2"), (twice, "branch3x3dbl_3"))]
        if self.form == "fid" and b == "Mixed_7c":
            pooled = F.unfold(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3)  # (n, 9 c, places)
            pooled = pooled.unflatten(1, (-1, 9)).amax(2).unflatten(2, x.shape[2:])
        else:
            pooled = self.average(x)
        pooled = self.unit(pooled, f"{b}.branch_pool")
        return torch.cat([self.unit(x, f"{b}.branch1x1"), forks[0], ends[0], forks[1], ends[1], pooled], 1)

    def __call__(self, x):
        x = self.unit(self.unit(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
        x = F.max_pool2d(self.unit(x, "Conv2d_2b_3x3", 1), 3, 2)
        x = F.max_pool2d(self.unit(self.unit(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        for block, kind in {
            **dict.fromkeys(("5b", "5c", "5d"), self.fine),
            "6a": self.to_middle,
            **dict.fromkeys(("6b", "6c", "6d", "6e"), self.middle),
            "7a": self.to_coarse,
            **dict.fromkeys(("7b", "7c"), self.coarse),
        }.items():
            x = kind(x, f"Mixed_{block}")
        features = x.mean((2, 3))
        return features, features @ self.state["fc.weight"].T + self.state["fc.bias"]


def filled(network, state):
    network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=True)
    return network.eval()


@pytest.mark.parametrize("form", ["fid", "torchvision"])
@pytest.mark.parametrize(
    ("block", "kind", "channels", "side"),
    [
        ("Mixed_5b", "fine", 192, 7),
        ("Mixed_6a", "to_middle", 288, 7),
        ("Mixed_6b", "middle", 768, 5),
        ("Mixed_7a", "to_coarse", 768, 7),
        ("Mixed_7b", "coarse", 1280, 4),
        ("Mixed_7c", "coarse", 2048, 4),
    ],
)
@torch.no_grad()
def test_a_block_is_its_convolutions_written_out(files, form, block, kind, channels, side):
    state = files[form][1]
    with torch.device("meta"):
        network = Inception(form)
    x = torch.randn(2, channels, side, side + 1, generator=generator(1))
    theory = getattr(Written(state, form), kind)(x, block)
    assert theory.std() > 0.1
    torch.testing.assert_close(filled(network, state).get_submodule(block)(x), theory, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["fid", "torchvision"])
@torch.no_grad()
def test_inception_is_its_functions_written_out(files, form):
    """At 139 x 139, where the last maps are 3 x 3."""
    state = files[form][1]
    with torch.device("meta"):
        network = Inception(form)
    x = torch.randn(1, 3, 139, 139, generator=generator(2))
    found, theory = filled(network, state)(x), Written(state, form)(x)
    for ours, theirs, width in zip(found, theory, (2048, inception.FORMS[form])):
        assert ours.shape == (1, width)
        assert theirs.std() > 0.01
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_the_forms_differ():
    """Their features do in the border alone at first, and everywhere at the end."""
    with pytest.raises(InputError, match="form must be one of fid, torchvision, got 'tensorflow'"):
        Inception("tensorflow")
    state = random_state(own(Inception, "fid", 1000))
    with torch.device("meta"):
        fid, other = Inception("fid", 1000), Inception("torchvision", 1000)
    x = torch.randn(1, 192, 6, 6, generator=generator(3))
    with torch.no_grad():
        off = (filled(fid, state).Mixed_5b(x) - filled(other, state).Mixed_5b(x)).abs().amax((0, 1)) > 1e-6
    inside = torch.zeros(6, 6, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    assert torch.equal(off, ~inside)


def test_resizing_is_bilinear_between_centres_of_pixels():
    """Pixel i's centre is at i + 1/2; outside the outer centres the nearest pixel counts; never more than two count."""
    x = images(2, 3, 7, 5)
    (found,) = inception.resized(x, 4, 8, torch.device("cpu"))
    assert found.shape == (2, 3, 4, 4)
    for n, c, i, j in [(0, 0, 0, 0), (0, 1, 1, 2), (1, 2, 3, 3), (1, 0, 2, 1)]:
        across = [min(max((place + 0.5) * size / 4 - 0.5, 0), size - 1) for place, size in ((i, 7), (j, 5))]
        theory = 0.0
        for row in range(7):
            for column in range(5):
                near = [max(0, 1 - abs(at - where)) for at, where in zip(across, (row, column))]
                theory += math.prod(near) * float(x[n, c, row, column]) / 255
        assert float(found[n, c, i, j]) == pytest.approx(theory, abs=1e-6)


def test_images_come_in_batches_and_grey_in_three_channels():
    x = images(5, 1, 6, 6)
    parts = list(inception.resized(x, 6, 2, torch.device("cpu")))
    assert [len(part) for part in parts] == [2, 2, 1]
    torch.testing.assert_close(torch.cat(parts), (x / 255).repeat(1, 3, 1, 1), rtol=0, atol=1e-6)


def test_imagenets_scale():
    x = torch.rand(2, 3, 4, 4, generator=generator(4))
    found = inception.normalised(x)
    for c, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        torch.testing.assert_close(found[:, c], (x[:, c] - mean) / std, rtol=1e-6, atol=1e-6)


# Extractors


@pytest.fixture(scope="module")
def extractors(files):
    return {inception: InceptionExtractor(files["fid"][0]), vgg: VGG16Extractor(files["vgg"][0])}


@torch.no_grad()
def test_the_fid_extractor_at_full_size(files, extractors):
    """[-1, 1] at 299 x 299; logits without the bias; a grey image is that image in three channels."""
    path, state = files["fid"]
    extractor = extractors[inception]
    x = images(1, 1, 40, 60)
    seen = extractor(x)
    big = F.interpolate(x.repeat(1, 3, 1, 1) / 255, (299, 299), mode="bilinear", align_corners=False)
    features, _ = extractor.network(2 * big - 1)
    assert seen.features.shape == (1, 2048)
    torch.testing.assert_close(seen.features, features, rtol=1e-4, atol=1e-5)
    assert seen.logits is not None
    torch.testing.assert_close(seen.logits, features @ state["fc.weight"].T, rtol=1e-4, atol=1e-4)
    assert extractor.form == "fid"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert extractor.name == f"Inception-v3, form fid, weights {digest[:8]}"


@pytest.mark.parametrize("scale", ["symmetric", "imagenet"])
@torch.no_grad()
def test_the_torchvision_extractor(files, monkeypatch, scale):
    """The second classifier in the file is passed over; ImageNet's scale only if asked for; logits with the bias."""
    monkeypatch.setattr(inception, "SIDE", 75)
    path, state = files["torchvision"]
    extractor = InceptionExtractor(path, scale=scale)
    x = images(2, 3, 75, 75)
    seen = extractor(x)
    scaled = 2 * (x / 255) - 1 if scale == "symmetric" else inception.normalised(x / 255)
    features, logits = Written(state, "torchvision")(scaled)
    torch.testing.assert_close(seen.features, features, rtol=1e-3, atol=1e-4 * float(features.max()))
    torch.testing.assert_close(seen.logits, logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max()))
    assert extractor.form == "torchvision"
    assert ("ImageNet" in extractor.name) == (scale == "imagenet")


def test_the_form_is_that_of_the_number_of_classes(files, tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "SIDE", 75)
    path = tmp_path / "ten.pth"
    torch.save(random_state(own(Inception, "fid", 10)), path)
    with pytest.raises(InputError, match=r"tells 10 classes apart, .* say form="):
        InceptionExtractor(path)
    extractor = InceptionExtractor(path, form="torchvision")
    logits = extractor(images(2, 3, 9, 9)).logits
    assert logits is not None
    assert logits.shape == (2, 10)
    assert InceptionExtractor(files["fid"][0], form="torchvision").form == "torchvision"
    with pytest.raises(InputError, match="form must be one of auto, fid, torchvision, got 'tf'"):
        InceptionExtractor(path, form="tf")
    with pytest.raises(InputError, match="scale must be one of symmetric, imagenet"):
        InceptionExtractor(path, form="fid", scale="tf")
    with pytest.raises(InputError, match=r"vgg\.pth must hold fc\.weight \(classes, 2048\), but it does not"):
        InceptionExtractor(files["vgg"][0])


def plain_vgg(state):
    """VGG-16 as one chain of torch's layers, the tensors put in by their order."""
    layers, inputs = [], 3
    with torch.device("meta"):
        for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            if width:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2))
        layers += [nn.AdaptiveAvgPool2d(7), nn.Flatten()]
        layers += [nn.Linear(25088, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
        chain = nn.Sequential(*layers)
    chain.load_state_dict(dict(zip(chain.state_dict(), state.values(), strict=True)), assign=True)
    return chain


@torch.no_grad()
def test_the_vgg_extractor_at_full_size_is_a_chain_of_layers(files, extractors):
    chain = plain_vgg(files["vgg"][1])
    extractor = extractors[vgg]
    x = images(1, 1, 50, 30)
    big = F.interpolate(x.repeat(1, 3, 1, 1) / 255, (224, 224), mode="bilinear", align_corners=False)
    theory, seen = chain[:-1](inception.normalised(big)), extractor(x)
    assert seen.features.shape == (1, 4096)
    assert theory.std() > 0.01
    torch.testing.assert_close(seen.features, theory, rtol=1e-3, atol=1e-4 * float(theory.max()))
    torch.testing.assert_close(seen.logits, chain[-1](theory), rtol=1e-3, atol=1e-4 * float(theory.max()))
    digest = hashlib.sha256(files["vgg"][0].read_bytes()).hexdigest()
    assert extractor.name == f"VGG-16, layer fc2, weights {digest[:8]}"


@torch.no_grad()
def test_layers_and_activations_of_vgg(files, monkeypatch):
    """fc1, and what every one of the 13 convolutions sees after its ReLU."""
    monkeypatch.setattr(vgg, "SIDE", 32)
    monkeypatch.setattr(vgg, "BATCH", 1)
    path, state = files["vgg"]
    chain = plain_vgg(state)
    extractor = VGG16Extractor(path, layer="fc1")
    x = images(2, 3, 32, 32)
    y, relus = inception.normalised(x / 255), []
    for layer in chain[:-3]:
        y = layer(y)
        relus += [y] if isinstance(layer, nn.ReLU) else []
    torch.testing.assert_close(extractor(x).features, y, rtol=1e-3, atol=1e-4 * float(y.max()))
    names = [f"conv{block}_{place}" for block, n in enumerate((2, 2, 3, 3, 3), 1) for place in range(1, n + 1)]
    found = extractor.activations(x, names)
    assert list(found) == names
    for name, theory in zip(names, relus[:-1], strict=True):
        torch.testing.assert_close(found[name], theory, rtol=1e-3, atol=1e-4 * float(theory.max()))
    few = extractor.activations(x)
    assert list(few) == ["conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2"]
    assert all(torch.equal(few[name], found[name]) for name in few)
    with pytest.raises(InputError, match=r"names must be one of conv1_1, .* got 'conv2_3'"):
        extractor.activations(x, ["conv2_3"])
    for wrong in ("conv1_2", []):
        with pytest.raises(InputError, match="names must be at least one name"):
            extractor.activations(x, wrong)
    with pytest.raises(InputError, match="layer must be one of fc1, fc2"):
        VGG16Extractor(path, layer="fc3")


@pytest.fixture(params=[inception, vgg], ids=["inception", "vgg"])
def small(request, extractors, monkeypatch):
    """Both extractors, which bring images to the least size that the networks take."""
    monkeypatch.setattr(request.param, "SIDE", {inception: 75, vgg: 32}[request.param])
    return request.param, extractors[request.param]


def test_an_image_is_seen_alone_and_without_gradients(small, monkeypatch):
    module, extractor = small
    x = images(3, 3, 20, 20)
    together = extractor(x)
    monkeypatch.setattr(module, "BATCH", 2)
    split = extractor(x.flip(0))
    for whole, part in ((together.features, split.features), (together.logits, split.logits)):
        assert whole.dtype == torch.float32
        assert not whole.requires_grad
        assert len(whole) == 3
        torch.testing.assert_close(whole, part.flip(0), rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
        assert float((whole[0] - whole[1]).abs().max()) > 1e-3 * float(whole.abs().max())
    assert not any(parameter.requires_grad for parameter in extractor.network.parameters())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (torch.rand(2, 3, 8, 8), r"images must be uint8 \(n, c, h, w\), got 'torch.float32"),
        (images(3, 8, 8), r"images must be uint8 \(n, c, h, w\), got 'torch.uint8 \(3, 8, 8\)'"),
        (torch.tensor(3, dtype=torch.uint8), "images must be uint8"),
        (images(0, 3, 8, 8), "images must be uint8"),
        (images(2, 3, 8, 8).numpy(), "images must be uint8"),
        (images(2, 4, 8, 8), r"1 or 3 channels, got '4 channels'; images\[:, :3\]"),
        (images(2, 2, 8, 8), "1 or 3 channels, got '2 channels'"),
    ],
)
def test_other_images_are_refused(small, wrong, words):
    with pytest.raises(InputError, match=words):
        small[1](wrong)


# Files of weights


def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)).requires_grad_(False)


def assert_same(found, network):
    theory = network.state_dict()
    assert list(found) == list(theory)
    for name in theory:
        assert found[name].dtype == theory[name].dtype
        assert not found[name].requires_grad
        torch.testing.assert_close(found[name], theory[name], rtol=0, atol=0)


SAVED = {
    "zip": lambda state, path: torch.save(state, path),
    "before torch 1.6": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "parameters": lambda state, path: torch.save(
        {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()}, path
    ),
    "with a step": lambda state, path: torch.save({"step": 3, "state_dict": state}, path),
    "second classifier": lambda state, path: torch.save(state | {"AuxLogits.fc.bias": torch.ones(1)}, path),
    "no counts": lambda state, path: torch.save({k: v for k, v in state.items() if "num" not in k}, path),
    "doubles": lambda state, path: torch.save({k: v.double() for k, v in state.items()}, path),
}


@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("name", ["weights.pth", "weights.PT"])
def test_what_torch_saved_is_read(tmp_path, save, name):
    network = tiny()
    save(network.state_dict(), tmp_path / name)
    assert_same(read_weights(tmp_path / name, tiny().state_dict()), network)
    assert_same(read_weights(str(tmp_path / name), tiny().state_dict()), network)


@pytest.mark.parametrize("name", ["weights.safetensors", "WEIGHTS.SAFETENSORS"])
def test_safetensors_are_read(tmp_path, name):
    network = tiny()
    write_tensors(tmp_path / name, network.state_dict())
    assert_same(read_weights(tmp_path / name, tiny().state_dict()), network)


def test_counts_of_training_batches_are_left_out(tmp_path):
    network = tiny()
    torch.save(network.state_dict() | {"1.num_batches_tracked": torch.tensor(9)}, tmp_path / "w.pth")
    assert_same(read_weights(tmp_path / "w.pth", tiny().state_dict()), network)
    extra = network.state_dict() | {"elsewhere.num_batches_tracked": torch.tensor(9)}
    write_tensors(tmp_path / "w.safetensors", extra)
    assert_same(read_weights(tmp_path / "w.safetensors", tiny().state_dict()), network)


def without(name):
    return lambda state: {key: value for key, value in state.items() if key != name}


WRONG_TENSORS = {
    "missing": (without("1.running_mean"), r"must hold 1.running_mean \(4,\), but it does not"),
    "the first": (lambda s: {"2.bias": s["2.bias"]}, r"must hold 0.weight \(4, 3, 3, 3\), but it does not"),
    "unexpected": (lambda s: s | {"3.weight": torch.ones(1)}, "holds 3.weight, which the network does not have"),
    "a shape": (
        lambda s: s | {"2.weight": torch.ones(2, 5)},
        r"2.weight in .* must be floats \(2, 4\), got 'torch.float32 \(2, 5\)'",
    ),
    "whole numbers": (lambda s: s | {"0.bias": torch.ones(4).long()}, r"floats \(4,\), got 'torch.int64 \(4,\)'"),
}


@pytest.mark.parametrize(("change", "words"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_first_tensor_that_does_not_fit_is_named(tmp_path, change, words, suffix):
    path = tmp_path / f"w{suffix}"
    state = change(tiny().state_dict())
    torch.save(state, path) if suffix == ".pth" else write_tensors(path, state)
    with pytest.raises(InputError, match=words) as caught:
        read_weights(path, tiny().state_dict())
    assert str(path) in str(caught.value)


class Weapon:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


PICKLED = {
    "inside a file of torch": lambda thing, path: torch.save({"0.weight": torch.ones(1), "w": thing}, path),
    "before torch 1.6": lambda thing, path: torch.save({"w": thing}, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("save", PICKLED.values(), ids=PICKLED)
def test_a_pickle_that_would_run_code_does_not(tmp_path, save):
    pickle.loads(pickle.dumps(Weapon(tmp_path / "loaded")))
    assert (tmp_path / "loaded").is_dir()
    save(Weapon(tmp_path / "fired"), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"asks for \w+\.mkdir, which is not read because it could run any code"):
        read_weights(tmp_path / "w.pth", tiny().state_dict())
    assert not (tmp_path / "fired").exists()


def test_a_bare_pickle_that_would_run_code_does_not(tmp_path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Weapon(tmp_path / "fired")))
    with pytest.raises(InputError, match=r"must hold tensors alone|damaged or something else"):
        read_weights(tmp_path / "w.pt", tiny().state_dict())
    assert not (tmp_path / "fired").exists()


def test_a_whole_network_is_no_state_dict(tmp_path):
    torch.save(tiny(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"asks for torch\.nn\..*Sequential, .* save a network's state_dict"):
        read_weights(tmp_path / "w.pth", tiny().state_dict())


def script(path):
    """What torch.load takes for a program of TorchScript, to be handed to another reader."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/constants.pkl", b"\x80\x02].")
        file.writestr("w/data.pkl", b"\x80\x02].")
        file.writestr("w/version", b"3\n")


NO_WEIGHTS = {
    "empty": (lambda path: path.write_bytes(b""), "damaged or something else"),
    "text": (lambda path: path.write_text("404: not found"), "damaged or something else"),
    "a program": (script, "is a TorchScript program"),
    "a list": (lambda path: torch.save([torch.ones(1)], path), "must hold named tensors, got list"),
    "a tensor": (lambda path: torch.save(torch.ones(1), path), "must hold named tensors, got Tensor"),
    "nothing": (lambda path: torch.save({}, path), "must hold named tensors, got dict"),
    "a number": (lambda path: torch.save({"w": 3}, path), "named tensors, but 'w' is int"),
    "numbered": (lambda path: torch.save({3: torch.ones(1)}, path), "named tensors, but 3 is Tensor"),
    "json": (lambda path: path.write_text(json.dumps({"w": 1})), "damaged or something else"),
}


@pytest.mark.parametrize(("write", "words"), NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_other_files_are_refused(tmp_path, write, words):
    write(tmp_path / "w.pth")
    with pytest.raises(InputError, match=words) as caught:
        read_weights(tmp_path / "w.pth", tiny().state_dict())
    assert str(tmp_path / "w.pth") in str(caught.value)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_cut_short_is_refused(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    torch.save(tiny().state_dict(), path) if suffix == ".pth" else write_tensors(path, tiny().state_dict())
    for size in (path.stat().st_size - 1, path.stat().st_size // 2, 10):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(InputError, match="damaged"):
            read_weights(path, tiny().state_dict())


def test_missing_files_and_other_kinds_are_refused(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path / "none.safetensors"):
        with pytest.raises(InputError, match="must be a file of weights, but there is no such file"):
            read_weights(path, {})
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(InputError, match="there is no such file"):
        read_weights(tmp_path / "folder.pth", {})
    with pytest.raises(InputError, match=r"weights must be a file named \.safetensors, \.pth, \.pt, got"):
        read_weights(tmp_path / "w.pkl", {})


# Downloads


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_published_files_name_begins_its_checksum(name):
    """torch.hub's rule: the first 8 digits of the SHA-256 end the name."""
    url, checksum, file = KNOWN[name]
    digits = re.search(r"-([0-9a-f]{8})\.pth$", file)
    assert digits is not None
    assert re.fullmatch(rf"sha256:{digits[1]}[0-9a-f]{{56}}", checksum)
    assert url.startswith("https://")
    assert url.endswith("/" + file)


def test_fetched_weights_are_checked_and_kept(tmp_path, monkeypatch):
    """A file that is there is taken without the network where its checksum is right; another one is not."""
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(b"weights").hexdigest()
    published = weights.Published("http://127.0.0.1:9/w.pth", f"sha256:{digest}", "w.pth")
    monkeypatch.setitem(KNOWN, "tiny", published)
    for folder, to in ((tmp_path / "cache" / "weights", None), (tmp_path / "here", tmp_path / "here")):
        folder.mkdir(parents=True)
        (folder / "w.pth").write_bytes(b"weights")
        assert fetch_weights("tiny", to) == folder / "w.pth"
        (folder / "w.pth").write_bytes(b"others")
        with pytest.raises(InputError, match="is there but is not what"):
            fetch_weights("tiny", to)
    with pytest.raises(InputError, match=r"name must be one of .*vgg16.* \(did you mean vgg16\?\)"):
        fetch_weights("vgg-16")
