"""A profile says what a replication runs and at what size: config/digits.yaml, cpu.yaml, full.yaml."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Annotated, Any, NotRequired

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from isce import data, methods, paper, record
from isce.data import DATASETS
from isce.evaluate import default_levels, parse
from isce.evaluations import Evaluation
from isce.models import BACKBONES
from isce.train import Spec

BLOCKS = paper.TABLES[7].blocks  # of both data sets
_no_other_keys = with_config(ConfigDict(extra="forbid"))


def _must(holds: Callable[[Any], object], words: str) -> AfterValidator:
    """A field's value must be such that `holds(value)`; or ValueError with these words."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


def _one_of(what: str, known: Collection[Any]) -> AfterValidator:
    return AfterValidator(lambda name: record.choose(what, name, known))


def _parsed(by: Callable[[str], list[str]], alone: bool = False) -> AfterValidator:
    """Names that `by` knows; alone: one of them, and no group."""
    return _must(lambda names: by(names) == [names] or not alone, "must be one name, and no group of several")


_EACH_ONCE = _must(lambda values: len(set(values)) == len(values), "must hold each once")
_RISE = _must(lambda values: sorted(set(values)) == values, "must rise")
_BOTH = _must(lambda values: set(values) == set(BLOCKS), f"must say it of {' and of '.join(BLOCKS)}, and of no other")
_PLACES = [*DATASETS, *(f"{dataset}-{backbone}" for dataset in DATASETS for backbone in BACKBONES)]

Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Levels = Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=1), _RISE]
Two = Annotated[Levels, _must(lambda levels: len(levels) == 2, "must be two, the smaller and the larger")]
Seeds = Annotated[list[Annotated[int, Field(strict=True, ge=0)]], Field(min_length=1), _EACH_ONCE]
Dataset = Annotated[str, _one_of("data set", DATASETS)]
Backbone = Annotated[str, _one_of("backbone", BACKBONES)]
Block = Annotated[str, _one_of("block", BLOCKS)]
Methods = Annotated[str, _parsed(methods.parse)]
Attacks = Annotated[str, _parsed(parse)]


@_no_other_keys
class Network(TypedDict, total=False):
    """Overrides of the profile's defaults, for one network."""

    seeds: Seeds
    methods: Methods
    beyond: Attacks
    n: Count


@_no_other_keys
class AsCoded(TypedDict):
    """Arm A."""

    blocks: list[Block]
    epochs: dict[Dataset, Count]
    attacks: Attacks


@_no_other_keys
class Figures(TypedDict):
    """Figures 3 and 4: Figure 4's backbone of each block in `embedding`, and the `epochs`, by data set, of Figure 3's many networks and
    of Figure 4's slow ones, where not the profile's own. Figure 3's grid must have the paper's own s and m."""

    embedding: dict[Block, Backbone]
    embedding_epochs: NotRequired[dict[Dataset, Count]]
    methods: Methods
    n: Count
    ablation_s: Annotated[Levels, Field(min_length=2), _must(lambda s: 1.0 in s, "must hold the paper's 1.0")]
    ablation_m: Annotated[
        list[Number], Field(min_length=2), _RISE, _must(lambda m: 0.1 in m, "must hold the paper's 0.1")
    ]
    ablation_n: Count
    ablation_seeds: Annotated[Count, Field(ge=2)]
    ablation_epochs: NotRequired[dict[Dataset, Count]]


@_no_other_keys
class Checks(TypedDict):
    """gradient_masking, theory and curves."""

    methods: Methods
    n: Count
    theory_n: NotRequired[Count]
    curves_n: NotRequired[Count]


