"""What tests of mathematics have in common."""

import pytest
import torch


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
