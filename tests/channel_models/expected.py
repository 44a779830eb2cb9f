"""How many families and atoms are found in every stored model: written down, so that a rule that is lost is missed.

Written anew, after a gain, by `cd tests && python -m channel_models.expected`.
"""

from __future__ import annotations

import json
from pathlib import Path

from channel_models import stored

from irc.analysis.channels import ChannelGroups, Mode, propagate

FILE = Path(__file__).parent / "expected.json"
MODES: tuple[Mode, ...] = ("rows", "columns")


def summary(groups: ChannelGroups) -> dict[str, int]:
    """Families, their atoms, and how many families change no statistic."""
    return {
        "families": len(groups.families),
        "atoms": sum(len(family.atoms) for family in groups.families),
        "exact": sum(not family.statistics for family in groups.families),
    }


def main() -> None:
    """Writes the file."""
    found = {}
    for name in stored.names():
        propagation = propagate(stored.load(name))
        found[name] = {mode: summary(ChannelGroups(propagation, mode)) for mode in MODES}
    lines = [f"  {json.dumps(name)}: {json.dumps(modes)}" for name, modes in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
