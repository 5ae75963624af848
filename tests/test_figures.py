"""What the book shows: figures, tables and provenance."""

import io
from xml.etree import ElementTree

import matplotlib
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from matplotlib.backends.backend_agg import FigureCanvasAgg
from nbclient import NotebookClient
from PIL import Image

from extractbook import figures
from extractlib.data.images import ImageSet
from extractlib.errors import InputError
from extractlib.store import digest

POLICIES = ("shuffle", "deny", "label")


def stripes(classes: int, each: int) -> ImageSet:
    """Return gray images whose brightness is ten times their label; the classes follow one another."""
    labels = torch.arange(classes).repeat_interleave(each)
    images = (10 * labels).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    return ImageSet("stripes", images, labels, tuple(f"stripe {number}" for number in range(classes)), "1")


# -- text --------------------------------------------------------------------


def test_table():
    text = figures.table([["a|b", 1], ["c", None]], ["word", "number"], caption="Two")
    assert text == "**Two**\n\n| word | number |\n| :--- | ---: |\n| a\\|b | 1 |\n| c | – |"


def test_table_refuses_a_short_line():
    with pytest.raises(InputError, match=r"a table with 2 columns has a line with 1 values: \['a'\]"):
        figures.table([["a"]], ["word", "number"])


def test_mean_sd():
    assert figures.mean_sd([1.0, 2.0, 3.0], digits=2) == "2.00 ± 1.00"
    assert figures.mean_sd([0.5], digits=1) == "0.5"
    assert figures.mean_sd([], digits=1) == "–"


# -- figures -----------------------------------------------------------------


def two_rows() -> figures.Plot:
    groups = {"signs": {"ours": [0.9]}, "things": {"ours": [0.75, 0.8]}}
    return figures.dots(groups, xlabel="recovery", constant={"signs": 0.2})


def curve() -> figures.Plot:
    return figures.lines({"things": {1_000: [0.5], 10_000: [0.75, 0.8]}}, xlabel="queries", ylabel="recovery")


def test_a_figure_reaches_the_picture():
    picture = np.asarray(Image.open(io.BytesIO(figures.render(two_rows(), kind="png"))).convert("L"))
    assert picture.shape[1] == 200 * figures.WIDTH
    assert picture.min() < 60 and picture.max() == 255


@pytest.mark.parametrize("plot", [two_rows, curve])
def test_svg_is_equal_each_time_and_legible(plot):
    first, second = figures.render(plot()), figures.render(plot())
    assert first == second
    root = ElementTree.fromstring(first)
    assert float(root.get("width").removesuffix("pt")) == 72 * figures.WIDTH
    sizes = [text.get_size() for text in plot().findobj(matplotlib.text.Text) if text.get_text()]
    assert min(sizes) >= 10


@pytest.mark.parametrize(
    ("names", "columns"),
    [(("short", "shorter"), 2), (("a name that is too long to share a row", "another name that is too long"), 1)],
)
def test_a_legend_has_no_more_columns_than_fit(names, columns):
    plot = figures.dots({"signs": {name: [0.5] for name in names}}, xlabel="recovery", columns=2)
    [legend] = plot.legends
    renderer = FigureCanvasAgg(plot).get_renderer()
    assert legend._ncols == columns
    assert legend.get_window_extent(renderer).width <= plot.bbox.width


def test_style_does_not_leak():
    matplotlib.get_backend()  # chosen, and noted among the parameters, when first asked for
    before = matplotlib.rcParams.copy()
    figures.render(two_rows())
    assert matplotlib.rcParams == before


# -- in a notebook -----------------------------------------------------------


@pytest.mark.parametrize("missing", ["alt", "caption", "name"])
def test_a_figure_without_words_is_refused(missing):
    texts = {"alt": "Two bars.", "caption": "Bars.", "name": "fig-bars", missing: " "}
    with pytest.raises(InputError, match=f"has no {missing}: describe it in words"):
        figures.show(two_rows(), **texts)


