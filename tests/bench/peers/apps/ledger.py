"""The side effect of the trials: one line in the file that ``LEDGER`` names, appended whole and not waited for."""

import os


def write(word, number):
    """Append ``word number``."""
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, f"{word} {number}\n".encode())
    finally:
        os.close(descriptor)
