"""What an estimator tells its user without stopping."""

__all__ = ["DataNotice", "VersionNotice"]


class DataNotice(UserWarning):
    """Something about the rows that was dealt with, and how."""


class VersionNotice(UserWarning):
    """A saved estimator was written by another version."""
