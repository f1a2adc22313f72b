"""The two protocols of mode coverage: games as they are said to be, a reader that reads, tables beside published numbers."""

import pytest
import torch

from triptych.bench.experiment import Scale
from triptych.bench.report import row_sections
from triptych.bench.row import read_rows
from triptych.bench.sections import Gallery, Table
from triptych.cli import main
from triptych.data.stacked_digits import stacked_digits
from triptych.metrics.modes import stacked
from triptych.papers import find
from triptych.papers.gulrajani2017 import _grid, _stacked, modes

pytestmark = pytest.mark.xdist_group("modes")  # one worker makes what the tests share


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The rows of one smoke run, made by the command line."""
    out = tmp_path_factory.mktemp("rows")
    assert main(["run", "gulrajani2017.modes", "--scale", "smoke", "--out", str(out)]) == 0
    return out


def test_the_experiment_is_found():
    assert find("gulrajani2017.modes") is modes.EXPERIMENT


CRITIC_STEPS = {
    "gan": 1,
    "lsgan": 1,
    "clipping": 5,
    "wgan-gp": 5,
    "wgan-gp, 2 critic steps": 2,
    "r1 + r2": 1,
    "dcgan": 1,
}


def test_every_cell_has_a_game_and_a_budget_at_every_scale():
    for scale in Scale:
        for cell in modes.cells(scale):
            if cell.critic_width is None:
                recipe = _grid.game(cell.method, _grid.SIZES[scale])
                assert recipe.rules.steps == _grid.SIZES[scale].steps[cell.method]
            else:
                recipe = _stacked.game(cell.method, cell.critic_width, _stacked.SIZES[scale])
                assert recipe.critic.width == cell.critic_width
                assert recipe.rules.steps == _stacked.SIZES[scale].steps[cell.method]
            for step in (0, 1, 500, 10_000):
                assert recipe.objective.critic_steps(step) == CRITIC_STEPS[cell.method]


def test_all_stacked_games_have_the_same_generator():
    size = _stacked.SIZES[Scale.LAPTOP]
    games = [_stacked.game(method, width, size) for method in modes.STACKED for width in (4, 8, 32)]
    assert len({game.generator for game in games}) == 1
    assert len({(game.batch, game.rules.latent, game.shape) for game in games}) == 1
    first, *others = [game.networks(3)[0].state_dict() for game in games]
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_the_authors_rate_stands_at_the_papers_scale():
    recipe = _grid.game("wgan-gp", _grid.SIZES[Scale.PAPER])
    assert (recipe.rules.critic_optimiser.lr, recipe.batch, recipe.rules.steps) == (1e-4, 256, 100_000)


def test_a_smoke_row_has_every_metric(smoke):
    rows = read_rows(smoke)
    assert len(rows) == len(modes.cells(Scale.SMOKE))
    for row in rows:
        assert row.metrics["steps"] > 0
        assert row.metrics["train_cpu_seconds"] > 0
        if row.cell["law"] == "grid":
            assert 0 <= row.metrics["modes"] <= 25
            assert 0 <= row.metrics["high_quality_percent"] <= 100
            assert row.artefact("samples")["samples"].shape == (2500, 2)
        else:
            assert 0 < row.metrics["modes"] <= 1000
            assert row.metrics["reader_accuracy_percent"] > 95
            assert row.artefact("samples")["pixels"].shape[1:] == (3, 8, 8)
        assert row.metrics["critic_steps"] == (5 if row.cell["method"] == "wgan-gp" else 1)


def test_the_reader_reads_stacked_digits():
    read, accuracy = _stacked.reader(0)
    images = stacked_digits(500, 1)
    digits = torch.stack([images.labels // 100, images.labels // 10 % 10, images.labels % 10], 1)
    told = read(images.pixels)
    assert float((told == digits).float().mean()) > 0.98
    assert accuracy > 0.95
    assert stacked(told).modes > 350


def test_a_game_that_plays_on_comes_nearer_to_its_law():
    """The grid's score moves from nothing to something, so that it measures the game and not the start."""
    from itertools import islice

    from triptych.engine import Engine
    from triptych.gan.draw import Draw
    from triptych.gan.laws import batches, grid
    from triptych.gan.schedule import Constant
    from triptych.gan.train import train

    size = _grid.Size(32, 64, dict.fromkeys(_grid.STEPS, 300))
    recipe = _grid.game("r1 + r2", size)
    players = recipe.players(0, Engine())
    z = recipe.rules.latent.sample(Draw(1, 0, 0, 1000))

    def spread():
        with torch.no_grad():
            return float((players.generator(z).std(0) - batches(grid())(5, 0, 4000).images.std(0)).abs().max())

    before = spread()
    list(
        islice(
            train(players, recipe.objective, batches(grid()), seed=0, rules=recipe.rules, schedule=Constant(64)), 300
        )
    )
    assert spread() < 0.5 * before


def test_the_report_has_a_table_and_pictures_for_each_law(smoke):
    sections = row_sections(read_rows(smoke), find)
    grid, digits = (section for section in sections if isinstance(section, Table) and section.title)
    lines = {line[0].text: [entry.text for entry in line[1:]] for line in grid.rows}
    assert "not run" in lines["LSGAN"]
    assert "not run" not in lines["WGAN-GP, 5 critic steps"]
    assert "17.3" in lines["GAN (PacGAN's Table 1)"]
    lines = {line[0].text: [entry.text for entry in line[1:]] for line in digits.rows}
    assert "not run" not in lines["WGAN-GP, critic width 8"]
    assert "628.0" in lines["stacked MNIST, critic K/2, DCGAN (PacGAN's Table 3)"]
    for table in (grid, digits):
        assert "Protocol" in table.note
        assert table.made == "Scale smoke, seed 0"
    galleries = [section for section in sections if isinstance(section, Gallery)]
    assert [len(gallery.pictures) for gallery in galleries] == [2, 2]


def test_without_rows_of_a_law_its_table_says_not_run(smoke):
    rows = [row for row in read_rows(smoke) if row.cell["law"] == "grid"]
    table = [section for section in modes.render(rows) if isinstance(section, Table)][1]
    assert "not run" in [entry.text for entry in table.rows[0]]
