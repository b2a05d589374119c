"""Warnings of the estimators."""

__all__ = ["DataWarning", "VersionWarning"]


class DataWarning(UserWarning):
    """Warning that some rows are used otherwise than they might seem to be."""


class VersionWarning(UserWarning):
    """Warning that a saved estimator was written by another version."""
