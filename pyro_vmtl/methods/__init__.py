"""Methods: what fits the rows of many tasks and predicts, alone or in a stack."""
