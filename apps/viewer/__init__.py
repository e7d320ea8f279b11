"""The viewer: look at a study, ask about it, see what stands behind the answer, read the report."""
