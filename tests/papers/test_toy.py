"""Figure 1's critics: what is optimal is known, a penalty holds the slope, clipping sees the coarse shape alone."""

import math

import pytest
import torch

from triptych.bench.experiment import Context, Scale
from triptych.bench.report import row_sections
from triptych.bench.row import read_rows
from triptych.bench.sections import Gallery, Table
from triptych.cli import main
from triptych.papers import find
from triptych.papers.gulrajani2017 import toy

pytestmark = pytest.mark.xdist_group("toy")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The rows of one smoke run, made by the command line."""
    out = tmp_path_factory.mktemp("rows")
    assert main(["run", "gulrajani2017.toy", "--scale", "smoke", "--out", str(out)]) == 0
    return out


def test_the_experiment_is_found():
    assert find("gulrajani2017.toy") is toy.EXPERIMENT


def test_it_reads_no_data(tmp_path, capsys):
    assert main(["run", "gulrajani2017.toy", "--out", str(tmp_path / "o"), "--data", "digits"]) == 2
    assert "data must be left away, as gulrajani2017.toy makes its own and reads none" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_every_law_is_under_both_methods():
    for scale in (Scale.LAPTOP, Scale.PAPER):
        assert {(cell.law, cell.method) for cell in toy.cells(scale)} == {
            (law, method) for law in ("ring", "grid", "swiss_roll") for method in ("clipping", "penalty")
        }


def test_the_papers_scale_is_that_of_the_authors_code():
    size = toy.SIZES[Scale.PAPER]
    assert (size.width, size.batch, size.steps, size.faster, size.fall) == (512, 256, 100_000, 1.0, "constant")
    objective, optimiser = toy._method("penalty", size)
    assert (objective.weight, optimiser.lr, optimiser.beta1, optimiser.beta2) == (0.1, 1e-4, 0.5, 0.9)
    objective, optimiser = toy._method("clipping", size)
    assert (objective.clip, optimiser.kind, optimiser.lr) == (0.01, "rmsprop", 5e-5)


def test_a_penalised_critic_rises_with_slope_about_one_and_a_clipped_one_is_flat(smoke):
    rows = {row.cell["method"]: row.metrics for row in read_rows(smoke)}
    assert rows["penalty"]["norm_mean"] > 0.3
    assert rows["clipping"]["norm_mean"] < 0.01 * rows["penalty"]["norm_mean"]
    assert rows["penalty"]["gap"] > 0 < rows["clipping"]["gap"]
    assert rows["penalty"]["rise_percent"] < 100 > rows["clipping"]["rise_percent"]
    assert rows["penalty"]["value_range"] > 100 * rows["clipping"]["value_range"]


def test_clipped_weights_are_in_their_box_after_the_last_step():
    from triptych.engine import Engine
    from triptych.gan.laws import batches, ring

    critic = toy._critic(8, 0, Engine())
    size = toy.Size(8, 16, 3, 1000.0)
    toy.train_critic(critic, *toy._method("clipping", size), batches(ring()), size, 0)
    assert max(float(p.detach().abs().max()) for p in critic.parameters()) <= 0.01


def test_a_row_is_a_function_of_its_seed():
    cell = toy.Cell("grid", "penalty")
    first, again, other = (toy.measure(cell, Context(seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first[1]["surface"]["values"], again[1]["surface"]["values"])
    assert not torch.equal(first[1]["surface"]["values"], other[1]["surface"]["values"])


def test_the_noise_of_a_critics_training_is_the_seeds():
    from triptych.engine import Engine
    from triptych.gan.laws import batches, ring

    size, made = toy.Size(8, 16, 4, 10.0), []
    for seed in (0, 1):
        critic = toy._critic(8, 0, Engine())
        toy.train_critic(
            critic, *toy._method("penalty", size), lambda _, seen, n: batches(ring())(0, seen, n), size, seed
        )
        made.append(torch.cat([p.detach().flatten() for p in critic.parameters()]))
    assert not torch.equal(*made)


def test_the_gap_and_the_norms_of_a_known_critic():
    """D(x) = w·x: the gradient is w everywhere, and the blur does not move the mean."""

    class Plane(torch.nn.Module):
        def forward(self, x):
            return x @ torch.tensor([3.0, 4.0])

    found = toy.judged(Plane(), torch.zeros(20_000, 2), 0)
    assert found["norm_mean"] == pytest.approx(5)
    assert found["norm_deviation"] == pytest.approx(0, abs=1e-5)
    assert abs(found["gap"]) < 4 * 5 / math.sqrt(20_000)
    assert abs(found["rise_percent"]) < 100 * 4 * 0.2 / (0.25 * math.sqrt(20_000))


def test_the_rise_is_all_of_the_slope_where_each_point_is_the_tip_of_a_cone():
    class Cone(torch.nn.Module):
        def forward(self, x):
            return -7 * torch.linalg.vector_norm(x, dim=1)

    found = toy.judged(Cone(), torch.zeros(20_000, 2), 0)
    assert found["rise_percent"] == pytest.approx(100, rel=1e-3)
    assert found["gap"] == pytest.approx(7 * math.sqrt(math.pi / 2), rel=0.02)


def test_the_report_shows_numbers_and_level_sets(smoke):
    sections = row_sections(read_rows(smoke), find)
    table = next(section for section in sections if isinstance(section, Table))
    text = {line[0].text: [entry.text for entry in line[1:]] for line in table.rows}
    assert len(text) == 6
    assert "not run" not in text["8 Gaussians, gradient penalty"]
    assert set(text["swiss roll, weight clipping"]) == {"not run"}
    gallery = next(section for section in sections if isinstance(section, Gallery))
    assert [picture.caption for picture in gallery.pictures] == [
        "8 Gaussians, weight clipping",
        "8 Gaussians, gradient penalty",
    ]
    assert gallery.pictures[0].png != gallery.pictures[1].png
