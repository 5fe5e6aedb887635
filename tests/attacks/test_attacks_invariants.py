"""What holds for every attack, on a small network with batch norm and dropout left in training mode."""

import copy
import gc
import math
from functools import partial

import pytest
import torch
from torch import nn

from isce import attacks
from isce.attacks.common import held
from isce.attacks.norms import norm_of

EPS = {"l2": 0.8, "linf": 0.06}
ATTACKS = {
    **{f"fgsm-{n}": partial(attacks.fgsm, eps=e, norm=n) for n, e in EPS.items()},
    **{f"pgd-{n}": partial(attacks.pgd, eps=e, norm=n, steps=5, restarts=2) for n, e in EPS.items()},
    **{f"pgd-targeted-{n}": partial(attacks.pgd, eps=e, norm=n, steps=5, targeted=True) for n, e in EPS.items()},
    **{f"apgd-{n}": partial(attacks.apgd, eps=e, norm=n, steps=8, objective="dlr") for n, e in EPS.items()},
    **{f"apgd-t-{n}": partial(attacks.apgd_targeted, eps=e, norm=n, steps=6) for n, e in EPS.items()},
    **{f"deepfool-{n}": partial(attacks.deepfool, norm=n) for n in EPS},
    **{f"fab-{n}": partial(attacks.fab, norm=n, steps=5, n_targets=2, restarts=2) for n in EPS},
    **{f"fab-eps-{n}": partial(attacks.fab, norm=n, steps=5, n_targets=2, eps=e) for n, e in EPS.items()},
    **{f"square-{n}": partial(attacks.square, eps=e, norm=n, queries=30) for n, e in EPS.items()},
    "simba-pixel": partial(attacks.simba, queries=60),
    "simba-eps": partial(attacks.simba, queries=60, eps=EPS["l2"]),
    "simba-targeted": partial(attacks.simba, queries=60, targeted=True),
    "simba-dct": partial(attacks.simba, queries=60, basis="dct", freq_dims=3),
    "autoattack-l2": partial(attacks.autoattack, eps=EPS["l2"], steps=5, queries=10),
    "autoattack-linf": partial(attacks.autoattack, eps=EPS["linf"], norm="linf", steps=5, queries=10),
}
BOUNDED = {name: f for name, f in ATTACKS.items() if f.keywords.get("eps")}


