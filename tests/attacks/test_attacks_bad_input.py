"""Wrong use ends in one clear line."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import isce
from isce import attacks
from isce.data import Split
from isce.evaluate import evaluate

X = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3])


class Fixed(nn.Module):
    """Always returns `output(n)`."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x):
        return self.output(len(x)) + 0 * x.sum()


def model(classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, classes))


CALLS = {
    "fgsm": lambda m=None, x=X, y=Y, **k: attacks.fgsm(m or model(), x, y, **{"eps": 0.1, **k}),
    "pgd": lambda m=None, x=X, y=Y, **k: attacks.pgd(m or model(), x, y, **{"eps": 0.1, "steps": 2, **k}),
    "apgd": lambda m=None, x=X, y=Y, **k: attacks.apgd(m or model(), x, y, **{"eps": 0.1, "steps": 2, **k}),
    "apgd_targeted": lambda m=None, x=X, y=Y, **k: attacks.apgd_targeted(m or model(), x, y, **{"eps": 0.1, "steps": 2, **k}),
    "deepfool": lambda m=None, x=X, y=Y, **k: attacks.deepfool(m or model(), x, y, **{"steps": 2, **k}),
    "fab": lambda m=None, x=X, y=Y, **k: attacks.fab(m or model(), x, y, **{"steps": 2, **k}),
    "simba": lambda m=None, x=X, y=Y, **k: attacks.simba(m or model(), x, y, **{"queries": 5, **k}),
    "square": lambda m=None, x=X, y=Y, **k: attacks.square(m or model(), x, y, **{"eps": 0.1, "queries": 5, **k}),
    "autoattack": lambda m=None, x=X, y=Y, **k: attacks.autoattack(m or model(), x, y, **{"eps": 0.1, "steps": 2, "queries": 2, **k}),
}  # fmt: skip
every = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@every
@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"x": X * 255}, ValueError, "in \\[0, 1\\]"),
        ({"x": X - 0.5}, ValueError, "in \\[0, 1\\]"),
        ({"x": X * float("nan")}, ValueError, "finite"),
        ({"x": X[:, :, :0]}, ValueError, r"images have no pixels, got shape \(4, 1, 0, 6\)"),
        ({"x": (X * 255).byte()}, TypeError, "images.float\\(\\) / 255"),
        ({"x": X.numpy()}, TypeError, "float tensor"),
        ({"x": X.half()}, TypeError, "float32 or float64, got torch.float16"),
        ({"x": X.bfloat16()}, TypeError, "let the model cast"),
        ({"x": X.flatten()[:4]}, ValueError, "batch"),
        ({"y": Y[:3]}, ValueError, "one per image"),
        ({"y": Y.float()}, TypeError, "integer tensor"),
        ({"y": [0, 1, 2, 3]}, TypeError, "integer tensor"),
        ({"y": Y + 1}, ValueError, "0 .. 3"),
        ({"y": Y - 1}, ValueError, "0 .. 3"),
        ({"m": lambda x: x}, TypeError, "nn.Module"),
        ({"m": nn.Identity()}, ValueError, "shape \\(4, K\\)"),
        ({"m": Fixed(lambda n: torch.zeros(n))}, ValueError, "shape"),
        ({"m": Fixed(lambda n: torch.zeros(n, 1))}, ValueError, "one class"),
        ({"m": Fixed(lambda n: torch.full((n, 4), float("nan")))}, ValueError, "NaN or infinite logits"),
        ({"m": Fixed(lambda n: torch.full((n, 4), float("inf")))}, ValueError, "NaN or infinite logits"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 2.0}, TypeError, "batch_size"),
    ],
)
def test_common_errors(call, given, error, says):
    with pytest.raises(error, match=says) as caught:
        call(**given)
    assert "\n" not in str(caught.value)


@every
def test_probabilities_are_reported(call):
    with pytest.warns(UserWarning, match="probabilities") as told:
        call(nn.Sequential(model(), nn.Softmax(1)))
    assert [warning.filename for warning in told] == [__file__]  # once, and at the caller's line


def test_pixels_that_rounding_left_outside():
    over = X.clone()
    over[0, 0, 0, 0] = 1 + 2e-7
    with pytest.raises(ValueError, match=r"got 0.0\d+ to 1.00000024: images.clamp\(0, 1\)"):
        CALLS["pgd"](x=over)
    with pytest.raises(ValueError, match="got .* to 2.*: images / 255"):
        attacks.fgsm(model(), 255 * X, Y, eps=0.1)
    with pytest.raises(ValueError, match="move normalisation into the model"):
        CALLS["pgd"](x=3 * X)
    with pytest.raises(ValueError, match="1 of their numbers are not finite"):
        CALLS["pgd"](x=torch.where(over > 1, torch.inf, over))


