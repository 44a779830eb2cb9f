#!/usr/bin/env python3
"""What `prune-layers` does to trained models without training: what is left, how much faster it is, and accuracy, in one table.

    python benchmarks/layer_pruning.py --zoo DIR [--models resnet20 minilm] [--count 1 2 4] [--options "unit=layer" "repair=none"]

For each model and number of branches (or layers): how many branches went, and the figures of `magnitude_pruning.py`; samples are for
calibration. `zoo.py` is as in `int8_accuracy_speed.py`.
"""

from __future__ import annotations

from magnitude_pruning import table

if __name__ == "__main__":
    table(__doc__.splitlines()[0], "prune-layers", "count", [1, 2, 4], samples=128)
