"""A checkpoint holds all there is to a moment, goes back to it bit for bit, and is refused where it does not fit."""

import copy
from itertools import islice

import pytest
import torch

from triptych.check import InputError
from triptych.engine import Engine
from triptych.gan import checkpoint
from triptych.gan.draw import Latent
from triptych.gan.networks.dcgan import DCGAN
from triptych.gan.networks.mlp import MLP
from triptych.gan.objectives import NonSaturating, Wasserstein, WassersteinGP
from triptych.gan.optimiser import Optimiser
from triptych.gan.recipe import Recipe
from triptych.gan.schedule import Constant
from triptych.gan.train import Rules, train
from triptych.images import Images
from triptych.store import HEAD, TENSORS, load, read_json, save, write_json

IMAGES = Images(torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def recipe(net, objective, optimiser):
    rules = Rules(Latent(4), optimiser, optimiser, steps=10, half_life=40.0)
    return Recipe("tiny", "no one", objective, net, net, (3, 8, 8), batch=6, rules=rules)


GAMES = {
    "convolutions, Adam": recipe(DCGAN(width=4), WassersteinGP(steps=2), Optimiser(lr=1e-2)),
    "clipped, RMSprop": recipe(DCGAN(width=4), Wasserstein(steps=2, long_until=0), Optimiser("rmsprop", 1e-2)),
    "momentum that rises": recipe(
        MLP((16,), (16,), dropout_hidden=0.5),
        NonSaturating(),
        Optimiser("sgd", 1e-2, momentum=0.5, momentum_end=0.7, momentum_until=50, fall="linear"),
    ),
    "without momentum": recipe(MLP((16,), (16,)), NonSaturating(), Optimiser("sgd", 1e-2)),
}
ENGINES = {precision: Engine(precision=precision) for precision in ("float32", "float64", "bf16")}


def played(players, game, steps, engine):
    source, schedule = game.batches(IMAGES, engine), Constant(game.batch)
    steps = islice(
        train(players, game.objective, source, seed=5, rules=game.rules, schedule=schedule, engine=engine), steps
    )
    return [progress.numbers() for progress in steps]


def state(players):
    """Everything, by other means than the checkpoint's."""
    modules = {role: getattr(players, role).state_dict() for role in ("generator", "critic", "average")}
    optimisers = {role: getattr(players, f"{role}_optimiser").state_dict()["state"] for role in ("generator", "critic")}
    counters = (players.step, players.seen, players.critic_updates, players.noise_seed, players.rate_scale)
    return copy.deepcopy((modules, optimisers, counters))


def assert_same(one, other):
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ENGINES)
@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_players_go_back_bit_for_bit_and_on_with_the_same_numbers(game, precision, tmp_path):
    engine = ENGINES[precision]
    players = game.players(5, engine)
    played(players, game, 2, engine)
    players.noise_seed, players.rate_scale = 11, 0.5
    checkpoint.write(tmp_path / "c", checkpoint.taken(players, {}))
    before = state(players)
    numbers = played(players, game, 2, engine)
    after = state(players)
    other = game.players(6, engine)
    played(other, game, 1, engine)  # its optimisers have a state of their own, which must go
    checkpoint.restore(other, checkpoint.read(tmp_path / "c"))
    assert_same(state(other), before)
    assert played(other, game, 2, engine) == numbers
    assert_same(state(other), after)


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
def test_the_start_is_a_moment_too(game):
    """Optimisers have no state then, and none may stay."""
    players, engine = game.players(5, Engine()), Engine()
    start = checkpoint.taken(players, {})
    start = checkpoint.Checkpoint({name: t.clone() for name, t in start.tensors.items()}, start.meta)
    numbers = played(players, game, 2, engine)
    checkpoint.restore(players, start)
    assert_same(state(players), state(game.players(5, engine)))
    assert played(players, game, 2, engine) == numbers


def test_a_restored_tensor_lies_as_it_did():
    """Strides and devices of what is there stay: other strides are other kernels, which round otherwise."""
    game, engine = GAMES["convolutions, Adam"], Engine()
    players = game.players(5, engine)
    played(players, game, 1, engine)
    kernels = [p for p in players.critic.parameters() if p.ndim == 4]
    taken = checkpoint.taken(players, {})
    packed = {name: tensor.contiguous() for name, tensor in taken.tensors.items()}
    strides = [p.stride() for p in kernels]
    checkpoint.restore(players, checkpoint.Checkpoint(packed, taken.meta))
    assert any(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in kernels)
    assert strides == [p.stride() for p in kernels]
    for key in ("exp_avg", "exp_avg_sq"):
        assert strides == [players.critic_optimiser.state[p][key].stride() for p in kernels]


