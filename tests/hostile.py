"""Models in ONNX as a team might hand them in, good and hostile, for images of shape (3, 4, 4) and three classes."""

import os
import shutil

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SANDBOX = shutil.which("bwrap") is not None or os.environ.get("BUBBLEWRAP") == "required"
"""Whether models are to be run: there is bubblewrap, or there must be."""

SHAPE, CLASSES = (3, 4, 4), 3

WEIGHTS = np.random.default_rng(0).normal(size=(48, CLASSES)).astype(np.float32)


def packed(nodes, constants=(), *, images=TensorProto.UINT8, batch="n", outputs=(CLASSES,), domains=()) -> bytes:
    """Return a model of these nodes, from ``x`` to ``y``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", images, [batch, *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *outputs])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(constants).items()],
    )
    versions = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()


def linear(into: str = "y", **options) -> tuple[list, dict]:
    """Return nodes and constants of logits that are a linear function of the pixels."""
    nodes = [
        helper.make_node("Cast", ["x"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [into]),
    ]
    return nodes, {"weights": WEIGHTS}


def good(**options) -> bytes:
    """Return a model that keeps to the rules."""
    return packed(*linear(), **options)


def plus(nodes, constants) -> bytes:
    """Return the linear model, to whose logits the nodes add ``extra``, a number."""
    own, weights = linear("logits")
    return packed([*nodes, *own, helper.make_node("Add", ["logits", "extra"], ["y"])], weights | constants)


def of_20_gigabytes() -> bytes:
    """Return a model that wants so much memory for one tensor."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["extra"], keepdims=0),
    ]
    return plus(nodes, {"size": np.array([5 * 10**9])})


def of_an_hour() -> bytes:
    """Return a model that goes round practically for ever."""
    square, flag = [300, 300], []
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("MatMul", ["held", "held"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, flag),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, square),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, flag),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, square),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["turns", "true", "start"], ["end"], body=body),
        helper.make_node("ReduceSum", ["end"], ["extra"], keepdims=0),
    ]
    start = np.zeros(square, np.float32)
    return plus(nodes, {"turns": np.array(2**62), "true": np.array(True), "start": start})


def of_a_custom_operator() -> bytes:
    """Return a model that wants an operator of its own library."""
    return packed([helper.make_node("Evil", ["x"], ["y"], domain="evil")], domains=["evil"])


def of_another_file(location: str) -> bytes:
    """Return a model whose weights are said to lie in another file."""
    model = onnx.load_model_from_string(good())
    [weights] = model.graph.initializer
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(WEIGHTS.nbytes)}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return model.SerializeToString()


def that_fails_on(value: int) -> bytes:
    """Return a model that fails where the very first value of a batch is this one."""
    nodes = [
        helper.make_node("Slice", ["x", "zeros", "ones"], ["corner"]),
        helper.make_node("Cast", ["corner"], ["number"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["number", "length"], ["first"]),
        helper.make_node("Equal", ["first", "value"], ["same"]),
        helper.make_node("Cast", ["same"], ["count"], to=TensorProto.INT64),
        helper.make_node("Gather", ["single", "count"], ["extra"]),  # of one element, so that 1 is out of range
    ]
    constants = {
        "zeros": np.array([0, 0, 0, 0]),
        "ones": np.array([1, 1, 1, 1]),
        "length": np.array([1]),
        "value": np.array([value]),
        "single": np.zeros(1, np.float32),
    }
    return plus(nodes, constants)
