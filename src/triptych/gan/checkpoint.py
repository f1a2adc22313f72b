"""A moment of a run as a folder of safetensors and JSON: networks, average, optimisers, counters; and the way back."""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan.train import Players
from triptych.store import load, save

KIND = "gan-checkpoint"
NAME = re.compile(r"(\d{8,})(?:-(\d+))?")
NETWORKS = ("generator", "critic", "average")
OPTIMISERS = {"generator": "generator_optimiser", "critic": "critic_optimiser"}
SEAL = "sha256 of these numbers"
COUNTERS = ("step", "seen", "critic_updates", "noise_seed", "rate_scale")


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds: tensors by name, such as ``critic/layers.0.weight`` or ``critic_optimiser/exp_avg/layers.0.weight``,
    and the numbers beside them.

    Everything random in a run is a function of its seeds and counters, so that these are the state of all its randomness.
    """

    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]


def taken(players: Players, meta: Mapping[str, Any]) -> Checkpoint:
    """The players as they stand, and ``meta``; the tensors are the players' own, not copies."""
    counters = {name: getattr(players, name) for name in COUNTERS}
    return Checkpoint(dict(_named(players)), {**meta, **counters})


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint beside its place, flushed and renamed."""
    return save(folder, checkpoint.tensors, {**checkpoint.meta, SEAL: _seal(checkpoint.meta)}, kind=KIND)


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint. Raises InputError where it is missing, damaged, of another kind or holds NaN or infinity."""
    tensors, meta = load(folder, kind=KIND)
    bad = unsound(tensors)
    if bad:
        raise InputError(
            f"{folder} must hold finite numbers, but its {bad} does not; remove it to go on from an older one"
        )
    missing = [name for name in COUNTERS if name not in meta]
    if missing:
        raise InputError(f"{folder} is damaged: it does not say {missing[0]}; remove it to go on from an older one")
    if meta.pop(SEAL, None) not in (None, _seal(meta)):
        raise InputError(
            f"{folder} is damaged: its numbers are not those that were written; remove it to go on from an older one"
        )
    return Checkpoint(tensors, meta)


