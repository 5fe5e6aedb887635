"""What the paper states, with its place in the text: settings, table layouts, numbers, claims.

Nothing here was measured by us. Every setting carries a `status`: "stated" in the paper, or "inferred" from its text. A number that
the surviving text does not hold is the string NOT_RECOVERABLE, never a guess.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["stated", "inferred"]

NOT_RECOVERABLE = "not recoverable"


@dataclass(frozen=True)
class Fact:
    """A value, where it comes from, and its place in the text."""

    value: object
    status: Status
    place: str


SETTINGS: Mapping[str, Fact] = {
    "s": Fact(1.0, "stated", "4.1, for every comparison"),
    "m": Fact(0.1, "stated", "4.1, for every comparison"),
    "s_range": Fact((1.0, 2.0), "stated", "4.1, s in [1, 2], Figure 3"),
    "m_range": Fact((0.0, 0.1), "stated", "4.1, m in (0, 0.1], Figure 3"),
    "f_i": Fact(0.97, "stated", "A.2, mean logit of the right class over MNIST and CIFAR-10"),
    "rest": Fact(8.0, "stated", "A.2, mean sum of the other classes' exponentials"),
    "normalize": Fact(
        "logits / their L2 norm",
        "inferred",
        '3.2, f(x), "the logits produced by the neural networks"; as the authors\' code',
    ),
    "inference": Fact("s, m on the argmax class", "stated", "3.2; the decision does not change"),
    "optimizer": Fact("Adam", "inferred", '4, "optimized ... & Ba, 2015"; the authors\' code has momentum SGD'),
    "iterations": Fact(
        (10, 50), "stated", "4.2, PGD; inferred of DeepFool, from DF 10, DF 50 in the headers of Tables 3 and 7"
    ),
    "norm": Fact("l2", "stated", "4.2, PGD and DeepFool"),
    "simba_queries": Fact({"mnist": 300, "cifar10": 500}, "stated", "4.2, per image"),
    "embedding_dim": Fact(3, "stated", "4.2, a layer before the output, Figure 4"),
    "backbone": Fact("ResNet-32 with five stages", "stated", "4"),
    "shallow": Fact("LeNet-5 on MNIST, 8 layers on CIFAR-10", "stated", "appendix; the 8 layers are not described"),
    "levels": Fact(
        2,
        "inferred",
        "Table 7's header has DF 10, DF 50 twice per data set; Table 3's breaks off after them: Clean DF 3",
    ),
    "perturbations": Fact(NOT_RECOVERABLE, "stated", "the epsilons stood in the lost tables"),
}

# Rows of every table. Which methods stood in which table is not known: all nine in each is ours. The order is inferred:
# the text of section 4 for the losses, then I-SCE, Random, AT as at the end of Table 7.
METHODS = ("sce", "center", "lgm", "arcface", "mmc", "label_smoothing", "isce", "random", "at")


@dataclass(frozen=True)
class Column:
    """A column: data set (`block`), backbone, and an attack of `isce.evaluate.ATTACKS` at the low (0) or high (1) level, or "clean".
    Which of its two levels is the lower one the paper does not say: we take the first."""

    block: str
    backbone: str
    attack: str
    eps_index: int | None = None

    @property
    def key(self) -> str:
        """Unique within a table: "mnist:clean", "mnist:pgd_un_50:1"."""
        return ":".join([self.block, self.attack, *([] if self.eps_index is None else [str(self.eps_index)])])


@dataclass(frozen=True)
class Table:
    """A table's layout and, for each method whose row survives, its accuracies in % by column key."""

    number: int
    title: str
    place: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...] = METHODS
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(column.block for column in self.columns))

    def value(self, method: str, key: str) -> float | str:
        """The paper's accuracy in %, or NOT_RECOVERABLE. Raises KeyError: no such method or column in this table."""
        if method not in self.rows or key not in {column.key for column in self.columns}:
            raise KeyError(f"table {self.number} has no row {method!r} with a column {key!r}")
        return self.numbers.get(method, {}).get(key, NOT_RECOVERABLE)


