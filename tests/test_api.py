"""The prediction API: what each granularity shows, what is charged, and what is refused."""

import gc
import math
import re
import types
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_victim import linear_victim, noise

from extractlib.api.granularity import KINDS, Answers, Full, Granularity, Label, Rounded, Temperature, TopK
from extractlib.api.meter import HIGHEST_PRICE, BudgetExceeded, Meter, RequestReused, Usage
from extractlib.api.service import PredictionAPI
from extractlib.defenses.policies import Deny
from extractlib.errors import HIGHEST, InputError

EXACT = torch.tensor([[0.5, 0.125, 0.25, 0.125], [0.0625, 0.0625, 0.8125, 0.0625]])
"""Two answers whose probabilities are exact in binary."""


def exact(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


# -- granularity, by hand ----------------------------------------------------


def test_full_shows_the_softmax():
    answers = Full().apply(torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]]))
    torch.testing.assert_close(answers.probabilities, exact([[0.25, 0.75], [0.8, 0.2]]))
    assert answers.labels.tolist() == [1, 0]
    assert answers.classes is None


def test_temperature_divides_the_logits():
    for two in (Temperature(2.0), Temperature(2)):
        answers = two.apply(torch.tensor([[0.0, math.log(9.0)]]))
        torch.testing.assert_close(answers.probabilities, exact([[0.25, 0.75]]))


def test_top_shows_the_largest_in_falling_order_and_the_lowest_class_of_equals_first():
    answers = TopK(2).show(EXACT)
    assert answers.classes.tolist() == [[0, 2], [2, 0]]
    assert answers.probabilities.tolist() == [[0.5, 0.25], [0.8125, 0.0625]]
    assert answers.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("digits", "shown"),
    [(0, [0.0, 0.0, 1.0, 0.0]), (1, [0.1, 0.1, 0.8, 0.1]), (2, [0.06, 0.06, 0.81, 0.06]), (4, EXACT[1].tolist())],
)
def test_rounded_keeps_so_many_decimals(digits, shown):
    answers = Rounded(digits).show(EXACT[1:])
    torch.testing.assert_close(answers.probabilities, exact([shown]), rtol=0, atol=1e-8)
    assert answers.labels.tolist() == [2]


def test_label_shows_the_label_alone():
    answers = Label().show(EXACT)
    assert answers.labels.tolist() == [0, 2]
    assert (answers.classes, answers.probabilities) == (None, None)


def test_targets_of_each_granularity():
    def targets(text):
        return Granularity.parse(text).show(EXACT).targets(4)

    torch.testing.assert_close(targets("full"), EXACT)
    assert targets("label").tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    # 0.25 and 0.125 are hidden, and spread over two classes each.
    assert targets("top-2").tolist() == [[0.5, 0.125, 0.25, 0.125], [0.0625, 0.0625, 0.8125, 0.0625]]
    torch.testing.assert_close(targets("top-1"), exact([[0.5, 1 / 6, 1 / 6, 1 / 6], [*[0.0625] * 2, 0.8125, 0.0625]]))
    assert targets("top-4").tolist() == EXACT.tolist()
    renormalized = Granularity.parse("top-2").show(EXACT).targets(4, fill="renormalized")
    torch.testing.assert_close(renormalized, exact([[2 / 3, 0, 1 / 3, 0], [1 / 14, 0, 13 / 14, 0]]))
    # 0.5 rounds to even, to zero: nothing is left of the first answer but its label.
    assert targets("rounded-0").tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    torch.testing.assert_close(targets("rounded-1")[1], exact([0.1, 0.1, 0.8, 0.1]) / 1.1)


NAMED = {
    "full": Full(),
    "top-5": TopK(5),
    "rounded-2": Rounded(2),
    "label": Label(),
    "temperature-2.0": Temperature(2.0),
    "temperature-0.5": Temperature(0.5),
}


@pytest.mark.parametrize(("text", "granularity"), NAMED.items())
def test_text_and_granularity_are_inverse(text, granularity):
    assert Granularity.parse(text) == granularity
    assert str(granularity) == text
    assert Granularity.parse(granularity) is granularity
    assert [other for other in NAMED.values() if other == granularity] == [granularity]


@pytest.mark.parametrize(
    "text",
    [*"fill top top-0 top--1 top-2.5 top-x rounded-7 rounded-1.0 label-1 label- full-2".split(), "", 5, None]
    + ["temperature-0", "temperature-nan", "temperature-inf", "temperature-1000", "temperature-0.001"]
    # What Python's int and float read, and nobody writes: underscores, blanks, other digits, exponents, signs.
    + ["top-1_0", "top- 3", "top-3 ", "top-３", "top-٣", "top-+3", "top-1e1", "top-65536", "temperature-1e1", "Top-3"],
)
def test_unknown_granularities_are_refused(text):
    with pytest.raises(InputError, match=r"^unknown granularity '.*': use full, top-K [^\n]*$") as caught:
        Granularity.parse(text)
    assert repr(str(text)) in str(caught.value)


