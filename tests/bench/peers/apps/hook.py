"""What ``webhook`` runs: a script an event; which part of the trials is its first word."""

import sys
import time

import ledger

part, number, seconds = [*sys.argv[1:], "0", "0"][:3]
if part == "wait":
    time.sleep(float(seconds))
elif part == "begin":
    ledger.write("began", number)
    time.sleep(float(seconds))
    ledger.write("ended", number)
print("DONE")
