"""Profiles say what is run; what they cannot mean is refused."""

import dataclasses
from pathlib import Path

import pytest

from isce import methods, paper, profiles, record
from isce.methods import METHODS

NAMES = ["cpu", "digits", "full"]


def test_networks_say_what_less_is_run() -> None:
    less = {"mnist-lenet5": {"n": 77}, "cifar10-cnn8": {"seeds": [1], "methods": "sce,norm_only", "beyond": "apgd_dlr"}}
    epochs = {"mnist": 20, "cifar10": 5, "cifar10-cnn8": 2}
    profile = dataclasses.replace(profiles.load("full"), networks=less, epochs=epochs, strongest="")
    assert profile.nets == [("mnist", "lenet5"), ("cifar10", "cnn8")]
    assert (profile.seeds_of("mnist", "lenet5"), profile.seeds_of("cifar10", "cnn8")) == ([0, 1, 2], [1])
    assert profile.only("sce,isce,controls", "cifar10", "cnn8") == ["sce", "norm_only"]
    assert profile.only("sce,isce", "mnist", "lenet5") == ["sce", "isce"]
    assert profile.only("isce", "cifar10", "cnn8") == []
    assert profile.common_attacks("cifar10", "cnn8")[-1] == "apgd_dlr"
    assert "fab" in profile.common_attacks("mnist", "lenet5")
    assert profile.spec("cifar10", "cnn8", "sce").epochs == 2
    pairs = [profile.evaluation(*net, "sce", a).n for net in profile.nets for a in ("clean", "apgd_dlr")]
    assert pairs == [10_000, 77, 10_000, profile.n]
    assert (profile.epochs_of("cifar10", "resnet32"), profile.epochs_of("digits", "lenet5")) == (5, None)


def test_costly_attacks_take_fewer_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = dataclasses.replace(profiles.load("full"), fewer={"fab": 30, "simba": 20_000})
    assert [profile.evaluation("mnist", "lenet5", "sce", a).n for a in ("fab", "simba", "clean")] == [
        30,
        10_000,
        10_000,
    ]
    less = dataclasses.replace(profile, networks={"mnist-lenet5": {"n": 20}})
    assert less.evaluation("mnist", "lenet5", "sce", "fab").n == 20
    text = (record.config_dir() / "full.yaml").read_text()
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    for wrong, says in (("fabb: 9", "fabb"), ("fab: 0", "fewer.fab: Input should be greater than or equal to 1")):
        (tmp_path / "config" / "x.yaml").write_text(text.replace("fab: 1000", wrong))
        profiles.load.cache_clear()
        with pytest.raises(ValueError, match=says):
            profiles.load("x")


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_covers_its_tables(name: str) -> None:
    profile = profiles.load(name)
    assert set(METHODS) <= set(profile.methods)
    for jobs in (profile.train_jobs, profile.attack_jobs):
        assert sorted(m for job in jobs for m in methods.parse(job)) == sorted(profile.methods)
    for number in profile.tables:
        for column in paper.TABLES[number].columns:
            evaluation = profile.evaluation(column.block, column.backbone, "isce", column.attack)
            assert len(evaluation.levels) > (column.eps_index or 0)
            assert column.attack in profile.attacks(column.block, column.backbone) or column.attack == "clean"


def test_the_paper_profile_uses_the_stated_budgets() -> None:
    full = profiles.load("full")
    assert full.simba_queries == paper.SETTINGS["simba_queries"].value
    assert full.eps == {"mnist": [1.0, 2.0], "cifar10": [0.25, 0.5]}  # ours: the paper's are lost
    assert full.simba_steps == {"mnist": [0.2, 0.4], "cifar10": [0.1, 0.2]}
    assert not full.is_stand_in
    assert profiles.load("digits").is_stand_in


def test_simba_goes_on_for_ten_times_the_paper_s_queries() -> None:
    profile = profiles.load("cpu")
    asked = profile.longer_simba("mnist", "lenet5")
    assert [(e.spec.method, e.attack) for e in asked] == [
        ("sce", "simba"),
        ("norm_only", "simba"),
        ("norm_only", "simba@raw"),
        ("isce", "simba"),
        ("isce", "simba@raw"),
    ]
    assert {(e.levels, e.n, e.queries) for e in asked} == {((0.2,), 1000, 3000)}


