"""The experiments on generators at SMOKE scale: their rows, pages, and the rules that verdicts follow."""

import math

import pytest
import torch

from triptych.bench.experiment import Context, Scale
from triptych.bench.row import read_rows
from triptych.check import InputError
from triptych.cli import main
from triptych.data import load
from triptych.gan.draw import Latent
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipes import RECIPES
from triptych.metrics.features import Pixels
from triptych.metrics.weights import KNOWN
from triptych.papers import find
from triptych.papers._generators import Yardstick
from triptych.papers.arjovsky2017 import clipping
from triptych.papers.arjovsky2017.clipping import at_ends
from triptych.papers.gulrajani2017 import figure2, figure3, table2
from triptych.papers.radford2016 import arithmetic, conditional, features

NAMES = (
    "gulrajani2017.figure2",
    "gulrajani2017.figure3",
    "gulrajani2017.table2",
    "radford2016.passes",
    "radford2016.arithmetic",
    "radford2016.features",
    "radford2016.conditional",
    "arjovsky2017.clipping",
)
pytestmark = pytest.mark.xdist_group("papers on generators")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generators")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIPTYCH_CACHE", str(folder / "cache"))
        for name in NAMES:
            assert main(["run", name, "--out", str(folder / "rows")]) == 0
    return folder / "rows"


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_has_a_row_of_finite_numbers_and_a_page(smoke, name, tmp_path):
    rows, experiment = read_rows(smoke / name), find(name)
    assert len(rows) == len(experiment.cells(Scale.SMOKE))
    for row in rows:
        assert all(value is None or math.isfinite(value) for value in row.metrics.values())
        assert any(
            value is not None for key, value in row.metrics.items() if "steps" not in key and "seconds" not in key
        )
        assert row.metrics["steps"] > 0 or {"random", "pixels", "real"} & set(row.cell.values())
    assert main(["report", str(smoke / name), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.md").read_text()
    assert "not run" not in page
    assert page.count("![") >= (0 if name == "radford2016.features" else 1)


def test_the_rule_of_success_needs_quality_and_recall():
    assert figure2.succeeds(0.29, 0.1, 0.1)
    assert not figure2.succeeds(0.31, 0.5, 0.1)
    assert not figure2.succeeds(0.2, 0.09, 0.1)
    assert not figure2.succeeds(None, None, 0.1)
    assert figure2.succeeds(0.003, 0.2, -0.002)  # an unbiased estimate may be below 0


def test_verdicts_compare_with_the_best_cell_of_their_seed():
    def row(number, method, seed, kid, recall):
        metrics = {"kid": kid, "recall": recall, "steps": 1}
        return type("R", (), {"cell": {"row": number, "method": method}, "seed": seed, "metrics": metrics})()

    rows = [row(1, "dcgan", 0, 0.1, 0.3), row(1, "wgan-gp", 0, 0.25, 0.3), row(1, "lsgan", 0, None, None)]
    rows += [row(1, "dcgan", 1, 0.9, 0.3), row(1, "wgan-gp", 1, 0.2, 0.3), row(1, "lsgan", 1, 0.5, 0.2)]
    found = figure2.verdicts(rows)
    assert found == {(1, "dcgan"): [True, False], (1, "wgan-gp"): [True, True], (1, "lsgan"): [False, True]}
    assert figure2._count(found, [1], "wgan-gp") == "1 of 1"
    assert figure2.nearest_method(rows, 1) is None  # a method is missing
    rows += [row(1, "wgan", 0, 0.2, 0), row(1, "wgan", 1, 0.3, 0), row(1, "wgan", 2, 0.0, 0)]
    assert figure2.nearest_method(rows, 1) == "wgan-gp"  # of the seeds that all have, .225 against .25, .5 and none
    assert figure2._count(found, [1], "dcgan") == "0 of 1 (with some seed 1)"


def test_what_was_not_run_is_no_failure():
    def row(number, method, seed):
        metrics = {"kid": 0.1, "recall": 0.5, "steps": 1}
        kind = {"cell": {"row": number, "method": method}, "seed": seed, "metrics": metrics, "scale": Scale.LAPTOP}
        return type("R", (), kind)()

    rows = [row(number, method, 0) for number in range(1, 8) for method in figure2.METHODS]
    assert figure2._missing(rows) == ""
    rows = [r for r in rows if (r.cell["row"], r.cell["method"]) != (7, "wgan-gp")] + [row(1, "dcgan", 1)]
    found = figure2.verdicts(rows)
    assert figure2._count(found, range(1, 8), "wgan-gp") == "6 of 6"
    assert figure2._count(found, range(1, 8), "dcgan") == "7 of 7"
    assert "Not run: 1 of seed 0 and 27 of seed 1;" in figure2._missing(rows)


def test_the_papers_own_scale_is_scored_by_inception(monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    images = load("digits", limit=30)
    with pytest.raises(InputError, match="`triptych data fetch inception-fid`"):
        Yardstick.of(images, 10, Context(Scale.PAPER))
    place = tmp_path / "weights" / KNOWN["inception-fid"].file
    place.parent.mkdir()
    place.write_bytes(b"")

    class Inception(Pixels):
        def __init__(self, weights, device):
            assert (weights, device) == (place, "cpu")

    monkeypatch.setattr("triptych.metrics.inception.InceptionExtractor", Inception)
    assert isinstance(Yardstick.of(images, 10, Context(Scale.PAPER)).extractor, Inception)
    assert Yardstick.of(images, 10, Context(Scale.LAPTOP)).extractor.name.startswith("CCNN")


@pytest.mark.parametrize(("module", "cell"), [(figure3, figure3.Cell("gp-adam")), (clipping, clipping.Cell("dcgan"))])
def test_what_is_not_finite_ends_a_course_and_is_told(module, cell, monkeypatch, tmp_path):
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    real = module.recipe_of

    def wild(*arguments):
        recipe = real(*arguments)
        return recipe.changed(critic_optimiser=Optimiser("sgd", lr=1e38))

    monkeypatch.setattr(module, "recipe_of", wild)
    metrics, artefacts = module.measure(cell, Context(Scale.SMOKE))
    assert metrics["last_is" if module is figure3 else "kid"] is None
    assert all(value is None or math.isfinite(value) for value in metrics.values())
    kind = {
        "cell": vars(cell),
        "metrics": metrics,
        "published": None,
        "seed": 0,
        "scale": Scale.SMOKE,
        "provenance": {},
    }
    row = type("R", (), {**kind, "artefact": lambda self, name: artefacts[name]})()
    assert module.render([row])


@pytest.mark.parametrize("method", list(figure3.METHODS))
def test_small_images_have_gan_mnists_networks(method):
    """Which has BatchNorm for clipping alone, and then in both."""
    recipe = figure3.recipe_of(method, (1, 28, 28), 8)
    expected = "batch" if method == "clipping" else "none"
    assert (recipe.generator.norm, recipe.critic.critic_norm) == (expected, expected)


def test_random_pairs_are_drawn_evenly_and_are_the_same_for_both_methods():
    players = [player for number in range(600) for player in table2.drawn_pair(number)]
    for name, choices in (
        ("activation", table2.ACTIVATIONS),
        ("depth", table2.DEPTHS),
        ("normalised", table2.NORMALISED),
        ("width", table2.WIDTHS),
    ):
        found = [getattr(player, name) for player in players]
        expected = 1200 / len(choices)
        assert all(abs(found.count(value) - expected) < 5 * expected**0.5 for value in choices)
    equal = [table2.drawn_pair(number)[0].depth == table2.drawn_pair(number)[1].depth for number in range(600)]
    assert 100 < sum(equal) < 200  # a quarter, as the two are drawn apart
    number = next(n for n in range(100) if table2.drawn_pair(n)[1].normalised)
    gan, penalty = (table2.recipe_of(table2.Cell(number, method), (3, 32, 32), 4) for method in table2.METHODS)
    assert gan.generator == penalty.generator
    assert (gan.critic.norm, penalty.critic.norm) == ("batch", "layer")
    assert gan.critic.width == table2.drawn_pair(number)[1].width // 4
    assert penalty.rules.critic_optimiser.weight_decay == gan.rules.critic_optimiser.weight_decay == 1e-3
    plain = next(n for n in range(100) if not table2.drawn_pair(n)[1].normalised)
    plain = table2.recipe_of(table2.Cell(plain, "wgan-gp"), (3, 32, 32), 4)
    assert (plain.critic.norm, plain.rules.critic_optimiser.weight_decay) == ("none", 0)
    assert penalty.rules.generator_optimiser.weight_decay == 0
    assert penalty.objective.critic_steps(9) == 5
    assert gan.objective.critic_steps(9) == 1


def test_outcomes_count_pairs_with_both_scores():
    def row(pair, method, score, seed=0):
        return type(
            "R", (), {"cell": {"pair": pair, "method": method}, "seed": seed, "metrics": {"is": score, "kid": score}}
        )()

    rows = [row(0, "dcgan", 2.0), row(0, "wgan-gp", 3.0), row(1, "dcgan", None), row(1, "wgan-gp", 1.5)]
    rows += [row(2, "dcgan", 1.4), row(2, "wgan-gp", 1.0000000000000013), row(3, "dcgan", 9.0)]
    assert table2.outcomes(rows, 1.0) == [1, 1, 1, 0]
    assert table2.outcomes(rows, 1.5) == [0, 0, 1, 2]
    assert table2.one_sided(rows) == (1, 2)
    assert table2.one_sided(rows[:2]) == (0, 1)
    assert table2.one_sided(rows[:2], "kid") == (1, 0)  # the lower one
    assert table2.one_sided(rows[2:4], "kid") == (0, 1)  # what is not finite is the worst


@pytest.mark.parametrize("method", list(figure3.METHODS))
def test_the_four_methods_are_gan_cifars(method):
    recipe = figure3.recipe_of(method, (3, 32, 32), 8)
    optimiser = recipe.rules.critic_optimiser
    assert recipe.objective.critic_steps(7) == (1 if method == "dcgan" else 5)
    assert recipe.critic.critic_norm == ("none" if method.startswith("gp") else "batch")
    assert optimiser.kind == ("rmsprop" if method in ("clipping", "gp-rmsprop") else "adam")
    assert optimiser.lr == {"clipping": 5e-5, "gp-rmsprop": 5e-5, "gp-adam": 1e-4, "dcgan": 2e-4}[method]


def test_weights_at_their_bound_are_counted():
    critic = torch.nn.Linear(4, 1)
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[0.01, -0.01, 0.00985, 0.0]]))
    assert at_ends(critic, 0.01) == 0.5


