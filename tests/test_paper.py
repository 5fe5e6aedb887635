import pytest

from isce import paper
from isce.evaluate import ATTACKS, label


def test_table_7_rows_fit_their_columns_as_read() -> None:
    """Two cells per row, where a shift by one column would show, against the text's order."""
    table = paper.TABLES[7]
    assert len(table.columns) == 10
    assert table.blocks == ("mnist", "cifar10")
    assert table.value("isce", "mnist:clean") == 98.42
    assert table.value("isce", "mnist:deepfool_50:0") == 28.26
    assert table.value("isce", "cifar10:clean") == 81.22
    assert table.value("random", "mnist:deepfool_10:1") == 59.34
    assert table.value("at", "cifar10:deepfool_10:0") == 66.51
    assert table.value("at", "cifar10:deepfool_50:1") == 29.77
    assert len(paper.TABLE_7_NAMELESS_TAIL) == sum(column.block == "cifar10" for column in table.columns)


def test_only_three_rows_of_table_7_are_known() -> None:
    known = {
        (number, method)
        for number, table in paper.TABLES.items()
        for method in table.rows
        if all(table.value(method, column.key) != paper.NOT_RECOVERABLE for column in table.columns)
    }
    assert known == {(7, "isce"), (7, "random"), (7, "at")}
    assert paper.TABLES[1].value("isce", "mnist:pgd_un_50:0") == "not recoverable"


@pytest.mark.parametrize(
    ("number", "columns", "backbones"),
    [
        (1, 9, {"resnet32"}),
        (2, 9, {"resnet32"}),
        (3, 10, {"resnet32"}),
        (4, 6, {"resnet32"}),
        (5, 9, {"lenet5"}),
        (6, 9, {"cnn8"}),
        (7, 10, {"lenet5", "cnn8"}),
    ],
)
def test_layouts(number: int, columns: int, backbones: set[str]) -> None:
    table = paper.TABLES[number]
    assert table.number == number
    assert len(table.columns) == len({column.key for column in table.columns}) == columns
    assert {column.backbone for column in table.columns} == backbones
    assert [column.attack for column in table.columns].count("clean") == len(table.blocks)
    assert sorted(table.rows) == sorted(paper.METHODS)


def test_columns_of_a_block_stand_as_in_the_header() -> None:
    """Table 7's header: Clean, DF 10, DF 50, DF 10, DF 50 (paper, caption of Table 7)."""
    columns = [column for column in paper.TABLES[7].columns if column.block == "mnist"]
    assert [label(column.attack) for column in columns] == ["Clean", "DF 10", "DF 50", "DF 10", "DF 50"]
    assert [column.eps_index for column in columns] == [None, 0, 0, 1, 1]
    assert [column.eps_index for column in paper.TABLES[4].columns] == [None, 0, 1, None, 0, 1]


def test_every_attack_column_names_a_known_attack() -> None:
    used = {column.attack for table in paper.TABLES.values() for column in table.columns}
    assert used == {
        "clean",
        "pgd_tar_10",
        "pgd_un_10",
        "pgd_tar_50",
        "pgd_un_50",
        "deepfool_10",
        "deepfool_50",
        "simba",
    }
    assert used <= set(ATTACKS)


def test_unknown_cell_is_an_error() -> None:
    with pytest.raises(KeyError, match="no row 'trades'"):
        paper.TABLES[7].value("trades", "mnist:clean")
    with pytest.raises(KeyError, match="column 'mnist:simba:0'"):
        paper.TABLES[7].value("isce", "mnist:simba:0")


def test_facts_say_where_they_come_from() -> None:
    assert list(paper.CLAIMS) == [f"C{n}" for n in range(1, 14)]
    assert all("Stands" in claim.rule and "Fails: " in claim.rule for claim in paper.CLAIMS.values())
    assert all(claim.where.startswith(("Table", "Figure", "records")) for claim in paper.CLAIMS.values())
    assert all(fact.place and fact.status in ("stated", "inferred") for fact in paper.SETTINGS.values())
    assert (paper.SETTINGS["s"].value, paper.SETTINGS["m"].value) == (1.0, 0.1)
    assert paper.SETTINGS["simba_queries"].value == {"mnist": 300, "cifar10": 500}
    assert paper.SETTINGS["perturbations"].value == paper.NOT_RECOVERABLE
