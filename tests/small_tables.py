"""Small tables with any names, and presets that fit them in a moment."""

from dataclasses import replace

import numpy as np
import pandas as pd

from pyro_vmtl.estimators import base
from pyro_vmtl.methods.presets import presets


def quick_presets(monkeypatch):
    """Let fits take few steps."""

    def few(kind):
        return {"shared": replace(presets(kind)["shared"].many_features, fitting={"num_steps": 30})}

    monkeypatch.setattr(base, "presets", few)


def table(labels=("a", "b", "c"), target="y", task="task", feature="x1", classes=None, rows=48):
    rng = np.random.RandomState(0)
    x = rng.normal(size=(rows, 2))
    y = x[:, 0] + 0.3 * rng.normal(size=rows)
    columns = {feature: x[:, 0], "x2": x[:, 1]}
    columns[task] = [labels[row % len(labels)] for row in range(rows)]
    columns[target] = y if classes is None else np.where(y > 0, *classes)
    return pd.DataFrame(columns)
