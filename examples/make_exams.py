"""Make exams.csv: 240 made-up students in 12 schools, of which the last have few.

Scores grow with hours of study, in six schools much (those that teach by exercises) and in six
little. Ten students more wait for a prediction: new_exams.csv has no scores.

    python examples/make_exams.py
"""

from pathlib import Path

import numpy as np
import pandas as pd

SCHOOLS = ["Ash", "Birch", "Cedar", "Elm", "Fir", "Hazel", "Juniper", "Larch", "Maple", "Oak"]
SCHOOLS += ["Pine", "Rowan"]
STUDENTS = [40, 36, 32, 28, 24, 20, 16, 14, 12, 8, 6, 4]
NUM_NEW = 10


def make() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return students with and without scores."""
    rng = np.random.default_rng(0)
    school = np.repeat(np.arange(len(SCHOOLS)), STUDENTS)
    school = np.concatenate([school, rng.integers(len(SCHOOLS), size=NUM_NEW)])
    age = rng.uniform(11, 18, len(school)).round(1)
    hours = rng.uniform(0, 10, len(school)).round(1)
    level = rng.normal(0, 3, len(SCHOOLS))
    slope = np.where(np.arange(len(SCHOOLS)) % 2, 1.0, 4.0) + rng.normal(0, 0.3, len(SCHOOLS))
    mean = 30 + level[school] + slope[school] * hours + 0.8 * (age - 14.5)
    rows = pd.DataFrame(
        {
            "school": np.array(SCHOOLS)[school],
            "age": age,
            "hours": hours,
            "score": (mean + rng.normal(0, 5, len(school))).round(1),
        }
    )
    return rows[:-NUM_NEW], rows[-NUM_NEW:].drop(columns="score")


if __name__ == "__main__":
    here = Path(__file__).parent
    for name, rows in zip(("exams.csv", "new_exams.csv"), make(), strict=True):
        rows.to_csv(here / name, index=False)
