import browser
import pyro
import pytest
import torch

from pyro_vmtl import TaskData


@pytest.fixture
def ragged() -> TaskData:
    """Three tasks of 5, 2 and 4 rows with 3 features and 3 classes, in float64."""
    generator = torch.Generator().manual_seed(0)
    tasks = ["a", "b", "a", "c", "a", "c", "b", "a", "c", "a", "c"]
    X = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (11,), generator=generator)
    return TaskData.classification(X, y, tasks, classes=[0, 1, 2])


@pytest.fixture(autouse=True)
def empty_parameter_store():
    """Pyro's store gives a later AutoNormal the values of an earlier one, outside of `fit`."""
    pyro.clear_param_store()


@pytest.fixture(scope="session")
def chromium():
    """Start the browser."""
    path = browser.executable()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=[*browser.FLAGS])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def opened(chromium):
    """Return a function that opens an HTML file in a browser and reports what it shows."""
    return lambda page: browser.look(chromium, page)
