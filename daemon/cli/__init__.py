"""The ``headrace`` command: a daemon's front and its client in one binary."""
