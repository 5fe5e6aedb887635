"""Evaluation: rows that say what happened to each image, judged by the model's own decisions."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from isce import as_coded, attacks, checks, data, evaluate, evaluations
from isce.evaluations import Evaluation
from isce.models import Classifier, build_model
from isce.train import Spec

SPEC = Spec("digits", "lenet5", "isce")
N = 40


@pytest.fixture(scope="module")
def split() -> data.Split:
    return data.subset(data.load("digits").test, N)


@pytest.fixture(scope="module")
def frame(digits_isce: Classifier, split: data.Split) -> pd.DataFrame:
    requests = {"clean": [0.0], "pgd_un_10": [0.5, 1.0], "pgd_tar_10": [1.0], "deepfool_50": [0.3, 1.0], "simba": [0.1]}
    return evaluate.evaluate(digits_isce, split, requests | {"deepfool_50@raw": [1.0]}, queries=60)


def test_a_row_per_image_attack_and_level(frame: pd.DataFrame, split: data.Split) -> None:
    sizes = frame.groupby(["attack", "level"]).size()
    assert len(sizes) == 8
    assert set(sizes) == {N}
    assert (frame["label"].to_numpy().reshape(-1, N) == split.labels.numpy()).all()
    assert (frame["correct"] == (frame["adversarial"] == frame["label"])).all()


def test_rows_agree_with_the_attack_itself(frame: pd.DataFrame, digits_isce: Classifier, split: data.Split) -> None:
    x = data.to_float(split.images)
    adversarial = attacks.pgd(
        digits_isce, x, split.labels, eps=1.0, steps=10, generator=torch.Generator().manual_seed(0), batch_size=256
    )
    rows = frame.query("attack == 'pgd_un_10' and level == 1.0")
    assert (rows["adversarial"].to_numpy() == digits_isce(adversarial).argmax(1).numpy()).all()
    np.testing.assert_allclose(rows["norm"], (adversarial - x).flatten(1).norm(dim=1), atol=1e-6)


def test_perturbations_stay_within_their_level(frame: pd.DataFrame) -> None:
    bounded = frame[~frame["attack"].isin(["simba"])]
    assert (bounded["norm"] <= bounded["level"] + 1e-5).all()
    assert (frame.loc[frame["attack"] == "clean", "norm"] == 0).all()
    wrong = frame[frame["clean"] != frame["label"]]
    assert (wrong["norm"] < 1e-6).all()  # images already misclassified are left alone


def test_deepfool_is_scaled_back_and_keeps_its_smallest_norms(frame: pd.DataFrame) -> None:
    small, large = (frame.query(f"attack == 'deepfool_50' and level == {level}") for level in (0.3, 1.0))
    assert (small["minimal"].to_numpy() == large["minimal"].to_numpy()).all()
    for rows, level in ((small, 0.3), (large, 1.0)):
        reached = rows[rows["minimal"].to_numpy() <= level]
        assert not reached["correct"].any()
        np.testing.assert_allclose(rows["norm"], np.minimum(rows["minimal"], level), atol=1e-5)
    norms = evaluations.minimal_norms(large)
    assert (norms[(large["clean"] != large["label"]).to_numpy()] == 0).all()


def test_simba_counts_queries(frame: pd.DataFrame) -> None:
    rows = frame.query("attack == 'simba'")
    assert rows["queries"].between(1, 60).all()
    assert (rows.loc[rows["correct"], "queries"] == 60).all()
    assert frame.loc[frame["attack"] != "simba", "queries"].isna().all()


def test_the_artefact_of_normalised_logits(frame: pd.DataFrame) -> None:
    """DeepFool's linearisation of normalised logits finds larger perturbations than that of the raw ones: same decisions."""
    median = {
        name: frame.query(f"attack == '{name}' and level == 1.0")["minimal"].median()
        for name in ("deepfool_50", "deepfool_50@raw")
    }
    assert median["deepfool_50"] > 1.1 * median["deepfool_50@raw"]


