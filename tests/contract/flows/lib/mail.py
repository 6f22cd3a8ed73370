"""Sends mail through the gateway of the office. Used by several flows."""


def send(this, gateway, to, subject, text, **more):
    """Post one mail; the gateway queues it and answers 202."""
    if isinstance(to, str):
        to = [to]
    return this.task(
        'REST',
        name=f'mail: {subject}'[:60],
        url=f'{gateway}/mail',
        method='post',
        json={'to': to, 'subject': subject, 'text': text, **more},
        expected_status_code=[200, 202],
    )
