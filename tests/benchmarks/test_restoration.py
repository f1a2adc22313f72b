"""The benchmarks of denoising and inpainting run, and their measures are what they say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def table(name, monkeypatch, capsys, *words):
    module = load(name, monkeypatch)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--smoke", *words])
    module.main()
    return capsys.readouterr().out


def test_the_table_of_denoising(monkeypatch, capsys):
    lines = table("denoising", monkeypatch, capsys, "--sigmas", "25").splitlines()
    values = {line[:10].strip(): line[10:].split() for line in lines[2:]}
    assert float(values["noisy"][0]) == pytest.approx(20 * np.log10(255 / 25), abs=0.2)
    assert float(values["default"][0]) > float(values["plain l1"][0]) > float(values["noisy"][0])
    assert values["BM3D"] == ["not", "run"]


def test_the_table_of_inpainting(monkeypatch, capsys):
    lines = table("inpainting", monkeypatch, capsys).splitlines()
    cubic, ours = (float(line[8:].split()[0]) for line in lines[1:3])
    assert cubic > 20
    assert ours > 20
    assert float(lines[3].split()[4]) == pytest.approx(ours - cubic, abs=0.011)


def test_noise_and_masks_are_those_of_the_number(monkeypatch):
    denoising, inpainting = load("denoising", monkeypatch), load("inpainting", monkeypatch)
    (image,) = denoising.made()
    one, other = denoising.noisy(image, 25, 3), denoising.noisy(image, 25, 4)
    np.testing.assert_array_equal(one, denoising.noisy(image, 25, 3))
    assert (one != other).mean() > 0.9
    known = inpainting.mask_of(image, 0.3, 1)
    assert abs(known.mean() - 0.7) < 0.05
    filled = inpainting.cubic(image, known)
    np.testing.assert_array_equal(filled[known], image[known])
