"""A small zoo of models, relatives of the built-in one, for the benchmarks of attribution, lineage and membership."""
