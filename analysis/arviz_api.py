"""Import the ArviZ that is installed.

On Python 3.12 and newer that is ArviZ 1.x. The last release for Python 3.11 has the same functions
in ``arviz.preview``. All other modules import ``az`` from here.
"""

import sys

if sys.version_info >= (3, 12):
    import arviz as az
else:
    import arviz.preview as az

__all__ = ["az"]
