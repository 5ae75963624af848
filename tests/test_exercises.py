"""Exercises: every solution passes its check, every stub and every solution broken in a stated way fails it."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from extractbook import exercises
from extractbook.build import courses, execute
from extractbook.exercises import check, known
from extractbook.exercises.answers import difference, fitted
from extractbook.exercises.exercise import Exercise, lookup
from extractlib import exercises as former
from extractlib.errors import InputError

TASKS = {task.id: task for path in execute.notebooks() for task in courses.tasks(path)}
CHAPTERS = sorted({int(id.partition(".")[0]) for id in TASKS})

# Of each exercise: what is wrong, the solution's text that is replaced, what replaces it, and a part of the reason.
BREAKAGES = {
    "1.1": [
        ("wrong sign", "- accounts", "+ accounts", "a cost of the theft"),
        ("one account pays", "accounts * upfront) ", "upfront) ", "every account pays"),
        ("no fees", " - accounts * upfront", "", "also pays for its accounts"),
        ("per label, not per query", "/ queries", "/ images", "the number is too large"),
    ],
    "1.2": [
        ("off by one", "count <=", "count <", "values are wrong"),
        ("a refusal is charged", "if fits:", "if True:", "a refused request is charged"),
        (
            "one budget for all",
            "for name, count in requests:",
            'for _, count in requests:\n        name = ""',
            "up another's",
        ),
        ("never charged", "left[name] -= count", "pass", "values are wrong"),
    ],
    "1.3": [
        ("unsorted", "np.argsort(accuracies)", "np.arange(len(sizes))", "in no particular order"),
        ("sorted by itself only", "np.array(accuracies)[order]", "np.array(accuracies)", "the number is too"),
        (
            "steps, not lines",
            "order = np",
            "return min([s for s, a in zip(sizes, accuracies) if a >= stolen], default=max(sizes))\n    order = np",
            "a straight line",
        ),
        (
            "the other way round",
            "return np.interp(",
            "return np.interp(stolen, np.sort(sizes), np.sort(accuracies))\n    np.interp(",
            "not the other way",
        ),
    ],
    "1.4": [
        ("accounts in parts", "ceil(queries / limit)", "queries / limit", "a part of an account"),
        ("off by one", "ceil(queries / limit)", "queries // limit + 1", "one account more"),
        ("no last account", "ceil(queries / limit)", "queries // limit", "the number is too large"),
        ("one account", "ceil(queries / limit)", "1", "may not send all"),
        (
            "a negative fee",
            "max(0.0, (honest - queries * price) / accounts)",
            "(honest - queries * price) / accounts",
            "no fee",
        ),
        ("wrong sign", "honest - queries", "honest + queries", "the number is too large"),
    ],
    "1.5": [
        ("one forgotten", ', "bird club"', "", "1 of the right names is missing, and 0 too many"),
        ("a stranger's pictures", '"bird club"', '"encyclopedia"', "1 of the right names is missing, and 1 too many"),
        ("all that hide", '"bird club"', '"bird club", "gradients"', "0 of the right names are missing, and 1"),
    ],
    "2.1": [
        ("one picture", "0.5 * sqrt(pictures)", "0.5", "tell more than one"),
        ("error divided by the number", "sqrt(pictures)", "pictures", "does not shrink that fast"),
        (
            "all grades in the middle",
            "best = (",
            "best = 2 * phi(0.5 * sqrt(pictures) / error) - 1 + 0 * (",
            "one side only",
        ),
        ("the whole distance", "0.5 * sqrt", "1.0 * sqrt", "the number is too large"),
    ],
    "2.2": [
        ("itself", ".fill_diagonal_(-1)", "", "each is compared with itself"),
        ("lengths", "torch.nn.functional.normalize(part)", "part.clone()", "not their length"),
        ("wrong way", "> within", "< within", "that the task covers"),
        (
            "the mean, not the nearest",
            "(task @ pool.T).amax(1)",
            "(task @ pool.T).mean(1)",
            "no image is covered at all",
        ),
        ("nearest for the pool", "(task @ pool.T).amax(1) > within.amax(1)", "(pool @ task.T).amax(1) > 0.7", "too"),
    ],
    "2.3": [
        ("frames, not films", "films.unique()", "films[:0]", "the test part is too small"),
        (
            "frames drawn",
            "for film in",
            "test[generator.permutation(len(films))[:count]] = True\n    for film in",
            "on both sides",
        ),
        ("off by one", ">= count", "> count + 8", "goes on growing"),
        ("one too few", ">= count", ">= count - 9", "the test part is too small"),
        (
            "unshuffled",
            "generator.permutation(films.unique().numpy())",
            "films.unique()",
            "another seed gives the same",
        ),
        ("unseeded", "default_rng(seed)", "default_rng()", "another split when asked again"),
        ("wrong side", "return test", "return ~test", "goes on growing"),
    ],
    "2.4": [
        ("pixel by pixel", "> 0.9", "> 0.9999999", "no copy equals its original"),
        ("no mirror", "torch.cat([train, train.flip(3)])", "train", "may be mirrored"),
        ("upside down", "train.flip(3)", "train.flip(2)", "may be mirrored"),
        ("mean forgotten", "rows -= rows.mean(1, keepdim=True)", "pass", "values are wrong"),
        ("wrong way", "> 0.9", "< 0.9", "values are wrong"),
    ],
    "2.5": [
        ("one forgotten", ', "queries drawn"', "", "1 of the right names is missing, and 0 too many"),
        ("one exchanged", '"queries drawn"', '"backbone"', "1 of the right names is missing, and 1 too many"),
        (
            "one too many",
            '"queries drawn"',
            '"queries drawn", "kinds of things"',
            "0 of the right names are missing, and 1",
        ),
    ],
    "3.1": [
        ("from zero", "peak * (1 + start) / 2", "peak / 2", "begins above zero"),
        (
            "lengths forgotten",
            "warm_up * peak * (1 + start) / 2 + (1 - warm_up)",
            "0.5 * peak * (1 + start) / 2 + 0.5",
            "length",
        ),
        ("a quarter of a cosine", "(1 - warm_up) * peak / 2", "(1 - warm_up) * peak * 0.6366198", "has another mean"),
        ("the peak", "mean = ", "mean = peak or ", "not the mean"),
        ("wrong sign", "(1 - warm_up)", "(1 + warm_up)", "the number is too large"),
    ],
    "3.2": [
        ("signed", "gap.abs()", "gap", "the sign of a gap does not matter"),
        ("unweighted", "mine.double().mean() * gap.abs()", "gap.abs() / len(group.unique())", "counts by its number"),
        (
            "gaps cancel",
            "return total",
            "return (confidence.mean() - right.double().mean()).abs()",
            "does not make good",
        ),
        ("empty groups", "group.unique()", "range(10)", "NaN"),
        ("nine groups", "0, 1, 11", "0, 1, 10", "the number is too"),
        ("squared", "gap.abs()", "gap**2", "the number is too small"),
    ],
    "3.3": [
        ("plain loss", "(loss - least)", "loss", "does not get 0"),
        ("wrong sign", "(loss - least)", "(loss + least)", "entropy has the wrong sign"),
        ("summed", "(loss - least).mean()", "(loss - least).sum()", "the mean over the images"),
        ("zero times infinity", "torch.xlogy(targets, targets)", "(targets * targets.log())", "NaN"),
        ("overflow", "logits.log_softmax(1)", "logits.softmax(1).log()", "it holds"),
        ("wrong axis", "log_softmax(1)", "log_softmax(0)", "the number is too"),
    ],
    "3.4": [
        ("agreement", "(said == victim)[wrong]", "(said == victim)", "without having seen it"),
        ("any mistake", "(said == victim)[wrong]", "(said != true)[wrong]", "they may be hard"),
        ("the least", "max(repeated", "min(repeated", "without having seen it"),
        ("the best", "(said == victim)[wrong]", "(said == true)", "without having seen it"),
    ],
    "3.5": [
        ("one forgotten", '"last epoch", ', "", "1 of the right names is missing, and 0 too many"),
        ("the best", '"last epoch"', '"best epoch"', "1 of the right names is missing, and 1 too many"),
        ("a second look", '"last epoch"', '"last epoch", "second look"', "0 of the right names are missing, and 1"),
    ],
    "4.1": [
        ("half of it", "(missing - missing / others) + ", "", "others have too much"),
        ("no share for the hidden class", "worst = ", "worst = 2 * missing or ", "gives the hidden class its share"),
        ("over all classes", "classes - len(shown)", "classes", "classes that are not shown"),
        ("what is missing", "worst = ", "worst = missing or ", "not how far"),
        ("off by one", "(others - 1)", "others", "the number is too large"),
    ],
    "4.2": [
        ("divided by zero", "torch.where(sums > 0, rounded / sums, certain.to(rounded))", "rounded / sums", "NaN"),
        ("all alike", "certain.to(rounded)", "torch.full_like(rounded, 1 / classes)", "is thrown away"),
        ("not scaled", "rounded / sums", "rounded", "the rows do not sum to 1"),
        ("softmax", "rounded / sums", "rounded.softmax(1)", "values are wrong"),
        ("off by one", "one_hot(labels, classes)", "one_hot((labels + 1) % classes, classes)", "order is not"),
    ],
    "4.3": [
        (
            "charged again",
            "result.append(0 if",
            "left[client] -= len(images)\n            result.append(len(images) if",
            "values",
        ),
        ("no ids of one's own", "(client, name), left", "name, left", "may choose the same id"),
        ("off by one", "len(images) > room", "len(images) >= room", "values are wrong"),
        ("other images", "0 if answered[key] == images else -1", "0", "values are wrong"),
        (
            "a refused id is kept",
            "elif len(images) > room:",
            "elif answered.setdefault(key, images) and len(images) > room:",
            "still free",
        ),
        ("one price a request", "room - len(images)", "room - 1", "values are wrong"),
    ],
    "4.4": [
        ("applied once more", "answers.log() * temperature", "answers.log() / temperature", "applied once more"),
        ("undone twice", "* temperature)", "* temperature**2)", "undone twice"),
        ("not normalized", "(answers.log() * temperature).softmax(1)", "answers**temperature", "do not sum to 1"),
        ("no logarithm", "answers.log() * ", "answers * ", "values are wrong"),
        ("wrong axis", "softmax(1)", "softmax(0)", "do not sum to 1"),
        ("ratio without logarithms", ".log()\n                   / ", "\n                   / ", "values are wrong"),
    ],
    "4.5": [
        ("one forgotten", '"digest of the images", ', "", "1 of the right names is missing, and 0 too many"),
        ("images kept", '"digest of the images"', '"images"', "1 of the right names is missing, and 1 too many"),
        ("one too many", '"charge"', '"charge", "full probabilities"', "0 of the right names are missing, and 1"),
    ],
    "5.1": [
        ("an id used again", "requests * chunk - breaks * chunk", "requests * chunk", "under the same id"),
        ("wrong sign", "- breaks", "+ breaks", "charged before it was lost"),
        ("off by one", "- breaks", "- (breaks - 1)", "too large"),
        ("requests, not images", "requests * chunk - breaks * chunk", "requests - breaks", "count images"),
    ],
    "5.2": [
        ("no replacement", "replace=True", "replace=budget > pool_size", "repeats are not as frequent"),
        ("off by one", "choice(pool_size", "choice(pool_size + 1", "outside the pool"),
        ("the last image never", "choice(pool_size", "choice(pool_size - 1", "more likely than others"),
        ("one too few", "budget, replace", "budget - 1, replace", "shape ("),
        ("unseeded", "generator.choice", "np.random.default_rng().choice", "another draw when asked again"),
        ("seed ignored", "generator.choice", "np.random.default_rng(0).choice", "another seed gives the same"),
        ("one image is preferred", "replace=True)", "replace=True) // 2", "repeats are not as frequent"),
    ],
    "5.3": [
        ("wrong sign", "logits.softmax(1) - targets", "targets - logits.softmax(1)", "sign is turned round"),
        ("no mean", " / len(logits)", "", "too large, by the same factor"),
        ("wrong axis", "softmax(1)", "softmax(0)", "values are wrong"),
        ("overflow", "logits.softmax(1)", "logits.exp() / logits.exp().sum(1, keepdim=True)", "NaN"),
        (
            "unshuffled",
            "return (logits.softmax(1) - targets)",
            "return (logits.softmax(1) - targets).flip(0)",
            "order is not",
        ),
    ],
    "5.4": [
        ("plain recovery", "(surrogate - constant) / (victim - constant)", "surrogate / victim", "does not get 0"),
        ("half done", "/ (victim - constant)", "/ victim", "victim itself does not get 1"),
        ("cut at zero", "return (", "return max(0, surrogate - constant) and (", "on input 3 of 3"),
        ("wrong sign", "(surrogate - constant)", "(constant - surrogate)", "sign is turned round"),
    ],
    "5.5": [
        ("no bias taken off", "(log_p[1:] - bias).T", "log_p[1:].T", "other"),
        ("bias forgotten", "return weights, bias", "return weights, torch.zeros_like(bias)", "another class"),
        ("not transposed", "(log_p[1:] - bias).T", "log_p[1:] - bias", "shape"),
        ("one query too many", "torch.zeros(1, features)", "torch.zeros(2, features)", "are left: ask fewer"),
        ("no logarithm", "(probes).log()", "(probes)", "the copy names"),
        ("shuffled", "return weights, bias", "return weights, bias.roll(1)", "the copy names"),
    ],
    "5.6": [
        ("one forgotten", ',\n         "public backbone"', "", "1 of the right names is missing, and 0 too many"),
        ("one too many", '"full answers"', '"full answers", "free queries"', "0 of the right names are missing, and 1"),
        ("one exchanged", '"full answers"', '"free queries"', "1 of the right names is missing, and 1 too many"),
    ],
    "6.1": [
        ("the bound", "bits = (", "bits = np.log2(classes) + 0 * (", "can be foreseen carry less"),
        ("nats", "np.log2", "np.log", "powers of 2"),
        ("the frequent class forgotten", "-share * np.log2(share)", "0", "frequent class counts too"),
        ("wrong sign", "(-share", "(share", "too small"),
        ("one class too many", "(classes - 1)", "classes", "too large"),
    ],
    "6.2": [
        ("wrong direction", "temperature * soft.log()", "soft.log() / temperature", "too small"),
        ("not made to sum to one", ".log_softmax(1)", "", "too small"),
        ("the least likely", "np.argmax", "np.argmin", "too large"),
        ("how sure, not how right", "logs[rows, labels]", "logs.max(1).values", "too large"),
        ("by accuracy", "logs[rows, labels]", "(logs.argmax(1) == labels).double()", "too small"),
        ("unshuffled", "logs[rows, labels]", "logs[rows, labels.flip(0)]", "too small"),
    ],
    "6.3": [
        ("the sum forgotten", "return lowest, highest", "return low, high", "all sum to 1"),
        ("forgotten below", "np.maximum(low, 1 - (high.sum() - high))", "low", "in part 1 of 2"),
        ("forgotten above", "np.minimum(high, 1 - (low.sum() - low))", "high", "in part 2 of 2"),
        ("a whole unit", "0.5 / 10", "1 / 10", "values are wrong"),
        ("below zero", ".clip(min=0)", "", "in part 1 of 2"),
        ("a class against itself", "(high.sum() - high)", "high.sum()", "in part 1 of 2"),
    ],
    "6.4": [
        ("one side only", "torch.where(ahead, 10.0, -10.0)", "torch.full((features,), 10.0)", "values are wrong"),
        ("the wrong half", "(same, middle, near)", "(same, near, middle)", "values are wrong"),
        ("too few steps", "range(30)", "range(8)", "values are wrong"),
        ("too many queries", "range(30)", "range(50)", "are left: ask fewer"),
        ("wrong sign", "return near", "return -near", "the sign is turned round"),
        ("shuffled", "return near", "return near.roll(1)", "order is not"),
    ],
    "6.5": [
        ("one forgotten", '"top-2 of 10", ', "", "1 of the right names is missing, and 0 too many"),
        ("one too many", '"label alone"', '"label alone", "top-9 of 10"', "0 of the right names are missing, and 1"),
        ("one exchanged", "temperature 0.01 in 16 bits", "temperature 4", "1 of the right names is missing, and 1"),
    ],
    "7.1": [
        ("the same recovery", "1 - (1 - recovery) * strong / weak", "recovery", "both victims were equally good"),
        ("upside down", "strong / weak", "weak / strong", "weighs more on the weaker"),
        ("not of the first victim", " * strong / weak", " / weak", "a share too"),
        ("wrong sign", "1 - (1", "1 + (1", "too large"),
    ],
    "7.2": [
        (
            "unpaired",
            "half = quantile * apart.std(ddof=1) / np.sqrt(n)",
            "half = stats.t.ppf(0.975, 2 * n - 2) * np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / n)",
            "have their seeds in common",
        ),
        ("shuffled", "first - second", "first - second[::-1]", "in part 1 of 2, the number is too small"),
        ("spread of all", "ddof=1", "ddof=0", "in part 1 of 2, the number is too large"),
        ("normal quantile", "stats.t.ppf(0.975, n - 1)", "1.96", "in part 1 of 2, the number is too large"),
        ("one degree too many", "n - 1)", "n)", "in part 1 of 2, the number is too large"),
        ("one side", "0.975", "0.95", "in part 1 of 2, the number is too large"),
        ("of one seed", " / np.sqrt(n)", "", "in part 1 of 2, the number is too small"),
        ("wrong sign", "first - second", "second - first", "in part 1 of 2, the number is too small"),
    ],
    "7.3": [
        (
            "one order",
            "down.mean(1), across.mean(1)",
            "down[:, 0], across[:, 1]",
            "if the architecture is changed first",
        ),
        (
            "the other",
            "down.mean(1), across.mean(1)",
            "down[:, 1], across[:, 0]",
            "if pre-training is taken away first",
        ),
        ("steps by themselves", "down.mean(1), across.mean(1)", "down[:, 0], across[:, 0]", "on input 1 of 2"),
        ("sums", ".mean(1)", ".sum(1)", "all values are too large, by the same factor"),
        ("exchanged", "down.mean(1), across.mean(1)", "across.mean(1), down.mean(1)", "order is not"),
        ("mean over the seeds", ".mean(1)", ".mean(0)", "shape"),
    ],
    "7.4": [
        ("measured where fitted", "x[half:] @ head - logs[half:]", "x[:half] @ head - logs[:half]", "on input"),
        ("fitted to all", "(x[:half], logs[:half]", "(x, logs", "on input"),
        ("the worst", "np.argmin", "np.argmax", "on input"),
        ("off by one", "int(np.argmin(errors))", "int(np.argmin(errors)) + 1", "on input"),
        ("the sign decides", " ** 2).mean()", ").mean()", "on input"),
    ],
    "7.5": [
        (
            "one forgotten",
            ',\n           "the second victim is recovered less"',
            "",
            "1 of the right names is missing, and 0",
        ),
        ("one too many", '"chance', '"pre-training matters", "chance', "0 of the right names are missing, and 1"),
        ("surrogate for victim", "victim is recovered less", "surrogate is less accurate", "missing, and 1 too many"),
    ],
    "8.1": [
        ("those that come up", "(1 - share) ** budget", "(1 - (1 - share) ** budget)", "that do come up"),
        ("one class", "rare * (1", "(1", "single class"),
        ("all at once", "rare * (1 - share)", "(1 - rare * share)", "all of them are missed"),
        ("off by one", "** budget", "** (budget - 1)", "too large"),
        ("wrong sign", "1 - share", "1 + share", "too large"),
    ],
    "8.2": [
        ("one way", "(recovered, recovered[::-1])", "(recovered,)", "second half has not chosen yet"),
        ("measured where chosen", "[first.argmin()]", "[second.argmin()]", "half that it was chosen on"),
        ("chosen on all", "first.argmin()", "recovered.mean(0).argmin()", "chosen on all images"),
        ("wrong sign", "second.mean() - second[first", "-second.mean() + second[first", "sign is turned round"),
        ("the best", "argmin", "argmax", "on input 1 of 2"),
        ("both", "np.mean(losses)", "np.sum(losses)", "on input 1 of 2"),
    ],
    "8.3": [
        (
            "blind to the truth",
            "images = victim.sum(1, keepdims=True)",
            "victim, surrogate = victim.sum(0)[None], surrogate.sum(0)[None]; images = victim.sum(1, keepdims=True)",
            "of the same true class",
        ),
        ("nothing forced", "np.maximum(victim + surrogate - images, 0)", "0 * images", "in part 1 of 2"),
        ("less than nothing", "np.maximum(victim + surrogate - images, 0)", "victim + surrogate - images", "in part 1"),
        ("the larger", "np.minimum", "np.maximum", "in part 2 of 2, the number is too large"),
        ("right answers only", "can.sum()", "np.trace(can)", "in part 2 of 2, the number is too small"),
        ("counts", "can.sum() / images.sum()", "can.sum()", "in part 2 of 2, the number is too large"),
    ],
    "8.4": [
        ("the first images", "generator.choice(len(pool), count, replace=False)", "np.arange(count)", "on input"),
        ("classes that come up", "-(shares * shares.log()).sum().item()", "len(shares)", "on input"),
        ("wrong sign", "-(shares", "(shares", "on input"),
        ("too many probes", "probes // len(pools)", "probes", "are left: ask fewer"),
    ],
    "8.5": [
        ("one forgotten", '"largest of five drops",', "", "1 of the right names is missing, and 0 too many"),
        ("one too many", '["worst', '["mean over all classes", "worst', "0 of the right names are missing, and 1"),
        (
            "the other half",
            "on the same images",
            "on the other half",
            "1 of the right names is missing, and 1 too many",
        ),
    ],
    "9.1": [
        ("passed, not stopped", "(1 - tpr)", "tpr", "share of the customers' queries that pass"),
        ("TPR and TNR exchanged", "share = ", "tpr, tnr = tnr, tpr\nshare = ", "have changed places"),
        ("customers, not queries", "customers * questions", "customers", "count queries"),
        ("TNR", "customers * questions * (1 - tpr)", "stolen * (1 - tnr)", "the thief's queries that is caught"),
        ("no TNR", "share = stolen * tnr", "share = stolen", "the number is too large"),
    ],
    "9.2": [
        ("off by one", ">= tpr", "> tpr", "on input 2 of 4, the number is too large"),
        ("one too many", ">= tpr", ">= tpr + 1 / len(scores)", "a lower threshold accepts as many"),
        ("one too few", ">= tpr", ">= tpr - 1 / len(scores)", "fewer are accepted"),
        ("between two", "for score in", "return scores.quantile(tpr)\n    for score in", "lies between two"),
        ("wrong side", "scores <= score", "scores >= score", "the number is too small"),
        ("TNR for TPR", ">= tpr", ">= 1 - tpr", "the number is too small"),
        ("unsorted", "scores.sort().values", "scores", "the number is too"),
    ],
    "9.3": [
        ("ties lose", "0.5 * ", "0.0 * ", "a tie is half a win"),
        ("ties win", "0.5 * ", "", "a tie is no whole win"),
        ("wrong sign", "ood[:, None] - benign", "benign[:, None] - ood", "out of distribution higher"),
        ("summed", "wins.mean()", "wins.sum()", "the number is too large"),
        ("pairs in a row", "ood[:, None] - benign", "ood[:20] - benign[:20]", "the number is too"),
    ],
    "9.4": [
        ("the chapter's shuffle", "if shuffled.argmax() != answer.argmax():", "if True:", "has kept its place"),
        ("unshuffled", "order = generator", "return answer\n        order = generator", "does not depend on the image"),
        ("no key", 'default_rng(int.from_bytes(key, "big"))', "default_rng()", "another order when asked again"),
        ("no secret", "digest(secret", 'digest(b"known"', "does not depend on the secret"),
        ("no image", "image.numpy().tobytes()", 'b"image"', "does not depend on the image"),
        (
            "rotated",
            "generator.permutation(len(answer))",
            "np.roll(np.arange(6), generator.integers(1, 6))",
            "much more likely",
        ),
        (
            "two change places",
            "shuffled = answer[torch.from_numpy(order)]",
            "shuffled = answer.clone()\n        shuffled[order[:2]] = answer[order[1::-1].copy()]",
            "much more likely",
        ),
        ("another number", "return shuffled", "return shuffled.softmax(0)", "no longer those of the victim"),
    ],
    "9.5": [
        ("asked once", "return true", "return answers[0]", "not at the victim's class"),
        ("averaged", "return true", "return answers.mean(0)", "not at the victim's class"),
        ("most often on top", "tops.argmin()", "tops.argmax()", "the highest probability is"),
        ("too far away", "1e-6", "1.0", "the highest probability is"),
        ("the same vector", "1e-6", "0.0", "not at the victim's class"),
        ("one query too many", "randn(100", "randn(101", "are left: ask fewer"),
        (
            "numbers of a mean",
            "true[first], true[second] = answers[0][second], answers[0][first]",
            "true[first], true[second] = answers[0][second], 0.0",
            "others are off",
        ),
    ],
    "9.6": [
        ("one forgotten", ', "one pixel changed"', "", "1 of the right names is missing, and 0 too many"),
        (
            "one exchanged",
            '"one pixel changed"',
            '"same query twice"',
            "1 of the right names is missing, and 1 too many",
        ),
        (
            "one too many",
            '"unusual customers"',
            '"unusual customers", "same query twice"',
            "0 of the right names are missing",
        ),
    ],
    "10.1": [
        ("one query too many", "(until - 1)", "until", "its query number `until`"),
        ("a part of an account", "np.ceil(budget / (until - 1))", "budget / (until - 1)", "no part of an account"),
        ("rounded down", "np.ceil", "np.floor", "too small"),
        ("one fee", "np.ceil(budget / (until - 1)) * fee", "fee", "each account pays"),
        ("queries for free", " + budget * price", "", "queries are to be paid"),
    ],
    "10.2": [
        ("the past counts", "max(0, n - window)", "0", "past still counts"),
        ("more than so many", "recent.sum() - 1", "recent.sum()", "exactly so many count too"),
        ("a window too short", "n - window", "n - window + 1", "on input"),
        ("the last query forgotten", "window):n]", "window):n - 1]", "on input"),
        ("as if the window were full", "len(recent)", "window", "on input 1 of 4, the number is too large"),
        ("wrong side", "binom.sf", "binom.cdf", "on input"),
    ],
    "10.3": [
        ("more than so many", "range(repeated,", "range(repeated + 1,", "exactly so many count too"),
        ("just so many", "range(repeated, marks + 1)", "[repeated]", "still more count too"),
        ("not all", "marks + 1", "marks", "the number is too small"),
        ("fewer", "range(repeated, marks + 1)", "range(repeated)", "on input 1"),
        ("rate turned round", "rate**k * (1 - rate) ** (marks - k)", "(1 - rate)**k * rate**(marks - k)", "too large"),
        (
            "subtracted from 1",
            "return sum(",
            "return 1 - stats.binom.cdf(repeated - 1, marks, rate) + 0 * sum(",
            "on input",
        ),
    ],
    "10.4": [
        ("the same vectors", "vectors + 0.001 * noise", "vectors", "as without the attack"),
        ("one vote", "range(7)", "range(1)", "as without the attack"),
        ("too far", "0.001", "2.0", "labels are wrong"),
        ("too many queries", "range(7)", "range(8)", "are left: ask fewer"),
        ("not voted", ".mode(0).values", "", "shape"),
        ("unshuffled", ".mode(0).values", ".mode(0).values.flip(0)", "labels are wrong"),
    ],
    "10.5": [
        ("one forgotten", ', "enough marks"', "", "1 of the right names is missing, and 0 too many"),
        ("one too many", '["the', '["its training images", "the', "0 of the right names are missing, and 1 too many"),
        (
            "weights for answers",
            "model's answers",
            "model's weights",
            "1 of the right names is missing, and 1 too many",
        ),
    ],
    "11.1": [
        ("free for each attack", "until - free", "until - attacks * free", "once a month, not once an attack"),
        ("nothing free", "(until - free)", "until", "free queries are not paid"),
        ("one price", "* less", "* price", "all together do"),
        ("the lower price for all", "* price", "* less", "not of all"),
        ("a price for each", ") / 1_000\n### END", ")\n### END", "for a thousand"),
        ("one attack a month", "bill = (", "bill = attacks * (budget - free) * price / 1_000 or (", "in one month"),
        ("free queries above", "(queries - until)", "(queries - until - free)", "too small"),
    ],
    "11.2": [
        (
            "frames",
            "[right[tracks == track].mean()\n              for track in np.unique(tracks)]",
            "1.0 * right",
            "as if they knew nothing of each other",
        ),
        (
            "neighbors",
            "[right[tracks == track].mean()\n              for track in np.unique(tracks)]",
            "right.reshape(len(np.unique(tracks)), -1).mean(1)",
            "need not lie side by side",
        ),
        ("sums", ".mean()\n", ".sum()\n", "in part 1 of 2"),
        ("the first frame alone", "right[tracks == track].mean()", "right[tracks == track][0]", "in part 1 of 2"),
        ("names as places", "np.unique(tracks)]", "range(tracks.max() + 1)]", "NaN"),
    ],
    "11.3": [
        (
            "unpaired",
            "stats.t.ppf(0.975, n - 1)",
            "stats.t.ppf(0.975, 2 * n - 2) * ((first.var(ddof=1) + second.var(ddof=1)) / gain.var(ddof=1)) ** 0.5",
            "have their seeds in common",
        ),
        ("normal quantile", "stats.t.ppf(0.975, n - 1)", "1.96", "normal distribution's quantile"),
        ("the pilot's quantile", "stats.t.ppf(0.975, n - 1)", "stats.t.ppf(0.975, len(gain) - 1)", "more degrees"),
        ("zero for the bound", "gain.mean() - bound", "gain.mean()", "whether the difference is zero"),
        ("spread of all", "ddof=1", "ddof=0", "divides by one less"),
        ("one side only", "abs(gain.mean() - bound)", "gain.mean() - bound", "NoneType cannot be checked"),
        ("one side of the quantile", "0.975", "0.95", "on input 1 of 4, the number is too small"),
        ("the whole width", "quantile * gain", "2 * quantile * gain", "on input 1 of 4, the number is too large"),
        ("one too many", "return n", "return n + 1", "on input 1 of 4, the number is too large"),
    ],
    "11.4": [
        ("unchanged", "return changed", "return images", "as without the attack"),
        ("too little", "(0.25, 0.5, 0.75, 1.0)", "(0.25, 0.5)", "images are refused"),
        ("all of the blur", "(0.25, 0.5, 0.75, 1.0)", "(1.0,)", "more than they need"),
        ("nothing left", "return changed", "return torch.full_like(images, 128)", "sees other things"),
        ("shuffled", "return changed", "return changed.flip(0)", "sees other things"),
        ("too many queries", "(0.25, 0.5, 0.75, 1.0)", "(0.05, 0.1, 0.15, 0.2, 0.25)", "are left: ask fewer"),
        ("no gray levels", "return changed", "return changed / 255", "where an array of whole numbers is wanted"),
        ("out of range", "return changed", "return changed.long() + 100", "outside 0 to 255"),
        ("one image", "return changed", "return changed[:1]", "shape"),
    ],
    "11.5": [
        (
            "one forgotten",
            ',\n           "the claim for every size is refuted"',
            "",
            "1 of the right names is missing, and 0 too many",
        ),
        (
            "some for any",
            "a pool without the task's classes can do",
            "any public pool can do",
            "1 of the right names is missing, and 1 too many",
        ),
        (
            "one too many",
            '["some',
            '["the detector sees what an image shows", "some',
            "0 of the right names are missing, and 1 too many",
        ),
    ],
    "12.1": [
        ("normal", "stats.t.ppf(0.975, seeds - 1)", "1.96", "wider than the normal"),
        ("one end", "0.975", "0.95", "at each end"),
        ("no root", "seeds**0.5", "seeds", "too small"),
        ("off by one", "seeds += 1", "seeds += 3", "the number is"),
        ("width for half of it", ">= distance", ">= 2 * distance", "too small"),
    ],
    "12.2": [
        ("doubt is failure", " + holds.count(None)", "", "has not failed"),
        ("all of them", ">= needed:", ">= len(holds):", "on input"),
        ("off by one", "possible >= needed", "possible > needed", "on input"),
        ("truth of None", "holds.count(None)", "len(holds) - holds.count(True)", "on input"),
    ],
    "12.3": [
        ("unpaired", "second[seed] for", "np.mean(list(second.values())) for", "on input"),
        ("turned round", "first[seed] - second[seed]", "second[seed] - first[seed]", "taken from the first"),
        ("of the population", "ddof=1", "ddof=0", "on input"),
        ("no mean", "/ np.sqrt(len(gains))", "", "on input"),
        ("all seeds", "for seed in first if seed in second", "for seed in first", "raises KeyError"),
    ],
    "12.4": [
        ("one look", "range(first, len(values) + 1)", "[len(values)]", "looks once"),
        ("late", "range(first, ", "range(first + 1, ", "before the next seed"),
        ("early", "range(first, ", "range(2, ", "on input"),
        ("the mean alone", " - factor * spread", "", "on input"),
        ("never the last", "len(values) + 1", "max(first, 4)", "on input"),
    ],
    "12.5": [
        ("one forgotten", ', "recipe tuned on test images"', "", "1 of the right names is missing, and 0 too many"),
        ("one too many", '["bound', '["verdict undecided", "bound', "0 of the right names are missing, and 1 too many"),
        ("one exchanged", '"worst task left out"', '"rows computed anew"', "1 of the right names is missing, and 1"),
    ],
}


def set_up(id: str) -> str:
    """Return the first code cell of the exercises' section: all that a solution may need."""
    path = courses.chapter_notebook(int(id.partition(".")[0]))
    cells = courses.nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if cell.cell_type == "code" and courses.tagged(cell, "exercise"))


