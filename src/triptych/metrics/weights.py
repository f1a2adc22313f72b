"""Weights of pretrained networks: downloaded, read from files of tensors alone, and held against a network's own.

A pickle is read with torch's unpickler of tensors alone (``weights_only``), which runs none of its code.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from triptych import cache, store
from triptych.check import InputError, choice, wrong

SUFFIXES = (".safetensors", ".pth", ".pt")


class Published(NamedTuple):
    """A file of weights that can be downloaded: its address, its checksum (``sha256:`` and 64 digits) and its name."""

    url: str
    checksum: str
    file: str


KNOWN: dict[str, Published] = {
    # TensorFlow's network of 2015-12-05, which FID is defined by, as pytorch-fid converted it.
    "inception-fid": Published(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "pt_inception-2015-12-05-6726825d.pth",
    ),
    "inception-torchvision": Published(
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        "sha256:0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
        "inception_v3_google-0cc3c7bd.pth",
    ),
    "vgg16": Published(
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "vgg16-397923af.pth",
    ),
}


def fetch_weights(name: str, to: Path | None = None, progress: cache.Progress | None = None) -> Path:
    """The path of one of the ``KNOWN`` files, downloaded into ``to`` or the cache unless it is there.

    Raises InputError for an unknown name or another file in the way, cache.DownloadError where the server cannot be
    reached or sends other bytes.
    """
    url, checksum, file = KNOWN[choice("name", name, KNOWN)]
    return cache.fetch(url, checksum, file, to=cache.folder() / "weights" if to is None else to, progress=progress)


def fetched(name: str) -> Path | None:
    """The file of one of the ``KNOWN`` in the cache, or None where it was not fetched. Raises InputError for an unknown name."""
    place = cache.folder() / "weights" / KNOWN[choice("name", name, KNOWN)].file
    return place if place.is_file() else None


def read_weights(path: str | Path, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file for a network whose ``state_dict()`` is ``names``: the same names, shapes and types.

    Raises InputError where ``read_state`` or ``fitting`` does.
    """
    return fitting(read_state(path), names, path)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """All named tensors of a .safetensors, .pth or .pt file, on the CPU; of the latter also under ``"state_dict"``.

    Raises InputError where the file is missing, damaged, of another kind, or holds anything but named tensors.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise wrong("weights", f"a file named {', '.join(SUFFIXES)}", str(path))
    if not path.is_file():
        raise InputError(f"{path} must be a file of weights, but there is no such file; fetch or name another")
    state = store.read_tensors(path) if path.suffix.lower() == ".safetensors" else _unpickled(path)
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state:
        raise InputError(f"{path} must hold named tensors, got {type(state).__name__}; save a network's state_dict()")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            found = type(tensor).__name__
            raise InputError(f"{path} must hold named tensors, but {name!r} is {found}; save a network's state_dict()")
    return {name: tensor.detach() for name, tensor in state.items()}


def fitting(state: Mapping[str, Tensor], names: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Those tensors of ``state`` that ``names``, a network's own, asks for, in their types; ``path`` is for messages.

    Names of torchvision's second classifier (``AuxLogits``) are passed over, and counts of training batches are 0.
    Raises InputError that names the first tensor that is missing, is of another shape, no floats, or not the network's.
    """
    found = {}
    for name, own in names.items():
        shape = tuple(own.shape)
        if _is_count(name):
            found[name] = torch.zeros(shape, dtype=own.dtype)
        elif name not in state:
            raise InputError(f"{path} must hold {name} {shape}, but it does not; is it another network's file?")
        elif state[name].shape != own.shape or not state[name].is_floating_point():
            given = f"{state[name].dtype} {tuple(state[name].shape)}"
            raise wrong(f"{name} in {path}", f"floats {shape}", given, "is it another network's file?")
        else:
            found[name] = state[name].to(own.dtype)
    for name in state:
        if name not in names and not _is_count(name) and not name.startswith("AuxLogits."):
            raise InputError(f"{path} holds {name}, which the network does not have; is it another network's file?")
    return found


def _is_count(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, where it is made of tensors and plain containers alone. Raises InputError."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch recommends to run programs
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no such file can make the unpickler raise anything
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is not None:
            raise InputError(
                f"{path} must hold tensors alone, but it asks for {foreign[1]}, which is not read because it could run "
                "any code; save a network's state_dict()"
            ) from None
        found = "a TorchScript program" if "TorchScript" in str(error) else "damaged or something else"
        raise InputError(
            f"{path} must be a whole file of tensors that torch.save wrote, but it is {found}; fetch or name another"
        ) from None
