"""An exported program as a graph that FX passes can rewrite, and back.

In an `ExportedProgram` every parameter is an input of the graph and belongs to a signature. `unlift` gives what authors of
FX passes expect: a `GraphModule` whose inputs are the user's alone and whose parameters are attributes, read by `get_attr`
nodes; operations are those of ATen, and each node knows its module (`meta["nn_module_stack"]`). `lift` turns it back:

    conv2d(x, p_conv_weight)  <->  conv2d(x, self.conv.weight)

Names of the outputs stay with the graph module (`output_names`), so that a rewrite of what computes an output does not
rename it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from irc.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import fx

_NAMES = "irc.output_names"


def output_names(graph_module: fx.GraphModule) -> list[str]:
    """Names of the outputs, in order."""
    return list(output_node(graph_module).meta[_NAMES])


def output_node(graph_module: fx.GraphModule) -> fx.Node:
    """The node that returns the outputs."""
    for node in reversed(graph_module.graph.nodes):
        if node.op == "output":
            found: fx.Node = node
            return found
    raise ModelError("the graph returns nothing: it has no output node")


def drop_outputs(graph_module: fx.GraphModule, names: list[str]) -> None:
    """Takes outputs away from the interface: the one way for a pass to say that it means to."""
    _keep(graph_module, [i for i, name in enumerate(output_names(graph_module)) if name not in names])


def keep_outputs(program: torch.export.ExportedProgram, places: list[int]) -> torch.export.ExportedProgram:
    """The program with some of its outputs only."""
    graph_module = unlift(program)
    _keep(graph_module, places)
    return lift(graph_module, program)


def _keep(graph_module: fx.GraphModule, places: list[int]) -> None:
    node = output_node(graph_module)
    node.args = (tuple(node.args[0][place] for place in places),)  # type: ignore[index]
    node.meta[_NAMES] = [node.meta[_NAMES][place] for place in places]


def copy_graph(graph_module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the nodes, which shares parameters and metadata values."""
    from torch import fx

    graph = fx.Graph()
    result = graph.graph_copy(graph_module.graph, {})
    node = graph.output(result)
    node.meta = dict(output_node(graph_module).meta)
    return fx.GraphModule(graph_module, graph)


def unlift(program: torch.export.ExportedProgram, *, copy_parameters: bool = False) -> fx.GraphModule:
    """The graph of a program with its parameters as attributes.

    Args:
        program: Unchanged.
        copy_parameters: Whether the attributes are copies; otherwise they are the tensors of the program.
    """
    import torch
    from torch import fx
    from torch.export.graph_signature import InputKind

    root = torch.nn.Module()
    targets: dict[str, str] = {}
    copies: dict[int, Any] = {}
    for specification in program.graph_signature.input_specs:
        if specification.kind is InputKind.USER_INPUT or specification.target is None:
            continue
        name = specification.arg.name
        value = program.state_dict.get(specification.target)
        if value is None:
            value = program.constants[specification.target]
        if copy_parameters and isinstance(value, torch.Tensor):
            value = copies.setdefault(id(value), _copied(value))
        targets[name] = specification.target
        set_attribute(root, specification.target, value)
    for name, inner in program.graph_module.named_children():
        root.add_module(name, inner)
    graph = fx.Graph()
    replaced: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in targets:
            made = graph.create_node("get_attr", targets[node.name], name=node.name)
            made.meta = dict(node.meta)
            replaced[node] = made
        elif node.op == "output":
            made = graph.output(fx.map_arg(node.args[0], lambda n: replaced[n]))
            names = [getattr(s.arg, "name", f"output_{i}") for i, s in enumerate(program.graph_signature.output_specs)]
            made.meta = {**node.meta, _NAMES: names}
        else:
            replaced[node] = graph.node_copy(node, lambda n: replaced[n])
    return fx.GraphModule(root, graph)


