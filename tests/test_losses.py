"""Losses have known answers: each reduces to another, or to a closed form, where its parameters say so."""

import math

import pytest
import torch
import torch.nn.functional as F

from isce import ISCELoss, losses
from isce.losses import isce_loss
from isce.theory import sphere_optimum

N, K, D = 64, 10, 12


@pytest.fixture
def f(generator: torch.Generator) -> torch.Tensor:
    return 3 * torch.randn(N, K, dtype=torch.float64, generator=generator)


@pytest.fixture
def y(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(K, (N,), generator=generator)


def test_isce_without_s_and_m_is_cross_entropy_on_normalised_logits(f: torch.Tensor, y: torch.Tensor) -> None:
    expected = F.cross_entropy(f / f.norm(dim=1, keepdim=True), y, reduction="none")
    torch.testing.assert_close(isce_loss(f, y, s=1.0, m=0.0), expected)
    torch.testing.assert_close(ISCELoss(1.0, 0.0)(f, y), expected.mean())
    torch.testing.assert_close(isce_loss(f, y, 1.0, 0.0, normalize=False), F.cross_entropy(f, y, reduction="none"))


@pytest.mark.parametrize(("s", "m"), [(1.0, 0.1), (1.7, 0.0), (2.0, 0.05)])
def test_isce_is_equation_3(f: torch.Tensor, y: torch.Tensor, s: float, m: float) -> None:
    unit = f / f.norm(dim=1, keepdim=True)
    for i in range(5):
        top = math.exp(s * unit[i, y[i]] + m)
        rest = sum(math.exp(unit[i, j]) for j in range(K) if j != y[i])
        assert float(isce_loss(f, y, s, m)[i]) == pytest.approx(-math.log(top / (top + rest)), abs=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
def test_isce_gradients(normalize: bool, f: torch.Tensor, y: torch.Tensor) -> None:
    few = f[:4].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: isce_loss(t, y[:4], 1.3, 0.1, normalize), few)


def test_half_precision_logits_count_in_float32() -> None:
    """In float16 the square of a logit of 1e-4 is nothing, and that of one of 300 is infinite."""
    y = torch.tensor([0])
    for dtype in (torch.float16, torch.bfloat16):
        for size in (1e-4, 3e4):
            logits = torch.tensor([[3 * size / 4, -size / 2, 0.0]], dtype=dtype, requires_grad=True)
            loss = isce_loss(logits, y)
            assert loss.dtype == torch.float32
            torch.testing.assert_close(loss, isce_loss(logits.detach().float(), y))
            loss.sum().backward()
            assert bool(logits.grad.isfinite().all())  # type: ignore[union-attr]


def test_a_scale_can_be_learned(f: torch.Tensor, y: torch.Tensor) -> None:
    s = torch.tensor(1.2, requires_grad=True)
    isce_loss(f.detach(), y, s).sum().backward()  # type: ignore[arg-type]
    assert s.grad is not None
    assert s.grad != 0
    compiled = torch.compile(isce_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(f.detach(), y, s), isce_loss(f.detach(), y, s))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="s must be at least 1"):
        isce_loss(f.detach(), y, torch.tensor(0.5))  # type: ignore[arg-type]


def test_reductions_and_module(f: torch.Tensor, y: torch.Tensor) -> None:
    single = isce_loss(f, y)
    assert ISCELoss(reduction="none")(f, y).shape == (N,)
    torch.testing.assert_close(ISCELoss(reduction="sum")(f, y), single.sum())
    assert "s=1.0, m=0.1" in repr(ISCELoss())


def test_the_margin_scales_a_gradient_and_turns_none(f: torch.Tensor, y: torch.Tensor) -> None:
    """At s = 1 with m: the gradient without it times 1 / (1 + P (e^m - 1)), within 2.5 % of 1 on unit logits of ten classes."""
    m, logits = 0.1, f.requires_grad_()
    (plain,) = torch.autograd.grad(isce_loss(logits, y, 1.0, 0.0).sum(), logits)
    (with_m,) = torch.autograd.grad(isce_loss(logits, y, 1.0, m).sum(), logits)
    p = (-isce_loss(f, y, 1.0, 0.0)).exp().detach()
    factor = 1 / (1 + p * (math.exp(m) - 1))
    torch.testing.assert_close(with_m, factor[:, None] * plain)
    assert bool((factor > 1 / (1 + sphere_optimum(K).p_max * (math.exp(m) - 1))).all())
    assert 1 / (1 + sphere_optimum(K).p_max * (math.exp(m) - 1)) == pytest.approx(0.975, abs=5e-4)


