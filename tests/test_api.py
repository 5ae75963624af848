"""The prediction API: what each granularity shows, what is charged, and what is refused."""

import gc
import math
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_victim import linear_victim, noise

from extractlib.api.meter import Meter
from extractlib.api.service import BudgetExceeded, Granularity, PredictionAPI
from extractlib.errors import InputError

EXACT = torch.tensor([[0.5, 0.125, 0.25, 0.125], [0.0625, 0.0625, 0.8125, 0.0625]])
"""Two answers whose probabilities are exact in binary."""


def exact(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


# -- granularity, by hand ----------------------------------------------------


def test_full_shows_the_softmax():
    answers = Granularity.parse("full").apply(torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), 0.0]]))
    torch.testing.assert_close(answers.probabilities, exact([[0.25, 0.75], [0.8, 0.2]]))
    assert answers.labels.tolist() == [1, 0]
    assert answers.classes is None


def test_temperature_divides_the_logits():
    answers = Granularity.parse("temperature-2.0").apply(torch.tensor([[0.0, math.log(9.0)]]))
    torch.testing.assert_close(answers.probabilities, exact([[0.25, 0.75]]))


def test_top_shows_the_largest_in_falling_order_and_the_lowest_class_of_equals_first():
    answers = Granularity.parse("top-2").show(EXACT)
    assert answers.classes.tolist() == [[0, 2], [2, 0]]
    assert answers.probabilities.tolist() == [[0.5, 0.25], [0.8125, 0.0625]]
    assert answers.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("digits", "shown"),
    [(0, [0.0, 0.0, 1.0, 0.0]), (1, [0.1, 0.1, 0.8, 0.1]), (2, [0.06, 0.06, 0.81, 0.06]), (4, EXACT[1].tolist())],
)
def test_rounded_keeps_so_many_decimals(digits, shown):
    answers = Granularity("rounded", digits).show(EXACT[1:])
    torch.testing.assert_close(answers.probabilities, exact([shown]), rtol=0, atol=1e-8)
    assert answers.labels.tolist() == [2]


def test_label_shows_the_label_alone():
    answers = Granularity.parse("label").show(EXACT)
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
    # 0.5 rounds to even, to zero: nothing is left of the first answer but its label.
    assert targets("rounded-0").tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    torch.testing.assert_close(targets("rounded-1")[1], exact([0.1, 0.1, 0.8, 0.1]) / 1.1)


@pytest.mark.parametrize("text", ["full", "top-5", "rounded-2", "label", "temperature-2.0", "temperature-0.5"])
def test_text_and_granularity_are_inverse(text):
    assert str(Granularity.parse(text)) == text
    assert Granularity.parse(Granularity.parse(text)) == Granularity.parse(text)


@pytest.mark.parametrize(
    "text",
    [*"fill top top-0 top--1 top-2.5 top-x rounded-7 rounded-1.0 label-1 label- full-2".split(), "", 5, None]
    + ["temperature-0", "temperature-nan", "temperature-inf", "temperature-1000"],
)
def test_unknown_granularities_are_refused(text):
    with pytest.raises(InputError, match=r"^unknown granularity '.*': use full, top-K [^\n]*$") as caught:
        Granularity.parse(text)
    assert repr(str(text)) in str(caught.value)


def test_values_of_the_wrong_type_are_refused():
    for kind, value in (("top", True), ("top", 2.0), ("temperature", 2), ("full", 1), ("rounded", None)):
        with pytest.raises(InputError, match="unknown granularity"):
            Granularity(kind, value)


def test_top_beyond_the_classes_is_refused():
    with pytest.raises(InputError, match="^granularity top-11: the victim has only 10 classes$"):
        PredictionAPI(linear_victim(), granularity="top-11")


# -- granularity, always -----------------------------------------------------

GRANULARITIES = ["full", "label", "top-1", "top-3", "top-7", "rounded-0", "rounded-2", "rounded-5", "temperature-3.0"]
logit_rows = st.lists(st.lists(st.floats(-60, 60, width=32), min_size=7, max_size=7), min_size=1, max_size=6)


@settings(deadline=None)
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
        assert torch.equal(answers.probabilities, full.topk(granularity.value).values)
        assert torch.equal(full.gather(1, answers.classes), answers.probabilities)
        assert all(len(set(row)) == granularity.value for row in answers.classes.tolist())
        assert torch.equal(answers.classes[:, 0], answers.labels)
    if granularity.kind == "rounded":
        steps = answers.probabilities.double() * 10**granularity.value
        assert float((steps - steps.round()).abs().max()) < 1e-7 * 10**granularity.value + 1e-9
        assert float((answers.probabilities - full).abs().max()) <= 0.5 / 10**granularity.value + 1e-6
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
    together = PredictionAPI(linear_victim(), granularity=text, batch_size=8).query(images)
    api = PredictionAPI(linear_victim(), granularity=text)
    apart = [api.query(batch) for batch in images.split(size)]
    torch.testing.assert_close(torch.cat([part.probabilities for part in apart]), together.probabilities)
    assert torch.equal(torch.cat([part.labels for part in apart]), together.labels)


