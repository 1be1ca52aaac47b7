"""A package, because mikecore installs one of this name that would be found instead."""
