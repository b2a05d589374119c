"""Checks of models and guides of your own, for your tests."""

from pyro_vmtl.testing.check_variant import CHECKS, check_variant, parametrize_with_checks
from pyro_vmtl.testing.variant import NotApplicable, Variant, VariantError

__all__ = [
    "CHECKS",
    "NotApplicable",
    "Variant",
    "VariantError",
    "check_variant",
    "parametrize_with_checks",
]