def test_a_long_text_is_cut_in_the_message():
    with pytest.raises(InputError, match="^unknown granularity") as caught:
        Granularity.parse("top-" + "9" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [True, 2.0, "2", None, 0, -1, 65_536])
def test_values_that_do_not_fit_are_refused(value):
    with pytest.raises(InputError, match="^unknown granularity 'top-"):
        TopK(value)
    if value != 0:
        with pytest.raises(InputError, match="^unknown granularity 'rounded-"):
            Rounded(value)
    if value != 2.0:
        with pytest.raises(InputError, match="^unknown granularity 'temperature-"):
            Temperature(value)


def test_a_temperature_is_finite_and_within_its_range():
    for value in (math.nan, math.inf, 0.0099, 100.5, 101):
        with pytest.raises(InputError, match="^unknown granularity 'temperature-"):
            Temperature(value)
    assert (Temperature(0.01).temperature, Temperature(100).temperature) == (0.01, 100.0)


def test_top_beyond_the_classes_is_refused():
    with pytest.raises(InputError, match="^granularity top-11: the victim has only 10 classes$"):
        PredictionAPI(linear_victim(), answers="top-11")
    assert PredictionAPI(linear_victim(), answers=TopK(10)).query(noise(1)).classes.shape == (1, 10)


def test_a_granularity_of_ones_own_is_served_and_read_by_name():
    try:

        class Sign(Granularity, kind="sign"):
            """Whether each probability is above one half."""

            def _shown(self, probabilities):
                return None, (probabilities > 0.5).float()

        assert Granularity.parse("sign") == Sign()
        answers = PredictionAPI(linear_victim(), answers="sign").query(noise(8))
        expected = linear_victim().logits(noise(8)).softmax(1) > 0.5
        assert torch.equal(answers.probabilities, expected.float())
        with pytest.raises(InputError, match="^there is already a granularity 'sign': choose another name$"):
            type("Again", (Granularity,), {}, kind="sign")
        assert KINDS["sign"] is Sign
        place = {"__module__": Sign.__module__, "__qualname__": Sign.__qualname__}  # as if the cell were run again
        again = type("Sign", (Granularity,), place, kind="sign")
        assert KINDS["sign"] is again is not Sign
    finally:
        del KINDS["sign"]
    with pytest.raises(InputError, match="^unknown granularity 'sign'"):
        Granularity.parse("sign")


# -- granularity, always -----------------------------------------------------

GRANULARITIES = ["full", "label", "top-1", "top-3", "top-7", "rounded-0", "rounded-2", "rounded-5", "temperature-3.0"]
logit_rows = st.lists(st.lists(st.floats(-60, 60, width=32), min_size=7, max_size=7), min_size=1, max_size=6)


@given(rows=logit_rows, text=st.sampled_from(GRANULARITIES))
def test_what_holds_for_all_answers(rows, text):
    logits = torch.tensor(rows, dtype=torch.float32)
    full = torch.softmax(logits, 1)
    granularity = Granularity.parse(text)
    answers = granularity.apply(logits)
    tempered = granularity.probabilities(logits) if granularity.kind == "temperature" else full
    assert answers.labels.tolist() == tempered.argmax(1).tolist()
    targets = answers.targets(7)
    torch.testing.assert_close(targets.sum(1), torch.ones(len(rows)))
    assert float(targets.min()) >= 0
    if granularity.kind == "top":
        assert torch.equal(answers.probabilities, full.topk(granularity.k).values)
        assert torch.equal(full.gather(1, answers.classes), answers.probabilities)
        assert all(len(set(row)) == granularity.k for row in answers.classes.tolist())
        assert torch.equal(answers.classes[:, 0], answers.labels)
    if granularity.kind == "rounded":
        steps = answers.probabilities.double() * 10**granularity.decimals
        assert float((steps - steps.round()).abs().max()) < 1e-7 * 10**granularity.decimals + 1e-9
        assert float((answers.probabilities - full).abs().max()) <= 0.5 / 10**granularity.decimals + 1e-6
    packed = granularity.pack(answers, granularity.record(7))
    again = granularity.unpack(np.frombuffer(packed.tobytes(), packed.dtype))
    for before, after in zip(vars(answers).values(), vars(again).values(), strict=True):
        assert before is after is None or (before.dtype == after.dtype and torch.equal(before, after))


def test_answers_are_cut_by_slices():
    answers = Granularity.parse("top-2").show(EXACT)[1:]
    assert (len(answers), answers.labels.tolist(), answers.classes.tolist()) == (1, [2], [[2, 0]])
    assert answers.probabilities.tolist() == [[0.8125, 0.0625]]


# -- the API -----------------------------------------------------------------


def test_the_api_answers_as_the_victim_does():
    victim = linear_victim()
    images = noise(20)
    answers = PredictionAPI(victim).query(images)
    expected = torch.softmax(victim.logits(images), 1).detach()
    assert torch.equal(answers.probabilities, expected)
    assert torch.equal(answers.labels, expected.argmax(1))