def lift(graph_module: fx.GraphModule, program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """A program of the rewritten graph, with the inputs, the ranges of dimensions and the example of the old one.

    Args:
        graph_module: What `unlift` gave, rewritten.
        program: The program it came from.

    Raises:
        ModelError: If the graph no longer fits: it reads an attribute that does not exist, or shapes contradict each other.
    """
    import torch
    from torch import fx
    from torch.export.graph_signature import (
        ConstantArgument,
        InputKind,
        InputSpec,
        OutputSpec,
        TensorArgument,
    )

    signature = program.graph_signature
    kinds = {s.target: s for s in signature.input_specs if s.target is not None}
    wanted = output_names(graph_module)
    results = output_node(graph_module).args[0]
    reserved = {
        result: name
        for name, result in zip(wanted, results, strict=True)  # type: ignore[arg-type]
        if isinstance(result, fx.Node) and result.op == "call_function"
    }
    users = [s for s in signature.input_specs if s.kind is InputKind.USER_INPUT]
    taken = {*wanted, *(s.arg.name for s in users if getattr(s.arg, "name", None))}
    graph = fx.Graph()
    state: dict[str, torch.Tensor] = {}
    constants: dict[str, Any] = dict(program.constants)
    inputs: list[InputSpec] = []
    made: dict[fx.Node, fx.Node] = {}
    by_target: dict[str, fx.Node] = {}
    fake_mode = _fake_mode(program)

    attributes = [node for node in graph_module.graph.nodes if node.op == "get_attr"]
    # Inputs of a program come in the order: parameters, buffers, constants, the user's.
    order = {InputKind.PARAMETER: 0, InputKind.BUFFER: 1, InputKind.CONSTANT_TENSOR: 2, InputKind.CUSTOM_OBJ: 3}
    found = []
    for node in attributes:
        value = attribute(graph_module, node)
        if isinstance(value, torch.nn.Module):
            continue
        old = kinds.get(str(node.target))
        kind = old.kind if old is not None else _kind(value)
        found.append((order.get(kind, 4), node, value, kind, old))
    for _, node, value, kind, old in sorted(found, key=lambda item: item[0]):
        target = str(node.target)
        if target in by_target:
            made[node] = by_target[target]
            continue
        name = old.arg.name if old is not None else _free(graph, f"p_{target.replace('.', '_')}", taken)
        placeholder = graph.create_node("placeholder", name, name=name)
        placeholder.meta = dict(node.meta)
        if isinstance(value, torch.Tensor):
            with fake_mode:
                placeholder.meta["val"] = fake_mode.from_tensor(value, static_shapes=True)
        made[node] = by_target[target] = placeholder
        argument = (
            TensorArgument(name=placeholder.name)
            if old is None
            else type(old.arg)(**{**_fields(old.arg), "name": placeholder.name})
        )
        persistent = old.persistent if old is not None else (True if kind is InputKind.BUFFER else None)
        inputs.append(InputSpec(kind=kind, arg=argument, target=target, persistent=persistent))
        if kind in (InputKind.PARAMETER, InputKind.BUFFER) and persistent is not False:
            state[target] = value
        else:
            constants[target] = value
    for node in graph_module.graph.nodes:
        if node.op == "output":
            break
        if node in made:
            continue
        if node.op == "placeholder":
            made[node] = graph.node_copy(node, lambda n: made[n])
            made[node].name = str(node.target)  # a graph renames what is called as a builtin is, such as `input`
            continue
        name = reserved.get(node) or (
            node.name if node.name not in taken else _free(graph, f"{node.name}_inner", taken)
        )
        copied = graph.create_node(
            node.op,
            node.target,
            fx.map_arg(node.args, lambda n: made[n]),
            fx.map_arg(node.kwargs, lambda n: made[n]),
            name=name,
        )
        copied.name = name
        copied.meta = dict(node.meta)
        made[node] = copied
    inputs += users
    outputs = []
    specifications = {getattr(s.arg, "name", f"output_{i}"): s for i, s in enumerate(signature.output_specs)}
    final: list[Any] = []
    for name, result in zip(wanted, results, strict=True):  # type: ignore[arg-type]
        old_output = specifications[name]
        if isinstance(result, fx.Node):
            final.append(made[result])
            argument = TensorArgument(name=made[result].name)
        else:
            final.append(result)
            argument = ConstantArgument(name="", value=result)
        outputs.append(OutputSpec(kind=old_output.kind, arg=argument, target=old_output.target))
    graph.output(tuple(final))
    rewritten = fx.GraphModule(graph_module, graph)
    _refresh(rewritten, fake_mode)
    try:
        return _program(rewritten, program, inputs, outputs, state, constants, _call_graph(program, len(final)))
    except Exception as error:
        from irc.trace.module_source import one_line

        raise ModelError(f"the rewritten graph is not a program: {one_line(error)}") from error


def _program(
    rewritten: fx.GraphModule,
    program: torch.export.ExportedProgram,
    inputs: list[Any],
    outputs: list[Any],
    state: dict[str, Any],
    constants: dict[str, Any],
    call_graph: list[Any],
) -> torch.export.ExportedProgram:
    import torch
    from torch.export.graph_signature import ExportGraphSignature

    return torch.export.ExportedProgram(
        root=rewritten,
        graph=rewritten.graph,
        graph_signature=ExportGraphSignature(input_specs=inputs, output_specs=outputs),
        state_dict=state,
        range_constraints=program.range_constraints,
        module_call_graph=call_graph,
        example_inputs=program.example_inputs,
        constants=constants,
        verifiers=program.verifiers,
    )


def _call_graph(program: torch.export.ExportedProgram, outputs: int) -> list[Any]:
    """How the outermost module is called; one that lost outputs returns a plain tuple of the rest."""
    import dataclasses

    from torch.utils import _pytree as pytree

    outermost = program.module_call_graph[0]
    if outermost.signature is None or outputs == len(program.graph_signature.output_specs):
        return [outermost]
    signature = dataclasses.replace(outermost.signature, out_spec=pytree.tree_structure(tuple(range(outputs))))
    return [dataclasses.replace(outermost, signature=signature)]


def attribute(graph_module: fx.GraphModule, node: fx.Node) -> Any:
    """What a `get_attr` node reads.

    Raises:
        ModelError: If there is no such attribute.
    """
    found: Any = graph_module
    for part in str(node.target).split("."):
        if not hasattr(found, part):
            raise ModelError(f"node {node.name!r} reads {node.target!r}, which the graph module does not have")
        found = getattr(found, part)
    return found


def add_attribute(graph_module: fx.GraphModule, hint: str, tensor: torch.Tensor) -> str:
    """Adds a parameter under a free name and returns the name, for a `get_attr` node."""
    import torch

    name, count = hint, 0
    while _has(graph_module, name):
        count += 1
        name = f"{hint}_{count}"
    set_attribute(
        graph_module, name, torch.nn.Parameter(tensor, requires_grad=False) if tensor.is_floating_point() else tensor
    )
    return name


def _has(root: Any, target: str) -> bool:
    for part in target.split("."):
        if not hasattr(root, part):
            return False
        root = getattr(root, part)
    return True


def set_attribute(root: Any, target: str, value: Any) -> None:
    """Sets a parameter, buffer or other attribute under a dotted name; modules on the way are made."""
    import torch

    *path, last = target.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, torch.nn.Module())
        root = getattr(root, part)
    if isinstance(value, torch.nn.Parameter):
        root.register_parameter(last, value)
    elif isinstance(value, torch.Tensor):
        root.register_buffer(last, value)
    else:
        setattr(root, last, value)