@pytest.mark.parametrize("method", ["isce", "sce", "mmc", "lgm", "arcface", "random"])
@pytest.mark.parametrize("surface", ["raw", "x20", "inference", "eot20", "transfer"])
def test_surfaces(method: str, surface: str, digits_sce: Classifier, split: data.Split) -> None:
    model = build_model("digits", "lenet5", method, **({"s": 1.5, "m": 0.2} if method == "isce" else {})).eval()
    if surface == "inference" and method != "isce":
        with pytest.raises(ValueError, match="surface 'inference' is I-SCE's"):
            evaluate.surface_of(model, surface)
        return
    x = data.to_float(split.images)
    seen = evaluate.surface_of(model, surface, digits_sce)
    if surface != "transfer" and method != "random":
        assert torch.equal(seen(x).argmax(1), model(x).argmax(1))
        if surface == "raw":
            assert torch.equal(seen(x), model.raw_logits(x))
        if surface == "x20":
            torch.testing.assert_close(seen(x), 20 * model(x))
    if surface == "eot20":
        assert isinstance(seen, attacks.Expectation)
        assert (seen.model, seen.samples) == (model, 20)
    if surface == "inference":
        torch.testing.assert_close(seen(x).amax(1), 1.5 * model(x).amax(1) + 0.2)
    frame = evaluate.evaluate(model, split, {f"pgd_un_10@{surface}": [0.5]}, surrogate=digits_sce)
    assert len(frame) == N


def test_transferred_points_go_to_the_edge(digits_isce: Classifier, digits_sce: Classifier, split: data.Split) -> None:
    """What just misleads the surrogate mostly falls short of another model's boundary: all steps are taken, by images that the
    surrogate has wrong as well."""
    rows = evaluate.evaluate(digits_isce, split, {"pgd_un_10@transfer": [0.7]}, surrogate=digits_sce)
    assert rows["norm"].max() <= 0.7 + 1e-5
    assert rows["norm"].min() > 0.5, "clipping to [0, 1] alone makes one shorter"
    x, y = data.to_float(split.images), split.labels
    assert (digits_sce(x).argmax(1) != y).any()
    walked, stopped = (
        digits_isce(evaluate.to_the_edge(attacks.pgd(digits_sce, x, y, eps=0.7, steps=10, early_stop=stop), x, 0.7))
        for stop in (False, True)
    )
    assert rows["correct"].sum() == (walked.argmax(1) == y).sum()
    assert rows["correct"].sum() < (stopped.argmax(1) == y).sum()


def test_a_minimal_attack_by_transfer_is_judged_by_the_model(
    digits_isce: Classifier, digits_sce: Classifier, split: data.Split
) -> None:
    """Its points are moved on to each radius too; the surrogate's smallest norms say nothing of the model."""
    rows = evaluate.evaluate(digits_isce, split, {"deepfool_50@transfer": [0.7, 4.0]}, surrogate=digits_sce)
    assert rows["minimal"].isna().all()
    for level, part in rows.groupby("level"):
        assert (part.loc[part["norm"] > 0, "norm"] > 0.6 * level).mean() > 0.9  # type: ignore[operator]
    assert rows.query("level == 4.0")["correct"].mean() < 0.3
    assert "minimal" not in evaluations.summarize(rows)


def test_a_surrogate_in_training_mode_is_judged_in_eval_mode_and_left_as_it_was(
    digits_isce: Classifier, split: data.Split
) -> None:
    surrogate = build_model("digits", "resnet32", "sce").train()
    before = copy.deepcopy(surrogate.state_dict())
    rows = [
        evaluate.evaluate(digits_isce, split, {"deepfool_10@transfer": [0.5]}, surrogate=surrogate.train(mode))
        for mode in (True, False)
    ]
    pd.testing.assert_frame_equal(*rows)
    assert all(torch.equal(value, before[key]) for key, value in surrogate.state_dict().items())


def test_transfer_needs_a_surrogate(digits_isce: Classifier, split: data.Split) -> None:
    with pytest.raises(ValueError, match="needs a surrogate"):
        evaluate.evaluate(digits_isce, split, {"pgd_un_10@transfer": [0.5]})


