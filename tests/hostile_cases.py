"""Hostile inputs: each writes something damaged into a folder and returns the command line that meets it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Case = Callable[[Path], list[str]]
CASES: dict[str, tuple[Case, int, str]] = {}


def hostile(code: int, message: str) -> Callable[[Case], Case]:
    """Registers a case with its exit code and a pattern its one line must match."""

    def register(case: Case) -> Case:
        CASES[case.__name__] = (case, code, message)
        return case

    return register


def convolution(*, dims: tuple[object, ...] = ("batch", 3, 8, 8), opset: int = 20) -> onnx.ModelProto:
    """A small valid model: Conv, Relu, global pooling, Flatten, Gemm."""
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.standard_normal((16, 3, 3, 3)).astype(np.float32),
        "b": generator.standard_normal(16).astype(np.float32),
        "fc": generator.standard_normal((16, 10)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "fc"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [dims[0], 10])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def write(folder: Path, model: onnx.ModelProto | bytes, name: str = "model.onnx") -> str:
    """Writes a model and returns its path."""
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return str(path)


def write_external(
    folder: Path, *, location: str = "model.data", length: int | None = None, size: int | None = None
) -> str:
    """A model whose weight `w` lies in a data file with the given lies about it."""
    model = convolution()
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length or len(content)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    if size is not None:
        (folder / "model.data").write_bytes(content[:size])
    return write(folder, model)


def samples(folder: Path, **arrays: np.ndarray) -> str:
    """A folder with one .npz."""
    data = folder / "calib"
    data.mkdir()
    np.savez(data / "0.npz", **arrays)
    return str(data)


X = np.random.default_rng(1).standard_normal((1, 3, 8, 8)).astype(np.float32)


@hostile(4, "no such file")
def missing_model(folder):
    return ["optimize", str(folder / "nothing.onnx")]


@hostile(4, "is a directory")
def model_is_a_directory(folder):
    (folder / "d").mkdir()
    return ["optimize", str(folder / "d")]


@hostile(4, "empty")
def empty_file(folder):
    return ["optimize", write(folder, b"")]


@hostile(4, "not an ONNX model|truncated|damaged")
def truncated_model(folder):
    return ["optimize", write(folder, convolution().SerializeToString()[:-700])]


@hostile(4, "not an ONNX model|truncated|damaged")
def random_bytes(folder):
    return ["optimize", write(folder, np.random.default_rng(5).bytes(5000))]


@hostile(4, "not an ONNX model|truncated|damaged|no graph")
def text_instead_of_a_model(folder):
    return ["optimize", write(folder, b"this is a README, not a model\n" * 20)]


@hostile(4, "cycle|before it|not defined|not sorted|sorted")
def cyclic_graph(folder):
    model = convolution()
    model.graph.node[0].input[0] = "p"
    return ["optimize", write(folder, model)]


@hostile(4, "uses .ghost.")
def undefined_value(folder):
    model = convolution()
    model.graph.node[1].input[0] = "ghost"
    return ["optimize", write(folder, model)]


@hostile(4, "opset 99 is not known|opset 99")
def opset_of_the_future(folder):
    model = convolution()
    model.opset_import[0].version = 99
    return ["optimize", write(folder, model)]


@hostile(4, "opset")
def opset_zero(folder):
    model = convolution()
    model.opset_import[0].version = 0
    return ["optimize", write(folder, model)]


@hostile(4, "opset")
def no_opset(folder):
    model = convolution()
    del model.opset_import[:]
    return ["optimize", write(folder, model)]


@hostile(4, "checker|inputs|Relu")
def operator_without_its_inputs(folder):
    model = convolution()
    del model.graph.node[1].input[:]
    return ["optimize", write(folder, model)]


@hostile(4, "'w' is in 'model.data', which is missing")
def missing_external_data(folder):
    return ["optimize", write_external(folder)]


@hostile(4, "truncated|has only")
def truncated_external_data(folder):
    return ["optimize", write_external(folder, size=100)]


@hostile(4, "needs 1728|has 4096")
def external_length_disagrees_with_the_shape(folder):
    return ["optimize", write_external(folder, length=4096, size=1728)]


@hostile(4, "outside the model's folder")
def external_data_escapes_the_folder(folder):
    (folder / "sub").mkdir()
    (folder / "secret.bin").write_bytes(bytes(1728))
    path = write_external(folder, location="../secret.bin")
    inside = folder / "sub" / "model.onnx"
    Path(path).rename(inside)
    return ["optimize", str(inside)]


@hostile(4, "outside the model's folder|absolute")
def external_data_with_an_absolute_path(folder):
    (folder / "weights.bin").write_bytes(bytes(1728))
    return ["optimize", write_external(folder, location=str(folder / "weights.bin"))]


@hostile(4, "symbolic link|outside the model's folder")
def external_data_is_a_link_out_of_the_folder(folder):
    outside = folder / "outside"
    outside.mkdir()
    (outside / "real.bin").write_bytes(bytes(1728))
    inside = folder / "inside"
    inside.mkdir()
    (inside / "model.data").symlink_to(outside / "real.bin")
    return ["optimize", write_external(inside)]


@hostile(4, "weight 'w' has .*bytes|needs|Tensor|size")
def inline_weight_of_the_wrong_size(folder):
    model = convolution()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:40]
    return ["optimize", write(folder, model)]


@hostile(4, "sparse initializer")
def sparse_initializer(folder):
    model = convolution()
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    sparse.dims[:] = [4]
    return ["optimize", write(folder, model)]


@hostile(4, "empty|no nodes|no outputs")
def empty_graph(folder):
    model = convolution()
    del model.graph.node[:]
    del model.graph.output[:]
    return ["optimize", write(folder, model)]


@hostile(4, "there is no such file or folder")
def missing_data(folder):
    return ["optimize", write(folder, convolution()), "--data", str(folder / "nothing")]


@hostile(4, "no .npz files|no samples|it is empty")
def empty_data_folder(folder):
    (folder / "calib").mkdir()
    return ["optimize", write(folder, convolution()), "--data", str(folder / "calib")]


@hostile(4, "input 'x' is missing.*image")
def wrong_input_name(folder):
    return ["optimize", write(folder, convolution()), "--data", samples(folder, image=X)]


@hostile(4, r"'x' is float64 \[1, 3, 8, 8\]; the model expects float32")
def wrong_dtype(folder):
    return ["optimize", write(folder, convolution()), "--data", samples(folder, x=X.astype(np.float64))]


@hostile(4, "batch axis")
def missing_batch_axis(folder):
    return ["optimize", write(folder, convolution()), "--data", samples(folder, x=X[0])]


@hostile(4, r"\[1, 3, 8, 9\]; the model expects")
def wrong_size(folder):
    return ["optimize", write(folder, convolution()), "--data", samples(folder, x=np.zeros((1, 3, 8, 9), np.float32))]


@hostile(4, "NaN")
def data_with_nan(folder):
    broken = X.copy()
    broken[0, 0, 0, 0] = np.nan
    return ["optimize", write(folder, convolution()), "--data", samples(folder, x=broken)]


@hostile(4, "infinity|Inf")
def data_with_infinity(folder):
    broken = X.copy()
    broken[0, 0, 0, 0] = np.inf
    return ["optimize", write(folder, convolution()), "--data", samples(folder, x=broken)]


@hostile(4, "truncated|damaged|readable")
def truncated_data(folder):
    data = samples(folder, x=X)
    path = Path(data) / "0.npz"
    path.write_bytes(path.read_bytes()[:200])
    return ["optimize", write(folder, convolution()), "--data", data]


@hostile(4, "Python objects|pickle|object")
def pickled_data(folder):
    data = folder / "calib"
    data.mkdir()
    np.savez(data / "0.npz", x=np.array([{"a": 1}], dtype=object))
    return ["optimize", write(folder, convolution()), "--data", str(data)]


@hostile(4, "axis 0")
def archive_with_unequal_lengths(folder):
    path = folder / "data.npz"
    np.savez(path, x=np.repeat(X, 4, 0), label=np.arange(3))
    return ["optimize", write(folder, convolution()), "--data", str(path)]


@hostile(4, r"boom.*\(?feeds.py:2|feeds.py")
def data_function_that_raises(folder):
    (folder / "feeds.py").write_text("def calib():\n    raise RuntimeError('boom')\n")
    return ["optimize", write(folder, convolution()), "--data", f"{folder / 'feeds.py'}:calib"]


@hostile(4, "NaN|infinity|finite")
def nan_weights_reach_the_activations(folder):
    model = convolution()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    return ["optimize", write(folder, model), "--data", samples(folder, x=X)]


@hostile(2, "is the input")
def output_equals_input(folder):
    path = write(folder, convolution())
    return ["optimize", path, "-o", path]


@hostile(2, "is the input|overwrite")
def output_is_a_link_to_the_input(folder):
    path = write(folder, convolution())
    (folder / "link.onnx").symlink_to(path)
    return ["optimize", path, "-o", str(folder / "link.onnx")]


@hostile(2, "no directory|does not exist")
def output_folder_is_missing(folder):
    return ["optimize", write(folder, convolution()), "-o", str(folder / "no" / "out.onnx")]


@hostile(2, "is a directory")
def output_is_a_directory(folder):
    (folder / "out").mkdir()
    return ["optimize", write(folder, convolution()), "-o", str(folder / "out")]


@hostile(2, "is a device or a pipe")
def output_is_a_pipe(folder):
    os.mkfifo(folder / "out.onnx")
    return ["optimize", write(folder, convolution()), "-o", str(folder / "out.onnx")]


@hostile(2, "is a device or a pipe")
def manifest_is_a_pipe(folder):
    os.mkfifo(folder / "out.manifest.json")
    return ["optimize", write(folder, convolution()), "-o", str(folder / "out.onnx")]


@hostile(2, "matches none of the 5 nodes; did you mean 'Conv'")
def selector_of_a_pass_that_matches_nothing(folder):
    return ["optimize", write(folder, convolution()), "--passes", "fold-batch-norm{exclude=op:Convv}"]


@hostile(4, "is a directory")
def empty_model_name(folder):
    return ["optimize", ""]


@hostile(2, "--seed is -1")
def negative_seed(folder):
    return ["optimize", write(folder, convolution()), "--data", "random", "--seed", "-1"]


@hostile(2, "selector '' is empty")
def empty_selector(folder):
    return ["optimize", write(folder, convolution()), "--exclude", ""]


@hostile(2, "permission|No such|not permitted|denied|cannot")
def output_on_a_pseudo_file_system(folder):
    return ["optimize", write(folder, convolution()), "-o", "/proc/irc.onnx"]


@hostile(2, "unknown pass 'fold-batchnorm'; did you mean 'fold-batch-norm'")
def misspelled_pass(folder):
    return ["optimize", write(folder, convolution()), "--passes", "fold-batchnorm"]


@hostile(2, "quotes")
def brace_list_split_by_the_shell(folder):
    return [
        "optimize",
        write(folder, convolution()),
        "--passes",
        "fold-constants,quantizeembeddings=false",
        "fold-constants,quantizejoining=false",
    ]


@hostile(2, "unknown target")
def misspelled_target(folder):
    return ["optimize", write(folder, convolution()), "--target", "ortt"]


@hostile(2, "matches none of the 5 nodes; did you mean 'Conv'")
def selector_that_matches_nothing(folder):
    return ["optimize", write(folder, convolution()), "--exclude", "op:Convv"]


@hostile(2, "--max-drop")
def budget_without_a_unit(folder):
    return ["optimize", write(folder, convolution()), "--max-drop", "1"]


@hostile(2, "--batch")
def batch_of_zero(folder):
    return ["optimize", write(folder, convolution()), "--batch", "0"]


@hostile(2, "leave out --data")
def plan_with_data(folder):
    plan = folder / "p.yaml"
    plan.write_text("plan: 1\n")
    return ["optimize", write(folder, convolution()), "--plan", str(plan), "--data", "random"]


@hostile(2, "not YAML|is damaged|is not a plan")
def damaged_plan(folder):
    plan = folder / "p.yaml"
    plan.write_text("plan: [1,\n")
    return ["optimize", write(folder, convolution()), "--plan", str(plan)]


@hostile(2, "--metric needs --data")
def metric_without_data(folder):
    return ["optimize", write(folder, convolution()), "--metric", "accuracy"]


def unreadable_is_testable() -> bool:
    """Whether file permissions bind this user at all."""
    return os.geteuid() != 0