@pytest.fixture(scope="module")
def net():
    """(model in a mixed mode, 10 images, labels of which 0 and 7 are wrong); float64, so that rounding decides nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(8 * 16, 6),
        ).double()  # fmt: skip
        model(torch.rand(64, 2, 8, 8).double())  # running statistics worth protecting
        images = torch.rand(10, 2, 8, 8).double()
    labels = model.eval()(images).argmax(1)
    labels[[0, 7]] = (labels[[0, 7]] + 1) % 6
    model.train()
    model[1].eval()
    return model, images, labels


@pytest.mark.parametrize("name", ATTACKS)
def test_contract(net, name):
    model, x, y = net
    attack = ATTACKS[name]
    state, x_before = copy.deepcopy(model.state_dict()), x.clone()
    modes = [m.training for m in model.modules()]
    with torch.no_grad():  # a caller's no_grad makes no difference
        out = attack(model, x, y)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert not out.requires_grad
    assert out.min() >= 0 and out.max() <= 1  # noqa: PT018
    assert torch.equal(out[[0, 7]], x[[0, 7]]), "misclassified images are returned unchanged"
    assert torch.equal(x, x_before), "the caller's images are not written to"
    assert (out != x).any(), "the attack does something"
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    model_eval = copy.deepcopy(model).eval()
    assert (model_eval(out).argmax(1) == y).sum() < 8 or "targeted" in name or "simba" in name or "square" in name

    assert torch.equal(attack(model, x, y), out), "the same seed gives the same answer"
    for size in (1, 3):
        torch.testing.assert_close(attack(model, x, y, batch_size=size), out, rtol=0, atol=1e-9)
    part = torch.tensor([6, 2, 9])
    torch.testing.assert_close(attack(model, x[part], y[part]), out[part], rtol=0, atol=1e-9)
    single = attack(copy.deepcopy(model).float(), x.float(), y)
    assert single.dtype == torch.float32


@pytest.mark.parametrize("name", BOUNDED)
def test_stays_in_the_ball(net, name):
    model, x, y = net
    attack = BOUNDED[name]
    eps, norm = attack.keywords["eps"], attack.keywords.get("norm", "l2")
    for dtype in (torch.float32, torch.float64):
        out = attack(copy.deepcopy(model).to(dtype), x.to(dtype), y)
        assert norm_of(out - x.to(dtype), norm).max() <= eps + 1e-6


@pytest.mark.parametrize(
    "name", ["pgd-l2", "pgd-linf", "apgd-l2", "square-l2", "square-linf", "simba-pixel", "simba-dct"]
)
def test_another_seed_gives_another_answer(net, name):
    model, x, y = net
    a, b = (ATTACKS[name](model, x, y, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert (a != b).flatten(1).any(1).sum() == 8


@pytest.mark.parametrize("name", ATTACKS)
def test_no_tensor_outlives_the_attack(net, name):
    """A graph that ties the iterates together costs memory on every step, and some of it for good."""
    model, x, y = net
    ATTACKS[name](model, x, y)

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    before = alive()
    ATTACKS[name](model, x, y)
    assert alive() <= before


@pytest.mark.parametrize("name", ATTACKS)
def test_empty_batch(net, name):
    model, x, y = net
    assert ATTACKS[name](model, x[:0], y[:0]).shape == x[:0].shape


def test_restarts_only_help(net):
    model, x, y = net
    right = [int((copy.deepcopy(model).eval()(
        attacks.pgd(model, x, y, eps=0.5, steps=2, restarts=r)).argmax(1) == y).sum()) for r in (1, 10)]  # fmt: skip
    assert right[1] < right[0]


@pytest.mark.parametrize(
    "attack",
    [attacks.pgd, attacks.apgd, attacks.apgd_targeted, partial(attacks.fab, n_targets=2)],
    ids=["pgd", "apgd", "apgd_targeted", "fab"],
)
def test_each_restart_takes_its_own_passes(net, attack):
    # At a radius where nothing falls.
    model, x, y = net
    rows, counts = [], []
    handle = model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    for restarts in (1, 2, 3):
        rows.clear()
        attack(model, x, y, eps=1e-6, steps=4, restarts=restarts)
        counts.append(sum(rows))
    handle.remove()
    assert counts[1] > 1.6 * counts[0]
    assert counts[2] > 2.2 * counts[0]


def test_inference_mode_of_the_caller(net):
    model, x, y = net
    with torch.inference_mode():
        out = attacks.pgd(model, x * 1, y, eps=0.8, steps=5)
    assert torch.equal(out, attacks.pgd(model, x, y, eps=0.8, steps=5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ATTACKS)
def test_the_same_on_a_gpu(net, name):
    model, x, y = net
    out = ATTACKS[name](copy.deepcopy(model).cuda(), x.cuda(), y.cuda())
    assert out.is_cuda
    torch.testing.assert_close(out.cpu(), ATTACKS[name](model, x, y), rtol=0, atol=1e-5)


class HalfInside(nn.Module):
    """The same linear scores whatever they are computed in; logits leave in that dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 128, generator=torch.Generator().manual_seed(0)).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).to(self.weight.dtype) @ self.weight.T


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ATTACKS)
def test_logits_of_another_dtype_than_the_images(name, dtype):
    """As of a model under autocast: attacked about as well as in float32, not with an error, and not found robust."""
    x = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    left = []
    for model in (HalfInside(dtype).float(), HalfInside(dtype)):
        y = model(x).argmax(1)
        out = ATTACKS[name](model, x, y)
        assert out.dtype == x.dtype
        left.append(int((model(out).argmax(1) == y).sum()))
    assert abs(left[0] - left[1]) <= 8, left


