"""What outputs are, told from graphs as exporters write them."""

import numpy as np
import onnx_ir as ir
import pytest
from judge_cases import graph

from irc.judge.classifier import ClassScores, class_scores, is_state, looks_like_classes
from irc.judge.embedding import is_embedding

LOGITS = ClassScores(-1, "logits", False)

CLASSIFIERS = {
    "image classifier, Gemm": (
        "g (float[N,8] x) => (float[N,10] logits) <float[8,10] w, float[10] b> { logits = Gemm(x, w, b) }",
        LOGITS,
    ),
    "MatMul and bias": (
        "g (float[N,8] x) => (float[N,10] out) <float[8,10] w, float[10] b> { h = MatMul(x, w) out = Add(b, h) }",
        LOGITS,
    ),
    "softmax after anything": (
        "g (float[N,10] x) => (float[N,10] p) { h = Relu(x) p = Softmax<axis=-1>(h) }",
        ClassScores(-1, "probabilities", True),
    ),
    "log-softmax": (
        "g (float[N,10] x) => (float[N,10] p) { p = LogSoftmax(x) }",
        ClassScores(-1, "log-probabilities", True),
    ),
    "global convolution flattened": (
        "g (float[N,8,4,4] x) => (float[N,10] y) <float[10,8,4,4] w> { h = Conv(x, w) y = Flatten(h) }",
        LOGITS,
    ),
    "quantized": (
        """g (float[N,8] x) => (float[N,10] y) <int8[8,10] w, float[10] s, float t, uint8 z> {
            d = DequantizeLinear<axis=1>(w, s) h = MatMul(x, d) q = QuantizeLinear(h, t, z) y = DequantizeLinear(q, t, z) }""",
        LOGITS,
    ),
    "token classifier": (
        "g (float[N,T,8] x) => (float[N,T,9] logits) <float[8,9] w, float[9] b> { h = MatMul(x, w) logits = Add(h, b) }",
        ClassScores(-1, "logits", False, True),
    ),
    "language model with a tied embedding": (
        """g (float[N,T,8] x) => (float[N,T,65] logits) <float[65,8] table> {
            w = Transpose<perm=[1,0]>(table) logits = MatMul(x, w) }""",
        ClassScores(-1, "logits", False, True),
    ),
    "language model, reshaped Gemm": (
        """g (float[M,8] x) => (float[N,T,65] logits) <float[8,65] w, int64[3] s> {
            h = Gemm(x, w) logits = Reshape(h, s) }""",
        ClassScores(-1, "logits", False, True),
    ),
    "segmentation": (
        """g (float[N,8,4,4] x) => (float[N,21,8,8] y) <float[21,8,1,1] w, float[21] b, float[4] scales> {
            h = Conv(x, w, b) y = Resize(h, , scales) }""",
        ClassScores(-3, "logits", False),
    ),
    "segmentation, probabilities along the channels": (
        "g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Softmax<axis=1>(x) }",
        ClassScores(-3, "probabilities", True),
    ),
    "segmentation, channels last": (
        """g (float[N,8,4,4] x) => (float[N,4,4,21] y) <float[21,8,1,1] w> {
            h = Conv(x, w) y = Transpose<perm=[0,2,3,1]>(h) }""",
        ClassScores(-1, "logits", False),
    ),
    "binary classifier": (
        "g (float[N,8] x) => (float[N,1] p) <float[8,1] w> { h = MatMul(x, w) p = Sigmoid(h) }",
        ClassScores(-1, "sigmoid", True),
    ),
    "temperature": (
        "g (float[N,8] x) => (float[N,10] y) <float[8,10] w, float t> { h = MatMul(x, w) y = Div(h, t) }",
        LOGITS,
    ),
}

