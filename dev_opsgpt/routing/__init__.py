"""Pure decisions on who serves what: the table of workers and the dispatch policies."""