def test_audits_of_a_few_passes_find_no_copies(smoke):
    for row in read_rows(smoke / "radford2016.passes"):
        assert row.metrics["p_value"] > 0.01
        assert row.metrics["train"] + row.metrics["held_out"] == 1797
        assert row.artefact("pictures")["walk"].shape[0] == 64


def test_meanings_are_lightness_and_the_side_of_the_light():
    x = torch.zeros(3, 2, 4, 5)
    x[0, :, :, :2], x[1, 0, :, 3:], x[2] = 10, 20, 7
    assert torch.equal(arithmetic.meanings(x), torch.tensor([[4.0, 10.0], [4.0, -10.0], [7.0, 0.0]]).double())


def test_sums_of_concepts_end_where_they_must():
    """Rows of four concepts that are numbers themselves: any drawn sum of them is the fourth."""
    told = torch.tensor([[9.0, 9.0], [9.0, 1.0], [1.0, 9.0], [1.0, 1.0], [5.0, 5.0], [5.0, 5.0]]).repeat(5, 1).double()
    concepts = arithmetic.Concepts.of(told)
    assert {kind: len(members) for kind, members in concepts.members.items()} == dict.fromkeys(concepts.members, 5)
    chosen = concepts.drawn(30, 3, torch.Generator().manual_seed(0))
    assert chosen.shape == (30, 3, 3)
    assert torch.equal(arithmetic.summed(told, chosen), told[1].expand(30, 2))
    light_right = torch.zeros(1, 1, 2, 2).double()
    light_right[..., 0], light_right[..., 1] = 8, 20
    assert concepts.reached(light_right).tolist() == [True]
    assert concepts.reached(light_right.flip(3)).tolist() == [False]
    assert concepts.reached(light_right / 10).tolist() == [False]


