"""The records and the dispatcher in a world of one thread: time, disk and processes are played, and a seed decides."""
