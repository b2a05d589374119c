"""Influence: which rows of which task help or harm what is learned of another."""