OTHERS = {
    "sentence embedding divided by its norm": """g (float[N,8] x) => (float[N,8] y) <float[8,8] w, int64[1] a, float e> {
        h = MatMul(x, w) n = ReduceL2(h, a) m = Clip(n, e) y = Div(h, m) }""",
    "embedding by name": "g (float[N,8] x) => (float[N,16] text_embeds) <float[8,16] w> { text_embeds = MatMul(x, w) }",
    "camel case name": "g (float[N,8] x) => (float[N,16] lastHiddenState) <float[8,16] w> { lastHiddenState = MatMul(x, w) }",
    "hidden state": """g (float[N,T,8] x) => (float[N,T,16] y) <float[8,16] w, float[16] s, float[16] b> {
        h = MatMul(x, w) y = LayerNormalization(h, s, b) }""",
    "pooler": "g (float[N,8] x) => (float[N,16] y) <float[8,16] w, float[16] b> { h = Gemm(x, w, b) y = Tanh(h) }",
    "detection boxes": "g (float[N,A,8] x) => (float[N,A,4] y) <float[8,4] w> { y = MatMul(x, w) }",
    "boxes by name": "g (float[N,8] x) => (float[N,4] pred_boxes) <float[8,4] w> { pred_boxes = MatMul(x, w) }",
    "many sigmoids": "g (float[N,8] x) => (float[N,20] y) <float[8,20] w> { h = MatMul(x, w) y = Sigmoid(h) }",
    "concatenated heads": """g (float[N,8] x) => (float[N,20] y) <float[8,10] w, float[8,10] v> {
        a = MatMul(x, w) b = MatMul(x, v) y = Concat<axis=1>(a, b) }""",
    "regression": "g (float[N,8] x) => (float[N,1] y) <float[8,1] w, float[1] b> { y = Gemm(x, w, b) }",
    "image to image": "g (float[N,8,4,4] x) => (float[N,3,4,4] y) <float[3,8,3,3] w> { y = Conv<pads=[1,1,1,1]>(x, w) }",
    "pooled features": "g (float[N,8,4,4] x) => (float[N,64,1,1] y) <float[64,8,1,1] w> { h = Conv(x, w) y = GlobalAveragePool(h) }",
    "attention scores": "g (float[N,T,8] x, float[N,8,T] k) => (float[N,T,T] y) { y = MatMul(x, k) }",
    "weight that is an input": "g (float[N,8] x, float[8,10] w) => (float[N,10] y) { y = MatMul(x, w) }",
    "dynamic classes": "g (float[N,8] x) => (float[N,C] y) <float[8,10] w> { y = MatMul(x, w) }",
    "class index": "g (float[N,10] x) => (int64[N] y) { y = ArgMax<axis=1,keepdims=0>(x) }",
    "an input handed through": "g (float[N,10] x) => (float[N,10] y) { y = Identity(x) }",
}


@pytest.mark.parametrize(("text", "expected"), CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_reads_class_scores(text: str, expected: ClassScores) -> None:
    assert class_scores(graph(text).graph.outputs[0]) == expected


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_does_not_take_other_things_for_classes(text: str) -> None:
    assert class_scores(graph(text).graph.outputs[0]) is None


def test_a_weight_that_a_caller_may_override_is_not_constant() -> None:
    model = graph("g (float[N,8] x, float[8,10] w) => (float[N,10] y) { y = MatMul(x, w) }")
    value = model.graph.inputs[1]
    value.const_value = ir.tensor(np.zeros((8, 10), np.float32), name="w")
    model.graph.initializers["w"] = value
    assert class_scores(model.graph.outputs[0]) is None


def test_old_softmax_defaults_to_the_channels() -> None:
    model = graph("g (float[N,5,1,1] x) => (float[N,5,1,1] p) { p = Softmax(x) }")
    model.graph.opset_imports[""] = 11
    assert class_scores(model.graph.outputs[0]) == ClassScores(-3, "probabilities", True)


EMBEDDINGS = ("sentence embedding divided by its norm", "embedding by name", "hidden state", "pooler")


@pytest.mark.parametrize("name", OTHERS)
def test_tells_embeddings_from_other_outputs(name: str) -> None:
    assert is_embedding(graph(OTHERS[name]).graph.outputs[0]) == (name in EMBEDDINGS)


def test_a_norm_through_square_root_and_expand_is_a_norm() -> None:
    text = """g (float[N,16] x) => (float[N,16] y) <int64[1] a, int64[2] s, float e> {
        q = Mul(x, x) r = ReduceSum(q, a) t = Add(r, e) n = Sqrt(t) m = Expand(n, s) y = Div(x, m) }"""
    assert is_embedding(graph(text).graph.outputs[0])


def test_division_by_something_else_is_no_embedding() -> None:
    text = "g (float[N,16] x, float[N,16] z) => (float[N,16] y) { y = Div(x, z) }"
    assert not is_embedding(graph(text).graph.outputs[0])


@pytest.mark.parametrize(
    ("name", "state"),
    [("present.0.key", True), ("past_key_values", True), ("new_cache", True), ("logits", False), ("presented", False)],
)
def test_caches_are_recognised_by_name(name: str, state: bool) -> None:
    assert is_state(name) == state


def test_numbers_of_a_classifier_are_peaked_and_varied() -> None:
    assert looks_like_classes(1.5, 65, 40, 1000)
    assert not looks_like_classes(6.1, 512, 300, 1000)  # the nearly even softmax of an embedding
    assert not looks_like_classes(0.0, 4, 1, 64)  # boxes: always the same coordinate
    assert looks_like_classes(0.0, 4, 1, 3)  # too few to tell
