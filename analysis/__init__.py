"""Analysis of fits: export to ArviZ, metrics, diagnostics, tables and pictures.

``__init__.pyi`` lists the public names. They are imported when first used.
"""

if __name__ == "analysis":
    raise ImportError("Import this as pyro_vmtl.analysis: `analysis` would be a second copy of it.")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
