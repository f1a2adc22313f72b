"""Training on a GPU: it repeats to the bit, and does what the CPU does. Skipped where there is none."""

from contextlib import nullcontext

import pytest
import torch

from triptych.papers.sulam2019 import _training
from triptych.sparse.deep.learning import parsed
from triptych.sparse.deep.networks import KINDS, MultiLayerNet, NetSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained(kind, device, monkeypatch):
    """Losses and parameters after 2 visits, in float32; the last minibatch of a visit is smaller than the others."""
    from triptych.engine import start

    start(device)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    x = torch.rand(600, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    spec = NetSpec(kind, parsed("32x6s2,64x6s2,512x4"), channels=1, rounds=6, unit=kind != "feed-forward")
    net = MultiLayerNet(spec, scale=1.0).to(device)
    losses = _training.train(net, x, torch.arange(600) % 10, _training.Effort(2, 64, 1e-3), 0, device)
    return torch.tensor(losses), torch.cat([p.detach().cpu().flatten() for p in net.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_repeats_and_is_near_the_cpu_s(kind, monkeypatch):
    losses, values = trained(kind, "cuda", monkeypatch)
    again, same = trained(kind, "cuda", monkeypatch)
    assert torch.equal(values, same)
    assert torch.equal(losses, again)
    monkeypatch.setattr(_training.torch, "autocast", lambda *_, **__: nullcontext())  # float32 on the CPU too
    expected, other = trained(kind, "cpu", monkeypatch)
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=0)
    assert float((values - other).norm() / other.norm()) < 0.02  # Adam turns the signs of small gradients into steps
