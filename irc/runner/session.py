"""Sessions of the runtime process. Imports numpy and ONNX Runtime only: the process starts before every build."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from irc.runner.portable import FileSlice, PortableModel

Feed = dict[str, "np.ndarray[Any, Any]"]
PROVIDERS = ["CPUExecutionProvider"]
_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclasses.dataclass
class OpenSession:
    """A session, and the arrays it refers to, which must live as long as it does."""

    session: Any
    keep: list[Any]
    threads: int | None = None
    _buffers: dict[str, np.ndarray[Any, Any]] = dataclasses.field(default_factory=dict)
    _shapes: list[tuple[int, ...]] = dataclasses.field(default_factory=list)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in the model's order."""
        return [output.name for output in self.session.get_outputs()]

    def run(self, feed: Feed, outputs: list[str] | None = None) -> dict[str, Any]:
        """Runs one feed; returns outputs by name."""
        names = self.output_names if outputs is None else outputs
        return dict(zip(names, self.session.run(names, feed), strict=True))

    def run_into_buffers(self, feed: Feed, kept: list[str]) -> dict[str, Any]:
        """Runs one feed; outputs in `kept` are overwritten by the next call, which saves their memory and a copy.

        Buffers are used again while the shapes of the feed stay the same.
        """
        shapes = [array.shape for array in feed.values()]
        buffers = self._buffers
        if shapes != self._shapes or not buffers:
            outputs = self.run(feed)
            self._shapes, self._buffers = shapes, {name: outputs[name] for name in kept}
            return outputs
        binding = self.session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        others = [name for name in self.output_names if name not in buffers]
        for name, buffer in buffers.items():
            binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        for name in others:
            binding.bind_output(name, "cpu")
        try:
            self.session.run_with_iobinding(binding)
        except Exception:
            # A shape that depends on the data: the plain run says what is wrong if it is something else.
            self._shapes = []
            return self.run(feed)
        values = binding.get_outputs()[len(buffers) :]
        return buffers | {name: value.numpy() for name, value in zip(others, values, strict=True)}


def open_session(
    model: PortableModel | str,
    *,
    optimization: str = "all",
    threads: int | None = None,
    optimized_model_path: Path | None = None,
    profile_prefix: str | None = None,
) -> OpenSession:
    """Opens a model on the CPU provider; a path is opened as any user of ONNX Runtime opens it.

    Args:
        model: A portable model, whose weights are mapped and copied once by the runtime, or a path.
        optimization: "none", "basic", "extended" or "all".
        threads: Threads within operators; None leaves it to the runtime.
        optimized_model_path: Where the runtime writes its own optimized graph, with weights beside it.
        profile_prefix: Start of the path of the runtime's profile; None for none.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = _LEVELS[optimization]
    if threads is not None:
        options.intra_op_num_threads = threads
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    if optimized_model_path is not None:
        options.optimized_model_filepath = str(optimized_model_path)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{optimized_model_path.name}.data"
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    if isinstance(model, str):
        return OpenSession(ort.InferenceSession(model, options, providers=PROVIDERS), [], threads)
    # Threads that wait for the next run at full speed would take the core from whoever looks at the results meanwhile.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    arrays = {name: _array(weight) for name, weight in model.weights.items()}
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    if values:
        options.add_external_initializers(list(arrays), values)
    session = ort.InferenceSession(model.proto, options, providers=PROVIDERS)
    return OpenSession(session, [arrays, values], threads)


def _array(weight: FileSlice | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if isinstance(weight, np.ndarray):
        return weight
    count = int(np.prod(weight.shape, dtype=np.int64))
    flat = np.memmap(weight.path, dtype=np.dtype(weight.dtype), mode="r", offset=weight.offset, shape=(count,))
    # Data files of other tools pack tensors without alignment; a misaligned one has to be copied.
    return np.require(np.asarray(flat).reshape(weight.shape), requirements=["A"])
