"""Goodfellow's Table 1: the recipe's game, the three sets of centres, the table beside the published rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from triptych.bench.experiment import Context, Scale, Source
from triptych.bench.report import row_sections
from triptych.bench.row import read_rows
from triptych.bench.sections import Curves, Picture, Table
from triptych.cli import main
from triptych.data import load
from triptych.papers import find
from triptych.papers.goodfellow2014 import mnist

pytestmark = pytest.mark.xdist_group("mnist")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The rows of one smoke run, made by the command line."""
    out = tmp_path_factory.mktemp("rows")
    assert main(["run", "goodfellow2014.mnist", "--scale", "smoke", "--out", str(out)]) == 0
    return out


def test_the_experiment_is_found():
    assert find("goodfellow2014.mnist") is mnist.EXPERIMENT


def test_the_published_numbers_are_the_papers():
    assert [mnist.published(cell)["log_likelihood"] for cell in mnist.cells(Scale.PAPER)] == [225, 243, 313]
    assert {name: mean for name, (mean, _) in mnist.BESIDE.items()} == {"DBN": 138, "Stacked CAE": 121, "Deep GSN": 214}


def test_the_papers_scale_is_250_epochs_of_the_full_networks():
    size = mnist.SIZES[Scale.PAPER]
    assert (size.train, size.validation, size.test) == (50_000, 10_000, 10_000)
    assert (size.width, size.epochs, size.samples) == (1_200, 250, 10_000)


def test_a_smoke_row_has_its_score(smoke):
    rows = {row.cell["centres"]: row for row in read_rows(smoke)}
    assert set(rows) == {"samples", "images", "centroids"}
    for row in rows.values():
        assert row.metrics["standard_error"] > 0
        assert 0.1 <= row.metrics["sigma"] <= 1
        assert row.data == "digits"
    images = rows["images"].metrics["log_likelihood"]
    assert images > rows["samples"].metrics["log_likelihood"] > images - 100
    assert rows["samples"].artefact("pictures")["samples"].shape == (54, 1, 8, 8)
    assert len(rows["samples"].artefact("losses")["critic_loss"]) == 30


def test_the_game_moves(smoke):
    """The critic leaves log 2, and the generator follows it away from where it started."""
    row = next(row for row in read_rows(smoke) if row.cell["centres"] == "samples")
    size = mnist.SIZES[Scale.SMOKE]
    train, *_ = mnist.parts(Context(), size)
    _, facts, before = mnist._samples(train, replace(size, epochs=0), Context())
    moved = before["pictures"]["samples"].float() - row.artefact("pictures")["samples"].float()
    assert facts["epochs"] == 0
    assert row.metrics["epochs"] == pytest.approx(size.epochs, rel=0.1)
    assert float(moved.abs().mean()) > 5
    losses = row.artefact("losses")["critic_loss"]
    assert losses[0] > 0.68 > 0.66 > losses[-1]


def test_the_output_biases_start_at_the_pixels_means():
    train = load("digits")
    recipe, players, losses = mnist.played(train, replace(mnist.SIZES[Scale.SMOKE], epochs=0), Context())
    assert losses == {"critic_loss": [], "generator_loss": []}
    with torch.no_grad():
        made = players.generator(torch.zeros(1, recipe.rules.latent.size))[0]
    torch.testing.assert_close(made, train.floats().mean(0).clamp(1e-3, 1 - 1e-3), atol=1e-3, rtol=0)


def test_mnists_own_order_is_kept_where_there_are_its_splits(tmp_path):
    rng = np.random.default_rng(0)
    for name, n in (("train", 70), ("t10k", 20)):
        pixels, labels = rng.integers(0, 256, (n, 4, 4), np.uint8), rng.integers(0, 10, n, np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())
    size = replace(mnist.SIZES[Scale.SMOKE], train=50, validation=20, test=10)
    context = Context(data=Source("mnist", "", tmp_path))
    every, test = load(tmp_path, split="train"), load(tmp_path, split="test")
    parts = mnist.parts(context, size)
    for part, expected in zip(
        parts, (every.take(slice(50)), every.take(slice(50, 70)), test.take(slice(10))), strict=True
    ):
        assert part.checksum() == expected.checksum()


def test_the_report_shows_the_table_the_samples_and_the_losses(smoke):
    sections = row_sections(read_rows(smoke), find)
    table = next(section for section in sections if isinstance(section, Table))
    lines = {line[0].text: [entry.text for entry in line[1:]] for line in table.rows}
    assert "225.0" in lines["Adversarial nets"]
    assert "138.0" in lines["DBN"]
    assert "not run" not in str(lines)
    assert any(isinstance(section, Picture) for section in sections)
    assert any(isinstance(section, Curves) for section in sections)
