"""What happened, on disk: the journal is the truth, everything else here is derived from it."""
