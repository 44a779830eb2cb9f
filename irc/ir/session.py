"""Open an ONNX Runtime session on a skeleton; runs in the child process of `irc.runner`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irc.ir.skeleton import ExternalSlice, Skeleton

Optimization = Literal["none", "basic", "extended", "all"]


def session_options(
    *,
    optimization: Optimization = "all",
    threads: int | None = None,
    profile: str | None = None,
    optimized_model_path: str | Path | None = None,
) -> Any:
    """ONNX Runtime session options with quiet logging."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = {
        "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[optimization]
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    if optimized_model_path is not None:
        options.optimized_model_filepath = str(optimized_model_path)
    return options


@dataclasses.dataclass
class Session:
    """A session and the arrays it refers to, which must live as long as it does."""

    session: Any
    keep: list[Any]

    def run(self, outputs: list[str] | None, feed: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        """Runs the model on one feed."""
        result: list[np.ndarray[Any, Any]] = self.session.run(outputs, feed)
        return result


def open_session(
    skeleton: Skeleton,
    *,
    optimization: Optimization = "all",
    threads: int | None = None,
    profile: str | None = None,
    optimized_model_path: str | Path | None = None,
) -> Session:
    """A CPU session on a skeleton; weights are handed over by reference, files stay mapped."""
    import onnxruntime as ort

    options = session_options(
        optimization=optimization, threads=threads, profile=profile, optimized_model_path=optimized_model_path
    )
    arrays, values, names = [], [], []
    for name, weight in skeleton.weights.items():
        if isinstance(weight, ExternalSlice):
            array = weight.array()
        else:
            array = weight if isinstance(weight, np.ndarray) else weight.numpy()
        # Data files of other tools pack tensors without alignment; a misaligned one has to be copied.
        array = np.require(array, requirements=["C", "A"])
        arrays.append(array)
        values.append(ort.OrtValue.ortvalue_from_numpy(array))
        names.append(name)
    if names:
        options.add_external_initializers(names, values)
    session = ort.InferenceSession(skeleton.proto, options, providers=["CPUExecutionProvider"])
    return Session(session, [arrays, values])
