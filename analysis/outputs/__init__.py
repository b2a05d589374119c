"""Pictures of feedback: which output feeds which, and how the outputs of a row settle."""
