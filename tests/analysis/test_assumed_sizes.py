import onnx_ir as ir
import pytest
from analysis_graphs import graph

from irc.analysis import assume_sizes, dynamic_axes, parse_sizes
from irc.errors import UsageError

BERT = "g (int64[batch,seq] ids, int64[batch,seq] mask) => (int64[batch,seq] y) { y = Add(ids, mask) }"


def test_batches_sequences_and_images():
    model = graph(
        "g (float[N,3,height,width] image, int64[batch,tokens] ids) => (float[N,3,height,width] y) { y = Relu(image) }"
    )
    assert assume_sizes(model).all == {"N": 1, "height": 224, "width": 224, "batch": 1, "tokens": 128}


def test_unnamed_dimensions_go_by_input_and_axis():
    model = graph("g (float[?,3,?,?] image) => (float[a,b,c,d] y) { y = Relu(image) }")
    assert dynamic_axes(model) == {"image:0": [("image", 0)], "image:2": [("image", 2)], "image:3": [("image", 3)]}
    sizes = assume_sizes(model, {"image:2": 32})
    assert sizes.dims(model.graph.inputs[0]) == (1, 3, 32, 224)
    assert "image:2" not in sizes.assumed


def test_given_sizes_are_not_assumed():
    sizes = assume_sizes(graph(BERT), {"seq": 64})
    assert (sizes.given, sizes.assumed) == ({"seq": 64}, {"batch": 1})


def test_computed_dimensions_follow_their_parts():
    model = graph("g (float[batch,past,8] cache, float[batch,t,8] x) => (float[batch,t,8] y) { y = Relu(x) }")
    model.graph.inputs[1].shape = ir.Shape(["batch", "past + seq", 8])
    sizes = assume_sizes(model, {"past": 10})
    assert sizes.dims(model.graph.inputs[1]) == (1, 138, 8)


def test_unknown_name_suggests():
    with pytest.raises(UsageError, match=r"--dim batsh: .* did you mean 'batch'\?"):
        assume_sizes(graph(BERT), {"batsh": 2})


@pytest.mark.parametrize("text", ["batch", "=3", "batch=", "batch=-1", "batch=two", "batch=1.5"])
def test_malformed_sizes(text):
    with pytest.raises(UsageError, match="NAME=SIZE"):
        parse_sizes([text])


def test_contradicting_sizes():
    assert parse_sizes(["a=1", "input:0=2", "a=1"]) == {"a": 1, "input:0": 2}
    with pytest.raises(UsageError, match="given twice"):
        parse_sizes(["a=1", "a=2"])