def verdict(id: str, code: str, *, seed: int | None = None):
    """Run an exercise's cell as a reader would and return what its last line says."""
    space = {}
    exec(set_up(id), space)
    body = ast.parse(code).body
    exec(compile(ast.Module(body[:-1], []), id, "exec"), space)
    return check(id, space[body[-1].value.args[1].id], seed=seed)


broken = [pytest.param(id, *rest, id=f"{id} {what}") for id, rows in BREAKAGES.items() for what, *rest in rows]


@pytest.mark.parametrize("id", TASKS)
def test_the_solution_passes(id):
    found = verdict(id, TASKS[id].code)
    assert found.right and found.reason == ""
    assert str(found) == f"Exercise {id}: right."


@pytest.mark.parametrize("id", TASKS)
def test_the_solution_passes_in_an_assessed_variant(id):
    first, *rest = TASKS[id].code.splitlines(keepends=True)
    line = courses.numbers(lookup(id), 3)
    assert verdict(id, line + "".join(rest) if line else TASKS[id].code, seed=3).right


@pytest.mark.parametrize("id", TASKS)
def test_the_stub_fails(id):
    stub = courses.stub(TASKS[id].code)
    assert "SOLUTION" not in stub
    found = verdict(id, stub)
    assert not found.right and found.reason == "there is no answer yet"