def test_the_ablation_may_have_its_own_epochs() -> None:
    profile = profiles.load("digits")
    plain = profile.ablation_spec("mnist", "lenet5", seed=1, s=1.5)
    assert plain == profile.spec("mnist", "lenet5", "isce", 1, options={"s": 1.5})
    assert profile.ablation_spec("mnist", "lenet5", "sce") == profile.spec("mnist", "lenet5", "sce")
    own = dataclasses.replace(profile, figures=profile.figures | {"ablation_epochs": {"digits": 3}})
    assert own.ablation_spec("cifar10", "cnn8", s=1.5).epochs == 3
    assert own.spec("cifar10", "cnn8", "isce").epochs == 15  # no other training
    other = dataclasses.replace(profile, figures=profile.figures | {"ablation_epochs": {"mnist": 3}})
    assert other.ablation_spec("mnist", "lenet5", seed=1, s=1.5) == plain


def test_figure_4_has_the_profile_s_networks_and_may_have_its_own_epochs() -> None:
    digits, full = profiles.load("digits"), profiles.load("full")
    assert [digits.embedding(block, "isce").spec.backbone for block in ("mnist", "cifar10")] == ["lenet5", "cnn8"]
    assert digits.embedding("mnist", "isce").spec.epochs == 30  # where the tables' networks have 15
    spec = full.embedding("cifar10", "sce", 1).spec
    assert spec == full.spec("cifar10", "resnet32", "sce", 1, embedding_dim=3)
    assert full.embedding("cifar10", "sce", backbone="cnn8").spec.backbone == "cnn8"
    assert full.embedding("mnist", "isce").n == 10_000
    assert digits.embedding("mnist", "isce").levels == (0.5, 1.0)


