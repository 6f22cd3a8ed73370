"""The part that runs inside a flow process: standard library only, importing nothing of headrace but itself."""
