"""The decks of slides that stand beside the pages."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from extractbook.build import publication

HEAD = """# 20. A toy

**Question.** How much is stolen?

**You will be able to** read a bar; doubt it.

**Time.** A minute."""


def test_a_deck_shows_question_figures_and_key_points():
    figure = new_code_cell("book.show(bars)", metadata={"mystnb": {"image": {"alt": "One bar."}}})
    figure.outputs = [new_output("display_data", data={"image/svg+xml": "<svg></svg>"})]
    plain = new_code_cell("1 + 1", outputs=[new_output("display_data", data={"image/png": "bm8="})])
    cells = [
        new_markdown_cell(HEAD),
        new_markdown_cell("## The bars\n\nSee {cite}`he2016deep`.\n\nWhich is higher?"),
        figure,
        new_markdown_cell("<details><summary>Data of this figure</summary></details>"),
        new_markdown_cell("The first.\n\nAnd more."),
        plain,
        new_markdown_cell("## Exercises\n\nA secret.", metadata={"tags": ["exercise"]}),
        new_markdown_cell("## Key points\n\n- It is [stolen](05_knockoff.ipynb).\n\n**Next.** Nothing."),
    ]
    deck = publication.deck(new_notebook(cells=cells), "05_knockoff")
    title, able, asked, seen, points = (cell.source for cell in deck.cells)
    assert title.startswith("# 20. A toy\n\nHow much is stolen?") and able.endswith("- read a bar\n- doubt it")
    assert asked == "## The bars\n\nWhich is higher?"
    assert seen.startswith('<img alt="One bar." src="data:image/svg+xml;base64,') and seen.endswith("The first.")
    assert points.startswith("## Key points\n\n- It is [stolen](https://") and "Next" not in points
    kinds = [cell.metadata.slideshow.slide_type for cell in deck.cells]
    assert kinds == ["slide", "slide", "slide", "subslide", "slide"]
