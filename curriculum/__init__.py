"""How a model is made and examined."""