def test_the_margin_adds_to_the_right_class_and_moves_no_optimum() -> None:
    """On the sphere the loss is least at the same logits for every m: +m only lowers the loss."""
    y = torch.zeros(1, dtype=torch.int64)
    ends = []
    for m in (0.0, 0.1, 1.0):
        logits = torch.tensor([[2.0] + [0.3] * 5 + [-1.0] * 4], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], lr=0.5, max_iter=300, tolerance_grad=1e-13, tolerance_change=1e-16)

        def closure(logits: torch.Tensor = logits, m: float = m, optimizer: torch.optim.LBFGS = optimizer) -> float:
            optimizer.zero_grad()
            loss = isce_loss(logits, y, 1.0, m).sum()
            loss.backward()
            return float(loss.detach())

        optimizer.step(closure)
        ends.append(losses.normalize_logits(logits.detach())[0])
    assert ends[0][0] == pytest.approx(0.9487, abs=1e-4)
    assert ends[0][1:] == pytest.approx([-0.1054] * 9, abs=1e-4)
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], atol=1e-5, rtol=0)


def test_inference_logits_touch_one_class(f: torch.Tensor) -> None:
    index = f.argmax(1)
    changed = losses.inference_logits(f, index, 1.5, 0.1)
    touched = F.one_hot(index, K).bool()
    torch.testing.assert_close(changed[touched], 1.5 * f[touched] + 0.1)
    assert torch.equal(changed[~touched], f[~touched])
    assert torch.equal(changed.argmax(1), index)


def test_label_smoothing_reduces_to_cross_entropy_and_has_its_closed_form(f: torch.Tensor, y: torch.Tensor) -> None:
    torch.testing.assert_close(losses.label_smoothing_loss(f, y, 0.0), losses.softmax_cross_entropy(f, y))
    p = f.log_softmax(1)
    expected = -0.9 * p.gather(1, y[:, None])[:, 0] - 0.1 * p.mean(1)
    torch.testing.assert_close(losses.label_smoothing_loss(f, y, 0.1), expected)


def test_gaussian_logits_and_lgm(y: torch.Tensor, generator: torch.Generator) -> None:
    z, means = (torch.randn(n, D, dtype=torch.float64, generator=generator) for n in (N, K))
    plain = losses.gaussian_logits(z, means)
    torch.testing.assert_close(plain, -(torch.cdist(z, means) ** 2) / 2)
    assert torch.equal(losses.gaussian_logits(z, means, y, 0.0), plain)
    torch.testing.assert_close(losses.lgm_loss(z, y, means, 0.0, 0.0), F.cross_entropy(plain, y, reduction="none"))
    with_margin = losses.gaussian_logits(z, means, y, 1.0)
    own = F.one_hot(y, K).bool()
    torch.testing.assert_close(with_margin[own], 2 * plain[own])
    assert torch.equal(with_margin[~own], plain[~own])
    full = losses.lgm_loss(z, y, means, 0.3, 0.1) - losses.lgm_loss(z, y, means, 0.3, 0.0)
    torch.testing.assert_close(full, 0.1 * losses.center_distance(z, y, means))


def test_arcface(y: torch.Tensor, generator: torch.Generator) -> None:
    cosine = (torch.rand(N, K, dtype=torch.float64, generator=generator) * 1.8 - 0.9).requires_grad_()
    torch.testing.assert_close(losses.arcface_logits(cosine, y, 30.0, 0.0), 30 * cosine)
    assert torch.equal(losses.arcface_logits(cosine, None, 30.0), 30 * cosine)
    own = F.one_hot(y, K).bool()
    theta = cosine[own].acos()
    inside = theta + 0.5 < math.pi
    torch.testing.assert_close(
        losses.arcface_logits(cosine, y, 30.0, 0.5)[own][inside], 30 * (theta + 0.5).cos()[inside]
    )
    assert torch.autograd.gradcheck(lambda c: losses.arcface_logits(c, y[:8], 30.0, 0.5), cosine[:8])


def test_arcface_goes_on_falling_past_pi() -> None:
    """cos(theta + m) turns at theta + m = pi; there the authors go on with cos(theta) - m sin(m)."""
    theta = torch.linspace(0.01, math.pi - 0.01, 500, dtype=torch.float64)
    cosine, past = theta.cos()[:, None], theta + 0.5 > math.pi
    assert 50 < past.sum() < 450
    logits = losses.arcface_logits(cosine, torch.zeros(500, dtype=torch.int64), 30.0, 0.5)[:, 0]
    torch.testing.assert_close(logits[~past], 30 * (theta + 0.5).cos()[~past])
    torch.testing.assert_close(logits[past], 30 * (theta.cos() - 0.5 * math.sin(0.5))[past])
    assert (logits.diff() < 0).all()