@_no_other_keys
@dataclass(frozen=True)
class Profile:
    """The keys of config/<name>.yaml, commented there. Blocks are the paper's data sets, mnist and cifar10.

    `epochs` names data sets, and <data set>-<backbone> where one network takes another number. `networks`, unless empty,
    lists the <block>-<backbone> that are run, each with the `seeds`, `methods`, `beyond` and `n` that it takes if other than all.
    `fewer` names attacks, for their cost run on fewer test images than n.
    """

    name: str
    title: str
    stand_in: Annotated[dict[str, Dataset], _BOTH]
    epochs: dict[Annotated[str, _one_of("data set or <data set>-<backbone>", _PLACES)], Count]
    networks: dict[str, Network]
    seeds: Seeds
    tables: Annotated[
        list[Annotated[int, Field(strict=True, ge=1, le=max(paper.TABLES))]], Field(min_length=1), _EACH_ONCE
    ]
    n: Count
    fewer: dict[Annotated[str, _parsed(parse, alone=True)], Count]
    eps: Annotated[dict[str, Two], _BOTH]
    simba_steps: Annotated[dict[str, Two], _BOTH]
    simba_queries: Annotated[dict[str, Count], _BOTH]
    beyond: Attacks
    strongest: Attacks
    adaptive: dict[Annotated[str, _parsed(methods.parse, alone=True)], Attacks]
    as_coded: AsCoded
    train_jobs: list[Methods]
    attack_jobs: list[Methods]
    controls: Annotated[str, _must(lambda names: not names or methods.parse(names), "")]
    figures: Figures
    checks: Checks

    @property
    def is_stand_in(self) -> bool:
        return any(block != dataset for block, dataset in self.stand_in.items())

    def where(self, block: str) -> str:
        """The name of a block's data set, and of what it stands in for."""
        label = DATASETS[self.stand_in[block]].label
        return label if self.stand_in[block] == block else f"{label} standing in for {DATASETS[block].label}"

    @property
    def methods(self) -> list[str]:
        """The rows: the paper's nine in its order, then the profile's controls."""
        return [*paper.METHODS, *methods.parse(self.controls)] if self.controls else [*paper.METHODS]

    @property
    def nets(self) -> list[tuple[str, str]]:
        """(block, backbone) that are run: of every column of the profile's tables, unless `networks` lists fewer."""
        nets = paper.networks(self.tables)
        return [net for net in nets if not self.networks or "-".join(net) in self.networks]

    def _own(self, block: str, backbone: str, key: str, default: Any) -> Any:
        """What `networks` says of a network, where it says it."""
        return self.networks.get(f"{block}-{backbone}", {}).get(key, default)

    def seeds_of(self, block: str, backbone: str) -> list[int]:
        return list(self._own(block, backbone, "seeds", self.seeds))

    def n_of(self, block: str, backbone: str) -> int:
        """How many test images are attacked, by all attacks but those that `fewer` names."""
        return min(self._own(block, backbone, "n", self.n), DATASETS[self.stand_in[block]].sizes[2])

    def only(self, names: str, block: str, backbone: str) -> list[str]:
        """Of a job's methods, those that are run on this network."""
        run = methods.parse(self._own(block, backbone, "methods", "all,controls"))
        return [name for name in methods.parse(names) if name in run]

    def epochs_of(self, dataset: str, backbone: str, arm: str = "B") -> int | None:
        """Passes over the training images; None: the data set's default."""
        given: Mapping[str, int] = self.epochs if arm == "B" else self.as_coded["epochs"]
        return given.get(f"{dataset}-{backbone}", given.get(dataset))

    def spec(self, block: str, backbone: str, method: str, seed: int = 0, arm: str = "B", **more: Any) -> Spec:
        dataset = self.stand_in[record.choose("block", block, self.stand_in)]
        epochs = self.epochs_of(dataset, backbone, arm)
        return Spec(dataset, backbone, method, seed=seed, epochs=epochs, arm=arm, **more)

    def ablation_spec(self, block: str, backbone: str, method: str = "isce", seed: int = 0, **options: float) -> Spec:
        """A network of Figure 3, such as `s=1.5, m=0.02`: as `spec`, but of `ablation_epochs` where the profile has them."""
        return self._over(
            self.figures.get("ablation_epochs", {}), self.spec(block, backbone, method, seed, options=options)
        )

    def embedding(self, block: str, method: str, seed: int = 0, backbone: str = "") -> Evaluation:
        """Figure 4's network (`.spec`), of `embedding_epochs` where the profile has them, and the search for the smallest
        perturbations of its test images. backbone: another than the figure's."""
        spec = self.spec(block, backbone or self.figures["embedding"][block], method, seed, embedding_dim=3)
        spec, attack = self._over(self.figures.get("embedding_epochs", {}), spec), "deepfool_50@raw"
        n = min(self.figures["n"], DATASETS[spec.dataset].sizes[2])
        return Evaluation(spec, attack, self.levels(block, attack), n)

    def embeddings(self, block: str) -> list[Evaluation]:
        """`embedding` of each method that Figure 4 draws on this block."""
        return [self.embedding(block, method) for method in methods.parse(self.figures["methods"])]

    @staticmethod
    def _over(epochs: Mapping[str, int], spec: Spec) -> Spec:
        """The same training of as many epochs, where its data set is among these."""
        return dataclasses.replace(spec, epochs=epochs.get(spec.dataset, spec.epochs))

    def ablation(
        self, block: str, backbone: str, attack: str, split: str = "validation", level: int = 0
    ) -> tuple[list[Evaluation], list[Evaluation]]:
        """Figure 3's grid, row by row of s, and the paper's s = 1, m = 0.1 from several seeds, the yardstick of chance: each
        network attacked at the smaller radius (`level` 1: the larger), on validation images; or on test images, where a choice is
        tested."""
        pairs = [(s, m) for s in self.figures["ablation_s"] for m in self.figures["ablation_m"]]
        grid = [self.ablation_spec(block, backbone, s=s, m=m) for s, m in pairs]
        seeds = range(self.figures["ablation_seeds"])
        same = [self.ablation_spec(block, backbone, seed=seed, s=1.0, m=0.1) for seed in seeds]
        n = self.figures["ablation_n"] if split == "validation" else self.figures["n"]
        radius = (self.eps[block][level],)
        asked = [[Evaluation(spec, attack, radius, n, split=split) for spec in specs] for specs in (grid, same)]
        return asked[0], asked[1]

    def longer_simba(self, block: str, backbone: str) -> list[Evaluation]:
        """SimBA at its smaller step with ten times the paper's queries, on the outputs and, where they are normalised, on the logits
        before: of SCE, normalisation alone and I-SCE, first seed, 1,000 images at most. Not asked for; a picture shows it."""
        simba = {"sce": ["simba"], "norm_only": ["simba", "simba@raw"], "isce": ["simba", "simba@raw"]}
        seed, n = self.seeds_of(block, backbone)[0], min(1000, self.n_of(block, backbone))
        return [
            Evaluation(
                self.spec(block, backbone, method, seed),
                attack,
                tuple(self.simba_steps[block][:1]),
                n,
                10 * self.simba_queries[block],
            )
            for method in self.only(",".join(simba), block, backbone)
            for attack in simba[method]
        ]

    def levels(self, block: str, attack: str) -> tuple[float, ...]:
        eps = [max(self.eps[block])] if attack in parse(self.strongest) else self.eps[block]
        return default_levels(attack, eps, self.simba_steps[block])

    def evaluation(
        self, block: str, backbone: str, method: str, attack: str, seed: int = 0, arm: str = "B"
    ) -> Evaluation:
        """Clean accuracy is that of all test images; attacks take the profile's n, or `fewer`."""
        spec = self.spec(block, backbone, method, seed, arm)
        n = self.n_of(block, backbone)
        n = DATASETS[spec.dataset].sizes[2] if attack == "clean" else min(n, self.fewer.get(attack, n))
        return Evaluation(spec, attack, self.levels(block, attack), n, self.simba_queries[block])

    def over_seeds(self, block: str, backbone: str, method: str, attack: str, arm: str = "B") -> list[Evaluation]:
        """`evaluation` for each of the network's seeds: what a cell is the mean of."""
        seeds = self.seeds_of(block, backbone) if arm == "B" else self.seeds
        return [self.evaluation(block, backbone, method, attack, seed, arm) for seed in seeds]

    def everything(self, block: str, backbone: str, method: str = "isce") -> list[Evaluation]:
        """Clean images of all three splits, of a method's first seed: optional, too."""
        asked = self.evaluation(block, backbone, method, "clean", self.seeds_of(block, backbone)[0])
        return [dataclasses.replace(asked, split=split, n=None) for split in data.Data._fields]

    @property
    def optional(self) -> list[str]:
        """Not asked for, but shown if somebody ran them at the smaller radius: the `strongest` attacks, each on the logits
        before their normalisation too."""
        names = [name for a in parse(self.strongest) for name in ([a] if "@" in a else [a, f"{a}@raw"])]
        return list(dict.fromkeys(names))

    def at_smaller(self, block: str, backbone: str, method: str, attack: str, seed: int = 0) -> Evaluation:
        """One of the `optional` attacks, at the smaller radius and on as many images as the strongest that it comes from."""
        like = attack if attack in parse(self.strongest) else attack.partition("@")[0]
        asked = self.evaluation(block, backbone, method, like, seed)
        return dataclasses.replace(asked, attack=attack, levels=(min(self.eps[block]),))

    def table_attacks(self, block: str, backbone: str) -> list[str]:
        """What the profile's tables ask for on this network."""
        columns = [c for t in self.tables for c in paper.TABLES[t].columns]
        return list(dict.fromkeys(c.attack for c in columns if (c.block, c.backbone) == (block, backbone)))

    def common_attacks(self, block: str, backbone: str) -> list[str]:
        """Those of every method at both levels: `table_attacks`, then `beyond`."""
        beyond = parse(self._own(block, backbone, "beyond", self.beyond))
        return list(dict.fromkeys([*self.table_attacks(block, backbone), *beyond]))

    def attacks(self, block: str, backbone: str, method: str = "") -> list[str]:
        """All attacks on a network: the common ones, those made for `method` (for any, where it is ""), the strongest. SimBA on
        another surface is asked for where SimBA is."""
        made = [self.adaptive.get(method, "")] if method else list(self.adaptive.values())
        common, own = self.common_attacks(block, backbone), parse(",".join(filter(None, made)))
        own = [name for name in own if not name.startswith("simba@") or "simba" in common]
        return list(dict.fromkeys([*common, *own, *parse(self.strongest)]))

    @property
    def runs(self) -> list[tuple[str, str, str, int]]:
        """(block, backbone, method, seed) of arm B that are run, a network and its seeds at a time."""
        return [
            (*net, method, seed)
            for net in self.nets
            for seed in self.seeds_of(*net)
            for method in self.only(",".join(self.methods), *net)
        ]

    def evaluations(self, block: str, backbone: str, method: str, seed: int = 0) -> list[Evaluation]:
        """All attacks on one of `runs`, those of the tables first."""
        return [self.evaluation(block, backbone, method, a, seed) for a in self.attacks(block, backbone, method)]

    def parts(self) -> dict[str, list[Evaluation]]:
        """All that the profile asks for: by network of its tables, then `beside_tables`."""
        found: dict[str, list[Evaluation]] = {}
        for block, net, method, seed in self.runs:
            found.setdefault(f"{block}/{net}", []).extend(self.evaluations(block, net, method, seed))
        return found | self.beside_tables()

    def beside_tables(self) -> dict[str, list[Evaluation]]:
        """Figure 3's grids (on validation images), Figure 4, arm A; without what the profile has none of."""
        found: dict[str, list[Evaluation]] = {}
        for block, net in paper.ABLATION:
            grids = [self.ablation(block, net, attack) for attack in paper.ABLATION_ATTACKS]
            found[f"Figure 3, {block}/{net}"] = [e for asked in grids for part in asked for e in part]
        for block, net in self.figures["embedding"].items():
            found[f"Figure 4, {block}/{net}"] = self.embeddings(block)
        found["arm A"] = self.arm_a()
        return {name: asked for name, asked in found.items() if asked}

    def further(self) -> list[Evaluation]:
        """Not asked for, but shown where somebody made it: attacks `at_smaller` radius, `everything`, `longer_simba`, and Figure 3
        on test images, on the logits before their normalisation, and of SCE."""
        found = [self.at_smaller(*run[:3], attack, run[3]) for run in self.runs for attack in self.optional]
        for block, backbone in self.nets:
            found += self.longer_simba(block, backbone)
            found += [e for m in ("isce", "sce") for e in self.everything(block, backbone, m)]
        for block, backbone in paper.ABLATION:
            plain = self.ablation_spec(block, backbone, "sce")
            for attack, split in product((*paper.ABLATION_ATTACKS, "deepfool_50@raw"), ("validation", "test")):
                grid, same = self.ablation(block, backbone, attack, split)
                found += [*grid, *same, dataclasses.replace(grid[0], spec=plain)]
        return found

    def arm_a(self) -> list[Evaluation]:
        """What arm A needs: ResNet-32 as coded, with I-SCE and with SCE, on clean images and under `as_coded`'s attacks."""
        return [
            evaluation
            for block in self.as_coded["blocks"]
            for method in ("sce", "isce")
            for attack in parse("clean," + self.as_coded["attacks"])
            for evaluation in self.over_seeds(block, "resnet32", method, attack, "A")
        ]


@lru_cache
def load(name: str) -> Profile:
    """The profile of config/<name>.yaml.

    Raises:
        ValueError: no such profile, none at all, or a file that is not as `Profile` says.
    """
    folder = record.config_dir()
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not known:
        raise ValueError(f"no profiles in {folder}: set ISCE_HOME to a checkout of this repository")
    path = folder / f"{record.choose('profile', name, known)}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or "name" in content:
        raise ValueError(f"{path.name} must hold the keys of isce.profiles.Profile but name, got {content!r}")
    try:
        profile = TypeAdapter(Profile).validate_python({**content, "name": name})
    except ValidationError as error:
        raise ValueError(f"{path.name}: {'; '.join(map(_told, error.errors()))}") from None
    for net in profile.networks:
        record.choose(f"network in {path.name}", net, ["-".join(net) for net in paper.networks(profile.tables)])
    return profile


def _told(error: Any) -> str:
    """One of pydantic's errors in words: where, what, and the value."""
    where = ".".join(str(part) for part in error["loc"] if part != "[key]")
    value = "" if error["type"] in {"missing", "extra_forbidden"} else f", got {error['input']!r}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{value}"