def _copied(value: torch.Tensor) -> torch.Tensor:
    import torch

    copy = value.detach().clone()
    return (
        torch.nn.Parameter(copy, requires_grad=value.requires_grad) if isinstance(value, torch.nn.Parameter) else copy
    )


def _kind(value: Any) -> Any:
    import torch
    from torch.export.graph_signature import InputKind

    return InputKind.PARAMETER if isinstance(value, torch.nn.Parameter) else InputKind.BUFFER


def _fields(argument: Any) -> dict[str, Any]:
    import dataclasses

    return {field.name: getattr(argument, field.name) for field in dataclasses.fields(argument)}


def _free(graph: fx.Graph, hint: str, taken: set[str]) -> str:
    """A name that no output and no input of the user has; it is taken from now on."""
    name, count = hint, 0
    names = {node.name for node in graph.nodes}
    while name in taken or name in names:
        count += 1
        name = f"{hint}_{count}"
    taken.add(name)
    return name


def _fake_mode(program: torch.export.ExportedProgram) -> Any:
    """The mode in which the shapes of the program were computed, with its symbols."""
    for node in program.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None:
            return mode
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def _refresh(graph_module: fx.GraphModule, fake_mode: Any) -> None:
    """Computes types and shapes of all nodes again, and gives new nodes the module of what they use.

    Raises:
        ModelError: If the operations do not fit one another.
    """
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    values = [node.meta.get("val") for node in graph_module.graph.nodes if node.op == "placeholder"]
    try:
        FakeTensorProp(graph_module, fake_mode).propagate_dont_convert_inputs(*values)
    except Exception as error:
        from irc.trace.module_source import one_line

        raise ModelError(f"the rewritten graph does not run: {one_line(error)}") from error
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and "nn_module_stack" not in node.meta:
            near = [n for n in (*node.all_input_nodes, *node.users) if "nn_module_stack" in n.meta]
            if near:
                node.meta["nn_module_stack"] = near[0].meta["nn_module_stack"]
