"""Which sites pay: the cheapest division of a graph into integers and float, by measured times, as a minimum cut.

Every node costs its measured time in float or in integers; every value that is made in one precision and read in the
other costs a conversion, once. The cheapest labelling is a minimum cut between "integer" and "float"
(Kolmogorov and Zabih 2004, IEEE TPAMI 26(2), doi 10.1109/TPAMI.2004.1262177), found exactly:

    minimise  sum over nodes (time of the node in its precision) + sum over values (conversion, if made and read differ)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence

INFINITE = float("inf")


@dataclasses.dataclass(frozen=True)
class Choice:
    """A node, or several that share a precision.

    Attributes:
        key: What it is called.
        float_cost: Time in float.
        integer_cost: Time in integers; infinite where there is no integer form.
        joins: Whether it can be integer only if everything it reads is.
    """

    key: Hashable
    float_cost: float
    integer_cost: float = INFINITE
    joins: bool = False


@dataclasses.dataclass(frozen=True)
class Link:
    """A value.

    Attributes:
        maker: The choice that makes it; None for an input of the model, which is float.
        readers: The choices that read it.
        to_integers: Cost of quantizing it.
        to_float: Cost of dequantizing it.
    """

    maker: Hashable | None
    readers: tuple[Hashable, ...]
    to_integers: float
    to_float: float


def cheapest(choices: Sequence[Choice], links: Iterable[Link]) -> tuple[set[Hashable], float]:
    """The choices that are integer in the cheapest division, and what it costs.

    Args:
        choices: With costs that are not negative.
        links: The values between them.
    """
    import networkx

    graph = networkx.DiGraph()
    integer, floating = ("integer",), ("float",)
    graph.add_node(integer)
    graph.add_node(floating)

    def edge(a: Hashable, b: Hashable, cost: float) -> None:
        if cost <= 0 or a == b:
            return
        if graph.has_edge(a, b):
            cost += graph[a][b].get("capacity", INFINITE)
            graph.remove_edge(a, b)
        # Without a capacity networkx takes an edge to be infinite.
        graph.add_edge(a, b, **({} if cost == INFINITE else {"capacity": cost}))

    # An edge a -> b is paid when a is integer and b is float.
    joining = {choice.key for choice in choices if choice.joins}
    for choice in choices:
        edge(("choice", choice.key), floating, choice.integer_cost)
        edge(integer, ("choice", choice.key), choice.float_cost)
    for index, link in enumerate(links):
        maker = floating if link.maker is None else ("choice", link.maker)
        read_as_integers, read_as_float = ("to integers", index), ("to float", index)
        edge(read_as_integers, maker, link.to_integers)
        edge(maker, read_as_float, link.to_float)
        for reader in link.readers:
            edge(("choice", reader), read_as_integers, INFINITE)
            edge(read_as_float, ("choice", reader), INFINITE)
            if reader in joining:
                edge(("choice", reader), maker, INFINITE)
    value, (inside, _) = networkx.minimum_cut(graph, integer, floating)
    return {choice.key for choice in choices if ("choice", choice.key) in inside}, float(value)


def total_cost(choices: Sequence[Choice], links: Iterable[Link], integers: set[Hashable]) -> float:
    """What a division costs; infinite if it is not allowed."""
    by_key: Mapping[Hashable, Choice] = {choice.key: choice for choice in choices}
    cost = sum(choice.integer_cost if choice.key in integers else choice.float_cost for choice in choices)
    for link in links:
        made = link.maker in integers if link.maker is not None else False
        read = [reader in integers for reader in link.readers]
        if not made and any(read):
            cost += link.to_integers
            if any(by_key[reader].joins for reader in link.readers if reader in integers):
                return INFINITE
        if made and not all(read):
            cost += link.to_float
    return cost
