"""The engine of one process, the devices that are refused; several processes are in gan/test_processes.py."""

import os
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from triptych import engine as module
from triptych.check import InputError, NotConverged
from triptych.engine import Engine, ProcessLost, start


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("accumulate", [1, 3, 100])
def test_slices_are_the_batch_once_and_of_like_size(size, batch, accumulate):
    shares = [Engine(rank=rank, size=size).slices(batch, accumulate) for rank in range(size)]
    covered = [image for pieces in shares for first, count in pieces for image in range(first, first + count)]
    assert covered == list(range(batch))
    counts = [sum(count for _, count in pieces) for pieces in shares]
    assert max(counts) - min(counts) <= 1
    for pieces, count in zip(shares, counts):
        assert len(pieces) == min(accumulate, count)
        assert not pieces or max(n for _, n in pieces) - min(n for _, n in pieces) <= 1


def test_one_process_needs_no_accelerate(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)  # an import of it would raise
    with start("cpu") as engine:
        assert (engine.main, engine.rank, engine.size, engine.repeatable) == (True, 0, 1, True)
        values, tensors = torch.tensor([1.0, 2.0]), [torch.ones(2)]
        assert engine.sum(values) is values
        assert engine.sum_gradients([], values) is values
        engine.broadcast(tensors)
        assert tensors[0].tolist() == [1.0, 1.0]
        assert engine.share({"a": 1}) == {"a": 1}
        assert (engine.any(True), engine.any(False)) == (True, False)
        engine.agree("the parameters", 7)
        engine.wait()


def test_several_processes_need_the_others(monkeypatch):
    """Nobody answers at the address: one sentence, and no traceback of a back end."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in {"RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        with pytest.raises(
            InputError, match=rf"must have {name} where WORLD_SIZE is 2; start the processes by torchrun"
        ):
            start("cpu")
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "accelerate.PartialState", lambda **_: (_ for _ in ()).throw(RuntimeError("rendezvous\nfailed"))
    )
    with pytest.raises(ProcessLost, match="another process of this run has ended or cannot be reached") as raised:
        start("cpu")
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, NotConverged)  # status 1 on the command line


@pytest.mark.parametrize("error", [None, InputError("x"), KeyboardInterrupt()], ids=repr)
def test_only_a_process_that_ends_well_waits_for_the_others(monkeypatch, error):
    ended = []
    monkeypatch.setattr(Engine, "end", lambda self: ended.append(self))
    engine = Engine(size=2)
    with pytest.raises(type(error)) if error else nullcontext(), engine:
        if error:
            raise error
    assert ended == ([] if error else [engine])


@pytest.mark.parametrize("name", ["gpu", "", "cpu:1", "mps", "meta", "cuda:x", "cuda:-1", 3])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(InputError, match="device must be 'cpu', 'cuda' or 'cuda:N', got"):
        start(name)


@pytest.mark.parametrize(
    ("name", "count", "sentence"),
    [
        ("cuda", 0, "device must be 'cpu', as this machine or this PyTorch has no CUDA, got 'cuda'"),
        ("cuda:0", 0, "device must be 'cpu'"),
        ("cuda:2", 2, "device must be one of the 2 GPUs of this machine, got cuda:2"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, name, count, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(InputError, match=sentence):
        start(name)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert module._device(None, None) == torch.device("cuda:0")
    assert module._device("cuda:1", None) == torch.device("cuda:1")
    assert [module._device("cuda", local) for local in (0, 1)] == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert module._device("cpu", 1) == torch.device("cpu")
    with pytest.raises(InputError, match="start fewer processes"):
        module._device("cuda", 2)
    with pytest.raises(InputError, match="'cuda' where there are several processes"):
        module._device("cuda:0", 1)


def test_a_gpu_runs_deterministic_algorithms(monkeypatch):
    """Without a GPU: what start sets, and what it then promises."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    cuda = Engine(device=torch.device("cuda"))
    assert not cuda.repeatable
    assert Engine().repeatable
    before = torch.are_deterministic_algorithms_enabled()
    try:
        engine = start("cuda")
        assert engine.device == torch.device("cuda:0")
        assert engine.repeatable
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
        assert not engine.repeatable
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        assert engine.repeatable
        torch.backends.cudnn.benchmark = True
        assert not engine.repeatable
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(False)
        assert not engine.repeatable
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "LOCAL_RANK"])
def test_an_environment_that_torchrun_did_not_set_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "two")
    with pytest.raises(
        InputError, match=f"the environment's {name} must be a whole number, as torchrun sets it, got 'two'"
    ):
        start("cpu")


@pytest.mark.parametrize("precision", ["fp16", "float16", "", None])
def test_unknown_precisions_are_refused(precision):
    for call in (lambda: start("cpu", precision), lambda: Engine(precision=precision)):
        with pytest.raises(InputError, match="precision must be one of float32, bf16, float64"):
            call()


@pytest.mark.parametrize(
    ("precision", "parameters", "product"),
    [
        ("float32", torch.float32, torch.float32),
        ("bf16", torch.float32, torch.bfloat16),
        ("float64", torch.float64, torch.float64),
    ],
)
def test_precisions(precision, parameters, product):
    engine = start("cpu", precision)
    network = engine.place(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)))
    assert {p.dtype for p in network.parameters()} == {parameters} == {engine.dtype}
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    with engine.autocast():
        assert network(torch.ones(1, 3, 8, 8, dtype=engine.dtype)).dtype == product


def test_networks_are_compiled_on_request_alone(monkeypatch):
    compiled, network = [], nn.Linear(2, 2)
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    assert start("cpu").compiled(network) is network
    assert compiled == []
    assert start("cpu", compile=True).compiled(network) is network
    assert compiled == [network]