@every
def test_norms_and_names(call, request):
    name = request.node.callspec.id
    if name != "simba":
        with pytest.raises(ValueError, match="unknown norm 'l1': choose"):
            call(norm="l1")
    if name in ("fgsm", "pgd", "apgd", "apgd_targeted"):
        with pytest.raises(ValueError, match="unknown objective"):
            call(objective="cw2")
    for option in ("steps", "queries", "restarts", "n_targets", "num_classes"):
        if option in {"fgsm": (), "pgd": ("steps", "restarts"), "apgd": ("steps", "restarts"), "simba": ("queries",),
                      "apgd_targeted": ("steps", "restarts", "n_targets"), "deepfool": ("steps", "num_classes"),
                      "fab": ("steps", "restarts", "n_targets"), "square": ("queries",),
                      "autoattack": ("steps", "queries")}[name]:  # fmt: skip
            for value, error in ((0, ValueError), (-3, ValueError), (1.5, TypeError), (True, TypeError)):
                with pytest.raises(error, match=option):
                    call(**{option: value})


@pytest.mark.parametrize("eps", [0, -1.0, float("nan"), float("inf"), 1e20, "0.1", True])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "apgd_targeted", "square", "fab", "simba", "autoattack"])
def test_eps(name, eps):
    with pytest.raises((ValueError, TypeError), match="eps"):
        CALLS[name](eps=eps)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "simba"])
def test_targets(name):
    call = CALLS[name]
    with pytest.raises(ValueError, match="targets equal the label"):
        call(targeted=True, targets=torch.tensor([1, 1, 0, 0]))
    with pytest.raises(ValueError, match="targeted=True"):
        call(targets=(Y + 1) % 4)
    with pytest.raises(ValueError, match=r"0 \.\. 3"):
        call(targeted=True, targets=Y + 1)
    with pytest.raises(TypeError, match="targets must be an integer tensor"):
        call(targeted=True, targets=Y / 2)
    with pytest.raises(ValueError, match="one per image"):
        call(targeted=True, targets=Y[:2])
    assert call(targeted=True).shape == X.shape


def test_single_attacks():
    with pytest.raises(ValueError, match="unknown basis"):
        CALLS["simba"](basis="wavelet")
    with pytest.raises(ValueError, match="freq_dims"):
        CALLS["simba"](freq_dims=3)
    flat = nn.Linear(36, 4), X.flatten(1)
    for call in (
        lambda: CALLS["simba"](*flat, basis="dct"),
        lambda: CALLS["square"](*flat),
        lambda: CALLS["autoattack"](*flat),
    ):
        with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
            call()
    with pytest.raises(ValueError, match="overshoot"):
        CALLS["deepfool"](overshoot=-0.1)
    with pytest.raises(ValueError, match="num_classes"):
        CALLS["deepfool"](num_classes=1)
    with pytest.raises(ValueError, match="beta"):
        CALLS["fab"](beta=1.0)
    with pytest.raises(ValueError, match="p_init"):
        CALLS["square"](p_init=1.5)
    with pytest.raises(ValueError, match="unknown attack"):
        CALLS["autoattack"](attacks=("apgd-cw",))
    outside = model()  # no part of the wrapper: its parameters are not known to it, and have gradients
    wrapper = model()
    wrapper.forward = lambda x: outside(x.detach())
    for name in ("fgsm", "pgd", "apgd", "apgd_targeted", "deepfool", "fab"):
        for net in (Detached(), wrapper):
            with pytest.raises(ValueError, match="no gradient: attack it with simba or square"):
                CALLS[name](net)


class Detached(nn.Module):
    def forward(self, x):
        return torch.eye(4)[: len(x)] * 5


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes):
    y = model(classes)(X).argmax(1)
    for name, call in CALLS.items():
        if name != "apgd_targeted":
            assert call(model(classes), X, y).shape == X.shape
    out = attacks.autoattack(model(classes), X, y, eps=3.0, steps=10, queries=20)
    assert (model(classes)(out).argmax(1) != y).all()
    with pytest.raises(ValueError, match="use 'margin'"):
        CALLS["apgd_targeted"](model(classes), X, y)
    with pytest.raises(ValueError, match="use objective='margin'") if classes == 2 else nullcontext():
        CALLS["apgd"](model(classes), X, y, objective="dlr")


