"""Sharing between tasks: the handler, its source weights, and the pools of posteriors."""
