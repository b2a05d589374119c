"""The benchmark of intervals of coefficients."""

import torch

from benchmarks.coefficient_coverage import METHODS, Problem, draw, exact, measure, table


def test_exact_posteriors_hold_what_they_say():
    found = []
    for seed in range(60):
        data, w = draw(Problem(4, 12, 3, 2), seed)
        mean, width = exact(Problem(4, 12, 3, 2), data)
        found.append(((mean - w) / width).flatten())
    z = torch.cat(found)
    # 720 numbers, of which those of a task are correlated
    assert abs(z.square().mean().sqrt() - 1) < 0.1
    assert 0.86 < (z.abs() < 1.645).double().mean() < 0.94


def test_the_table_has_a_row_for_each_method():
    problem = Problem(4, 15, 2, 2)
    results = {(problem, name): [measure(name, problem, 0)] for name in METHODS}
    assert all(0 < found["linear response"] <= 1 for (found,) in results.values())
    lines = table(results).splitlines()
    assert len(lines) == 5 and METHODS[1] in lines[3]