@pytest.mark.parametrize("text", ["full", "top-3", "temperature-2.0"])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_answers_do_not_depend_on_the_batch(text, size):
    images = noise(30)
    together = PredictionAPI(linear_victim(), answers=text, batch_size=8).query(images)
    api = PredictionAPI(linear_victim(), answers=text)
    apart = [api.query(batch) for batch in images.split(size)]
    torch.testing.assert_close(torch.cat([part.probabilities for part in apart]), together.probabilities)
    assert torch.equal(torch.cat([part.labels for part in apart]), together.labels)


def test_the_victim_sees_no_more_than_a_batch_at_a_time():
    victim = linear_victim()
    PredictionAPI(victim, batch_size=8).query(noise(20))
    assert victim.calls == [8, 8, 4]
    PredictionAPI(victim).query(noise(513))
    assert victim.calls[3:] == [512, 1]


def reachable(start: object) -> list:
    """Everything that hangs on an object, but not its code: modules, classes, functions."""
    code = type | types.ModuleType | types.FunctionType | types.BuiltinFunctionType
    seen, waiting = {}, [start]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, code):
            continue
        seen[id(item)] = item
        waiting += gc.get_referents(item)
        if isinstance(item, torch.Tensor):
            waiting += [item.grad_fn, item._base]
        if isinstance(item, np.ndarray):
            waiting += [item.base]
    return list(seen.values())


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("text", "most"), [("label", 8), ("top-1", 20), ("top-3", 44), ("full", 48), ("rounded-1", 48)]
)
def test_answers_carry_nothing_hidden(text, most, count):
    """`most`: bytes of a label (8), of each class shown (8) and of each probability (4)."""
    answers = PredictionAPI(linear_victim(), answers=text).query(noise(count))
    found = reachable(answers)
    tensors = [item for item in found if isinstance(item, torch.Tensor)]
    assert len(tensors) == sum(part is not None for part in vars(answers).values())
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == most * count
    assert all(tensor._base is None and not tensor.requires_grad for tensor in tensors)
    assert not [item for item in found if isinstance(item, np.ndarray | bytes | bytearray | memoryview)]
    local = Granularity.parse(text).apply(torch.randn(count, 10))
    assert sum(part.untyped_storage().nbytes() for part in vars(local).values() if part is not None) == most * count


def test_the_same_bytes_in_another_shape_are_another_request():
    class Mean:
        classes, fingerprint, image_shape = ("dark", "light"), "mean", None

        def logits(self, images):
            mean = images.float().mean((1, 2, 3))
            return torch.stack([128 - mean, mean - 128], 1)

    api = PredictionAPI(Mean())
    wide = torch.arange(64, dtype=torch.uint8).view(2, 1, 4, 8)
    api.query(wide, request="a")
    with pytest.raises(RequestReused):
        api.query(wide.view(2, 1, 8, 4), request="a")
    assert api.usage("anonymous").queries == 2


def test_a_retry_returns_the_same_for_free_whatever_was_done_to_the_first_answer():
    victim = linear_victim()
    api = PredictionAPI(victim, budget=4, price=0.5)
    first = api.query(noise(4), request="a")
    kept = first.probabilities.clone()
    first.probabilities.zero_()
    assert torch.equal(api.query(noise(4), request="a").probabilities, kept)
    assert victim.calls == [4]
    assert (api.usage("anonymous").queries, api.usage("anonymous").cost) == (4, 2.0)


def test_an_id_with_other_images_is_refused():
    api = PredictionAPI(linear_victim(), budget=10)
    api.query(noise(4), request="a", client="eve")
    for other in (noise(4, seed=2), noise(4)[:3], noise(4).flip(0)):
        with pytest.raises(InputError, match="^request 'a' of client 'eve' was made with other images or to"):
            api.query(other, request="a", client="eve")
    assert api.usage("eve").queries == 4
    api.query(noise(4, seed=2), request="a", client="adam")  # another client's ids are its own


def test_an_id_at_another_api_of_the_same_meter_is_refused():
    meter = Meter()
    PredictionAPI(linear_victim(), meter=meter).query(noise(2), request="a")
    with pytest.raises(InputError, match="to another API"):
        PredictionAPI(linear_victim(), meter=meter, answers="label").query(noise(2), request="a")


def test_a_batch_that_overruns_is_refused_whole():
    victim = linear_victim()
    api = PredictionAPI(victim, budget=10, price=0.25)
    api.query(noise(7))
    with pytest.raises(BudgetExceeded, match="^client 'anonymous' asks 4 queries and 3 of 10 are left: ask at most 3$"):
        api.query(noise(4))
    assert victim.calls == [7]  # what is refused is not computed
    usage = api.usage("anonymous")
    assert (usage.queries, usage.budget, usage.remaining, usage.cost) == (7, 10, 3, 1.75)
    api.query(noise(3))
    with pytest.raises(BudgetExceeded, match="asks 1 queries and 0 of 10 are left"):
        api.query(noise(1))


