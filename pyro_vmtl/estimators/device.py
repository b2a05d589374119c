"""The device that a user asks for."""

import torch

__all__ = ["check_device"]


def check_device(device: str) -> None:
    """Raise an error if tensors cannot be put on a device."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device is {device!r}, which cannot be used ({reason}). Use 'cpu'."
        ) from error