def test_sums_are_of_means_of_their_terms():
    values = torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    chosen = torch.tensor([[[0, 1], [2, 3], [4, 5]], [[8, 7], [6, 6], [1, 0]]])
    expected = [
        (values[0] + values[1]) / 2 - (values[2] + values[3]) / 2 + (values[4] + values[5]) / 2,
        (values[8] + values[7]) / 2 - values[6] + (values[1] + values[0]) / 2,
    ]
    torch.testing.assert_close(arithmetic.summed(values, chosen), torch.stack(expected))


class Ramp:
    """A sampler of two pixels, left z[0] and right z[1]."""

    latent = Latent(2)

    def z(self, seed, first, count):
        return torch.arange(first, first + count, dtype=torch.float64)[:, None].expand(-1, 2) + 100

    def images(self, z):
        return z[:, None, None, :].round().clamp(0, 255).byte()


def test_turns_are_counted_and_drawn_as_they_move_samples():
    left, right = torch.tensor([20.0, -20.0]).double(), torch.tensor([-20.0, 20.0]).double()
    assert arithmetic._share(Ramp(), [left], 10) == 1
    assert arithmetic._share(Ramp(), [left, right], 10) == 0.5
    along = arithmetic._along(Ramp(), left)
    assert along.shape == (8 * arithmetic.STOPS, 1, 1, 2)
    assert along[0].flatten().tolist() == [90, 110]
    assert along[arithmetic.STOPS - 1].flatten().tolist() == [110, 90]
    assert along[arithmetic.STOPS].flatten().tolist() == [91, 111]
    z = torch.arange(20, dtype=torch.float64)[:, None]
    rng = torch.Generator().manual_seed(0)
    turn = arithmetic._turn(z, (torch.tensor([0, 1, 2, 3]), torch.tensor([10, 11, 12, 13])), rng)
    assert turn.tolist() == [-10]


