"""What is known of the mutants of benchmarks/mutation.py: the modules gone through one by one, and the changes that no model can show."""

from __future__ import annotations

PASSES = (
    "eliminate-dead-code",
    "eliminate-double-negation",
    "eliminate-dropout",
    "eliminate-identity",
    "eliminate-inverse-concat",
    "eliminate-no-op-arithmetic",
    "eliminate-no-op-selection",
    "eliminate-no-op-shape",
    "eliminate-unused-body-values",
    "eliminate-unused-body-values:body_needs",
    "eliminate-unused-body-values:repeated_body",
    "fold-affine",
    "fold-affine:affine",
    "fold-affine:affine_host",
    "fold-affine:linear_operator",
    "fold-affine:written_out",
    "fold-batch-norm",
    "fold-batch-norm:inference_batch_norm",
    "fold-constants",
    "fold-constants:constant_program",
    "fold-constants:constant_regions",
    "fold-constants:inline_branch",
    "fold-constants:known_shapes",
    "fold-pad",
    "fold-pad:window",
    "fold-reshape-shape",
    "fuse-attention",
    "fuse-gelu",
    "fuse-gelu:polynomial",
    "fuse-hard-swish",
    "fuse-layer-normalization",
    "fuse-layer-normalization:normalization",
    "fuse-matmul-add",
    "fuse-mish",
    "fuse-mish:composite",
    "fuse-rms-normalization",
    "fuse-rms-normalization:root_mean_square",
    "infer-shapes",
    "merge-arithmetic",
    "merge-casts",
    "merge-clips",
    "merge-clips:clipping",
    "merge-common-subexpressions",
    "merge-concats",
    "merge-duplicate-initializers",
    "merge-pads",
    "merge-reshaped-transposes",
    "merge-reshapes",
    "merge-reshapes:reshaped_dimensions",
    "merge-slices",
    "merge-transposes",
    "pool-spatial-mean",
    "raise-opset",
    "resolve-cast-like",
    "rewrite-with-onnxscript",
    "rewrite-with-onnxscript:foreign_replacement",
    "separate-residual-add",
    "simplify-with-onnxsim",
    "simplify-with-onnxsim:foreign_result",
    "unroll-loop",
    "unroll-loop:loop_rounds",
)
"""PASS or PASS:MODULE, a module beside that of the pass; `benchmarks/mutation.py` takes any."""
HARMLESS: dict[str, tuple[str, ...]] = {
    # an output that loses its name is one fewer of the one and one more of the other
    "eliminate-dead-code": ("negated: output.name",),
    # onnx knows no Neg without input
    "eliminate-double-negation": ("left out: node.inputs[0] is None",),
    # onnx knows no Identity or Transpose without input
    "eliminate-identity": ("left out: node.inputs[0] is None",),
    # a Split has an input; an input that is left out has no size either
    "eliminate-inverse-concat": ("left out: source is None", "left out: value is not None"),
    # none of these operators is without an input or type, and a choice of nothing gives none; a BitCast to the same type
    # changes nothing either; what is neutral for others than Add and Sub has no sign
    "eliminate-no-op-arithmetic": (
        "left out: node.inputs[0] is None",
        "left out: node.op_type == 'Cast'",
        "left out: 'to' in node.attributes",
        "left out: node.inputs[1] is not None",
        "left out: value is None",
        "left out: node.op_type in ('Add', 'Sub')",
        "left out: source is not None",
    ),
    # a Where has all inputs; the length is compared again with the elements, and only saves making a range
    "eliminate-no-op-selection": (
        "left out: taken is None",
        "and/or swapped: not isinstance(size, int) or len(indices) != size",
        "left out: not isinstance(size, int)",
        "left out: len(indices) != size",
    ),
    # no such operator is without an entry for its input
    "eliminate-no-op-shape": ("left out: not node.inputs",),
    # nodes deeper inside bring what their owner has brought, and nodes looked at twice only take time
    "eliminate-unused-body-values:body_needs": (
        "left out: node.graph is not self._body",
        "left out: node in self._nodes",
    ),
    # a Loop or Scan that onnx takes fits its body, and an If does not come here
    "eliminate-unused-body-values:repeated_body": (
        "left out: node.op_type not in ('Loop', 'Scan')",
        "and/or swapped: len(node.inputs) == len(body.inputs) and len(body.outputs) == found.fixed_outputs + len(node.outputs)",
        "left out: len(node.inputs) == len(body.inputs)",
        "left out: len(body.outputs) == found.fixed_outputs + len(node.outputs)",
        "and/or swapped: fits and 0 <= found.carried <= len(node.outputs)",
        "left out: fits",
        "left out: 0 <= found.carried <= len(node.outputs)",
    ),
    # what is constant has a name
    "fold-affine": ("left out: 'weight'", "left out: constant.name", "left out: ''"),
    # onnx knows no Add, Sub, Mul or Div without both inputs; for the type checker: one of them is constant
    "fold-affine:affine": ("left out: left is None", "left out: right is None", "left out: tensor is None"),
    # for the type checker: the statistics have been found constant, and a shift that has no bias to go to refused
    "fold-affine:affine_host": ("left out: weight is None", "left out: slot is not None"),
    # no other operator that has weights has an attribute transB
    "fold-affine:linear_operator": ("left out: node.op_type == 'Gemm'",),
    # for the type checker: what was matched is there
    "fold-affine:written_out": ("left out: reduced is not None", "left out: differences[0] is not None"),
    # a MatMul has two inputs, and what is left of a rank that is not known is not of two
    "fold-batch-norm": ("left out: value is not None",),
    # a value that is replaced has a name
    "fold-constants": ("left out: 'constant'",),
    # for the type checker: what is computed after its inputs has a producer, what has a name has a type
    "fold-constants:constant_program": ("left out: node is not None", "left out: promised is not None"),
    # for the type checker: sizes are asked of typed values, what is stored has a known one, a computed value a name, and
    # what nothing computes is a constant; what adds no bytes is not weighed, which only saves time
    "fold-constants:constant_regions": (
        "left out: value.dtype is None",
        "left out: tensor is not None",
        "left out: 0",
        "left out: ''",
        "left out: added > max_bytes",
    ),
    # onnx knows no Shape, Size, Gather or Slice without input
    "fold-constants:known_shapes": (
        "left out: node.inputs",
        "left out: node.inputs[0] is not None",
        "left out: value is None",
    ),
    # onnx knows no Pad without pads
    "fold-pad": ("left out: arrays[1] is None",),
    # nor a convolution or pool without input
    "fold-pad:window": ("left out: node.inputs[0] is not None",),
    # a Reshape has a shape, a Cast or Identity an input
    "fold-reshape-shape": ("left out: shape is None", "left out: source is not None"),
    # for the type checker: operators have inputs, what has a rank has a type, and heads that agree are of known shapes
    "fuse-attention": (
        "left out: core.q.dtype is None",
        "left out: joined is None",
        "left out: pair is None",
        "left out: softmax.inputs[0] is None",
        "and/or swapped: scored is None or operands is None",
        "left out: scored is None",
        "left out: operands is None",
        "left out: turn is None",
        "left out: keys is None",
        "left out: node is not None",
        "left out: turn.inputs[0] is None",
        "left out: reshape is None",
        "left out: data is None",
        "and/or swapped: a.shape is None or b.shape is None",
        "left out: a.shape is None",
        "left out: b.shape is None",
    ),
    # without a type nothing is near enough to what is wanted
    "fuse-gelu": ("left out: x.dtype is None",),
    # a sum, product or quotient has two inputs; a number that is not known is neither 2 nor 3
    "fuse-gelu:polynomial": (
        "and/or swapped: node is None or pair is None",
        "left out: node is None",
        "left out: pair is None",
        "left out: number is None",
    ),
    # a gate has an input and, without a type, no slope near enough; a bound that is not known is not 0
    "fuse-hard-swish": (
        "left out: x.dtype is None",
        "left out: argument is None",
        "and/or swapped: argument is None or x.dtype is None",
        "left out: low is None",
    ),
    # for the type checker or to save time: only what ends in these goes on, and operands have inputs, a product one type
    "fuse-layer-normalization:normalization": (
        "left out: found is None",
        "left out: following.op_type in ('Add', 'Mul', 'Cast')",
        "left out: product is None",
        "left out: narrow.inputs[0] is None",
        "left out: found is not None",
        "left out: parameter.dtype != data.dtype",
    ),
    # for the type checker: operands and results have types, a known rank, a producer in a graph
    "fuse-matmul-add": (
        "left out: value is None",
        "left out: transpose is not None",
        "left out: source is not None",
        "and/or swapped: value is not None and value.shape",
        "left out: value is not None",
        "left out: value.shape",
        "left out: producer is not None",
    ),
    # for the type checker: a product has operands of a type, a Softplus a user
    "fuse-mish": ("left out: tanh is not None", "left out: x.dtype is not None"),
    # all that is looked at has one output and stands in a graph; a Mul has two inputs
    "fuse-mish:composite": (
        "left out: len(node.outputs) != 1",
        "left out: not isinstance(node.graph, ir.Graph)",
        "and/or swapped: len(node.inputs) != 2 or node.inputs[0] is None or node.inputs[1] is None",
        "left out: len(node.inputs) != 2",
        "left out: node.inputs[0] is None",
        "left out: node.inputs[1] is None",
    ),
    # for the type checker: roots, powers, means and differences have inputs; two Casts that meet in a quotient have one type
    "fuse-rms-normalization:root_mean_square": (
        "left out: reduced is None",
        "left out: added is None",
        "left out: node.inputs[0] is None",
        "and/or swapped: node is None or pair is None",
        "left out: node is None",
        "left out: pair is None",
        "left out: a.dtype == b.dtype is not None",
        "left out: difference is None",
        "left out: mean is None",
        "left out: mean.inputs[0] is None",
    ),
    # without a term there is no producer; onnx knows no Add, Sub, Mul or Div without both inputs
    "merge-arithmetic": ("left out: outer is None", "left out: first is None", "left out: second is None"),
    # a Cast has an input; keeps_every_value refuses a type that is not known; nothing else has an attribute `to`
    "merge-casts": (
        "left out: node.inputs[0] is not None",
        "left out: inner.inputs[0] is None",
        "left out: first is None",
        "left out: node.op_type == 'Cast'",
    ),
    # for the type checker: what has no producer is no clipping, nothing is no constant, and a value has a name
    "merge-clips": ("left out: inner is None", "left out: value is not None", "left out: ''"),
    # onnx knows no such operator without input; a constant that is one number has a shape
    "merge-clips:clipping": ("left out: not node.inputs", "left out: shape is None"),
    # for the type checker: what is omitted has no producer
    "merge-concats": ("left out: value is None",),
    # an initializer has a name
    "merge-duplicate-initializers": ("left out: ''",),
    # a Pad has an input and keeps the rank, its value is one number; names count for an estimate of bytes
    "merge-pads": (
        "left out: node.inputs[0] is not None",
        "left out: bool(node.inputs)",
        "left out: len(first) != len(second)",
        "left out: value is not None",
        "and/or swapped: value.name or ''",
        "left out: value.name",
        "left out: ''",
        "left out: array.size != 1",
        "left out: array.dtype.kind not in 'fiub'",
    ),
    # what is before nothing is nothing, and a Reshape or Transpose has an input
    "merge-reshaped-transposes": (
        "left out: moved is None",
        "left out: joined.inputs[0] is None",
        "left out: node.inputs[0] is None",
    ),
    # onnx knows none of them without input; for the type checker: an axis from behind an unknown end has been refused
    "merge-reshapes": ("left out: node.inputs[0] is not None", "left out: inner.inputs[0] is None", "left out: 0"),
    # for the type checker: is_slice looks at both; what is omitted has no array, and every bound that is there has one
    "merge-slices": (
        "left out: node.inputs[0] is not None",
        "left out: inner is None",
        "left out: value is not None",
        "left out: array is not None",
    ),
    "merge-transposes": ("left out: node.inputs[0] is not None", "left out: inner.inputs[0] is None"),
    # for the type checker: a mean has an input
    "pool-spatial-mean": ("left out: source is None",),
    # an input that was none before is a weight, and a model has a version
    "raise-opset": ("left out: value.name in weights", "left out: 0"),
    # a CastLike has two inputs
    "resolve-cast-like": ("left out: node.inputs[1] is None",),
    # onnx knows no Identity without input
    "rewrite-with-onnxscript": ("left out: node.inputs[0] is not None",),
    # an operator of two operands has both, what is computed has a name, and nodes looked at twice only take time
    "rewrite-with-onnxscript:foreign_replacement": (
        "left out: value is not None",
        "left out: ''",
        "left out: node not in removed",
    ),
    # an initializer has a tensor, contents are compared with their shapes, and an output without a name has no module
    "simplify-with-onnxsim:foreign_result": (
        "left out: new is not None",
        "left out: old.nbytes == new.nbytes",
        "left out: ''",
    ),
    # for the type checker: what is used has a name
    "unroll-loop": ("left out: 'empty'", "left out: 'collected'", "left out: 'first'"),
    # the size is looked at before and after reading; floats would do; the depth only limits time; all operands are there
    "unroll-loop:loop_rounds": (
        "left out: value.shape is not None and any((d != 1 for d in value.shape))",
        "left out: array.size == 1",
        "left out: array.dtype.kind in 'bi'",
        "and/or swapped: value is None or depth == 0",
        "left out: value is None",
        "left out: depth == 0",
    ),
}
"""The reason stands above each: the check says what holds anyway, or only saves time."""
