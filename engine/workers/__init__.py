"""Where flow processes live."""
