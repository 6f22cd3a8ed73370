"""What a flow may ask the world to do: one module per task type, found through the registry."""
