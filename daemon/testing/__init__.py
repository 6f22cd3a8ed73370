"""Flows under test: the daemon itself inside of a pytest run, with tasks that tests answer."""