@every
def test_images_that_are_all_wrong_come_back_unchanged(call):
    net = model()
    wrong = (net(X).argmax(1) + 1) % 4
    for some in (slice(0, 1), slice(0, 4)):
        assert torch.equal(call(net, X[some], wrong[some]), X[some])


def test_fab_may_fell_every_image_before_its_restarts():
    net = model()
    y = net(X).argmax(1)
    for norm in ("l2", "linf"):
        found = attacks.fab(net, X, y, eps=2.0, steps=10, restarts=3, norm=norm)
        assert (net(found).argmax(1) != y).all()


def test_a_gradient_of_zero_moves_no_image():
    flat = Fixed(lambda n: torch.tensor([1e4, 0.0, -1e4, 0.0]).repeat(n, 1))
    for attack in (attacks.deepfool, partial(attacks.pgd, eps=1.0, random_start=False), partial(attacks.fgsm, eps=1.0)):
        assert torch.equal(attack(flat, X, torch.zeros_like(Y)), X)
    found = attacks.pgd(flat, X, torch.zeros_like(Y), eps=1.0)  # from a random start
    assert found.isfinite().all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_logits_that_are_all_zero_have_a_direction():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 4, bias=False))
    nn.init.normal_(flat[1].weight, std=5)
    for objective in ("margin", "dlr"):
        found = attacks.fgsm(flat, 0 * X, 0 * Y, eps=1.0, objective=objective)
        assert (flat(found).argmax(1) != 0).all()


def test_nan_gradients_leave_the_image():
    class Rooted(nn.Module):
        def forward(self, x):
            return torch.stack([2 + (x - x.detach()).sum((1, 2, 3)).sqrt(), *torch.zeros(3, len(x))], 1)

    with pytest.warns(UserWarning, match="NaN for 4 of 4 images: these are returned unchanged and show no robustness"):
        found = attacks.fgsm(Rooted(), X, torch.zeros_like(Y), eps=0.5)
    assert torch.equal(found, X)


class LostToNaN(nn.Module):
    """Its gradient is NaN everywhere, its logits are those of `net`."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + (x - x.detach()).sum((1, 2, 3)).sqrt()[:, None]


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "apgd_targeted", "deepfool", "fab"])
def test_nan_gradients_are_told_of_whatever_the_label(name):
    """argmax of NaN is class 0: an image of that class must not pass for robust."""
    net = model()
    y = net(X).argmax(1)
    net[1].weight.data[0], net[1].bias.data[0] = 0.0, 50.0  # class 0 for all
    for labels, at in ((torch.zeros_like(y), LostToNaN(net)), (y, LostToNaN(model()))):
        with pytest.warns(UserWarning, match="NaN for 4 of 4 images"):
            assert torch.equal(CALLS[name](at, y=labels), X)


class Breaks(nn.Module):
    """NaN logits where any pixel is not exactly that of an image of X."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        moved = (x != X[:1]).flatten(1).any(1) if len(x) == 1 else (x != X[: len(x)]).flatten(1).any(1)
        return torch.where(moved[:, None], torch.nan, self.net(x))


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd_targeted", "deepfool", "fab", "simba", "square"])
def test_a_point_where_the_model_breaks_down_is_an_adversarial_one(name):
    """Whatever the label: an argmax of NaN would be class 0, and right about images of that class."""
    net = model()
    y = net(X).argmax(1)
    net[1].weight.data[0], net[1].bias.data[0] = 0.0, 50.0  # class 0 for all
    for labels, inner in ((torch.zeros_like(y), net), (y, model())):
        found = CALLS[name](Breaks(inner), y=labels)
        assert (found != X).flatten(1).any(1).all()
        if name in ("pgd", "apgd", "apgd_targeted"):
            assert (CALLS[name](Breaks(inner), y=labels, early_stop=False) != X).flatten(1).any(1).all()
        if name == "fab":
            assert (CALLS[name](Breaks(inner), y=labels, eps=10.0) != X).flatten(1).any(1).all()


class Shifts(nn.Module):
    """Writes into what it is given."""

    def forward(self, x):
        return x.sub_(0.1).flatten(1)[:, :4]


@every
def test_a_model_that_writes_into_its_input_is_refused(call):
    given = X.clone()
    with pytest.raises(ValueError, match="changes its input in place"):
        call(Shifts(), x=given)
    assert torch.equal(given, X)


