"""Small helpers to write message forms with less typing."""


def field(label, order, element='string', type_='string', **more):
    return {'element': element, 'type': type_, 'label': label, 'order': order, **more}


def button(label, order, **more):
    return {'element': 'submit', 'type': 'boolean', 'label': label, 'order': order, **more}


def form(*, required=(), **properties):
    return {'type': 'object', 'properties': properties, 'required': list(required)}