def test_apis_of_one_meter_share_accounts_and_have_terms_of_their_own():
    meter = Meter()
    cheap, dear = (
        PredictionAPI(linear_victim(), budget=budget, price=price, meter=meter)
        for budget, price in ((8, 0.5), (6, 1.0))
    )
    cheap.query(noise(4), client="eve")
    dear.query(noise(2), client="eve")
    with pytest.raises(BudgetExceeded, match="asks 1 queries and 0 of 6 are left"):
        dear.query(noise(1), client="eve")
    cheap.query(noise(2), client="eve")
    assert (cheap.usage("eve").cost, cheap.usage("eve").remaining, dear.usage("eve").remaining) == (5.0, 0, 0)
    assert dear.usage("eve") == Usage(queries=8, budget=6, cost=5.0)
    assert (cheap.usage("nobody").cost, cheap.usage("nobody").remaining) == (0.0, 8)


def test_without_a_budget_there_is_no_limit():
    api = PredictionAPI(linear_victim())
    api.query(noise(100))
    assert (api.usage("anonymous").budget, api.usage("anonymous").remaining) == (None, None)


requests = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6), st.integers(0, 4)), max_size=25)


@given(budget=st.integers(1, 15), sent=requests)
def test_never_above_budget_and_never_refused_early(budget, sent):
    """Against a model of the meter in three lines: what is charged, what is known, what is left."""
    api = PredictionAPI(linear_victim(3), budget=budget)
    charged, known = {"a": 0, "b": 0}, set()
    for client, count, number in sent:
        name = f"{count} {number}"
        free = (client, name) in known
        if free or charged[client] + count <= budget:
            api.query(noise(count), client=client, request=name)
            charged[client] += 0 if free else count
            known.add((client, name))
        else:
            with pytest.raises(BudgetExceeded):
                api.query(noise(count), client=client, request=name)
        assert api.usage(client).queries == charged[client] <= budget


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[1, 2]], "images are a list: expected uint8 of shape (n, 3, 4, 4), n at least 1"),
        (None, "images are a NoneType: expected uint8"),
        (np.zeros((1, 3, 4, 4), np.uint8), "images are an array of NumPy"),
        (noise(1)[0], "images are torch.uint8 of shape (3, 4, 4): expected uint8 of shape (n, 3, 4, 4), n at least 1"),
        (noise(1)[:, :1], "of shape (1, 1, 4, 4)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "of shape (2, 3, 8, 8)"),
        (noise(1).float(), "images are torch.float32 of shape (1, 3, 4, 4)"),
        (noise(1).float() * math.nan, "images are torch.float32 of shape (1, 3, 4, 4): expected uint8"),
        (noise(1).long(), "images are torch.int64"),
        (noise(0), "images are torch.uint8 of shape (0, 3, 4, 4): expected uint8 of shape (n, 3, 4, 4), n at least 1"),
    ],
)
def test_bad_queries_are_refused_and_cost_nothing(images, message):
    victim = linear_victim()
    api = PredictionAPI(victim, budget=5, price=1.0)
    api.query(noise(2))
    before = api.usage("anonymous")
    with pytest.raises(InputError) as caught:
        api.query(images)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert api.usage("anonymous") == before
    assert victim.calls == [2]


@pytest.mark.parametrize("shape", [None, (1, 4, 4), [3, 4, 4]])
def test_a_victim_says_which_images_it_takes(shape):
    victim = replace(linear_victim(), image_shape=shape)
    wrong = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    if shape is None:
        gray = torch.zeros(2, 1, 8, 6, dtype=torch.uint8)  # as many numbers as it has weights
        assert len(PredictionAPI(victim).query(gray)) == 2
        wrong, sizes = wrong[0], "channels, height, width"
    else:
        sizes = ", ".join(map(str, shape))
        if shape[0] == 3:
            assert len(PredictionAPI(victim).query(noise(2))) == 2
    with pytest.raises(
        InputError, match=f"^images are torch.uint8 of .*: expected uint8 of shape \\(n, {sizes}\\), n at least 1$"
    ):
        PredictionAPI(victim).query(wrong)


@pytest.mark.parametrize("missing", ["classes", "fingerprint", "image_shape", "logits"])
def test_what_is_no_victim_is_refused(missing):
    victim = linear_victim()
    parts = {name: getattr(victim, name) for name in ("classes", "fingerprint", "image_shape", "logits")}
    assert len(PredictionAPI(types.SimpleNamespace(**parts)).query(noise(2))) == 2
    del parts[missing]
    with pytest.raises(InputError, match=f"^the victim is a SimpleNamespace without '{missing}': wrap a module in Vic"):
        PredictionAPI(types.SimpleNamespace(**parts))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ()}, r"there are 0 class\(es\): expected at least 2"),
        ({"classes": ("a",)}, r"there are 1 class\(es\): expected at least 2"),
        ({"classes": 3}, "classes are 3: expected a name for each class"),
        ({"classes": "abc"}, "classes are 'abc': expected a name for each class"),
        ({"classes": ("a", "a")}, "two classes are called 'a': give each its own name"),
        ({"classes": ("1", 1)}, "two classes are called '1'"),
        ({"classes": ("a", "")}, "a class is called '': expected a non-empty name"),
        ({"classes": ("a", None)}, "a class is called None"),
        ({"fingerprint": 7}, "fingerprint of the victim is 7: expected a non-empty name"),
        ({"fingerprint": None}, "fingerprint of the victim is None"),
    ],
)
def test_a_victim_whose_classes_or_fingerprint_cannot_be_is_refused(changes, words):
    victim = linear_victim()
    parts = {name: getattr(victim, name) for name in ("classes", "fingerprint", "image_shape", "logits")}
    with pytest.raises(InputError, match=words):
        PredictionAPI(types.SimpleNamespace(**{**parts, **changes}))