def test_a_step_leaves_all_global_random_states_alone():
    """The run's randomness is its seeds and counters; if it drew anything elsewhere, a checkpoint would not be all."""
    import random

    import numpy as np

    for game in GAMES.values():
        before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
        players = game.players(5, Engine())
        played(players, game, 2, Engine())
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002


@pytest.fixture
def saved(tmp_path):
    game, engine = GAMES["convolutions, Adam"], Engine()
    players = game.players(5, engine)
    played(players, game, 1, engine)
    return checkpoint.write(tmp_path / "00000001", checkpoint.taken(players, {"guard": {}}))


def changed(saved, change):
    tensors, meta = load(saved, kind=checkpoint.KIND)
    change(tensors, meta)
    save(saved, tensors, meta, kind=checkpoint.KIND)


def spoil(name, value):
    def change(tensors, _):
        tensors[name].view(-1)[-1] = value

    return change


CRITIC = "critic_optimiser/exp_avg_sq"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("role", ["generator", "average", CRITIC])
def test_what_is_not_finite_is_refused_by_name(saved, role, value):
    name = next(name for name in load(saved)[0] if name.startswith(role) and name.endswith("weight"))
    changed(saved, spoil(name, value))
    with pytest.raises(InputError, match=f"must hold finite numbers, but its {name} does not"):
        checkpoint.read(saved)


def test_large_numbers_are_no_infinity():
    assert checkpoint.unsound({"large": torch.full((4,), 3e38), "count": torch.tensor([2**62])}) is None
    assert checkpoint.unsound({"both": torch.tensor([float("inf"), float("-inf")])}) == "both"


