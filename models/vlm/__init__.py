"""A vision-language model: image tower, connector, decoder."""
