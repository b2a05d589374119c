"""Tables and pictures of influence: which rows of which task help or harm another."""