def made_elsewhere(kind: str) -> tuple[nn.Module, nn.Module]:
    """A network, and the same as a module that is not Python's."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 6)).eval()
    example = torch.rand(4, 2, 8, 8)
    if kind == "scripted":
        return net, torch.jit.script(net)
    if kind == "frozen":
        return net, torch.jit.freeze(torch.jit.script(net))
    batch = torch.export.Dim("batch", min=2, max=64)
    return net, torch.export.export(net, (example,), dynamic_shapes=({0: batch},)).module()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("kind", ["scripted", "frozen", "exported"])
def test_modules_that_are_not_pythons(kind):
    """Frozen TorchScript has no mode, and an exported module refuses `eval`."""
    net, other = made_elsewhere(kind)
    x = torch.rand(20, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)
    expected = attacks.pgd(net, x, y, eps=0.5, steps=5, random_start=False, early_stop=False)
    for model in (other, nn.Sequential(other)):
        found = attacks.pgd(model, x, y, eps=0.5, steps=5, random_start=False, early_stop=False)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_what_refuses_eval_mode_keeps_none_of_its_neighbours_from_it():
    _, exported = made_elsewhere("exported")
    net = nn.Sequential(exported, nn.BatchNorm1d(6), nn.Dropout())
    x, y, modes = torch.rand(4, 2, 8, 8), torch.zeros(4, dtype=torch.int64), []  # early_stop: whatever it has right
    net[1].register_forward_pre_hook(lambda *_: modes.append([m.training for m in net[1:]]))
    attacks.pgd(net, x, y, eps=0.5, steps=2, early_stop=False)
    assert len(modes) == 4
    assert not any(map(any, modes))
    assert [m.training for m in net[1:]] == [True, True]
    assert net[1].num_batches_tracked == 0


def test_more_restarts_are_never_weaker():
    """Of the last iterates one that is misclassified comes first, whatever the objective says of the others."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(128, 6))
    x = torch.rand(60, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    y = net(x).argmax(1)

    def felled(restarts: int) -> torch.Tensor:
        options = {"eps": 0.5, "steps": 4, "objective": "mmc", "early_stop": False}
        return net(attacks.pgd(net, x, y, restarts=restarts, **options)).argmax(1) != y

    few, many = felled(1), felled(10)
    assert 0 < few.sum() < 60
    assert not (few & ~many).any()


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 4, 16), (1, 1, 64), (1, 16, 4)], ids=str)
def test_simba_s_cosines_span_images_of_any_shape(shape):
    """Every frequency each way, on images that are not square, too: the displacements span the space."""

    class Yielding(nn.Module):  # a little with every query, and never falls
        calls = 0

        def forward(self, x):
            self.calls += 1
            return torch.tensor([[1000.0 - self.calls, 0.0]]).repeat(len(x), 1)

    x, d = torch.full((1, *shape), 0.5), math.prod(shape)
    points = [
        attacks.simba(Yielding(), x, torch.zeros(1, dtype=torch.long), queries=q, step_size=0.01, basis="dct")
        for q in range(1, d + 2)
    ]
    moves = torch.cat(points).flatten(1).diff(dim=0)
    assert torch.linalg.matrix_rank(moves.double(), atol=1e-4) == d


@pytest.mark.parametrize("name", ["fgsm-l2", "pgd-targeted-linf", "fab-l2"])
def test_short_memory_halves_the_batch_and_loses_nothing(net, name):
    model, images, labels = net

    class Small(nn.Module):
        def forward(self, x):
            if len(x) > 3 and torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return model(x)

    expected = ATTACKS[name](model, images, labels)
    with held(model), pytest.warns(UserWarning, match="memory is short") as caught:
        found = ATTACKS[name](Small(), images, labels)
    assert str(caught[-1].message).endswith("going on with 2 images at a time (batch_size=2 avoids this)")
    torch.testing.assert_close(found, expected)
