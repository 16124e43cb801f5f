"""compose files: several containers, described in YAML, that are made, compared with what there is, and taken down."""