def _columns(backbones: Mapping[str, str], *attacks: str) -> tuple[Column, ...]:
    """Clean, then the attacks at the low and at the high level, for each data set. Two levels everywhere: inferred."""
    return tuple(
        column
        for block, net in backbones.items()
        for column in [Column(block, net, "clean")] + [Column(block, net, a, e) for e in (0, 1) for a in attacks]
    )


_MNIST, _CIFAR = {"mnist": "resnet32"}, {"cifar10": "resnet32"}
_LENET, _CNN = {"mnist": "lenet5"}, {"cifar10": "cnn8"}
# The order tar, un within 10, 50 is inferred; DF 10, DF 50 is the stated header, MNIST before CIFAR-10 inferred.
_PGD, _DF = ("pgd_tar_10", "pgd_un_10", "pgd_tar_50", "pgd_un_50"), ("deepfool_10", "deepfool_50")
_TABLE_7 = _columns(_LENET | _CNN, *_DF)
_ROWS = {
    "isce": (98.42, 97.48, 28.26, 92.62, 25.13, 81.22, 29.38, 21.39, 28.21, 20.48),
    "random": (98.09, 71.46, 42.60, 59.34, 49.49, 78.71, 28.75, 21.54, 31.75, 25.44),
    "at": (96.76, 4.08, 1.70, 3.35, 1.43, 78.81, 66.51, 30.39, 66.09, 29.77),
}
_TABLE_7_NUMBERS = {m: {c.key: v for c, v in zip(_TABLE_7, row, strict=True)} for m, row in _ROWS.items()}
# The row before I-SCE in Table 7, CIFAR-10 block: name lost, and all of its clean accuracy but the decimals (".20").
TABLE_7_NAMELESS_TAIL: tuple[str | float, ...] = ("?.20", 20.07, 19.86, 19.75, 19.64)

_ON, _SHALLOW = "Classification accuracy (%) under", "Performance (%) of shallow neural networks under"
TABLES: Mapping[int, Table] = {
    1: Table(1, f"{_ON} PGD attack on MNIST.", "4.2", _columns(_MNIST, *_PGD)),
    2: Table(2, f"{_ON} PGD attack on CIFAR10.", "4.2", _columns(_CIFAR, *_PGD)),
    3: Table(3, f"{_ON} Deepfool attack.", "4.2", _columns(_MNIST | _CIFAR, *_DF)),
    4: Table(4, f"{_ON} SimBA attack.", "4.2", _columns(_MNIST | _CIFAR, "simba")),
    5: Table(5, f"{_SHALLOW} PGD attack on MNIST.", "appendix", _columns(_LENET, *_PGD)),
    6: Table(6, f"{_SHALLOW} PGD attack on CIFAR10.", "appendix", _columns(_CNN, *_PGD)),
    7: Table(7, f"{_SHALLOW} Deepfool attack.", "appendix", _TABLE_7, numbers=_TABLE_7_NUMBERS),
}


def networks(numbers: Iterable[int] = tuple(TABLES)) -> list[tuple[str, str]]:
    """(block, backbone) of the columns of these tables."""
    return list(dict.fromkeys((c.block, c.backbone) for number in numbers for c in TABLES[number].columns))


