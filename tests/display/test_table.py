"""A table as text, HTML and rows."""

import pytest

from nbcontain.display import words
from nbcontain.display.table import Column, Table

IMAGES = Table(
    [Column("Image"), Column("Size", words.size, "num"), Column("", look="graph")],
    [("hello", 11_400_000, 114), ("<b>\x1b[2J", 0, 0)],
    footer="2 images",
)


def test_text_has_columns_and_numbers_to_the_right() -> None:
    assert IMAGES.text().splitlines() == [
        "IMAGE          SIZE",
        "hello       11.4 MB  ████████",
        "<b>\\x1b[2J      0 B",
        "2 images",
    ]


FINDINGS = Table(
    ("HERE", "WHAT", "WHY", "TRY"),
    [("yes", "containers", "", ""), ("partly", "a driver of copies", "so says the kernel", "sysctl --a.long-word=0")],
    footer="a line that says it all in full",
    below=2,
)


def test_what_is_too_wide_goes_below_its_row_in_whole_words() -> None:
    assert FINDINGS.text(22).splitlines() == [
        "HERE    WHAT",
        "yes     containers",
        "partly  a driver of",
        "        copies",
        "        why: so says",
        "          the kernel",
        "        try: sysctl",
        "          --a.long-word=0",
        "a line that says it",
        "all in full",
    ]


def test_what_has_room_stays_in_its_row_and_no_other_table_is_folded() -> None:
    wide = FINDINGS.text().splitlines()
    assert wide[2] == "partly  a driver of copies  so says the kernel  sysctl --a.long-word=0"
    assert IMAGES.text(5) == IMAGES.text()
    assert FINDINGS.text(1).splitlines()[1] == "yes     containers"


def test_html_is_a_real_table_with_inert_cells() -> None:
    drawn = IMAGES._repr_html_()
    assert '<th scope="row">&lt;b&gt;\\x1b[2J</th>' in drawn
    assert '<th class="nbc-num" scope="col">Size</th>' in drawn


def test_a_bar_is_for_the_eyes_alone() -> None:
    assert '<td class="nbc-graph"><span aria-hidden="true">████████</span></td>' in IMAGES.html()
    limits = Table(("", "USED", Column("", look="graph")), [("memory", "5 MB (50 %)", "████"), ("processes", "3", "")])
    assert '<span aria-hidden="true">████</span>' in limits.html() and "████" in limits.text()


def test_what_can_be_scrolled_has_a_name_also_where_nobody_gave_one() -> None:
    assert 'aria-label="images"' in Table(("ID",), [], "none", "images", "Images").html()
    assert 'aria-label="Images"' in Table(("ID",), [], "none", title="Images").html()
    assert 'aria-label="none"' in Table(("ID",), [], "none").html()


def test_rows_are_the_raw_values() -> None:
    assert IMAGES.records()[0] == {"image": "hello", "size": 11_400_000}


def test_a_frame_holds_the_raw_values() -> None:
    pytest.importorskip("pandas")
    assert list(IMAGES.df["size"]) == [11_400_000, 0]


def test_columns_may_be_mere_titles() -> None:
    assert Table(("ID", "NAME"), [("1", "a")]).text() == "ID  NAME\n1   a"


def test_a_table_without_rows_still_has_its_titles() -> None:
    assert Table(("ID", "NAME"), []).text() == "ID  NAME"


def test_a_column_with_nothing_in_it_leaves_its_place_to_the_others() -> None:
    table = Table(("HERE", "WHY", "TRY"), (("yes", "", ""), ("no", "refused", "")))
    assert "TRY" not in table.html() and "WHY" in table.html()
    assert "TRY" in table.text() and table.records()[0] == {"here": "yes", "why": "", "try": ""}


def test_what_is_brief_is_so_for_people_alone() -> None:
    table = Table((Column("CREATED", words.ago, "words", words.brief),), ((0.0,),))
    assert "years ago" in table.text()
    seen = Table((Column("STATUS", str, "words", words.brief),), (("Up 3 minutes",),))
    assert "Up 3 minutes" in seen.text() and "Up 3 min<" in seen.html()
    assert seen.records() == [{"status": "Up 3 minutes"}]
