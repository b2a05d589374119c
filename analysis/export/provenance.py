"""Attributes that say where a tree comes from: versions, time, and settings of the fit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyro
import torch
import xarray as xr

from pyro_vmtl._version import __version__
from pyro_vmtl.methods.member import PairMethod
from pyro_vmtl.methods.specification import to_json

__all__ = ["provenance", "settings_text"]


def provenance(**attrs: Any) -> dict[str, Any]:
    """Return attributes for the root of a tree: versions as JSON, the time, and others."""
    versions = {
        "pyro_vmtl": __version__,
        "pyro": pyro.__version__,
        "torch": torch.__version__,
        "xarray": xr.__version__,
    }
    return {
        "created_at": datetime.now(UTC).isoformat(),
        "creation_library": "pyro_vmtl",
        "inference_library": "pyro",
        "versions": json.dumps(versions),
        **attrs,
    }


def settings_text(settings: PairMethod) -> str:
    """Return settings as JSON, or as their ``repr`` where they hold objects of the user's own."""
    try:
        return json.dumps(to_json(settings))
    except ValueError:
        return repr(settings)