def test_a_victim_that_fails_is_named_and_nothing_is_charged():
    victim = linear_victim()
    parts = {name: getattr(victim, name) for name in ("classes", "fingerprint", "image_shape")}
    api = PredictionAPI(types.SimpleNamespace(**parts, logits=lambda images: {}["weights"]), price=1.0)
    with pytest.raises(
        InputError, match=r"^the victim failed \(KeyError: 'weights'\): fix the victim; nothing was charged$"
    ) as found:
        api.query(noise(3))
    assert isinstance(found.value.__cause__, KeyError)  # where it was, for whoever mends it
    assert api.usage("anonymous").queries == 0


# -- names, money, and what a victim returns ---------------------------------------


def test_without_a_name_usage_is_that_of_the_only_client_or_of_all():
    api = PredictionAPI(linear_victim(), price=0.1, budget=9)
    assert api.usage() == Usage(queries=0, budget=9, cost=0.0)
    api.query(noise(3), client="eve")
    assert api.usage() == api.usage("eve") == Usage(queries=3, budget=9, cost=0.3)
    api.query(noise(4), client="mallory")
    assert api.usage() == Usage(queries=7, budget=None, cost=0.7)  # each has a budget for itself
    assert api.usage("eve").remaining == 6 and api.usage("anonymous").queries == 0


NO_NAMES = ["", None, 1, True, 1.5, b"eve", ["eve"], "eve\ud800", "\udcff"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_and_charges_nothing(name):
    victim = linear_victim()
    api = PredictionAPI(victim, price=1.0)
    with pytest.raises(InputError, match="^client is .*: expected a non-empty name$"):
        api.query(noise(1), client=name)
    if name is not None:  # a request without a name gets one, and all clients together have none
        with pytest.raises(InputError, match="^client is .*: expected a non-empty name$"):
            api.usage(name)
        with pytest.raises(InputError, match="^request is .*: expected a non-empty name$"):
            api.query(noise(1), request=name)
    assert victim.calls == []
    assert {api.usage(client).queries for client in ("anonymous", "1", "True", "None", "eve")} == {0}


def test_odd_names_are_names():
    api = PredictionAPI(linear_victim())
    names = ["1", " ", "Ève", "eve; DROP TABLE accounts", "a\nb", "a\0b", "a", "猫" * 1_000]
    for count, name in enumerate(names, start=1):
        api.query(noise(count), client=name, request=name)
        api.query(noise(count), client=name, request=name)
    assert [api.usage(name).queries for name in names] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "5", math.inf, 2**63, 10**30])
def test_bad_budgets_are_refused(budget):
    message = f"^budget is {budget!r}: expected a whole number from 1 to 9,223,372,036,854,775,807$"
    with pytest.raises(InputError, match=message):
        PredictionAPI(linear_victim(), budget=budget)


@pytest.mark.parametrize("price", [-0.5, math.nan, math.inf, -math.inf, "1", True, 1e308, 1.01e12, 10**12 + 1])
def test_bad_prices_are_refused(price):
    message = f"^price is {re.escape(repr(price))}: expected a finite number from 0 to 1,000,000,000,000$"
    with pytest.raises(InputError, match=message):
        PredictionAPI(linear_victim(), price=price)


def test_the_highest_budget_and_price_work():
    api = PredictionAPI(linear_victim(), budget=HIGHEST, price=HIGHEST_PRICE)
    api.query(noise(3))
    assert api.usage("anonymous") == Usage(queries=3, budget=2**63 - 1, cost=3e12)
    assert api.usage("anonymous").remaining == 2**63 - 4


def test_queries_cost_nothing_unless_a_price_is_set():
    meter = Meter()
    free, paid = PredictionAPI(linear_victim(), meter=meter), PredictionAPI(linear_victim(), price=0.25, meter=meter)
    free.query(noise(7))
    assert free.usage("anonymous") == Usage(queries=7, budget=None, cost=0.0)
    paid.query(noise(2))
    assert paid.usage("anonymous").cost == 0.5  # what was free stays free


@pytest.mark.parametrize(("price", "each", "times", "cost"), [(0.1, 1, 20, 2.0), (0.1, 3, 1, 0.3), (0.7, 7, 10, 49.0)])
def test_costs_are_exact(price, each, times, cost):
    """Added as floats, twenty times 0.1 is 2.0000000000000004."""
    api = PredictionAPI(linear_victim(), price=price)
    for _ in range(times):
        api.query(noise(each))
    assert api.usage("anonymous").cost == cost