def cells_of(table: str) -> list[list[str]]:
    """Return the lines of a table in HTML, heads first."""
    return [[cell.get_text() for cell in line("th") + line("td")] for line in BeautifulSoup(table, "html.parser")("tr")]


def data_of(figure) -> list[list[str]]:
    return cells_of(figures.data_table(figure.data))


def test_data_of_lines():
    assert data_of(curve()) == [
        ["Series", "queries", "recovery", "±"],
        ["things", "1000", "0.5", ""],
        ["things", "10000", "0.775", "0.03536"],
    ]


def test_data_of_rows_of_marks():
    assert data_of(two_rows())[1:] == [
        ["ours", "signs", "0.9", ""],
        ["ours", "things", "0.775", "0.03536"],
        ["constant predictor", "signs", "0.2", ""],
    ]


def test_a_table_of_data_is_whole_and_escaped():
    long = "a name that is longer than the fifty letters that a data frame shows of it by default"
    data = pd.DataFrame(
        {"Series": ["<b>", long], "count": [1, 20_000], "share": [1 / 3, 1_234.5], "±": [np.nan, np.nan]}
    )
    assert cells_of(figures.data_table(data)) == [
        ["Series", "count", "share"],
        ["<b>", "1", "0.3333"],
        [long, "20000", "1,234"],
    ]
    assert "<b>" not in figures.data_table(data)