def unsound(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that holds NaN or infinity, None where there is none."""
    for name, tensor in tensors.items():
        # The sum tells in a thirtieth of the time that isfinite takes; it may overflow where every entry is finite.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            return name
    return None


def restore(players: Players, checkpoint: Checkpoint, where: str = "the checkpoint") -> None:
    """Bring players back to a checkpoint. Raises InputError, and leaves them alone, where it is of other networks.

    Values are copied into the tensors that are there: their device, type and strides (channels last) stay.
    """
    live = {**networks(players), **_optimiser_places(players, checkpoint.tensors)}
    _check_fit(live, checkpoint.tensors, where)
    _check_whole(checkpoint.tensors, where)
    with torch.no_grad():
        for name, tensor in networks(players).items():
            tensor.copy_(checkpoint.tensors[name])
    for role, attribute in OPTIMISERS.items():
        optimiser, parameters = getattr(players, attribute), dict(getattr(players, role).named_parameters())
        optimiser.state.clear()
        for name, saved in checkpoint.tensors.items():
            if name.startswith(f"{attribute}/"):
                _, key, parameter = name.split("/", 2)
                optimiser.state[parameters[parameter]][key] = _beside(parameters[parameter], key, saved, optimiser)
    for name in COUNTERS:
        setattr(players, name, checkpoint.meta[name])


def restore_networks(players: Players, checkpoint: Checkpoint, where: str) -> None:
    """Give players the networks of a checkpoint alone, as a start for other images. Raises InputError as ``restore``."""
    saved = {name: t for name, t in checkpoint.tensors.items() if name.split("/", 1)[0] in NETWORKS}
    live = networks(players)
    _check_fit(live, saved, where)
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])


def restore_module(module: nn.Module, role: str, checkpoint: Checkpoint, where: str) -> None:
    """Give one network the tensors of a role in a checkpoint. Raises InputError where it is another network."""
    saved = {name: t for name, t in checkpoint.tensors.items() if name.startswith(f"{role}/")}
    live = {f"{role}/{name}": tensor for name, tensor in module.state_dict().items()}
    _check_fit(live, saved, where)
    with torch.no_grad():
        for name, tensor in live.items():
            tensor.copy_(saved[name])


def sent(checkpoint: Checkpoint | None, engine: Engine) -> Checkpoint:
    """The main process's checkpoint in every process; the others give None."""
    if engine.size == 1 and checkpoint is not None:
        return checkpoint
    described = checkpoint and {
        "meta": checkpoint.meta,
        "tensors": [
            (name, list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in checkpoint.tensors.items()
        ],
    }
    head = engine.share(described)
    if checkpoint is None:
        tensors = {name: torch.zeros(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in head["tensors"]}
    else:
        tensors = {name: t.detach().clone() for name, t in checkpoint.tensors.items()}
    engine.broadcast(list(tensors.values()))
    return Checkpoint(tensors, head["meta"])


def fingerprint(players: Players) -> int:
    """63 bits of the SHA-256 of all parameters, which all processes must share; buffers are each process's own."""
    digest = hashlib.sha256()
    for role in NETWORKS:
        for parameter in getattr(players, role).parameters():
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def name_of(step: int, rollbacks: int) -> str:
    """The folder of a step, after so many rollbacks: 00000100, or 00000100-2."""
    return f"{step:08d}" + (f"-{rollbacks}" if rollbacks else "")


def listed(folder: Path) -> list[Path]:
    """The checkpoints in a folder that lead to the newest, oldest first.

    A rollback to step s goes on from a new checkpoint of step s; what lies at s or later from before it leads nowhere.
    """
    leading: list[Path] = []
    found = _found(folder)
    for order in sorted(found, reverse=True):
        if not leading or order[1] < step_of(leading[-1]):
            leading.append(found[order])
    return leading[::-1]


def step_of(path: Path) -> int:
    """The step that a checkpoint's name says."""
    return int(path.name.partition("-")[0])


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the last ``keep`` of those that lead to the newest."""
    kept = listed(folder)[-keep:]
    for path in _found(folder).values():
        if path not in kept:
            gone = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
            path.rename(gone)  # first, so that a kill never leaves half a checkpoint under its name
            shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed writer left beside its place."""
    for path in (*folder.glob(".*.part"), *folder.glob(".*.old")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def networks(players: Players) -> dict[str, Tensor]:
    """Parameters and buffers of all networks by role and name."""
    return {f"{role}/{name}": t for role in NETWORKS for name, t in getattr(players, role).state_dict().items()}


def _named(players: Players) -> Iterator[tuple[str, Tensor]]:
    yield from networks(players).items()
    for role, attribute in OPTIMISERS.items():
        state = getattr(players, attribute).state
        for name, parameter in getattr(players, role).named_parameters():
            for key, value in state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield f"{attribute}/{key}/{name}", value


def _optimiser_places(players: Players, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """For each saved tensor of an optimiser whose parameter exists, a tensor of the shape that it must have."""
    places = {}
    for role, attribute in OPTIMISERS.items():
        parameters = dict(getattr(players, role).named_parameters())
        for name, saved in tensors.items():
            if name.startswith(f"{attribute}/") and (parameter := parameters.get(name.split("/", 2)[-1])) is not None:
                places[name] = saved if saved.ndim == 0 else parameter
    return places


def _check_fit(live: Mapping[str, Tensor], saved: Mapping[str, Tensor], where: str) -> None:
    for name in (*live, *saved):
        if name not in saved:
            raise InputError(f"{where} is of other networks: it has no {name}")
        if name not in live:
            raise InputError(f"{where} is of other networks: it has {name}, which these lack")
        if live[name].shape != saved[name].shape:
            shapes = f"{tuple(saved[name].shape)}, {tuple(live[name].shape)} is needed"
            raise InputError(f"{where} is of other networks: its {name} is {shapes}")


def _check_whole(tensors: Mapping[str, Tensor], where: str) -> None:
    """Check that an optimiser has the same tensors for each parameter that it has any for. Raises InputError."""
    for attribute in OPTIMISERS.values():
        places = [name.split("/", 2) for name in tensors if name.startswith(f"{attribute}/")]
        for key in {key for _, key, _ in places}:
            for parameter in {parameter for _, _, parameter in places}:
                if f"{attribute}/{key}/{parameter}" not in tensors:
                    raise InputError(
                        f"{where} is damaged: it has no {attribute}/{key}/{parameter}; go on from an older one"
                    )


def _seal(meta: Mapping[str, Any]) -> str:
    """A hash of the numbers beside the tensors, whatever the order of their names."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _beside(parameter: Tensor, key: str, saved: Tensor, optimiser: torch.optim.Optimizer) -> Tensor:
    """A tensor of an optimiser as that optimiser makes it: step counts of fused kernels on the device, others on the CPU."""
    if key == "step":
        return saved.clone().to(parameter.device if optimiser.param_groups[0].get("fused") else "cpu")
    return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)


def _found(folder: Path) -> dict[tuple[int, int], Path]:
    """All checkpoints in a folder by (rollbacks, step)."""
    names = {path: NAME.fullmatch(path.name) for path in folder.glob("[0-9]*") if path.is_dir()}
    return {(int(name[2] or 0), int(name[1])): path for path, name in names.items() if name}