def test_bad_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (record.config_dir() / "digits.yaml").read_text()
    with pytest.raises(ValueError, match="unknown profile 'digit'.*digits"):
        profiles.load("digit")
    monkeypatch.setenv("ISCE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"no profiles in .*config: set ISCE_HOME to a checkout"):
        profiles.load("digit")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("title: mine\nseed: 1\n")
    with pytest.raises(ValueError, match=r"mine\.yaml: stand_in: Field required; .*seed: Unexpected keyword argument"):
        profiles.load("mine")
    (tmp_path / "config" / "mine.yaml").write_text("- 1")
    profiles.load.cache_clear()
    with pytest.raises(
        ValueError, match=r"mine\.yaml must hold the keys of isce\.profiles\.Profile but name, got \[1\]"
    ):
        profiles.load("mine")

    (tmp_path / "config" / "mine.yaml").write_text(text.replace("networks: {}", "networks: {mnist-lenet5: {}}"))
    assert profiles.load.__wrapped__("mine").nets == [("mnist", "lenet5")]
    eps = "mnist: [0.5, 1.0]"
    for old, new, says in (
        ("epochs: {digits:", "epochs: {digit:", r"epochs\.digit: unknown .* 'digit' \(did you mean 'digits'\?\)"),
        ("epochs: {digits: 15", "epochs: {digits: many", r"epochs\.digits: .* integer, got 'many'"),
        ("stand_in: {mnist: digits", "stand_in: {mnist: digit", r"stand_in\.mnist: unknown data set 'digit'"),
        ("networks: {}", "networks: {mnist-lenet5: }", r"networks\.mnist-lenet5: .* dictionary, got None"),
        ("networks: {}", "networks: {mnist-lenet5: 5}", r"networks\.mnist-lenet5: .* dictionary, got 5"),
        ("networks: {}", "networks: {mnist-lenet: {}}", r"unknown network in mine\.yaml 'mnist-lenet'"),
        ("networks: {}", "networks: {mnist-lenet5: {m: 1}}", r"networks\.mnist-lenet5\.m: Extra inputs"),
        ("networks: {}", "networks: {mnist-lenet5: {n: many}}", r"networks\.mnist-lenet5\.n: .* integer"),
        ("networks: {}", "networks: {mnist-lenet5: {seeds: 0}}", r"networks\.mnist-lenet5\.seeds: .* list"),
        ("networks: {}", "networks: [}", r"mine\.yaml is no YAML: "),
        ("networks: {}", "networks: null", r"networks: .* dictionary, got None"),
        ("tables: [1,", 'tables: ["1",', r"tables\.0: .* integer, got '1'"),
        ("tables: [1,", "tables: [0,", r"tables\.0: .* greater than or equal to 1, got 0"),
        ("tables: [1,", "tables: [8,", r"tables\.0: .* less than or equal to 7, got 8"),
        ("seeds: [0]", "seeds: []", r"seeds: .* at least 1 item"),
        ("seeds: [0]", "seeds: 0", r"seeds: .* list, got 0"),
        ("seeds: [0]", "seeds: [0, 0]", r"seeds: must hold each once, got \[0, 0\]"),
        ("n: 64", "n: many", r"n: .* integer, got 'many'"),
        ("n: 64", "n: 0", r"n: .* greater than or equal to 1, got 0"),
        (eps, "mnist: [1.0, 0.5]", r"eps\.mnist: must rise, got \[1.0, 0.5\]"),
        (eps, "mnist: [0.5]", r"eps\.mnist: must be two, the smaller and the larger, got \[0\.5\]"),
        (eps, "mnist: [0.5, 1.0, 2.0]", r"eps\.mnist: must be two"),
        (eps, "mnist: [0, 1.0]", r"eps\.mnist\.0: .* greater than 0, got 0"),
        (eps, 'mnist: ["1e-3"]', r"eps\.mnist\.0: .* number, got '1e-3'"),
        (f"{eps}, ", "", r"eps: must say it of mnist and of cifar10, and of no other"),
        ('attack_jobs: ["all"]', "attack_jobs: [3]", r"attack_jobs\.0: .* string, got 3"),
        ('attack_jobs: ["all"]', "attack_jobs: [isc]", r"attack_jobs\.0: unknown method 'isc'"),
        ('controls: ""', "controls: foo", r"controls: unknown method 'foo'"),
        ("fewer: {}", "fewer: {pgd: 10}", r"fewer\.pgd: must be one name, and no group"),
        ("fewer: {}", "fewer: {'simba, fab': 10}", r"fewer\.simba, fab: must be one name"),
        ("adaptive: {random", "adaptive: {all", r"adaptive\.all: must be one name, and no group"),
        ("epochs: {digits: 5}, attacks", "attacks", r"as_coded\.epochs: Field required"),
        ("checks: {methods", "checks: {method", r"checks\.methods: Field required; checks\.method: Extra"),
        (
            "ablation_n: 100",
            "ablation_n: 100, ablation_epochs: {digit: 3}",
            r"ablation_epochs\.digit: unknown data set",
        ),
        ("ablation_s: [1.0, 1.5, 2.0]", "ablation_s: [1.0]", r"ablation_s: .* at least 2 items"),
        ("ablation_s: [1.0, 1.5, 2.0]", "ablation_s: [1.5, 2.0]", r"ablation_s: must hold the paper's 1.0"),
        ("ablation_m: [0.02, 0.1]", "ablation_m: [.nan, 0.1]", r"ablation_m\.0: .* finite number"),
        ("embedding: {mnist: lenet5", "embedding: {mnist: lenet", r"embedding\.mnist: unknown backbone 'lenet'"),
        ("embedding: {mnist: lenet5, cifar10: cnn8}, ", "", r"figures\.embedding: Field required"),
    ):
        assert old in text
        (tmp_path / "config" / "mine.yaml").write_text(text.replace(old, new))
        profiles.load.cache_clear()
        with pytest.raises(ValueError, match=says) as caught:
            profiles.load("mine")
        assert "\n" not in str(caught.value)


def test_simba_on_another_surface_is_asked_for_where_simba_is() -> None:
    full = profiles.load("full")
    for block, backbone in full.nets:
        asked = full.attacks(block, backbone, "isce")
        assert ("simba@raw" in asked) == ("simba" in asked) == (backbone == "resnet32")
    assert "simba@raw" not in full.attacks("mnist", "resnet32", "sce")  # whose outputs are its raw logits