def test_displayed_figure_gets_its_words_and_its_data_on_the_page():
    from extractbook.build import pages

    display = "figures.show(figure, name='fig-a', caption='A **caption**.', alt='*Nothing* at all.'"
    start = f"from extractbook import figures\nfrom matplotlib.pyplot import figure as new\nfigure = new()\n{display}"
    sources = (
        f"{start})",
        f"{start}, data={{'x': [1, 2], 'y': [0.5, 3]}})",
        "figures.say('r is *0.9* (-0.1), -2 in 2026-11')",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    picture, plot, said = notebook.cells
    caption = {"text/markdown", "text/plain"}
    assert [set(output.data) for output in picture.outputs] == [{"image/png", "text/plain"}, caption]
    kinds = [{"image/svg+xml", "text/plain"}, caption, {"text/html", "text/plain"}]
    assert [set(output.data) for output in plot.outputs] == kinds
    assert said.outputs[0].data["text/markdown"] == "r is *0.9* (−0.1), −2 in 2026-11"

    assert pages.tidy(picture, "chapter") == []
    [data] = pages.tidy(plot, "chapter")
    assert cells_of(data.source) == [["x", "y"], ["1", "0.5"], ["2", "3"]]
    for cell, kind in ((picture, "image/png"), (plot, "image/svg+xml")):
        assert cell.metadata["mystnb"] == {
            "image": {"alt": "Nothing at all."},
            "figure": {"name": "fig-a", "caption": "A **caption**."},
        }
        assert [set(output.data) for output in cell.outputs] == [{kind, "text/plain"}]


def test_run_provenance_names_seed_seconds_and_data():
    first, second = (ImageSet(name, torch.zeros(1, 3, 4, 4, dtype=torch.uint8), None, (), name) for name in "ab")
    line = figures.run_provenance([first, second], seed=7, seconds=1234.4)
    parts = line.removeprefix("*Provenance*: ").split("; ")
    assert "seed 7" in parts and "live in 1,234 s" in parts and f"torch {torch.__version__}" in parts
    assert parts[-1] == f"data `{digest('a', 'b')[:12]}`"
    assert figures.run_provenance([second], seed=7, seconds=0).split("; ")[-1] != parts[-1]


# -- the general figures ---------------------------------------------------------


def test_lines_pass_through_the_means():
    figure = figures.lines({"a": {1: [0.2, 0.4], 10: [0.5]}, "b": {1: [0.1]}}, xlabel="x", ylabel="y")
    [axes] = figure.axes
    found = [container.lines[0].get_xydata().tolist() for container in axes.containers]
    assert found == [[[1, pytest.approx(0.3)], [10, 0.5]], [[1, 0.1]]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")


# -- pictures that chapters share ----------------------------------------------------


def filled(figure) -> set[str]:
    """Return the boxes of the threat model that are filled with color."""
    orange = matplotlib.colors.to_rgba(figures.ORANGE)
    return {box.get_label() for box in figure.axes[0].patches if box.get_facecolor() == orange}


def test_the_threat_model_fills_what_is_asked_for_and_nothing_else():
    assert filled(figures.threat_model()) == set()
    assert filled(figures.threat_model("api")) == {"api"}
    figure = figures.threat_model(["transfer", "surrogate", "queries"])
    assert filled(figure) == {"transfer", "surrogate"}
    texts = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    boxes = {"victim's images", "victim", "meter", "detector", "policy", "pool of images", "transfer set", "surrogate"}
    assert boxes | {"prediction API", "public weights", "the owner", "the attacker", "queries", "answers"} <= set(texts)
    assert (texts["queries"], texts["answers"]) == (figures.VERMILION, figures.BLACK)
    with pytest.raises(InputError, match="spy"):
        figures.threat_model("spy")


def said(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_queries_stand_beside_the_most_probable_classes():
    images = stripes(classes=2, each=1).images
    answers = torch.tensor([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]])
    names = ["cup", "an animal with a name of thirty-six", "ink"]
    figure = figures.queries(images, answers, names, top=2)
    assert said(figure) == ["0.60 cup", "0.30 an animal…of thirty-six", "1.00 cup"]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes] == [0, 10]
    assert said(figures.queries(images, torch.tensor([2, 0]), names)) == ["1.00 ink", "1.00 cup"]
    with pytest.raises(InputError, match="2 images and 1 answers"):
        figures.queries(images, answers[:1], names)


def test_errors_are_counted_on_all_images_and_shown_on_the_first():
    labels, victim = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 0, 0, 1, 0])
    copy, control = torch.tensor([0, 0, 0, 2, 1]), torch.tensor([1, 1, 2, 0, 2])
    figure = figures.errors(stripes(classes=5, each=1).images, labels, victim, copy, control, "abc", shown=1)
    assert figure.data.values.tolist() == [["copy", 5, 3, 4, 2, 1, 1], ["control", 5, 0, 4, 0, 3, 1]]
    assert list(figure.data) == ["Series", "images", "agrees", "errors", "repeated", "corrected", "other"]
    assert said(figure) == ["true: b", "victim: a", "= copy: a", "✓ control: b"]
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes] == [10]
    third = figures.errors(stripes(classes=5, each=1).images[3:], labels[3:], victim[3:], copy[3:], control[3:], "abc")
    assert said(third)[2:4] == ["≠ copy: c", "✓ control: a"]
    with pytest.raises(InputError, match="0 images and 0 answers"):
        figures.errors(stripes(classes=5, each=1).images, labels, labels, copy, control, "abc")


def test_a_roc_curve_is_drawn_over_what_is_refused():
    figure = figures.roc({"binary": [[0.0, 0.9, 1.0], [1.0, 0.8, 0.0]]}, points={"binary": (0.75, 0.5)})
    assert figure.data["Series"].tolist() == ["binary"] * 4
    shown = figure.data.drop(columns=["Series", "point"]).values
    assert shown == pytest.approx(np.array([[1, 1], [0.1, 0.8], [0, 0], [0.25, 0.5]]))
    curve = next(line for line in figure.axes[0].lines if line.get_label() == "binary")
    assert curve.get_xydata() == pytest.approx(shown[:3])
    mark = figure.axes[0].lines[-1]
    assert (mark.get_marker(), mark.get_color()) == ("D", curve.get_color())
