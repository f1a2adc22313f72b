"""Working locally: the trials of the theorems, and that a broken condition or a broken count would be seen."""

import itertools

import numpy as np
import pytest
import torch

from triptych.bench.experiment import Context, Scale
from triptych.bench.report import row_sections
from triptych.bench.row import read_rows
from triptych.bench.sections import Curves, Table
from triptych.cli import main
from triptych.papers import find
from triptych.papers.papyan2017 import local
from triptych.papers.papyan2017._trials import Rivals, half, incoherent, planted, supports
from triptych.sparse import ConvDictionary
from triptych.sparse.coherence import mutual_coherence, uniqueness_bound
from triptych.sparse.norms import l0_stripe

pytestmark = pytest.mark.xdist_group("local")  # one worker makes what the tests share
F64 = torch.float64


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The rows of one smoke run, made by the command line."""
    out = tmp_path_factory.mktemp("rows")
    assert main(["run", "papyan2017.local", "--scale", "smoke", "--out", str(out)]) == 0
    return out


def test_the_experiment_is_found():
    assert find("papyan2017.local") is local.EXPERIMENT


def test_no_trial_inside_the_conditions_fails(smoke):
    rows = {row.cell["claim"]: row.metrics for row in read_rows(smoke)}
    for claim in ("uniqueness", "omp", "basis pursuit"):
        assert rows[claim]["violations"] == 0
        assert rows[claim]["trials"] == 8
        assert rows[claim]["stripe_two"] >= 4
        assert 0 < rows[claim]["typical"] <= rows[claim]["tightest"] < 1
    assert rows["uniqueness"]["rivals"] > 10_000
    assert rows["beyond"]["half_omp"] > rows["beyond"]["bound"]


def test_the_report_shows_the_trials_and_the_curves(smoke):
    sections = row_sections(read_rows(smoke), find)
    inside, beyond = (section for section in sections if isinstance(section, Table))
    assert [line[0].text for line in inside.rows if line[1].text != "not run"] == [
        "uniqueness, small circle",
        "OMP, circle",
        "basis pursuit, circle",
    ]
    assert len(beyond.rows) == 3
    curves = next(section for section in sections if isinstance(section, Curves))
    assert all(1.0 == series.y[0] >= series.y[-1] for series in curves.series)


def test_a_laptop_run_has_200_trials_of_every_claim_and_half_of_them_crowded():
    counted = {}
    for cell in local.cells(Scale.LAPTOP):
        each = local.TRIALS[Scale.LAPTOP] // (1 if cell.claim == "uniqueness" else 3)
        counted[cell.claim] = counted.get(cell.claim, 0) + each
    assert all(count >= 200 for count in counted.values())
    rng = np.random.default_rng(0)
    stripes = [local._stripe(trial, 3.2, rng) for trial in range(200)]
    assert sum(s >= 2 for s in stripes) == 100
    assert set(stripes) == {1, 2, 3}
    assert max(local._stripe(trial, 3.0, rng) for trial in range(50)) == 2  # a bound that must not be reached


def test_supports_are_all_sets_with_so_many_in_a_stripe():
    for boundary, places in (("valid", 6), ("circular", 7)):
        D = ConvDictionary(torch.randn(2, 1, 5, dtype=F64), 2, boundary)
        expected = set()
        for count in range(6):
            for chosen in itertools.combinations(range(2 * places), count):
                code = torch.zeros(1, 2, places, dtype=F64)
                code.view(-1)[list(chosen)] = 1.0
                if int(l0_stripe(D, code)) <= 2:
                    expected.add(chosen)
        found = [tuple(sorted(row)) for sets in supports(D, (places,), 2) for row in sets.tolist()]
        assert len(found) == len(set(found))
        assert {s for s in found if len(s) < 6} == expected


def test_planted_codes_are_as_full_as_asked():
    D = ConvDictionary(torch.randn(2, 1, 6, dtype=F64), 1)
    for stripe in (1, 2, 5):
        code = planted(D, (50,), stripe, np.random.default_rng(stripe))
        assert int(l0_stripe(D, code)) == stripe
        assert int((code != 0).sum()) > 2 * stripe
        assert 1 <= float(code[code != 0].abs().min()) < float(code.abs().max()) <= 2


def test_gradient_steps_make_atoms_incoherent():
    D = incoherent(2, (16,), 1, "valid", 0)
    rng = torch.Generator().manual_seed(0)
    raw = ConvDictionary(torch.randn(2, 1, 16, generator=rng, dtype=F64))
    assert mutual_coherence(D) < 0.5 * mutual_coherence(raw)


def test_a_second_code_of_the_same_signal_is_found():
    """Two places of the unit vectors and the columns of a Hadamard matrix: coherence 1/2, the bound 1.5 and no better.

    The comb (1, 0, 1, 0) is two unit vectors and also two Hadamard columns, so codes of two non-zeros are not unique.
    """
    hadamard = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=F64) / 2
    D = ConvDictionary(torch.cat([torch.eye(4, dtype=F64), hadamard])[:, None], 4)
    assert uniqueness_bound(mutual_coherence(D)) == pytest.approx(1.5)
    comb = torch.zeros(1, 8, 2, dtype=F64)
    comb[0, [0, 2], 0] = 1.0
    one, two = Rivals(D, (2,), 1), Rivals(D, (2,), 2)
    single = torch.zeros(1, 8, 2, dtype=F64)
    single[0, 3, 1] = 1.0
    assert one.judge(single)[0] == 0
    others, nearest = two.judge(comb)
    assert others > 0
    assert nearest == pytest.approx(0, abs=1e-7)


def test_the_half_is_between_the_levels():
    assert half({1: 1.0, 2: 0.75, 4: 0.25}) == 3.0
    assert half({1: 1.0, 2: 0.75}) is None


def test_a_row_is_a_function_of_its_seed():
    cell = local.Cell("omp", "circle")
    first, again, other = (local.measure(cell, Context(seed=seed))[0] for seed in (1, 1, 2))
    for row in (first, again, other):
        row.pop("cpu_seconds")
    assert first == again != other