@pytest.mark.parametrize(("id", "old", "new", "reason"), broken)
def test_a_broken_solution_fails_and_is_told_why(id, old, new, reason):
    assert TASKS[id].code.count(old) >= 1
    found = verdict(id, TASKS[id].code.replace(old, new))
    assert not found.right
    assert reason in found.reason
    exercise = lookup(id)
    if exercise.cases is None and not exercise.choices:
        assert str(exercise.right(**exercise.parameters())) not in str(found)


@pytest.mark.parametrize("id", TASKS)
def test_each_exercise_is_broken_in_two_ways_at_least(id):
    assert len(BREAKAGES[id]) >= 2


def test_notebooks_and_checks_have_the_same_exercises():
    assert [exercise.id for exercise in known()] == list(TASKS)


@pytest.mark.parametrize("exercise", known(), ids=lambda exercise: exercise.id)
def test_the_notebook_says_what_the_check_knows(exercise):
    task = TASKS[exercise.id]
    assert task.title == f"{exercise.id} {exercise.title}: {exercise.kind}, {exercise.minutes} minutes"
    assert task.answer and len(task.hint.split()) > 5 and len(task.explanation.split()) > 5
    assert task.code.startswith(courses.numbers(exercise))


def test_no_chapter_imports_anothers_exercises():
    sources = {path.name: path.read_text(encoding="utf-8") for path in Path(exercises.__file__).parent.glob("*.py")}
    assert [name for name, text in sources.items() if "exercises.chapter_" in text] == []


