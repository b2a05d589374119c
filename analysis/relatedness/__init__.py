"""Tables and pictures of relatedness: which tasks borrow from which, and how much."""