def test_the_victim_sees_no_more_than_a_batch_at_a_time():
    victim = linear_victim()
    PredictionAPI(victim, batch_size=8).query(noise(20))
    assert victim.calls == [8, 8, 4]


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
    answers = PredictionAPI(linear_victim(), granularity=text).query(noise(count))
    found = reachable(answers)
    tensors = [item for item in found if isinstance(item, torch.Tensor)]
    assert len(tensors) == sum(part is not None for part in vars(answers).values())
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == most * count
    assert all(tensor._base is None and not tensor.requires_grad for tensor in tensors)
    assert not [item for item in found if isinstance(item, np.ndarray | bytes | bytearray | memoryview)]
    local = Granularity.parse(text).apply(torch.randn(count, 10))
    assert sum(part.untyped_storage().nbytes() for part in vars(local).values() if part is not None) == most * count


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
        PredictionAPI(linear_victim(), meter=meter, granularity="label").query(noise(2), request="a")


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


def test_clients_have_budgets_and_prices_of_their_own():
    api = PredictionAPI(linear_victim(), budget=5, price=1.0)
    api.register("rich", budget=8, price=0.5)
    api.register("friend", price=0.0)
    for client, count in (("rich", 8), ("friend", 5), ("stranger", 5)):
        api.query(noise(count), client=client)
        with pytest.raises(BudgetExceeded):
            api.query(noise(1), client=client)
    assert [api.usage(client).cost for client in ("rich", "friend", "stranger", "nobody")] == [4.0, 0.0, 5.0, 0.0]
    assert api.usage("nobody").remaining == 5
    api.register("rich", budget=6)
    assert (api.usage("rich").queries, api.usage("rich").remaining) == (8, 0)


def test_without_a_budget_there_is_no_limit():
    api = PredictionAPI(linear_victim())
    api.query(noise(100))
    assert (api.usage("anonymous").budget, api.usage("anonymous").remaining) == (None, None)


requests = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 6), st.integers(0, 4)), max_size=25)


@settings(deadline=None)
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
        ([[1, 2]], "images are a list: a tensor, uint8 of shape (n, 3, 4, 4) is wanted"),
        (None, "images are a NoneType: a tensor"),
        (np.zeros((1, 3, 4, 4), np.uint8), "images are a ndarray: a tensor"),
        (noise(1)[0], "images are torch.uint8 of shape (3, 4, 4): uint8 of shape (n, 3, 4, 4) is wanted"),
        (noise(1)[:, :1], "of shape (1, 1, 4, 4)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "of shape (2, 3, 8, 8)"),
        (noise(1).float(), "images are torch.float32 of shape (1, 3, 4, 4)"),
        (noise(1).float() * math.nan, "images are torch.float32 and hold NaN: uint8"),
        (noise(1).long(), "images are torch.int64"),
        (noise(0), "images are of shape (0, 3, 4, 4), none at all: at least one is wanted"),
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


@pytest.mark.parametrize("name", ["", None, 3, b"eve"])
def test_bad_names_are_refused(name):
    api = PredictionAPI(linear_victim())
    with pytest.raises(InputError, match="^client is .*: a name that is not empty is wanted$"):
        api.query(noise(1), client=name)
    if name is not None:
        with pytest.raises(InputError, match="^request is "):
            api.query(noise(1), request=name)


@pytest.mark.parametrize("budget", [0, -1, True, 1.5, "5"])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(InputError, match=f"^budget is {budget!r}: a whole number from 1 is wanted$"):
        PredictionAPI(linear_victim(), budget=budget)
    with pytest.raises(InputError, match="^budget is"):
        PredictionAPI(linear_victim()).register("eve", budget=budget)


@pytest.mark.parametrize("price", [-0.5, math.nan, math.inf, "1", True])
def test_bad_prices_are_refused(price):
    with pytest.raises(InputError, match=f"^price is {price!r}: a finite number from 0 is wanted$"):
        PredictionAPI(linear_victim(), price=price)


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
    plain = PredictionAPI(linear_victim(5), granularity=text).query(images)
    guarded = PredictionAPI(linear_victim(5), granularity=text, detector=Dark(), policy=Reverse(), batch_size=4)
    answers = guarded.query(images)
    assert answers.labels.tolist() == (4 - plain.labels[:3]).tolist() + plain.labels[3:].tolist()
    if text == "full":
        assert torch.equal(answers.probabilities[:3], plain.probabilities[:3].flip(1))
        assert torch.equal(answers.probabilities[3:], plain.probabilities[3:])


def test_detector_and_policy_belong_together():
    for alone in ({"detector": Dark()}, {"policy": Reverse()}):
        with pytest.raises(InputError, match="^detector and policy belong together: give both or neither$"):
            PredictionAPI(linear_victim(), **alone)


def test_the_fingerprint_tells_apart_what_answers_differently():
    victim = linear_victim()
    apis = [
        PredictionAPI(victim),
        PredictionAPI(victim, granularity="label"),
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
    api = PredictionAPI(linear_victim(), granularity=granularity, detector=guard, policy=guard, price=0.5)
    answers = api.query(images, client="a", request="1")
    plain = PredictionAPI(linear_victim(), granularity=granularity).query(images)
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
        Granularity("label").record(65_536)