def test_a_row_of_sums_has_the_terms_in_the_order_of_its_caption():
    drawn = arithmetic._figure(Ramp(), torch.tensor([[[50], [20], [10]]]))
    assert drawn[:, 0, 0, 0].tolist() == [150, 150, 120, 120, 110, 110, 140]


def test_concepts_that_no_sample_has_are_told_of(monkeypatch, tmp_path):
    """A generator whose samples are all alike has none to sum."""
    monkeypatch.setattr(arithmetic, "meanings", lambda images: torch.ones(len(images), 2).double())
    monkeypatch.setenv("TRIPTYCH_CACHE", str(tmp_path))
    context = Context(Scale.SMOKE)
    metrics, artefacts = arithmetic.measure(arithmetic.Cell("dcgan"), context)
    assert metrics["smallest"] == 0
    assert metrics["reached_z_1"] is metrics["turned"] is None
    row = type("R", (), {"metrics": metrics, "seed": 0, "artefact": lambda self, name: artefacts[name]})()
    table, turned = arithmetic.render([row])
    assert table.rows[0][1].text == turned.rows[0][1].text == "none to sum"


def test_features_of_a_critic_are_its_maps_pooled_and_serve_an_svm(smoke):
    rows = {row.cell["features"]: row.metrics for row in read_rows(smoke / "radford2016.features")}
    assert rows["pixels"]["accuracy_percent"] > 85
    assert rows["critic"]["accuracy_percent"] > 60
    assert rows["pixels"]["features"] == 64
    recipe = RECIPES["dcgan"]((1, 8, 8), 0, 4)
    critic = recipe.networks(0)[1]
    images = load("digits", limit=20)
    found = features.maps_of(recipe, critic, images)
    with torch.no_grad():
        maps = critic.maps(images.pixels.float() / 255)[1:]
    assert found.shape == (20, sum(m.shape[1] * min(4, m.shape[2]) * min(4, m.shape[3]) for m in maps))
    assert torch.equal(torch.from_numpy(found[:, : maps[0][0].numel()]), maps[0].flatten(1))


def test_the_nearest_image_gives_its_label():
    x = torch.tensor([[0], [100], [200]], dtype=torch.uint8)[..., None, None]
    test = torch.tensor([[10], [120], [160], [255]], dtype=torch.uint8)[..., None, None]
    y = torch.tensor([0, 1, 2])
    assert conditional.nearest_error(x, y, test, torch.tensor([0, 1, 1, 2])) == 25


def test_real_images_teach_more_with_more_of_them(smoke):
    rows = {row.cell["teacher"]: row.metrics for row in read_rows(smoke / "radford2016.conditional")}
    assert rows["real"]["error_percent_300"] < rows["real"]["error_percent_100"] < 40
    assert rows["dcgan"]["error_percent_300"] > rows["real"]["error_percent_300"]
