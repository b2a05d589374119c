"""What is predicted, and how surely."""