# What `check` makes of bad input.


@pytest.mark.parametrize(
    ("id", "answer", "message"),
    [
        ("5.9", 1, r"unknown exercise '5\.9': use one of .*5\.1, 5\.2"),
        (5.1, 1, r"unknown exercise 5\.1: use one of"),
        ("5.1", "many", r"answer to 5\.1 does not fit: 'many' is a text where a whole number is wanted"),
        ("5.1", True, r"True is a truth value where a whole number is wanted"),
        ("5.1", 2.5, r"2\.5 is a number where a whole number is wanted"),
        ("5.1", float("nan"), r"nan is a number where a whole number is wanted"),
        ("5.1", 10**30, r"more than 63 bits"),
        ("5.1", np.array([1, 2]), r"an array of whole numbers where a whole number is wanted"),
        ("5.1", object(), r"a value of type object cannot be checked"),
        ("5.2", 3, r"answer to 5\.2 is of type int: a function is wanted"),
        ("5.6", "full answers", r"'full answers' is a text where a list is wanted"),
        ("5.6", ["fast computers"], r"unknown answer 'fast computers': use one of number of classes"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_line(id, answer, message):
    with pytest.raises(InputError, match=message) as caught:
        check(id, answer)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, "7", 1.0, True])
def test_a_seed_that_is_no_number_is_refused(seed):
    with pytest.raises(InputError, match=r"seed is .*: a whole number from 0 to 1,099,511,627,776 is wanted"):
        check("5.1", 1, seed=seed)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda logits, targets: None, "a value of type NoneType cannot be checked"),
        (lambda logits, targets: logits.sum(), "is a number where an array of numbers is wanted"),
        (lambda logits, targets: logits[:, 0], "shape (4,) where (4, 3) is wanted"),
        (lambda logits: logits, "raises TypeError"),
        (lambda logits, targets: 1 / 0, "the function raises ZeroDivisionError: division by zero"),
    ],
)
def test_a_function_that_fails_is_told_so(function, reason):
    assert reason in check("5.3", function).reason


