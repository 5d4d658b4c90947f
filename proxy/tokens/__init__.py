"""Token estimates and the shipped vocabularies."""
