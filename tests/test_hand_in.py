"""Values that go to a graded notebook and back."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from linear_victim import linear_victim, noise

from extractbook.exercises import hand_in
from extractbook.exercises.without import DERIVATIVES
from extractlib import ImageSet, PredictionAPI, load_victim
from extractlib.api.meter import BudgetExceeded
from extractlib.attacks import Knockoff
from extractlib.data.images import Rows


def at_the_other_end(value: object) -> object:
    """Return a value as a notebook gets it; what it asks is answered as the judge answers."""
    services: list = []
    sent = json.loads(json.dumps(hand_in.encode(value, services)))

    def ask(place: int, arguments: list) -> object:
        asked = json.loads(json.dumps(hand_in.encode(arguments)))
        return hand_in.decode(json.loads(json.dumps(hand_in.encode(services[place](*hand_in.decode(asked))))))

    return hand_in.decode(sent, ask)


@pytest.mark.parametrize("answers", ["full", "top-2", "label"])
def test_an_api_answers_from_afar_as_from_near(answers):
    near = PredictionAPI(linear_victim(), answers=answers, budget=8)
    far = at_the_other_end(near)
    assert (far.classes, far.granularity, far.fingerprint) == (list(near.classes), near.granularity, near.fingerprint)
    given, wanted = far.query(noise(5), client="one"), near.query(noise(5), client="two")
    for part in ("labels", "classes", "probabilities"):
        found, right = getattr(given, part), getattr(wanted, part)
        assert (found is None) == (right is None)
        assert right is None or (found.dtype == right.dtype and torch.equal(found, right))
    assert far.usage("one") == near.usage("one")
    assert near.usage("one").remaining == 3


def test_a_budget_is_kept_from_afar():
    near = PredictionAPI(linear_victim(), budget=8)
    with pytest.raises(BudgetExceeded):
        at_the_other_end(near).query(noise(9))
    assert near.usage("anonymous").queries == 0


def test_an_api_without_a_judge_is_not_sent():
    with pytest.raises(TypeError, match="a value of type PredictionAPI cannot be handed in"):
        hand_in.encode(PredictionAPI(linear_victim()))


@pytest.mark.parametrize("labels", [None, torch.tensor([1, 0, 1])])
def test_images_arrive_as_they_are(labels):
    sent = ImageSet("some", noise(3), labels, ("a", "b") if labels is not None else ())
    found = at_the_other_end(sent)
    assert (found.name, found.classes, found.fingerprint) == (sent.name, sent.classes, sent.fingerprint)
    assert torch.equal(found.images, sent.images)
    assert found.labels is None if labels is None else torch.equal(found.labels, labels)


def test_a_victim_that_ships_is_loaded_at_the_other_end():
    assert at_the_other_end(load_victim("retina")).fingerprint == load_victim("retina").fingerprint


def test_rows_arrive_as_a_tensor():
    order = torch.tensor([2, 0])
    assert torch.equal(at_the_other_end(Rows(noise(3), order)), noise(3)[order])


def test_an_attack_runs_from_afar():
    near = PredictionAPI(linear_victim(), budget=8)
    pool = ImageSet("pool", noise(12))
    far, sent = at_the_other_end((near, pool))
    attack = Knockoff(budget=8, batch=3)
    found, wanted = attack.collect(far, sent), attack.collect(PredictionAPI(linear_victim()), pool)
    assert torch.equal(found.answers.probabilities, wanted.answers.probabilities)
    assert near.usage("attacker").remaining == 0


def derivative(values):
    values = values.clone().requires_grad_()
    return torch.autograd.grad((values**2).sum(), values)


def doubled(values):
    return 2 * values


@pytest.mark.parametrize(
    ("function", "reply"),
    [
        (derivative, {"error": ["InputError", "this exercise is about doing without automatic differentiation"]}),
        (doubled, {"result": json.loads(json.dumps(hand_in.encode(torch.full((2,), 2.0))))}),
    ],
)
def test_a_function_does_without_what_the_judge_names(monkeypatch, tmp_path, function, reply):
    monkeypatch.setattr(hand_in, "SOCKET", str(tmp_path / "socket"))
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(hand_in.SOCKET)
        listener.listen(1)
        listener.settimeout(60)
        handed = pool.submit(hand_in.hand_in, "5.3", function)
        judge, _ = listener.accept()
        with judge:
            assert hand_in.receive(judge) == {"exercise": "5.3", "function": True, "value": None}
            hand_in.send(judge, call=hand_in.encode((torch.ones(2),)), without=DERIVATIVES)
            assert hand_in.receive(judge) == reply
            hand_in.send(judge, done=True)
        handed.result(timeout=60)
    assert torch.equal(derivative(torch.ones(2))[0], torch.full((2,), 2.0))
