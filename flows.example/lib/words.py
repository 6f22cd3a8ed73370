"""A helper: it has no handler, so it is not a flow."""


def initials(name):
    return ''.join(word[0].upper() for word in name.split())