def test_a_random_model_is_evaluated_reproducibly(split: data.Split, digits_sce: Classifier) -> None:
    model = build_model("digits", "lenet5", "random").eval()
    model.load_state_dict(digits_sce.state_dict())
    state = torch.get_rng_state()
    first, second = (evaluate.evaluate(model, split, {"pgd_un_10": [0.5]}) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_images_levels_and_shapes_as_they_come(split: data.Split) -> None:
    x = data.to_float(split.images).flatten(1).requires_grad_()
    net = torch.nn.Linear(x.shape[1], 10)
    rows = evaluate.evaluate(net, data.Split(x, split.labels), {"deepfool_10": np.array([0.5, 1.0])})  # type: ignore[dict-item]
    assert rows.groupby("level").size().to_dict() == {0.5: N, 1.0: N}
    with pytest.raises(ValueError, match="every level once"):
        Evaluation(SPEC, "fgsm", (1.0, 1.0))


def test_no_more_images_at_a_time_than_asked_for(digits_isce: Classifier, split: data.Split) -> None:
    seen: list[int] = []
    hook = digits_isce.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    try:
        evaluate.evaluate(digits_isce, split, {"fgsm": [0.5], "deepfool_10": [0.5]}, batch_size=7)
    finally:
        hook.remove()
    assert max(seen) == 7
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate.evaluate(digits_isce, split, {"fgsm": [0.5]}, batch_size=0)


def test_labels_that_the_model_has_not(digits_isce: Classifier, split: data.Split) -> None:
    wrong = data.Split(split.images, split.labels + 100)
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 9, got 10\d \.\. 10\d"):
        evaluate.evaluate(digits_isce, wrong, {"clean": [0.0]})
    for attack in (as_coded.attack, as_coded.deepfool):
        with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 9"):
            attack(digits_isce, data.to_float(split.images), wrong.labels, eps=0.1, steps=1)


def test_groups_and_attacks_of_ones_own(
    digits_isce: Classifier, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = evaluate.evaluate(digits_isce, split, {"deepfool@raw": [0.5], "clean": [0.0]})
    assert rows["attack"].unique().tolist() == ["deepfool_10@raw", "deepfool_50@raw", "clean"]
    with pytest.raises(ValueError, match="pgd_un_10 is asked for twice: give all its levels at once"):
        evaluate.evaluate(digits_isce, split, {"pgd_un_10": [2.0], "pgd": [1.0]})
    for name in ("", " ,"):
        with pytest.raises(ValueError, match="unknown attack"):
            evaluate.evaluate(digits_isce, split, {"fgsm": [0.5], name: [1.0]})

    def mine(model, images, labels, *, eps, norm, generator, batch_size):  # type: ignore[no-untyped-def]
        return attacks.fgsm(model, images, labels, eps=eps, norm=norm, generator=generator, batch_size=batch_size)

    monkeypatch.setitem(evaluate.ATTACKS, "pgd_mine", evaluate.Attack("mine", mine))  # whatever it is called
    own, known = (evaluate.evaluate(digits_isce, split, {name: [0.5]}) for name in ("pgd_mine", "fgsm"))
    assert own["correct"].equals(known["correct"])


def test_another_gpu_s_generator_is_left_alone(
    digits_isce: Classifier, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda _: pytest.fail("every GPU is seeded"))
    evaluate.evaluate(digits_isce, split, {"fgsm": [0.5]})
    evaluate.output_means(digits_isce, split)


def test_another_seed_starts_elsewhere(digits_isce: Classifier, split: data.Split) -> None:
    a, b = (evaluate.evaluate(digits_isce, split, {"pgd_un_10": [0.3]}, seed=seed)["norm"] for seed in (0, 1))
    assert not np.array_equal(a, b)


def test_output_means(digits_isce: Classifier, split: data.Split) -> None:
    with torch.no_grad():
        f = digits_isce(data.to_float(split.images)).double()
    own = f[torch.arange(N), split.labels]
    means = evaluate.output_means(digits_isce, split)
    assert means["label_output"] == pytest.approx(float(own.mean()))
    assert means["others_exp_sum"] == pytest.approx(float((f.exp().sum(1) - own.exp()).mean()))


REGISTRY = {
    "fgsm": (attacks.fgsm, {}),
    "pgd_tar_10": (attacks.pgd, {"steps": 10, "targeted": True}),
    "pgd_un_10": (attacks.pgd, {"steps": 10}),
    "pgd_tar_50": (attacks.pgd, {"steps": 50, "targeted": True}),
    "pgd_un_50": (attacks.pgd, {"steps": 50}),
    "pgd_un_100": (attacks.pgd, {"steps": 100}),
    "pgd_un_50x5": (attacks.pgd, {"steps": 50, "restarts": 5}),
    "pgd_margin_50": (attacks.pgd, {"steps": 50, "objective": "margin"}),
    "pgd_dlr_50": (attacks.pgd, {"steps": 50, "objective": "dlr"}),
    "pgd_mmc_50": (attacks.pgd, {"steps": 50, "objective": "mmc"}),
    "simba": (attacks.simba, {"basis": "pixel", "return_queries": True}),
    "simba_dct": (attacks.simba, {"basis": "dct", "return_queries": True}),
    "apgd_ce": (attacks.apgd, {"objective": "ce"}),
    "apgd_dlr": (attacks.apgd, {"objective": "dlr"}),
    "apgd_t": (attacks.apgd_targeted, {}),
    "fab": (attacks.fab, {}),
    "square": (attacks.square, {}),
    "autoattack": (attacks.autoattack, {}),
}


def test_every_name_runs_the_attack_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hash holds what a name stands for."""
    wrapped = {"deepfool_10", "deepfool_50", "as_coded_5", "as_coded_50", "as_coded_df_10", "as_coded_df_50"}
    assert {"clean", *wrapped, *REGISTRY} == {*evaluate.ATTACKS}
    for name, wanted in REGISTRY.items():
        run = evaluate.ATTACKS[name].run
        assert (getattr(run, "func", run), getattr(run, "keywords", {})) == wanted, name
    monkeypatch.setattr(evaluate, "attacks", seen := MagicMock())
    for steps in (10, 50):  # those of arm A: tests/test_as_coded.py
        evaluate.ATTACKS[f"deepfool_{steps}"].run("model", "images", "labels", generator=None)
        seen.deepfool.assert_called_with("model", "images", "labels", steps=steps)


def test_parse_and_labels() -> None:
    assert evaluate.parse("pgd") == ["pgd_tar_10", "pgd_un_10", "pgd_tar_50", "pgd_un_50"]
    assert evaluate.parse("deepfool@raw, clean,clean") == ["deepfool_10@raw", "deepfool_50@raw", "clean"]
    assert evaluate.label("deepfool_50@raw") == "DF 50 on raw"
    with pytest.raises(ValueError, match="unknown attack 'deepfol_50' .*deepfool_50"):
        evaluate.parse("deepfol_50")
    with pytest.raises(ValueError, match="unknown surface 'rw'"):
        evaluate.parse("deepfool_50@rw")
    with pytest.raises(ValueError, match="unknown surface 'outputs'"):  # what every attack sees that names none
        evaluate.parse("deepfool_50@outputs")
    with pytest.raises(ValueError, match="clean@raw: clean images are judged by the model's decisions"):
        evaluate.parse("clean@raw")


@pytest.mark.parametrize("level", [0.0, -1.0, float("nan")])
def test_bad_levels(digits_isce: Classifier, split: data.Split, level: float, tmp_path: Path) -> None:
    for attack in ("pgd_un_10", "deepfool_10", "simba"):
        with pytest.raises(ValueError, match="every level must be finite and > 0"):
            evaluate.evaluate(digits_isce, split, {attack: [level]})


def test_bad_requests(digits_isce: Classifier, split: data.Split) -> None:
    for requests in ({}, ["pgd_un_50"]):
        with pytest.raises(ValueError, match="want attacks with their levels, such as"):
            evaluate.evaluate(digits_isce, split, requests)  # type: ignore[arg-type]
    for level in ("0.5", torch.tensor(0.5), True):
        with pytest.raises(TypeError, match="every level must be a number"):
            evaluate.evaluate(digits_isce, split, {"pgd_un_10": [level]})  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"want isce.data.Split\(images, labels\), got tuple"):
        evaluate.evaluate(digits_isce, (split.images, split.labels), {"clean": [0.0]})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed must be a whole number, got 1.5"):
        evaluate.evaluate(digits_isce, split, {"clean": [0.0]}, seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown norm 'l1'"):
        evaluate.evaluate(digits_isce, split, {"clean": [0.0]}, norm="l1")
    for dtype in (torch.int64, torch.bool):  # 255 is white in uint8 alone
        with pytest.raises(TypeError, match=f"images must be a float tensor in .*, got {dtype}"):
            evaluate.evaluate(digits_isce, data.Split(split.images.to(dtype), split.labels), {"clean": [0.0]})
    with pytest.raises(TypeError, match=r"want a list of levels, such as \[0.5\]"):
        evaluate.evaluate(digits_isce, split, {"pgd_un_10": 0.5})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        evaluate.evaluate(digits_isce, data.Split(split.images.float(), split.labels), {"clean": [0.0]})


class Returns:
    """An attack of one's own that returns `f(images)`."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        self.f = f

    def __call__(self, model: torch.nn.Module, images: Tensor, labels: Tensor, **_: Any) -> Any:
        return self.f(images)


@pytest.mark.parametrize(
    ("f", "error", "words"),
    [
        (lambda x: x * float("nan"), ValueError, "Mine returned numbers that are not finite"),
        (lambda x: x + 3, ValueError, r"Mine must return images in \[0, 1\], got 3 to 4"),
        (lambda x: 1 - x, ValueError, "Mine went .* far in l2, out of its ball of radius 0.3"),
        (
            lambda x: x[:3],
            TypeError,
            r"Mine must return images, \(40, 1, 8, 8\) of torch.float32 on cpu, got \(3, 1, 8, 8\)",
        ),
        (lambda x: x.double(), TypeError, "of torch.float64"),
        (lambda x: x.numpy(), TypeError, "got ndarray"),
        (lambda x: None, TypeError, "got NoneType"),
        (lambda x: x.to("meta"), TypeError, "on cpu, got .* on meta"),
    ],
)
def test_what_an_attack_of_ones_own_returns_is_looked_at(
    f: Callable[[Tensor], Any],
    error: type[Exception],
    words: str,
    digits_isce: Classifier,
    split: data.Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else points that prove nothing would count as successes."""
    monkeypatch.setitem(evaluate.ATTACKS, "mine", evaluate.Attack("Mine", Returns(f)))
    with pytest.raises(error, match=words):
        evaluate.evaluate(digits_isce, split, {"mine": [0.3]})


def test_a_black_box_attack_says_how_many_queries_it_took(
    digits_isce: Classifier, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluate.ATTACKS, "mine", evaluate.Attack("Mine", Returns(lambda x: x), "queries"))
    with pytest.raises(TypeError, match="Mine must return images and how many queries each took, got Tensor"):
        evaluate.evaluate(digits_isce, split, {"mine": [0.3]})


def test_an_attack_that_works_in_place_spoils_nothing(
    digits_isce: Classifier, split: data.Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluate.ATTACKS, "mine", evaluate.Attack("Mine", Returns(lambda x: x.mul_(0.99))))
    own = data.Split(data.to_float(split.images), split.labels)
    given = own.images.clone()
    rows = evaluate.evaluate(digits_isce, own, {"mine": [0.3]})
    assert torch.equal(own.images, given)
    assert rows["norm"].min() > 0


def test_an_attack_s_kind_is_one_of_those_known() -> None:
    with pytest.raises(ValueError, match="unknown kind of attack 'minmal'.*minimal"):
        evaluate.Attack("Mine", attacks.fgsm, "minmal")


def test_raw_logits_must_decide_as_the_model_does(digits_isce: Classifier, split: data.Split) -> None:
    """Features in their place, or their opposite, would make it look robust."""

    class Wrong(torch.nn.Module):
        def __init__(self, raw: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.raw_logits = raw

        def forward(self, x: Tensor) -> Tensor:
            return digits_isce(x)

    for raw, words in (
        (lambda x: -digits_isce.raw_logits(x), "and the model disagree on 40 of 40 images"),
        (lambda x: 1e4 - digits_isce.raw_logits(x), "and the model disagree on 40 of 40 images"),
        (digits_isce.features, r"must be scores of the same classes, \(40, 10\), got \(40, 84\)"),
    ):
        with pytest.raises(ValueError, match=words):
            evaluate.evaluate(Wrong(raw), split, {"fgsm@raw": [0.3]})
        images = data.to_float(split.images)
        with pytest.raises(ValueError, match=words):
            checks.run_checks(Wrong(raw), images, digits_isce(images).argmax(1), eps=0.3, only="deepfool")
    random = build_model("digits", "lenet5", "random").eval()  # its draws are the same in both passes
    assert len(evaluate.evaluate(random, split, {"fgsm@raw": [0.3]})) == N


def test_what_pgd_and_simba_see_of_the_inference_softmax(digits_isce: Classifier, split: data.Split) -> None:
    """At s = 1 a constant on the logit that is the argmax: the same steps, until the decision changes."""
    levels = {"pgd_un_10": [0.5], "pgd_un_10@inference": [0.5], "simba": [0.1], "simba@inference": [0.1]}
    rows = evaluate.evaluate(digits_isce, split, levels, queries=60)
    for attack in ("pgd_un_10", "simba"):
        outputs, inference = (rows[rows["attack"] == name] for name in (attack, f"{attack}@inference"))
        assert outputs["correct"].tolist() == inference["correct"].tolist()
        assert outputs["norm"].to_numpy() == pytest.approx(inference["norm"].to_numpy(), abs=1e-4)
    assert not rows["correct"].all()


def test_linf(digits_isce: Classifier, split: data.Split) -> None:
    levels = {"fgsm": [0.05], "pgd_un_10": [0.05, 0.1], "deepfool_50": [0.05], "apgd_ce": [0.1], "simba": [0.1]}
    rows = evaluate.evaluate(digits_isce, split, levels, queries=30, norm="linf")
    for (attack, level), cell in rows.groupby(["attack", "level"]):
        assert cell["norm"].max() <= level + 1e-6, attack
    own = attacks.pgd(
        digits_isce,
        data.to_float(split.images),
        split.labels,
        eps=0.1,
        steps=10,
        norm="linf",
        generator=torch.Generator().manual_seed(0),
    )
    right = evaluate.predict(digits_isce, own) == split.labels
    asked = rows[(rows["attack"] == "pgd_un_10") & (rows["level"] == 0.1)]
    assert asked["correct"].tolist() == right.tolist()
    assert 0 < right.sum() < N
    found = rows[rows["attack"] == "deepfool_50"]["minimal"].dropna()
    assert found.max() < 1 < evaluate.evaluate(digits_isce, split, {"deepfool_50": [0.5]})["minimal"].max()


def test_float_images_of_ones_own_are_taken_as_they_are(digits_isce: Classifier, split: data.Split) -> None:
    own = data.Split(data.to_float(split.images), split.labels)
    digits_isce.train()  # judged in eval mode all the same, and left as it was
    found = [evaluate.evaluate(digits_isce, given, {"clean": [0.0], "pgd_un_10": [0.5]}) for given in (own, split)]
    assert digits_isce.training
    digits_isce.eval()
    pd.testing.assert_frame_equal(*found)


def test_a_model_that_breaks_down_is_not_right() -> None:
    class Fragile(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x[:, :1] > 0.5, torch.nan, torch.tensor([1.0, 0.0]))

    assert evaluate.predict(Fragile(), torch.tensor([[0.0], [1.0]])).tolist() == [0, -1]  # an argmax would say 0
