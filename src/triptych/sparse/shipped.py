"""Dictionaries from files: the one that ships with the package, a learned model, a bare safetensors file."""

from pathlib import Path

import torch

from triptych import store
from triptych.check import InputError, whole
from triptych.sparse.dictionary import ConvDictionary
from triptych.sparse.estimator import ConvolutionalDictionaryLearning

PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")  # bare ones, and torch's archives of them
SHIPPED = Path(__file__).parent / "weights" / "kodak.safetensors"


def load_dictionary(path: str | Path | None = None) -> ConvDictionary:
    """The dictionary of a learned model (a folder), or of a safetensors file with a tensor ``atoms`` (k, c, n, n), in float32.

    None: the one that ships with the package, learned on the Kodak photographs: 8 x 8 samples an atom, stride 8, so that
    places do not overlap. A file may hold ``stride``, a whole number; without it the stride is 1. Raises InputError for
    anything else and for any damage.
    """
    path = SHIPPED if path is None else Path(path)
    if path.is_dir():
        found = ConvolutionalDictionaryLearning.load(path).dictionary_
    else:
        _refuse_pickle(path)
        tensors = store.read_tensors(path)
        if "atoms" not in tensors:
            raise InputError(
                f"{path} must hold a tensor named atoms, but it holds {', '.join(sorted(tensors)) or 'none'}"
            )
        stride = tensors["stride"].tolist() if "stride" in tensors else 1
        try:
            found = ConvDictionary(tensors["atoms"].float(), whole("stride", stride))
        except InputError as error:
            raise InputError(f"{path} is no dictionary: {error}") from None
    return found.to(torch.float32)


def save_dictionary(path: str | Path, dictionary: ConvDictionary) -> Path:
    """Write a dictionary as one safetensors file in float16, small enough to ship; `load_dictionary` reads it."""
    stride = torch.tensor(dictionary.stride)
    return store.write_tensors(path, {"atoms": dictionary.atoms.to(torch.float16), "stride": stride})


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} must be a dictionary, but there is none; give a learned model") from None
    if start.startswith(PICKLES):
        raise InputError(f"{path} is a pickle, which can run any code when it is read; save its atoms as safetensors")