def test_answers_in_other_types_are_right_too():
    assert check("5.1", 9250.0).right and check("5.1", np.int32(9250)).right and check("5.1", torch.tensor(9250)).right
    names = {"Number of  classes", "pool of images", "FULL ANSWERS", "public backbone"}
    assert check("5.6", names).right and check("5.6", tuple(names)).right
    as_lists = check("5.3", lambda logits, targets: ((logits.softmax(1) - targets) / len(logits)).tolist())
    assert as_lists.right


def test_a_verdict_shows_in_notebooks():
    assert check("5.1", 9250)._repr_markdown_() == "**Exercise 5.1: right.**"
    wrong = check("5.1", 9251)
    assert repr(wrong) == "Exercise 5.1: not yet; the number is too large."
    assert wrong._repr_markdown_() == "**Exercise 5.1: not yet.** Reason: the number is too large."


def test_a_kind_or_minutes_that_cannot_be_are_refused():
    settings = {"id": "5.7", "title": "", "right": int}
    with pytest.raises(InputError, match="unknown kind 'guess'"):
        Exercise(**settings, kind="guess", minutes=5)
    with pytest.raises(InputError, match="minutes is 0"):
        Exercise(**settings, kind="discuss", minutes=0)
    with pytest.raises(InputError, match="unknown chapter with exercises 'chapter_99'"):
        known(99)