# Figure 3's networks (data set, backbone): ResNet-32 by section 4; ours are the shallow ones, many times cheaper. Which attacks, its
# caption says; their 50 iterations, the radius, the validation images and a grid of 5 x 5 for a "dense" one are ours.
# (Figure 4's: ResNet-32, too, and a profile's `figures` say which are taken.)
ABLATION = (("mnist", "lenet5"), ("cifar10", "cnn8"))
ABLATION_ATTACKS = ("deepfool_50", "pgd_un_50")


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, in its words or close to them, its place there, and the rule that decides it from our records.

    where: our table or figure that shows it. `isce.verdicts` computes the rules. They were not fixed in advance: all were
    sharpened while records came in, most of them against the paper, and once more after a review of the statistics (seeds
    in a comparison, twice; what is missing; C6, C7, C12), and after others (C7; C9, in favour of the claim; C11, first so and then against it).
    Then arm C asked for AutoAttack where it had asked for every attack of a profile: that decided C1, C3 and C4 against the
    claims, and C2, C6 and C13 in part. Last, it no longer asked beside AutoAttack for what is made for a network that is not
    random: seeds without it had counted only where no image was left, against the claim; no verdict moved. The history of
    this file shows each change and what was known then.
    """

    id: str
    place: str
    sentence: str
    where: str
    rule: str


# How the rules are to be read.
COMPARISON = (
    "A comparison is I-SCE against one method on the same images: in one column of the tables (arm B); under one attack as "
    "coded at one level, against SCE as coded alone (arm A); or at one radius on one network, on the images that withstand "
    "every attack that both have met, and those made for one of them (arm C). Under arm C a random model's are those that its strongest attack leaves; AutoAttack must be "
    "among the attacks, and on a random model those through its draws, or else every attack of the profile, unless no image is left. A comparison "
    "is won or lost where one method is above the other with every seed that both have, and an exact sign-flip test over images has p < 0.05, else a tie. "
    "Missing records leave a verdict undecided unless they could not change it; a comparison that has records "
    "counts with the seeds that it has. The tests are not corrected for their number, and the columns of one network are not independent: "
    "counts describe. Under arm C, C1, C3 and C4 rest on the same comparisons. The rules were not fixed in advance: all were sharpened while records came in (isce/paper.py)."
)
_CLAIMS = """
C1 | 4.2, Tables 1, 2 | Under L2 PGD, I-SCE is better than the others in most cases and keeps its clean accuracy. | Tables 1, 2
The text breaks off at "I-SCE preserves high": clean accuracy completes it. Stands: I-SCE wins over half of the comparisons with the other eight, and is at most 1 point below SCE on clean images of each network. Fails: it wins under a quarter, or fewer than it loses. In part: otherwise.

C2 | journal abstract | "The accuracy of I-SCE is 63% higher than SCE under the PGD50un attack" on MNIST. | Table 1
Read as points. Stands: I-SCE is at least 50 points above SCE at one level. In part: it wins at one. Fails: at none.

C3 | 4.2, Table 3 | Under L2 DeepFool, I-SCE is above every competitor, "above 50%" better in most cases. | Table 3
Read as points, as C2: where I-SCE keeps under 50 % no gap can be as wide, and the radii are ours. Stands: I-SCE wins every comparison with the other eight, over half of them by more than 50 points. In part: it wins over half. Fails: otherwise.

C4 | 4.2, Table 4 | Under SimBA, I-SCE is more accurate than the others: its robustness is no gradient masking. | Table 4
Of the accuracy under SimBA alone; clean accuracy: C1, masking: SimBA on raw logits, and arm C. Over half, though the sentence has no exception. Stands: I-SCE wins over half of the comparisons with the other eight. Fails: it wins under a quarter, or fewer than it loses. In part: otherwise.

C5 | appendix, Tables 5-7 | Shallow nets: best under PGD, often by above 50 %; under DeepFool near the best, MMC, which loses clean accuracy. | Tables 5, 6, 7
The paper: "surprisingly well in all cases" under PGD, at a "slight sacrifice of accuracy on clean data"; gaps "above 50%" in many, here points, as C3. (1) Tables 5, 6: I-SCE wins over half of the comparisons with the other eight, and no fewer than it loses, (2) a quarter of them by more than 50 points. (3) Table 7: in over half of the columns it is at most 5 points below the best of the others; (4) there MMC is the best of all in over half of them, and significantly below SCE on clean images. Stands: all four. Fails: neither (1) nor (3). In part: otherwise.