@pytest.mark.parametrize(("k", "d"), [(2, 1), (10, 9), (10, 64), (10, 84)])
def test_max_mahalanobis_centers(k: int, d: int) -> None:
    centers = losses.max_mahalanobis_centers(k, d, 10.0).double()
    expected = torch.full((k, k), -1 / (k - 1), dtype=torch.float64).fill_diagonal_(1.0)
    torch.testing.assert_close(centers @ centers.T / 100, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("k", "d", "degrees"), [(10, 2, 36.0), (4, 2, 90.0), (10, 3, 66.1468), (12, 3, 63.4349), (10, 8, 90.0)]
)
def test_centres_in_few_dimensions_are_as_far_apart_as_known(k: int, d: int, degrees: float) -> None:
    """Polygons; the best packings of 10 and 12 points on the sphere (Tammes' problem; 12: the icosahedron); in d < k - 1
    <= 2d - 1 dimensions no better than right angles (Rankin 1955)."""
    centers = losses.max_mahalanobis_centers(k, d, 10.0).double()
    torch.testing.assert_close(centers.norm(dim=1), torch.full((k,), 10.0, dtype=torch.float64), atol=1e-5, rtol=0)
    cosine = (centers @ centers.T / 100).fill_diagonal_(-1).max()
    assert math.degrees(math.acos(cosine.item())) == pytest.approx(degrees, abs=1e-3)


def test_center_distance() -> None:
    z, centers = torch.tensor([[3.0, 4.0]]), torch.zeros(2, 2)
    assert losses.center_distance(z, torch.tensor([1]), centers).tolist() == [12.5]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f, y: isce_loss(f, y, s=0.9), ValueError, "s must be at least 1"),
        (lambda f, y: isce_loss(f, y, m=-0.1), ValueError, "m must be at least 0"),
        (lambda f, y: isce_loss(f, y, s=math.nan), ValueError, "s must be at least 1"),
        (lambda f, y: isce_loss(f, y, m=math.nan), ValueError, "m must be at least 0"),
        (lambda f, y: isce_loss(f, y[:-1]), ValueError, "want logits"),
        (lambda f, y: isce_loss(f, y.double()), TypeError, "int64"),
        (lambda f, y: isce_loss(f, y + 1), ValueError, "0..9"),
        (lambda f, y: isce_loss(f, y - 1), ValueError, "0..9"),
        (lambda f, y: ISCELoss(s=0.5), ValueError, "s must be at least 1"),
        # as nn.CrossEntropyLoss takes its weight
        (lambda f, y: ISCELoss(torch.ones(10)), TypeError, r"s must be a number, got a tensor of shape \(10,\)"),
        (lambda f, y: ISCELoss(s="1.0"), TypeError, "s must be a number, got '1.0'"),
        (lambda f, y: ISCELoss(m=None), TypeError, "m must be a number, got None"),
        (lambda f, y: isce_loss(f, y, m=False), TypeError, "m must be a number, got False"),
        (lambda f, y: isce_loss(f, y.tolist()), TypeError, "target must be a tensor, got list"),
        (lambda f, y: ISCELoss(reduction="average"), ValueError, "reduction must be"),
        (lambda f, y: losses.max_mahalanobis_centers(10, 1), ValueError, "2 dimensions"),
    ],
)
def test_bad_input(call, error, words, f, y) -> None:  # type: ignore[no-untyped-def]
    y = torch.arange(N) % K
    with pytest.raises(error, match=words) as caught:
        call(f, y)
    assert "\n" not in str(caught.value)


def test_the_loss_compiles_into_one_graph() -> None:
    """No look at the values breaks it, as it would halt a GPU in every step; on a CPU bad targets are still named."""
    logits, target = torch.randn(4, 10), torch.arange(4)
    explained = torch._dynamo.explain(losses.isce_loss)(logits, target)
    assert explained.graph_break_count == 0
    with pytest.raises(ValueError, match="target must lie in 0..9"):
        losses.isce_loss(logits, target + 8)


def test_logits_that_are_all_zero_have_a_gradient_of_ordinary_size() -> None:
    """A last layer that starts at zero must learn, not explode."""
    f = torch.zeros(2, 10, requires_grad=True)
    loss = ISCELoss()(f, torch.tensor([0, 3]))
    loss.backward()
    assert loss.isfinite()
    assert f.grad is not None
    assert 0 < float(f.grad.abs().max()) < 1
