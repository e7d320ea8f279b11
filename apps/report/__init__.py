"""Reports on paper and screen: one study as HTML and JSON, many studies as a batch with an index."""
