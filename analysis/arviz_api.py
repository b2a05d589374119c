"""The one place that knows which ArviZ there is.

On Python 3.12 and newer it is ArviZ 1.x. The last one for Python 3.11 has the same functions in
``arviz.preview``. Everything else imports ``az`` from here.
"""

import sys

if sys.version_info >= (3, 12):
    import arviz as az
else:
    import arviz.preview as az

__all__ = ["az"]
