"""Fan out, fan in: each chapter is counted by its own child, the counts are put together."""
import collections


def handler(system, this, inputs):
    chapters = inputs['chapters']
    children = []
    for number, text in enumerate(chapters, start=1):
        child = this.flow('reports/count words', {'text': text}, name=f'chapter {number}', run=False)
        children.append(child)
    for child in children:
        child.run_async()
    total = collections.Counter()
    longest = None
    for child in children:
        child.wait()
        found = child.get('output_value')
        total.update(found['words'])
        longest = max(longest or (0, ''), (found['count'], child.get('name')))
    this.set_output('top', total.most_common(inputs.get('top', 3)))
    this.set_output('total', sum(total.values()))
    this.set_output('longest', longest[1])
    return this.success(f'{len(children)} chapters, {len(total)} different words')
