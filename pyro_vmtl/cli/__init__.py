"""The command line: tables in, run directories out.

``main`` declares the commands, each ``*_command`` runs one. A table is read by ``read_table``, made
into features by ``columns`` and into a problem by ``fit_problem``.
"""