@every
@pytest.mark.parametrize(("output", "says"), [(lambda n: (torch.rand(n, 4),), "got tuple"), (torch.rand, "shape")])
def test_outputs_that_are_no_logits(call, output, says):
    class Odd(nn.Module):
        def forward(self, x):
            return output(len(x))

    with pytest.raises((TypeError, ValueError), match=says):
        call(Odd())


def test_a_path_takes_tensors_made_under_inference_mode():
    with torch.inference_mode():
        x, y = X.clone(), Y.clone()
    assert attacks.pgd_path(model(), x, y, eps=0.1, steps=2).shape == (3, 4, 4)


def test_a_model_made_under_inference_mode_says_so_and_loses_nothing():
    net = model()
    with torch.inference_mode():
        net[1].unused = nn.Linear(4, 4)
    wanted = [p.requires_grad for p in net.parameters()]
    assert attacks.pgd(net, X, Y, eps=0.1, steps=2).shape == X.shape
    with torch.inference_mode():
        made_there = model()
    assert attacks.square(made_there, X, Y, eps=0.1, queries=2).shape == X.shape
    with pytest.raises(ValueError, match=r"the model was made under torch\.inference_mode, .*: load it outside"):
        attacks.pgd(made_there, X, model()(X).argmax(1), eps=0.1, steps=2)
    assert [p.requires_grad for p in net.parameters()] == wanted


def test_a_model_of_another_dtype_says_so():
    with pytest.raises(TypeError, match=r"the model does not take images of torch\.float64, convert one of them: "):
        attacks.pgd(model(), X.double(), Y, eps=0.1)


def test_numbers_of_numpy_are_numbers_and_none_is_not():
    net = model()
    y = net(X).argmax(1)
    expected = attacks.pgd(net, X, y, eps=0.5, steps=3)
    assert torch.equal(attacks.pgd(net, X, y, eps=np.float32(0.5), steps=3), expected)
    for name in ("fgsm", "pgd", "apgd", "square", "autoattack"):
        with pytest.raises(TypeError, match="eps must be a number, got None"):
            CALLS[name](eps=None)
    assert torch.equal(
        attacks.autoattack(net, X, y, eps=0.5, queries=9, attacks="square"),
        attacks.square(net, X, y, eps=0.5, queries=9),
    )
    with pytest.raises(TypeError, match="samples must be an integer"):
        attacks.Expectation(net, 2.5)
    assert torch.equal(attacks.pgd(net, X, y, eps=0.5, steps=np.int64(3), batch_size=np.int64(4)), expected)
    assert attacks.Expectation(net, np.int64(2))(X).shape == (4, 4)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd", "apgd_targeted"])
def test_an_objective_of_ones_own(name):
    loss = nn.CrossEntropyLoss(reduction="none")
    assert CALLS[name](objective=lambda z, y, t: loss(z, y)).shape == X.shape
    with pytest.raises(ValueError, match=r"the objective returned \(\), not \(\d,\): an objective is a function"):
        CALLS[name](model(), X, model()(X).argmax(1), objective=lambda z, y, t: loss(z, y).mean())
    for objective in (loss, isce.ISCELoss(), lambda z, y: loss(z, y), torch.dot):
        with pytest.raises(TypeError, match="does not take three arguments: an objective is a function"):
            CALLS[name](objective=objective)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd"])
def test_a_targeted_objective_needs_targets(name):
    y = model()(X).argmax(1)
    for objective in ("ce_targeted", "margin_targeted"):
        with pytest.raises(ValueError, match="call the attack with targeted=True"):
            CALLS[name](y=y, objective=objective)
    seen = []
    CALLS[name](y=y, objective=lambda z, y, t: seen.append(t) or -z.gather(1, y[:, None])[:, 0])
    assert seen
    assert all(t is None for t in seen)


def test_a_seed_is_no_generator():
    for name in CALLS.keys() - {"deepfool"}:
        with pytest.raises(TypeError, match=r"got 0: try torch.Generator\(\).manual_seed\(0\)"):
            CALLS[name](generator=0)


def test_an_unknown_attack_is_told_of_without_images():
    with pytest.raises(ValueError, match="unknown attack 'nope': choose from apgd-ce"):
        attacks.autoattack(model(), X[:0], Y[:0], eps=1.0, attacks=["nope"])


