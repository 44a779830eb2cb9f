"""Front to back, all layers that read one weight at once, and no layer before what it reads is final."""

from __future__ import annotations

from channel_kit import model_of, random_weight
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_models import attention, cnn
from repair_kit import chain, layers_of, residual

from irc.passes.pruning.repair.fitting_order import Turn, fitting_order


def order_of(model) -> list[Turn]:
    layers = layers_of(model)
    return fitting_order(layers.propagation.model.graph, layers.weights)


def told(turns: list[Turn]) -> list[str]:
    """The layers of each turn by their results, those that are ahead in brackets."""
    return [
        " ".join(f"({layer.output})" if layer in turn.ahead else layer.output for layer in turn.layers)
        for turn in turns
    ]


def order(body: str, *weights: str) -> list[str]:
    text = f"agraph (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) {{ {body} }}"
    return told(order_of(model_of(text, {w: random_weight(4, 4, seed=i) for i, w in enumerate(weights)})))


def test_without_shared_weights_it_is_that_of_the_graph():
    for model in (chain(), residual(), cnn(), attention()):
        turns = order_of(model)
        assert [turn.layers for turn in turns] == layers_of_each(model, turns)
        assert not any(turn.ahead for turn in turns)


def layers_of_each(model, turns):
    places = [turn.layers[0].index for turn in turns]
    assert places == sorted(places) and len(places) == len(layers_of(model).all)
    return [(turn.layers[0],) for turn in turns]


def test_towers_go_level_by_level():
    body = "a = MatMul(x, u)  b = MatMul(a, v)  c = MatMul(z, u)  d = MatMul(c, v)  y = Sub(b, d)"
    assert order(body, "u", "v") == ["a c", "b d"]


def test_a_tower_of_which_one_has_more_layers():
    """b reads what t makes, which is behind it in no order but that of the graph."""
    body = "a = MatMul(x, u)  b = MatMul(a, v)  c = MatMul(z, t)  d = MatMul(c, v)  e = Add(b, d)  y = MatMul(e, w)"
    assert order(body, "u", "v", "t", "w") == ["a", "c", "b d", "y"]


def test_what_comes_of_its_own_weight_is_ahead():
    body = "a = MatMul(x, u)  b = MatMul(a, v)  c = Relu(b)  d = MatMul(c, v)  e = MatMul(d, v)  y = MatMul(e, w)"
    assert order(body, "u", "v", "w") == ["a", "b (d) (e)", "y"]


def test_weights_that_wait_for_each_other():
    body = "a = MatMul(x, u)  b = MatMul(a, v)  c = MatMul(z, v)  d = MatMul(c, u)  y = Add(b, d)"
    assert order(body, "u", "v") == ["a (d)", "b c"]


def test_what_a_body_captures_counts():
    body = """a = MatMul(x, u)  s = ReduceSum(x)  p = Cast<to=9>(s)
        b = If(p) <then_branch = t () => (float[n, 4] m) { m = Neg(a) }, else_branch = e () => (float[n, 4] o) { o = Relu(a) }>
        c = MatMul(b, u)  y = MatMul(c, v)"""
    assert order(body, "u", "v") == ["a (c)", "y"]


def test_a_shortcut_that_comes_later_is_waited_for():
    """e is added to b: fitted to the sum, it must know what b will be."""
    body = "a = MatMul(x, u)  b = MatMul(a, t)  c = MatMul(z, v)  d = Relu(c)  e = MatMul(d, w)  y = Add(e, b)"
    assert order(body, "u", "t", "v", "w")[-1] == "e"


def test_a_sum_of_what_one_weight_makes():
    """d cannot repair the error of b: that changes with it."""
    body = "a = MatMul(x, u)  b = MatMul(a, v)  c = MatMul(z, u)  d = MatMul(c, v)  e = Add(b, d)  f = Neg(e)  y = MatMul(f, w)"
    text = f"agraph (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) {{ {body} }}"
    turns = order_of(model_of(text, {w: random_weight(4, 4, seed=i) for i, w in enumerate("uvw")}))
    assert told(turns) == ["a c", "b d", "y"]
    assert turns[1].layers[1].shortcut == "b" and not turns[1].corrected


def test_what_is_ahead_is_not_corrected():
    """Of d the teacher's rows are known, of its shortcut the student's: their sum is nothing that was ever there."""
    body = (
        "a = MatMul(x, u)  b = MatMul(a, v)  c = Relu(b)  d = MatMul(c, v)  e = Add(d, a)  f = Neg(e)  y = MatMul(f, w)"
    )
    text = f"agraph (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) {{ {body} }}"
    turns = order_of(model_of(text, {w: random_weight(4, 4, seed=i) for i, w in enumerate("uvw")}))
    assert told(turns) == ["a", "b (d)", "y"]
    assert turns[1].layers[1].shortcut == "a" and not turns[1].corrected


def test_weights_whose_sums_wait_for_each_other():
    """g is added to b and f to c, by weights that are each behind the other's shortcut: none waits for ever."""
    body = """a = MatMul(x, t)  b = MatMul(a, u)  c = MatMul(a, v)  d = Relu(b)  e = Relu(c)
        f = MatMul(d, v)  g = MatMul(e, u)  h = Add(f, b)  i = Add(g, c)  y = Sub(h, i)"""
    assert len(order(body, "t", "u", "v")) == 3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("stuvw")), min_size=1, max_size=9))
def test_every_weight_has_one_turn_and_nothing_passed_changes_later(steps):
    values, lines = ["x", "z"], []
    for number, (read, weight) in enumerate(steps):
        lines.append(f"l{number} = MatMul({values[-1 - read % len(values)]}, {weight})")
        values.append(f"l{number}")
    lines.append(f"y = MatMul({values[-1]}, last)")
    used = {weight for _read, weight in steps} | {"last"}
    turns_told = order("  ".join(lines), *sorted(used))
    assert len(turns_told) == len(used)
    done: set[str] = set()
    makers = {line.split(" = ")[0]: line.split("(")[1].rstrip(")").split(", ") for line in lines}
    for turn in turns_told:
        names = turn.split()
        assert not names[0].startswith("(") or any(not name.startswith("(") for name in names)
        for name in names:
            if not name.startswith("("):
                assert all(weight in done for weight in behind(makers, makers[name][0]))
        done.add(makers[names[0].strip("()")][1])


def behind(makers, value) -> set[str]:
    """The weights that a value depends on."""
    if value not in makers:
        return set()
    source, weight = makers[value]
    return {weight} | behind(makers, source)
