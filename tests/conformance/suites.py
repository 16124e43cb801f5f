"""The peers' own suites."""
def write_page(cases, states, of_buildah): pass
