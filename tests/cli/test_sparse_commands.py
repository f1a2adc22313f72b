import json

import numpy as np
import pytest
import torch
from PIL import Image

from triptych import store
from triptych.cli import main
from triptych.data import png16
from triptych.sparse import ConvDictionary

RNG = np.random.default_rng(0)
WAVES = np.add.outer(np.sin(np.arange(40) / 5), np.cos(np.arange(36) / 4)) * 50 + 128


def noisy(channels, sigma=20.0):
    truth = np.repeat(WAVES[..., None], channels, 2)
    return truth, np.clip(truth + sigma * RNG.standard_normal(truth.shape), 0, 255)


def said(words, capsys):
    assert main([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("depth", [8, 16])
def test_denoised_pictures_have_the_form_of_the_noisy_ones(mode, depth, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    c = 1 if mode[0] == "L" else 3
    truth, values = noisy(c)
    step, kind = (257, np.uint16) if depth == 16 else (1, np.uint8)
    pixels = np.rint(values * step).astype(kind)
    if mode[-1] == "A":
        pixels = np.concatenate([pixels, RNG.integers(0, 255 * step, (40, 36, 1)).astype(kind)], 2)
    if depth == 16:
        (tmp_path / "a.png").write_bytes(png16.written(pixels))
    else:
        Image.fromarray(pixels.squeeze()).save("a.png")
    told, err = said(["sparse", "denoise", "a.png", "--out", "b.png", "--sigma", "20"], capsys)
    if depth == 16:
        after = png16.read(tmp_path / "b.png")
    else:
        with Image.open("b.png") as picture:
            assert picture.mode == mode
            after = np.asarray(picture).reshape(40, 36, -1)
    assert after.dtype == kind
    assert after.shape == pixels.shape
    np.testing.assert_array_equal(after[..., c:], pixels[..., c:])
    errors = [np.square(one[..., :c] / step - truth).mean() for one in (pixels, after)]
    assert errors[1] < errors[0] / 6
    assert told["sigma"] == [20] * c
    assert "low frequency, was split off before coding and put back" in told["low_frequencies"]
    assert "sigma 20 (given)" in err


def test_sigma_is_estimated_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noisy(1)[1].squeeze().astype(np.uint8)).save("a.png")
    assert main(["sparse", "denoise", "a.png", "--out", "b.png"]) == 0
    out = capsys.readouterr().out
    assert abs(float(out.split("sigma ")[1].split()[0]) - 20) < 3
    assert "estimated from the picture" in out
    assert "was split off before coding and put back" in out


def test_what_is_known_stays_in_an_inpainted_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = np.stack([WAVES, WAVES[::-1], WAVES[:, ::-1]], 2).astype(np.uint8)
    known = RNG.random((40, 36)) < 0.6
    Image.fromarray(np.where(known[..., None], pixels, 0).astype(np.uint8)).save("a.png")
    Image.fromarray(known).save("m.png")
    told, _ = said(["sparse", "inpaint", "a.png", "--mask", "m.png", "--out", "b.png"], capsys)
    with Image.open("b.png") as picture:
        filled = np.asarray(picture)
    np.testing.assert_array_equal(filled[known], pixels[known])
    assert np.abs(filled.astype(int) - pixels).max() < 25
    assert f"{100 * (1 - known.mean()):.1f} % was missing" in told["said"]


def test_codes_and_low_frequencies_make_the_picture_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pixels = noisy(3, 5.0)[1].astype(np.uint8)
    Image.fromarray(pixels).save("a.png")
    told, _ = said(["sparse", "encode", "a.png", "--out", "c.safetensors", "--stride", "4"], capsys)
    kept = store.read_tensors("c.safetensors")
    flat = torch.zeros(3, int(kept["code_shape"].prod()))
    for row, index, value in zip(flat, *(kept[name].split(kept["lengths"].tolist()) for name in ("index", "value"))):
        row[index] = value
    D = ConvDictionary(kept["atoms"], int(kept["stride"]))
    again = kept["low"] + D.synthesise(flat.reshape(3, *kept["code_shape"].tolist()), (40, 36))
    error = np.square(again[:, 0].numpy().transpose(1, 2, 0) - pixels).mean()
    np.testing.assert_allclose(10 * np.log10(255**2 / error), told["psnr"], atol=0.01)
    assert told["psnr"] > 30
    assert told["nonzeros"] == int((flat != 0).sum())
    assert 0 <= told["relative_gap"] <= 1e-2


def test_a_dictionary_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    atoms = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    store.write_tensors("m.safetensors", {"atoms": atoms})
    told, err = said(["sparse", "show", "m.safetensors", "--out", "drawn"], capsys)
    best = 0.0
    unit = (atoms / atoms.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)).numpy()[:, 0]
    for i in range(5):
        for j in range(5):
            for a in range(-3, 4):
                for b in range(-3, 4):
                    if (i, a, b) != (j, 0, 0):
                        one = unit[i][max(0, a) : 4 + min(0, a), max(0, b) : 4 + min(0, b)]
                        two = unit[j][max(0, -a) : 4 + min(0, -a), max(0, -b) : 4 + min(0, -b)]
                        best = max(best, abs(float((one * two).sum())))
    np.testing.assert_allclose(told["coherence"], best, rtol=1e-5)
    assert "mutual coherence" in err
    for name in ("atoms", "coherence", "babel"):
        with Image.open(tmp_path / "drawn" / f"{name}.png") as picture:
            assert min(picture.size) > 20


def test_promises_are_given_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noisy(1)[1].squeeze().astype(np.uint8)).save("a.png")
    assert main(["sparse", "guarantees", "kodak", "a.png", "--noise", "1"]) == 0
    out = capsys.readouterr().out
    assert "Uniqueness: not promised, which does not say that it fails" in out
    assert "low frequencies were split off" in out
