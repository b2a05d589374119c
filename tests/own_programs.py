"""Programs with like-named parameters, and what one of them predicts in a process of its own.

Run as ``python own_programs.py KIND SEED FOLDER``, it fits and saves.
"""

import sys
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch.distributions import constraints

from pyro_vmtl import TaskData, fit, load_program, predict_moments, save_program, share

STEPS = ("make", "call", "share", "fit", "predict", "call", "fit", "call_shared", "predict")


def rows(seed):
    X = torch.linspace(-1.0, 1.0, 11)[:, None]
    slope = torch.tensor([1.0, 1.2, -2.0])[torch.arange(11) % 3] * (1 + seed)
    return TaskData.regression(X, slope * X[:, 0] - seed, list("abc" * 4)[:11])


class Line(PyroModule):
    """Lines with normal noise."""

    def __init__(self):
        super().__init__()
        self.noise = PyroParam(torch.tensor(1.0), constraint=constraints.positive)

    def forward(self, data):
        with pyro.plate("task", data.num_tasks, dim=-2):
            w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
                mean = w[..., 0] + w[..., 1] * data.x[..., 0]
                pyro.sample("y", dist.Normal(mean, self.noise), obs=data.y)


def line(data):
    noise = pyro.param("noise", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("task", data.num_tasks, dim=-2):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", data.num_rows, dim=-1), poutine.mask(mask=data.mask):
            mean = w[..., 0] + w[..., 1] * data.x[..., 0]
            pyro.sample("y", dist.Normal(mean, noise), obs=data.y)


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.zeros(3, 1, 2))
        self.scale = PyroParam(torch.full((3, 1, 2), 0.1), constraint=constraints.positive)

    def forward(self, data):
        with pyro.plate("task", 3, dim=-2):
            pyro.sample("w", dist.Normal(self.loc, self.scale).to_event(1))


def bare(data):
    loc = pyro.param("loc", torch.zeros(3, 1, 2))
    scale = pyro.param("scale", torch.full((3, 1, 2), 0.1), constraint=constraints.positive)
    with pyro.plate("task", 3, dim=-2):
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))


def closure():
    """Return a function around an autoguide that nothing else can see."""
    hidden = AutoNormal(line)
    return lambda data: hidden(data)


def alone():
    """Return programs that share nothing."""
    model = Line()
    return model, AutoNormal(model)


def made(kind, own):
    """Return the programs that are fitted."""
    return own if kind == "alone" else share(*own, sites=["w"])


KINDS = {
    "alone": alone,
    "auto": lambda: (line, AutoNormal(line)),
    "module": lambda: (Line(), Guide()),
    "bare": lambda: (line, bare),
    "closure": lambda: (line, closure()),
}


class Course:
    """The steps of one user's session, to be done one by one."""

    def __init__(self, kind, seed):
        self.kind, self.seed, self.data, self.predicted = kind, seed, rows(seed), []

    def do(self, step):
        if step == "make":
            self.own = KINDS[self.kind]()
        elif step == "call":
            with torch.random.fork_rng():
                self.own[1](self.data)
        elif step == "share":
            self.pair = made(self.kind, self.own)
        elif step == "fit":
            fit(*self.pair, self.data, num_steps=15, seed=self.seed)
        elif step == "call_shared":
            with torch.random.fork_rng():
                self.pair[1](self.data)
        else:
            mean, sd = predict_moments(*self.pair, self.data, num_samples=20)
            self.predicted.append(torch.stack([mean, sd]))


if __name__ == "__main__":
    kind, seed, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if kind == "load":
        course = Course(folder.name.split("-")[0], seed)
        pair = made(course.kind, KINDS[course.kind]())
        like = load_program(folder / "fit.safetensors", *pair)
        new = like.new_rows([[0.5], [0.25]], ["c", "a"])
        torch.save(torch.stack(predict_moments(*pair, new)), folder / "loaded.pt")
    else:
        course = Course(kind, seed)
        for step in STEPS:
            course.do(step)
        torch.save(torch.stack(course.predicted), folder / "predicted.pt")
        save_program(folder / "fit.safetensors", *course.pair, course.data)
        new = course.data.new_rows([[0.5], [0.25]], ["c", "a"])
        torch.save(torch.stack(predict_moments(*course.pair, new)), folder / "saved.pt")
