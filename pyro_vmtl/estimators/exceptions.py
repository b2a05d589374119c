"""Warnings of the estimators."""

__all__ = ["DataWarning", "OutlierWarning", "VersionWarning"]


class DataWarning(UserWarning):
    """Warning that some rows are used otherwise than they might seem to be."""


class OutlierWarning(DataWarning):
    """Single values spoil the predictions of all rows."""


class VersionWarning(UserWarning):
    """Warning that a saved estimator was written by another version."""
