"""The unrolled denoiser against convolutions written out, its shifts and edges, its files; and that it can be trained."""

import pytest
import torch
from torch.nn import functional as F

from triptych.check import InputError
from triptych.sparse.unfolding import Unfolding, first_atoms, mirrored
from triptych.store import write_tensors


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Unfolding(20, 5, 3, 4)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))
    return net.eval()


def by_hand(net, y, sigma, shift):
    """The steps with torch's own convolutions, on a picture with edges mirrored by hand."""
    (down, right), n, s = shift, net.size, net.stride
    above, left = n - s + down, n - s + right
    below, after = -(y.shape[2] + above - n) % s, -(y.shape[3] + left - n) % s
    z = torch.cat([y.flip(2)[:, :, -above:] if above else y[:, :, :0], y, y.flip(2)[:, :, :below]], 2)
    z = torch.cat([z.flip(3)[:, :, :, -left:] if left else z[:, :, :, :0], z, z.flip(3)[:, :, :, :after]], 3)
    x = torch.zeros_like(F.conv2d(z, net.analysis, stride=s))
    for t in range(net.steps):
        x = x + F.conv2d(z - F.conv_transpose2d(x, net.synthesis, stride=s), net.analysis, stride=s)
        level = sigma * torch.exp(net.level[t] + net.slope[t] * torch.log(torch.tensor(255 * sigma / 25)))
        level = level[:, None, None]
        x = torch.where(x.abs() > level, x - level * x.sign(), 0.0)
    found = F.conv_transpose2d(x, net.readout, stride=s)
    return found[:, :, above : above + y.shape[2], left : left + y.shape[3]]


@pytest.mark.parametrize("shift", [(0, 0), (1, 2), (2, 0)])
@pytest.mark.parametrize("size", [(14, 17), (12, 12), (9, 20)])
def test_the_steps_are_those_of_its_docstring(net, shift, size):
    y = torch.rand(2, 1, *size)
    mean = y.mean((2, 3), keepdim=True)
    expected = by_hand(net, y - mean, 0.1, shift) + mean
    torch.testing.assert_close(net(y, 0.1, [shift]), expected, rtol=1e-4, atol=1e-5)


def test_shifts_are_averaged_and_pictures_are_problems_of_their_own(net):
    y, sigma = torch.rand(2, 1, 13, 15), torch.tensor([0.05, 0.2])
    each = [net(y, sigma, [(i, j)]) for i in range(3) for j in range(3)]
    torch.testing.assert_close(net(y, sigma), torch.stack(each).mean(0))
    for i in range(2):
        torch.testing.assert_close(net(y[i : i + 1], float(sigma[i])), net(y, sigma)[i : i + 1])


def test_first_atoms_are_the_cosines_and_unit():
    atoms = first_atoms(40, 6).flatten(1)
    torch.testing.assert_close(atoms[:36] @ atoms[:36].T, torch.eye(36), atol=1e-5, rtol=0)
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(atoms[0], torch.full((36,), 1 / 6))
    assert first_atoms(5, 6).shape == (5, 1, 6, 6)


def test_edges_are_mirrored_as_often_as_need_be():
    y = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    assert mirrored(y, (4, 5, 0, 1)).tolist() == [[[[3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1, 2]] * 2]]


def test_a_little_training_takes_noise_off():
    """Of smooth pictures, after a hundred steps; before, the first atoms do worse."""
    torch.manual_seed(0)
    net = Unfolding(36, 6, 4, 3)

    def pictures(n):
        return F.interpolate(torch.rand(n, 1, 4, 4), 24, mode="bilinear")

    clean = pictures(8)
    noisy = clean + 0.1 * torch.randn(clean.shape)

    def error():
        with torch.no_grad():
            return float((net(noisy, 0.1) - clean).square().mean())

    before, optimiser = error(), torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(100):
        y = pictures(8)
        loss = (net(y + 0.1 * torch.randn(y.shape), 0.1, [(0, 0), (2, 1)]) - y).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert error() < 0.7 * before
    assert error() < 0.6 * float((noisy - clean).square().mean())


def test_weights_come_back_from_their_file(net, tmp_path):
    path = net.save(tmp_path / "w.safetensors")
    loaded, y = Unfolding.load(path), torch.rand(1, 1, 12, 12)
    assert (loaded.size, loaded.stride, loaded.steps) == (5, 3, 4)
    torch.testing.assert_close(loaded(y, 0.1), net.half().float()(y, 0.1))
    assert path.read_bytes() == loaded.save(tmp_path / "again.safetensors").read_bytes()


def test_other_files_are_refused(net, tmp_path):
    with pytest.raises(InputError, match="there is none"):
        Unfolding.load(tmp_path / "none")
    other = write_tensors(tmp_path / "other", {"atoms": torch.zeros(2)})
    with pytest.raises(InputError, match="must hold the weights of an Unfolding"):
        Unfolding.load(other)
    with torch.no_grad():
        net.level[0, 0] = torch.nan
    with pytest.raises(InputError, match="finite weights"):
        Unfolding.load(net.save(tmp_path / "nan"))


@pytest.mark.parametrize("y", [torch.zeros(1, 3, 9, 9), torch.zeros(9, 9), torch.zeros(1, 1, 9, 9, dtype=torch.uint8)])
def test_other_pictures_are_refused(net, y):
    with pytest.raises(InputError, match="y must be"):
        net(y, 0.1)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), torch.ones(3)])
def test_other_levels_are_refused(net, sigma):
    with pytest.raises(InputError, match="sigma must be"):
        net(torch.zeros(2, 1, 9, 9), sigma)


def test_a_stride_larger_than_the_atoms_is_refused():
    with pytest.raises(InputError, match="stride must be"):
        Unfolding(4, 3, 4)