C6 | 4.2, Tables 1, 2 | AT loses noticeable clean accuracy, e.g. on CIFAR-10, and is weaker than I-SCE against strong PGD. | Tables 1, 2
(1) AT is significantly, and at least 1 point, below SCE on clean images of CIFAR-10; (2) I-SCE wins every comparison with AT under untargeted PGD-50. Stands: both. In part: one. Fails: none.

C7 | 4.1, Figure 3 | The accuracy depends highly on s, m, attack and data set: choose them on a small validation set. | Figure 3
Judged of s and m. For each data set and attack of Figure 3, on validation images, an F test: do accuracies vary more over the (s, m) grid than over trainings of s = 1, m = 0.1 from other seeds? The grid's networks share one seed, so that what it lacks of the seeds' variance speaks against the claim; beside the test stands how wide a grid it would see. Stands: p < 0.05 in over half. In part: in some. Fails: in none.

C8 | 4.2, Figure 4 | In a 3-D embedding SCE's classes are confused, I-SCE's are separable clusters with large margins. | Figure 4
On MNIST and on CIFAR-10, I-SCE is above SCE in the silhouette by Euclidean distance, in that by angle, and in the accuracy of the nearest class mean. That I-SCE's tolerance is higher "than the other competitors" is not judged here (results/README.md, Figure 4). Stands: in all six. In part: in some. Fails: in none. Nothing tests how much.

C9 | A.2 | Averaged over MNIST and CIFAR-10, the sum of exp f_j over the other classes is about 8, f_i about 0.97. | records `clean`
Mean f_i within 0.05 of 0.97 and mean sum within 0.5 of 8, over the images of both data sets: of ResNet-32, and of the shallow networks; all images of the first seed's network where they have records, else test images. Stands: of both. In part: of one. Fails: of none.

C10 | A.2, Figure 5 | The surface indicates that z(s, m) is always larger than 0 when s > 1 and m > 0. | Figure 5
At f_i = 0.97, sum = 8. Stands: z > 0 on s in [1, 2], m in (0, 0.1] (Figure 3's range), and, as "always" says, at s = 6, m in (0, 1]. In part: on the former alone. Fails: not even there.

C11 | 3.3.1, A.2 | When s >= 1, m > 0 and z > 0, the expected interval of the correct class is larger with I-SCE than with SCE: L_I > L. | Figure 5
At m = 0.1, of pairs of logits that just mislead, random but for one, with z > 0 at both ends and an interval at all: P(i) falls, L > 0. L and L_I are read from one network's logits; between two networks, as the sentence has it: theory.ipynb. Stands: L_I > L for every pair, at s = 1 and at s = 2, of unit logits and of those of lengths 0.5 to 6 (SCE's are longer, and have no z > 0). In part: for every pair in some of these four cases. Fails: in none.

C12 | 3.3.2 | In the min-max framework the loss of I-SCE is lower when s >= 1 and m > 0, rho_I < rho: a better defence. | Figure 5
At m = 0.1, the inequality P_I > P (equation 12). Stands: for every f_i in [-1, 1] at s = 1 and at s = 2. In part: at one of them. Fails: at none. That a lower loss is a better defence is judged by C1 to C6.

C13 | 3.1, 3.4 | Normalising features but not weights, free of ArcFace's sphere, improves the defence over ArcFace. | Tables 1-7
Stands: I-SCE wins over half of the comparisons with ArcFace in all tables. Fails: it wins under a quarter, or fewer than it loses. In part: otherwise.
"""
_SPLIT = (text.split("\n") for text in _CLAIMS.strip().split("\n\n"))
CLAIMS: Mapping[str, Claim] = {
    claim.id: claim for claim in (Claim(*[*head.split(" | "), rule]) for head, rule in _SPLIT)
}
