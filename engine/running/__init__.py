"""One execution, from admission to its end."""
