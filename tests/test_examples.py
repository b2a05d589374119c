"""Every public name has an example, which runs as a doctest."""

import importlib
import inspect

import pytest

ROOMS = ("", ".analysis", ".models", ".guides", ".datasets", ".testing")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_has_an_example(room):
    """Of functions and classes; errors are raised in the examples of others, or in none."""
    module = importlib.import_module(f"pyro_vmtl{room}")
    public = {name: getattr(module, name) for name in module.__all__ if name != "az"}
    documented = {
        name: value
        for name, value in public.items()
        if inspect.isfunction(value) or inspect.isclass(value)
        if not (inspect.isclass(value) and issubclass(value, Exception))
    }
    assert len(documented) > 2
    without = [name for name, value in documented.items() if "\n>>> " not in inspect.getdoc(value)]
    assert without == []
