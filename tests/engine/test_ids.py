"""Identifiers: unique, in the order of their making, and never the same in a process that was forked."""

import os
import re

from headrace.engine import ids


def test_ids_are_unique_and_in_the_order_of_their_milliseconds():
    made = [ids.new_id() for _ in range(2_000)]  # more than are drawn at once
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-z]{26}", one) for one in made)
    assert [one[:10] for one in made] == sorted(one[:10] for one in made)


def test_a_forked_process_goes_on_with_letters_of_its_own():
    ids.random_letters()  # so that some are drawn
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writing, ids.random_letters().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reading, 100).decode() != ids.random_letters()
    os.close(reading)
    os.close(writing)
