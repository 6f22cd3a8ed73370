"""Inputs come in as a dict; outputs are set key by key, and people see both in the record.

The table below says what it takes: the page of the flow makes a form of it, and what does not fit is refused.

Try:  headrace run 'inputs and outputs' name=Ada times:=3
"""

# /// script
# [tool.headrace]
# description = "Greets somebody a few times"
# [tool.headrace.input_schema]
# required = ["name"]
# [tool.headrace.input_schema.properties]
# name = {type = "string", title = "Name", description = "Who is greeted", default = "World", minLength = 1}
# times = {type = "integer", title = "How often", minimum = 1, maximum = 100, default = 1}
# tone = {enum = ["friendly", "formal"], title = "Tone", default = "friendly"}
# loud = {type = "boolean", title = "In capital letters"}
# more = {type = "array", title = "Others", items = {type = "string"}, examples = [["Ada", "Grace"]]}
# ///


def handler(system, this, inputs):
    name = inputs.get('name', 'World')
    times = inputs.get('times', 1)
    word = 'good day' if inputs.get('tone') == 'formal' else 'hello'
    for number in range(times):
        line = f'{word} {", ".join([name, *inputs.get("more", [])])}, for the {number + 1}. time'
        print(line.upper() if inputs.get('loud') else line)
    this.set_output('greeting', f'hello {name}')
    this.set_output(name=name, times=times)
    this.save(message=f'greeted {name}')
