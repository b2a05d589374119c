"""Fits as trees for ArviZ."""