DAMAGES = {
    "no folder": (lambda saved: saved.rename(saved.with_name("moved")), "no such folder"),
    "no tensors": (lambda saved: (saved / TENSORS).unlink(), "tensors.safetensors is missing"),
    "cut short": (lambda saved: (saved / TENSORS).write_bytes((saved / TENSORS).read_bytes()[:-9]), "is damaged"),
    "a bit": (lambda saved: flip(saved / TENSORS), "its checksum is not the one that was written"),
    "no head": (lambda saved: (saved / HEAD).unlink(), f"holds no {HEAD}"),
    "torn head": (lambda saved: (saved / HEAD).write_text("{"), "is damaged"),
    "another kind": (lambda saved: relabel(saved, kind="ccnn"), "must hold 'gan-checkpoint', but it holds 'ccnn'"),
    "a newer one": (lambda saved: relabel(saved, version=99), "saved by a newer triptych"),
    "another number": (
        lambda saved: changed(saved, lambda _, meta: meta.update(seen=1)),
        "are not those that were written",
    ),
    "a lacking number": (lambda saved: changed(saved, lambda _, meta: meta.pop("rate_scale")), "not say rate_scale"),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def relabel(saved, **fields):
    write_json(saved / HEAD, {**read_json(saved / HEAD), **fields})


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_refused_in_a_sentence(saved, damage, sentence):
    damage(saved)
    with pytest.raises(InputError, match=sentence) as raised:
        checkpoint.read(saved)
    assert "\n" not in str(raised.value)


def without(prefix):
    def change(tensors, _):
        del tensors[next(name for name in tensors if name.startswith(prefix))]

    return change


def add(name):
    return lambda tensors, _: tensors.update({name: torch.zeros(3)})


MISFITS = {
    "half an optimiser": (without("critic_optimiser/exp_avg/"), "it has no critic_optimiser/exp_avg/"),
    "a lacking parameter": (without("critic/"), "it has no critic/"),
    "one too many": (add("generator/more"), "it has generator/more, which these lack"),
    "state of no parameter": (add("critic_optimiser/exp_avg/more"), "it has critic_optimiser/exp_avg/more"),
    "of no player": (add("referee/whistle"), "it has referee/whistle"),
    "state of another shape": (
        lambda tensors, _: tensors.update({n: torch.zeros(1, 7) for n in tensors if n.startswith("generator_optim")}),
        r"its generator_optimiser/\S+ is \(1, 7\), \(.*\) is needed",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_is_refused_and_changes_nothing(saved, change, sentence):
    changed(saved, change)
    players = GAMES["convolutions, Adam"].players(8, Engine())
    before = state(players)
    with pytest.raises(InputError, match=f"^C is (of other networks|damaged): {sentence}"):
        checkpoint.restore(players, checkpoint.read(saved), "C")
    assert_same(state(players), before)


def test_another_width_is_named(saved):
    other = recipe(DCGAN(width=8), WassersteinGP(), Optimiser()).players(5, Engine())
    with pytest.raises(InputError, match=r"its generator/\S+ is \(.*\), \(.*\) is needed"):
        checkpoint.restore(other, checkpoint.read(saved))


def test_the_networks_alone_are_a_start_for_another_run(saved):
    game, taken = GAMES["convolutions, Adam"], checkpoint.read(saved)
    players = game.players(8, Engine())
    checkpoint.restore_networks(players, taken, "C")
    assert all(torch.equal(tensor, taken.tensors[name]) for name, tensor in checkpoint.networks(players).items())
    assert (players.step, players.seen, players.noise_seed, players.critic_optimiser.state) == (0, 0, 8, {})
    generator, _ = game.networks(1)
    checkpoint.restore_module(generator, "average", taken, "C")
    assert all(torch.equal(t, taken.tensors[f"average/{name}"]) for name, t in generator.state_dict().items())


def folders(place, *names):
    for name in names:
        (place / name).mkdir()


def names(paths):
    return [path.name for path in paths]


def test_checkpoints_that_lead_to_the_newest(tmp_path):
    """After a rollback from 30 to 20, and one from 50 to 10, with the leaves of all branches."""
    folders(tmp_path, "00000010", "00000020", "00000030", ".00000040.ab.part", "notes")
    assert names(checkpoint.listed(tmp_path)) == ["00000010", "00000020", "00000030"]
    folders(tmp_path, "00000020-1")
    assert names(checkpoint.listed(tmp_path)) == ["00000010", "00000020-1"]
    folders(tmp_path, "00000030-1", "00000040-1")
    assert names(checkpoint.listed(tmp_path)) == ["00000010", "00000020-1", "00000030-1", "00000040-1"]
    folders(tmp_path, "00000010-2")
    assert names(checkpoint.listed(tmp_path)) == ["00000010-2"]
    folders(tmp_path, "100000000-2")  # nine digits
    assert names(checkpoint.listed(tmp_path)) == ["00000010-2", "100000000-2"]
    checkpoint.prune(tmp_path, 3)
    assert sorted(names(tmp_path.iterdir())) == [".00000040.ab.part", "00000010-2", "100000000-2", "notes"]
    checkpoint.sweep(tmp_path)
    checkpoint.prune(tmp_path, 1)
    assert sorted(names(tmp_path.iterdir())) == ["100000000-2", "notes"]
    assert checkpoint.step_of(tmp_path / "100000000-2") == 100_000_000


@pytest.mark.parametrize(("step", "rollbacks"), [(0, 0), (12, 0), (12, 3), (123_456_789, 1)])
def test_names_are_read_as_they_are_written(tmp_path, step, rollbacks):
    folders(tmp_path, checkpoint.name_of(step, rollbacks))
    (path,) = checkpoint.listed(tmp_path)
    assert checkpoint.step_of(path) == step


def test_the_fingerprint_sees_a_single_bit_of_any_parameter_and_no_buffer():
    players = GAMES["convolutions, Adam"].players(5, Engine())
    before = checkpoint.fingerprint(players)
    assert 0 <= before < 2**63
    with torch.no_grad():
        for buffer in players.generator.buffers():
            buffer.add_(1)
        assert checkpoint.fingerprint(players) == before
        for role in ("generator", "critic", "average"):
            for parameter in getattr(players, role).parameters():
                value = parameter.view(-1)[-1].clone() if parameter.is_contiguous() else parameter.flatten()[-1].clone()
                place = tuple(size - 1 for size in parameter.shape)
                parameter[place] = torch.nextafter(value, value + 1)
                assert checkpoint.fingerprint(players) != before
                parameter[place] = value
    assert checkpoint.fingerprint(players) == before