# Where `check` was before.


def test_the_former_check_warns_and_forwards():
    with pytest.warns(DeprecationWarning, match="import check from extractbook.exercises") as caught:
        found = former.check("5.1", 9250)
    assert found == check("5.1", 9250) and found.right
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning):
        assert former.check("5.1", 9250, seed=7) == check("5.1", 9250, seed=7)


def test_the_former_check_loads_the_book_when_it_is_called():
    code = "import sys, extractlib.exercises; sys.exit('extractbook' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_former_check_without_the_book_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "extractbook", None)
    monkeypatch.delitem(sys.modules, "extractbook.exercises")
    with pytest.warns(DeprecationWarning), pytest.raises(InputError, match=r"pip install 'extractlib\[book\]'$"):
        former.check("5.1", 9250)


# How two answers differ.

ROWS = np.array([[0.2, 0.8], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("found", "wanted", "reason"),
    [
        (5, 5, None),
        (6, 5, "the number is too large"),
        (-5, 5, "the sign is turned round"),
        (0.30001, 0.3, None),
        (0.3004, 0.3, "the number is too large"),
        ("Two  words", "two words", None),
        ("other", "two words", "another answer is right"),
        (["b", "a"], ["a", "b"], None),
        (["a", "c", "d"], ["a", "b"], "1 of the right names is missing, and 2 too many"),
        (ROWS, ROWS, None),
        (ROWS * 2, ROWS, "the rows do not sum to 1"),
        (ROWS[0], ROWS, "shape (2,) where (2, 2) is wanted"),
        (ROWS[::-1], ROWS, "the values are right and their order is not"),
        (3 * np.arange(4.0), np.arange(4.0), "all values are too large, by the same factor"),
        (np.arange(4.0) - 1, np.arange(4.0), "all values are too small, by the same amount"),
        (np.array([0.0, 1, 2, 9]), np.arange(4.0), "1 of 4 values are wrong"),
        (np.zeros(3), np.array([1.0, 0, 2]), "2 of 3 values are wrong"),
        ([1, 2.0], [1, 3.0], "in part 2 of 2, the number is too small"),
    ],
)
def test_the_reason_names_the_kind_of_mistake(found, wanted, reason):
    assert difference(fitted(found, wanted), wanted, tolerance=1e-4) == reason


# Assessed variants and course notebooks.


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_two_courses_get_different_numbers(chapter):
    """Of fifty courses at least half have numbers of their own, and all have inputs of their own for functions."""
    varied = [exercise for exercise in known(chapter) if exercise.kind != "discuss"]
    assert [exercise.id for exercise in varied if not exercise.variants] == []
    lines = {"".join(courses.numbers(exercise, seed) for exercise in varied) for seed in range(50)}
    assert len(lines) >= 25
    for exercise in varied:
        if exercise.cases:
            assert len({exercise.parameters(seed)["seed"] for seed in range(50)}) == 50


def test_a_variant_is_the_same_when_asked_for_again():
    exercise = lookup("5.1")
    assert exercise.parameters() == {"requests": 40, "chunk": 250, "breaks": 3}
    assert exercise.parameters(7) == exercise.parameters(7)
    assert exercise.right(**exercise.parameters()) == 9250


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_assignment_has_the_variants_numbers_and_hides_its_tests(chapter):
    notebook = courses.assignment(chapter, 7)
    courses.nbformat.validate(notebook)
    tasks = courses.tasks(courses.chapter_notebook(chapter))
    solutions = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    tests = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert len(solutions) == len(tests) == len(tasks)
    for task, solution, hidden in zip(tasks, solutions, tests, strict=True):
        assert solution.source.startswith(courses.numbers(lookup(task.id), 7))
        assert "check(" not in solution.source
        blocks = list(courses.BLOCK.finditer(solution.source + "\n"))
        assert blocks and all(courses._placeholder(block) for block in blocks)
        assert hidden.source.startswith("### BEGIN HIDDEN TESTS") and "seed=7" in hidden.source
    assert "extractbook.exercises" not in notebook.cells[1].source


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_students_get_stubs_and_instructors_solutions(chapter):
    path = courses.chapter_notebook(chapter)
    for solved in (False, True):
        notebook = courses.course_notebook(path, solved=solved)
        courses.nbformat.validate(notebook)
        text = "\n".join(cell.source for cell in notebook.cells)
        assert "### BEGIN" not in text and "{exercise}" not in text and "{solution" not in text
        for task in courses.tasks(path):
            assert task.statement in text and task.hint in text and f'check("{task.id}", {task.answer})' in text
            assert (task.explanation in text) == solved
            assert all((block["code"] in text) == solved for block in courses.BLOCK.finditer(task.code))


def test_a_chapter_without_exercises_is_copied_as_it_is():
    path = execute.BOOK / "index.ipynb"
    assert courses.course_notebook(path, solved=False) == courses.nbformat.read(path, as_version=4)


def test_stubs_of_functions_raise_and_of_values_are_open():
    code = "def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n"
    assert courses.stub(code) == 'def f():\n    raise NotImplementedError("your code here")\n'
    code = "### BEGIN SOLUTION\na = 1\nb = a\na = b\n### END SOLUTION\ncheck(a)"
    assert courses.stub(code) == "a = ...  # your answer here\nb = ...  # your answer here\ncheck(a)"
    assert courses.without_markers(code) == "a = 1\nb = a\na = b\ncheck(a)"


def test_an_exercise_of_another_form_is_refused(tmp_path):
    notebook = courses.nbformat.read(courses.chapter_notebook(5), as_version=4)
    cell = next(cell for cell in notebook.cells if "{exercise} 5.2" in cell.source)
    cell.source = cell.source.replace(":nonumber:", ":number:")
    courses.nbformat.write(notebook, tmp_path / "05_knockoff.ipynb")
    with pytest.raises(InputError, match="05_knockoff: cell exercise-5-2 is no exercise with its solution"):
        courses.tasks(tmp_path / "05_knockoff.ipynb")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chapter", "5", "--seed", "seven"], "Invalid value for '--seed'"),
        (["--chapter", "5"], "Missing option '--seed'"),
        (["--chapter=-5", "--seed", "1"], "Invalid value for '--chapter'"),
        (["--chapter", "99", "--seed", "1"], "extractbook: chapter 99 has no exercises"),
    ],
)
def test_an_assignment_of_nothing_is_refused(words, message, command, monkeypatch, tmp_path):
    monkeypatch.setattr(courses, "COURSES", tmp_path / "courses")
    status, printed, error = command("assignment", *words)
    assert (status, printed) == (2, "")
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "courses").exists()
