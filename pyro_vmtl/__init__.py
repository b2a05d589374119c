"""Variational multi-task learning as an effect handler over Pyro models and guides.

What there is stands in ``__init__.pyi``. It is imported when it is first asked for, so that
``pyro-vmtl --help`` does not wait for torch and Pyro.
"""

import lazy_loader

from pyro_vmtl._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