@pytest.mark.parametrize("batch_size", [0, -1, True, 2.0, 65_537, 2**70])
def test_bad_batch_sizes_are_refused(batch_size):
    with pytest.raises(InputError, match=f"^batch size is {batch_size}: expected a whole number from 1 to 65,536$"):
        PredictionAPI(linear_victim(), batch_size=batch_size)


def spoiled(logits: torch.Tensor, value: float) -> torch.Tensor:
    logits = logits.detach().clone()
    logits[-1, -1] = value
    return logits


FAULTS = {
    "NaN": (lambda logits: spoiled(logits, math.nan), "NaN or infinite logits"),
    "infinity": (lambda logits: spoiled(logits, math.inf), "NaN or infinite logits"),
    "a row too few": (lambda logits: logits[:-1], r"\(3, 10\) for 4 images and 10 classes"),
    "a row too many": (lambda logits: torch.cat([logits, logits[:1]]), r"\(5, 10\) for 4 images and 10 classes"),
    "a class too few": (lambda logits: logits[:, :-1], r"\(4, 9\) for 4 images and 10 classes"),
    "labels": (lambda logits: logits.argmax(1), r"\(4,\) for 4 images and 10 classes"),
    "an array": (lambda logits: logits.detach().numpy(), "a ndarray for 4 images and 10 classes"),
    "nothing": (lambda logits: None, "a NoneType for 4 images and 10 classes"),
    "sparse": (
        lambda logits: logits.to_sparse(),
        "a tensor of torch.float32 that is sparse, complex, quan",
    ),
    "complex": (lambda logits: logits.to(torch.complex64), "a tensor of torch.complex64 that is sparse, complex, quan"),
    "without data": (lambda logits: logits.to("meta"), "a tensor of torch.float32 that is sparse, complex, quantized"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_victim_that_returns_no_answer_is_refused_and_nothing_is_charged(fault):
    spoil, words = FAULTS[fault]
    victim, state = linear_victim(), {"broken": True}
    parts = {name: getattr(victim, name) for name in ("classes", "fingerprint", "image_shape")}

    def logits(images):
        found = victim.logits(images)
        return spoil(found) if state["broken"] and len(victim.calls) == 2 else found

    api = PredictionAPI(types.SimpleNamespace(**parts, logits=logits), price=1.0, budget=8, batch_size=4)
    with pytest.raises(InputError, match=f"^the victim returned {words}.*: fix the victim; nothing was charged$"):
        api.query(noise(8), request="a")  # its second batch fails
    assert api.usage("anonymous") == Usage(queries=0, budget=8, cost=0.0)
    state["broken"] = False
    assert torch.equal(api.query(noise(8), request="a").labels, PredictionAPI(linear_victim()).query(noise(8)).labels)
    assert api.usage("anonymous").cost == 8.0


# -- detector and policy -----------------------------------------------------


class Dark:
    """Takes dark images for an attacker's."""

    fingerprint = "dark"

    def detect(self, images):
        return images.float().mean((1, 2, 3)) < 100


class Reverse:
    """Gives the probabilities of detected queries in reverse order."""

    fingerprint = "reverse"

    def answer(self, probabilities, detected, images):
        return torch.where(detected[:, None], probabilities.flip(1), probabilities)


@pytest.mark.parametrize("text", ["full", "label", "top-2"])
def test_the_policy_alters_what_the_detector_finds(text):
    images = noise(6)
    images[:3] //= 4
    plain = PredictionAPI(linear_victim(5), answers=text).query(images)
    guarded = PredictionAPI(linear_victim(5), answers=text, detector=Dark(), policy=Reverse(), batch_size=4)
    answers = guarded.query(images)
    assert answers.labels.tolist() == (4 - plain.labels[:3]).tolist() + plain.labels[3:].tolist()
    if text == "full":
        assert torch.equal(answers.probabilities[:3], plain.probabilities[:3].flip(1))
        assert torch.equal(answers.probabilities[3:], plain.probabilities[3:])


@pytest.mark.parametrize("count", [1, 5])
def test_a_policy_that_returns_another_number_of_answers_is_refused_and_nothing_is_charged(count):
    policy = types.SimpleNamespace(fingerprint="cut", answer=lambda probabilities, *_: torch.ones(count, 10) / 10)
    api = PredictionAPI(linear_victim(), detector=Dark(), policy=policy, price=1.0)
    with pytest.raises(
        InputError, match=rf"^the policy returned \({count}, 10\) for 3 images and 10 classes, not a tensor, float of"
    ):
        api.query(noise(3))
    assert api.usage("anonymous").queries == 0


NONSENSE = {
    "negative": lambda shown: -shown,
    "twice as much": lambda shown: 2 * shown,
    "infinite": lambda shown: shown * math.inf,
    "NaN in part": lambda shown: torch.cat([shown[:, :-1], shown[:, -1:] * math.nan], 1),
    "nothing": lambda shown: None,
    "an error": lambda shown: 1 / 0,
    "changed in place": lambda shown: shown.mul_(0.5),
}


@pytest.mark.parametrize("how", NONSENSE)
def test_a_policy_that_answers_nonsense_is_refused_and_nothing_is_charged(how):
    policy = types.SimpleNamespace(fingerprint="odd", answer=lambda shown, *_: NONSENSE[how](shown))
    api = PredictionAPI(linear_victim(), detector=Dark(), policy=policy, price=1.0)
    with pytest.raises(InputError, match="^the policy (returned|failed) .*: fix the policy; nothing was charged$"):
        api.query(noise(3), request="a")
    assert api.usage("anonymous") == Usage(queries=0, budget=None, cost=0.0)


def test_policies_may_deny_and_answer_with_certainty():
    def answer(shown, detected, images):
        certain = torch.eye(10)[shown.argmax(1)]
        return torch.where(torch.arange(len(shown))[:, None] == 1, torch.full_like(shown, math.nan), certain)

    policy = types.SimpleNamespace(fingerprint="certain", answer=answer)
    answers = PredictionAPI(linear_victim(), detector=Dark(), policy=policy).query(noise(3))
    assert answers.denied.tolist() == [False, True, False]
    assert answers.probabilities.sum(1).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("detect", "words"),
    [
        (
            lambda images: torch.zeros(2, dtype=torch.bool),
            r"returned \(2,\) for 3 images, not a tensor, bool of shape \(3,\)",
        ),
        (lambda images: torch.zeros(3), "returned torch.float32, not bool"),
        (lambda images: [True] * 3, r"returned a list for 3 images, not a tensor, bool of shape \(3,\)"),
        (lambda images: images.missing, r"failed \(AttributeError: 'Tensor' object has no attribute 'missing'\)"),
    ],
)
def test_a_detector_that_says_nothing_of_use_is_refused_and_nothing_is_charged(detect, words):
    detector = types.SimpleNamespace(fingerprint="odd", detect=detect)
    api = PredictionAPI(linear_victim(), detector=detector, policy=Reverse(), price=1.0)
    with pytest.raises(InputError, match=f"^the detector {words}: fix the detector; nothing was charged$"):
        api.query(noise(3))
    assert api.usage("anonymous").queries == 0


def test_a_threshold_that_is_set_later_makes_another_api():
    detector = Dark()
    api = PredictionAPI(linear_victim(), detector=detector, policy=Reverse())
    before, own = api.fingerprint, detector.fingerprint
    detector.fingerprint = "darker"
    assert api.fingerprint != before
    detector.fingerprint = own
    assert api.fingerprint == before


def test_detector_and_policy_have_what_is_asked_of_them():
    for parts, words in {
        "fingerprint detect": "the policy is a SimpleNamespace without 'fingerprint': give it a fingerprint and answer",
        "detect": "the detector is a SimpleNamespace without 'fingerprint': give it a fingerprint and detect",
        "fingerprint": "the detector is a SimpleNamespace without 'detect'",
    }.items():
        detector = types.SimpleNamespace(**dict.fromkeys(parts.split(), "f"))
        with pytest.raises(InputError, match=words):
            PredictionAPI(linear_victim(), detector=detector, policy=types.SimpleNamespace())


def test_detector_and_policy_belong_together():
    for alone in ({"detector": Dark()}, {"policy": Reverse()}):
        with pytest.raises(InputError, match="^detector and policy belong together: give both or neither$"):
            PredictionAPI(linear_victim(), **alone)


def test_the_fingerprint_tells_apart_what_answers_differently():
    victim = linear_victim()
    apis = [
        PredictionAPI(victim),
        PredictionAPI(victim, answers="label"),
        PredictionAPI(linear_victim(seed=1)),
        PredictionAPI(victim, detector=Dark(), policy=Reverse()),
    ]
    assert len({api.fingerprint for api in apis}) == 4
    assert PredictionAPI(victim, budget=3, price=1.0, batch_size=2).fingerprint == apis[0].fingerprint


# -- denied answers ----------------------------------------------------------------


class EverySecond:
    """Detects every second image of a batch, and denies what is detected."""

    fingerprint = "every second"

    def detect(self, images):
        return torch.arange(len(images)) % 2 == 1

    def answer(self, probabilities, detected, images):
        return probabilities.masked_fill(detected[:, None], torch.nan)


@pytest.mark.parametrize("granularity", ["full", "top-3", "rounded-2", "label", "temperature-2.0"])
def test_a_denied_answer_shows_nothing_and_is_charged(granularity):
    images, guard = noise(6), EverySecond()
    api = PredictionAPI(linear_victim(), answers=granularity, detector=guard, policy=guard, price=0.5)
    answers = api.query(images, client="a", request="1")
    plain = PredictionAPI(linear_victim(), answers=granularity).query(images)
    assert answers.denied.tolist() == [False, True] * 3
    assert answers.labels.tolist()[1::2] == [-1, -1, -1]
    assert answers.labels.tolist()[::2] == plain.labels.tolist()[::2]
    if answers.probabilities is not None:
        assert answers.probabilities[1::2].abs().sum() == 0
        assert torch.equal(answers.probabilities[::2], plain.probabilities[::2])
    assert (api.usage("a").queries, api.usage("a").cost) == (6, 3.0)
    again = api.query(images, client="a", request="1")
    assert torch.equal(again.labels, answers.labels)


def test_denied_answers_give_no_targets():
    images, guard = noise(4), EverySecond()
    answers = PredictionAPI(linear_victim(), detector=guard, policy=guard).query(images)
    with pytest.raises(InputError, match="2 of 4 answers were denied: leave those out first"):
        answers.targets(10)
    kept = answers[~answers.denied]
    assert torch.allclose(kept.targets(10).sum(1), torch.ones(2))


def test_the_last_class_number_stands_for_a_denial():
    with pytest.raises(InputError, match="65536 classes: at most 65535 are possible"):
        Label().record(65_536)


def test_answers_of_another_granularity_are_not_stored():
    """What a far API sends is not trusted: nothing that lay in memory may fill the gaps."""
    label, short = Label().show(EXACT), Full().show(EXACT[:, :3])
    one = Answers(label.labels, None, torch.full((2, 1), 0.5))  # would fit every class
    for granularity, answers, name in (
        (Full(), label, "probabilities"),
        (Full(), short, "probabilities"),
        (Full(), one, "probabilities"),
        (TopK(2), TopK(3).show(EXACT), "classes"),
        (TopK(2), Full().show(EXACT), "classes"),
        (Rounded(1), label, "probabilities"),
    ):
        with pytest.raises(InputError, match=f"^the answers' {name} are not those of granularity {granularity}: fix"):
            granularity.pack(answers, granularity.record(4))


def test_a_granularity_that_does_not_say_what_it_shows_shows_nothing():
    class Silent(Granularity, kind="silent"):
        pass

    try:
        with pytest.raises(InputError, match="granularity silent does not say what it shows: define Silent._shown"):
            PredictionAPI(linear_victim(), answers=Silent())
    finally:
        KINDS.pop("silent")


def test_the_name_of_a_granularity_is_what_it_is_read_as():
    with pytest.raises(InputError, match="the kind of a granularity is 'top_labels': use small letters only"):
        type("Odd", (Granularity,), {}, kind="top_labels")

    @dataclass(frozen=True)
    class Noisy(Granularity, kind="noisy"):
        k: int
        spread: float

    try:
        with pytest.raises(InputError, match="unknown granularity 'noisy-2-0.1'"):
            PredictionAPI(linear_victim(), answers=Noisy(2, 0.1))
    finally:
        KINDS.pop("noisy")


def test_a_threshold_of_ones_own_detector_is_in_the_fingerprint():
    class Bright:
        fingerprint, threshold = "bright", 100.0

        def detect(self, images):
            return images.float().mean((1, 2, 3)) > self.threshold

    detector = Bright()
    api = PredictionAPI(linear_victim(), detector=detector, policy=Deny())
    before = api.fingerprint
    detector.threshold = 50.0
    assert api.fingerprint != before


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (Answers(torch.tensor([2.7, 1.0])), r"have labels \(2,\)"),
        (Answers(torch.tensor([1, 2]), torch.tensor([[1, 1], [2, 0]]), torch.full((2, 2), 0.4)), "same class twice"),
        (Answers(torch.tensor([1, 2]), torch.tensor([[1, 0], [0, 2]]), torch.full((2, 2), 0.4)), "not the first"),
        (
            Answers(torch.tensor([1, 2]), torch.tensor([[1.0], [2.0]]), torch.full((2, 1), 0.4)),
            r"have classes \(2, 1\)",
        ),
    ],
    ids=["float labels", "twice", "not first", "float classes"],
)
def test_answers_of_a_service_of_ones_own_are_looked_at(answers, words):
    with pytest.raises(InputError, match=words):
        Granularity.parse("top-2").check(answers, count=2, classes=3)


def test_a_denied_answer_shows_no_classes():
    shown = Granularity.parse("top-2").show(torch.tensor([[0.2, 0.5, 0.3], [math.nan] * 3]))
    checked = Granularity.parse("top-2").check(shown, count=2, classes=3)
    assert torch.equal(checked.labels, shown.labels) and torch.equal(checked.classes, shown.classes)


def test_numbers_of_numpy_are_numbers():
    assert TopK(np.int64(3)) == TopK(3) and str(TopK(np.int64(3))) == "top-3"
    assert Rounded(np.int32(2)) == Rounded(2) and type(Rounded(np.int32(2)).decimals) is int
    for number in (np.float64(2.0), np.float32(2.0), np.int64(2), 2):
        assert Temperature(number) == Temperature(2.0) and str(Temperature(number)) == str(Temperature(2.0))


def test_a_meter_may_be_given_by_its_file(tmp_path):
    for name in (tmp_path / "meter.db", str(tmp_path / "meter.db")):
        api = PredictionAPI(linear_victim(), budget=10, meter=name)
        api.query(noise(2))
    assert api.usage().queries == 4 and api.usage().remaining == 6
