import re
import collections


def handler(system, this, inputs):
    words = re.findall(r"\w+(?:'\w+)?", inputs['text'].lower())
    return {'words': dict(collections.Counter(words)), 'count': len(words)}