def test_a_path_is_checked_like_an_attack():
    for given, error, words in (
        ({"model": Shifts()}, ValueError, "changes its input in place"),
        ({"images": X[:0], "labels": Y[:0]}, ValueError, "no images"),
        ({"labels": Y + 1}, ValueError, "0 .. 3"),
        ({"labels": Y.float()}, TypeError, "integer tensor"),
    ):
        with pytest.raises(error, match=words):
            attacks.pgd_path(**({"model": model(), "images": X, "labels": Y, "eps": 0.1, "steps": 2} | given))
    small = attacks.pgd_path(model(), X, Y.to(torch.uint8), eps=0.1, steps=2)
    assert torch.equal(small, attacks.pgd_path(model(), X, Y.to(torch.uint16), eps=0.1, steps=2))
    assert torch.equal(small, attacks.pgd_path(model(), X, Y, eps=0.1, steps=2))


def test_unsigned_labels_are_labels_in_autoattack_and_evaluate_too():
    few = {"eps": 0.1, "steps": 2, "queries": 3}
    first, *others = (attacks.autoattack(model(), X, Y.to(kind), **few) for kind in (torch.int64, torch.uint16))
    assert torch.equal(first, *others)
    first, *others = (evaluate(model(), Split(X, Y.to(kind)), {"fgsm": [0.1]}) for kind in (torch.int64, torch.uint32))
    pd.testing.assert_frame_equal(first, *others)


def test_a_model_that_writes_what_changes_nothing_is_told_so():
    """Images in [0, 1] stay as they are; a leaf that asks for its gradient must not be written to all the same."""

    class Clamps(nn.Module):
        def forward(self, x):
            return model()(x.clamp_(0, 1))

    for attack in (attacks.pgd, attacks.autoattack, attacks.fgsm):
        with pytest.raises(ValueError, match="changes its input in place"):
            attack(Clamps(), X, Y, eps=0.1)


def test_without_an_early_stop_every_image_takes_all_steps():
    net = model()
    y = net(X).argmax(1)
    stopped, walked = (attacks.pgd(net, X, y, eps=3.0, steps=30, early_stop=stop) for stop in (True, False))
    loss = nn.CrossEntropyLoss(reduction="none")
    assert (loss(net(walked), y) > loss(net(stopped), y)).all()
    assert (net(walked).argmax(1) != y).all()


class Noisy(nn.Module):
    """Decides anew in every pass: normal noise on the logits of a linear model."""

    def __init__(self, std):
        super().__init__()
        self.net, self.std = model(), std

    def forward(self, x):
        logits = self.net(x)
        return logits + self.std * torch.randn_like(logits)


@pytest.mark.parametrize("name", ["pgd", "apgd", "apgd_targeted", "autoattack"])
def test_without_an_early_stop_an_image_that_one_draw_has_wrong_is_attacked_too(name):
    """Else it comes back as it was, and the next draw may find it robust."""
    x = torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    noisy = Noisy(0.3)
    y = noisy.net(x).argmax(1)
    options = {"attacks": ("apgd-ce", "apgd-dlr")} if name == "autoattack" else {}
    unmoved = {}
    for stop in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = CALLS[name](noisy, x=x, y=y, eps=1.0, steps=10, early_stop=stop, **options)
        unmoved[stop] = int((found == x).flatten(1).all(1).sum())
    assert unmoved[True] > 10
    assert unmoved[False] == 0


def test_apgd_on_the_mean_of_a_random_model_is_no_weaker_than_pgd_on_it():
    """Both take all their steps: a first success is a lucky draw of the mean as well."""
    x = torch.rand(300, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    noisy = Noisy(0.3)
    y = noisy.net(x).argmax(1)
    left = {}
    for name, stop in (("pgd", False), ("apgd", False), ("apgd", True)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = CALLS[name](attacks.Expectation(noisy, 5), x=x, y=y, eps=0.5, steps=20, early_stop=stop)
            left[name, stop] = float(torch.stack([noisy(found).argmax(1) == y for _ in range(20)]).float().mean())
    assert left["apgd", False] < left["pgd", False] + 0.02, left
    assert left["apgd", False] < left["apgd", True] - 0.05, left


def test_fab_keeps_what_it_found_where_no_margin_is_clear():
    """Its last search goes outwards to a clear margin, and bisects back: of a model without one nothing better comes of it."""

    class Capped(nn.Module):  # the first pixel decides; the margin never exceeds rounding sixteenfold
        def forward(self, x):
            z = x.flatten(1)[:, :1] - 0.8
            return torch.cat([torch.ones_like(z), 1 + torch.where(z > 0, z.clamp_max(1e-6), z)], 1)

    x = torch.full((1, 1, 2, 2), 0.5)
    found = attacks.fab(Capped(), x, torch.tensor([0]), steps=20)
    assert Capped()(found).argmax(1) == 1
    assert float((found - x).norm()) < 0.3 * 1.06  # eta goes 5 % beyond the boundary
